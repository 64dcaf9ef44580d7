"""Costs of the target model: seconds of a stage, bytes of an activation, of a stage, of a checkpoint.

FLOPs count a multiply and an add as two, per token and layer of width d, feed-forward width f, sequence s:
forward 8 d² (attention projections) + 4 s d (scores and values, not causal, as Megatron counts) + 6 d f
(SwiGLU), backward twice that; de-embedding 2 d V forward. Sources: Korthikanti et al. 2022 (arXiv
2205.05198); the same figures in torchtitan. *Not modelled*: operations other than matrix products, and the embedding's
look-up; by_operation_size also omits reading weights from the device's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.spec import EMBEDDING_STAGE
from sim.cluster.devices import Device
from sim.workload.config import IterationPlan, WorkloadConfig, schedule_of
from sim.workload.schedule import Schedule

VALUE_BYTES = {"fp32": 4, "bf16": 2}

OPTIMIZER_BYTES = {"fp32": 8, "bf16": 12}
"""Per parameter: two Adam moments in fp32; bf16 training adds the fp32 weight."""

HELD_GRADIENT_BYTES = 4
"""Per parameter: gradients are summed in fp32."""

EFFICIENCY_STEPS = ((128e9, 0.95), (16e9, 0.90), (1e9, 0.60), (0.0, 0.10))
"""Share of the peak reached by a product of at least so many FLOPs: Calculon's table for 16-bit products on A100 and
H100 (Isaev et al. 2023; github.com/calculon-ai/calculon). For other devices, and for fp32, an assumption."""


def share_of_peak(flops: float) -> float:
    """Share of the device's peak that a product of matrices reaches, by its size in FLOPs."""
    return next(share for least, share in EFFICIENCY_STEPS if flops >= least)


@dataclass(frozen=True)
class MatrixProduct:
    """`count` products of matrices of the same size, `flops` each."""

    count: int
    flops: float


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one scenario's target model on its device.

    Stages 1..s hold layers. In FLOPs and seconds, stage 0 is the head (final norm, E⁻¹, loss), on whichever node; in
    parameters and bytes, what its node holds: E, and the head if `loss_at` is embedding_stage.
    """

    workload: WorkloadConfig
    device: Device

    @property
    def tokens_per_microbatch(self) -> int:
        """Tokens of a full-size microbatch."""
        return self.workload.sequences_per_microbatch * self.workload.sequence_length

    @property
    def head_stage(self) -> int:
        """The stage that holds final norm, head and loss."""
        return EMBEDDING_STAGE if self.workload.loss_at == "embedding_stage" else self.workload.num_stages

    def cut(self, layers_per_stage: tuple[int, ...]) -> Costs:
        """The same with other stages. A measured time is that of as many layers as before."""
        workload, num_stages = self.workload, len(layers_per_stage)
        changed: dict[str, Any] = {"num_stages": num_stages, "layers_per_stage": layers_per_stage}
        if measured := workload.measured:
            factor = workload.num_stages / num_stages  # `measured` is for a mean stage, with layers / stages
            seconds = {name: factor * getattr(measured, name) for name in ("forward_seconds", "backward_seconds")}
            changed["measured"] = measured.model_copy(update=seconds)
        return Costs(workload.model_copy(update=changed), self.device)

    def num_layers(self, stage: int) -> int:
        """Layers of a stage; none at stage 0."""
        if stage == EMBEDDING_STAGE:
            return 0
        if self.workload.layers_per_stage is None:
            return self.workload.model.num_layers // self.workload.num_stages
        return self.workload.layers_per_stage[stage - 1]

    def stage_parameters(self, stage: int) -> int:
        """Parameters of a stage: its layers, E and the head."""
        return self._stage_parameters[stage]

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: 4 d² + 3 d f + 2 d."""
        model = self.workload.model
        return 4 * model.dim**2 + 3 * model.dim * model.hidden_dim + 2 * model.dim

    @property
    def embedding_parameters(self) -> int:
        """Parameters of E: V d."""
        return self.workload.model.vocabulary_size * self.workload.model.dim

    @property
    def head_parameters(self) -> int:
        """Parameters of final norm and head: V d + d."""
        return self.embedding_parameters + self.workload.model.dim

    @cached_property
    def _stage_parameters(self) -> list[int]:
        parameters = [self.layer_parameters * self.num_layers(stage) for stage in range(self.workload.num_stages + 1)]
        parameters[EMBEDDING_STAGE] += self.embedding_parameters
        parameters[self.head_stage] += self.head_parameters
        return parameters

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(self._stage_parameters)

    @property
    def head_computes(self) -> bool:
        """Whether the head takes time."""
        return self.forward_seconds(EMBEDDING_STAGE) > 0.0

    def schedule(self, plan: IterationPlan) -> Schedule:
        """Order of the plan's forwards and backwards on each stage."""
        return schedule_of(self.workload, plan, self.head_computes)

    def forward_operations(self, stage: int, microbatch_size: float = 1.0) -> tuple[MatrixProduct, ...]:
        """Products of a stage's forward: q, k, v and output; scores and values; SwiGLU's three; stage 0: the head's.

        For a microbatch of the given size relative to the workload's. Attention counts as one product for all heads and
        sequences of the microbatch.
        """
        model, tokens = self.workload.model, microbatch_size * self.tokens_per_microbatch
        if stage == EMBEDDING_STAGE:
            return (MatrixProduct(1, 2.0 * model.dim * model.vocabulary_size * tokens),)
        layers = self.num_layers(stage)
        return (
            MatrixProduct(4 * layers, 2.0 * model.dim**2 * tokens),
            MatrixProduct(2 * layers, 2.0 * self.workload.sequence_length * model.dim * tokens),
            MatrixProduct(3 * layers, 2.0 * model.dim * model.hidden_dim * tokens),
        )

    def forward_flops(self, stage: int) -> float:
        """FLOPs of the forward of one full-size microbatch through a stage (stage 0: the head)."""
        return sum(product.count * product.flops for product in self.forward_operations(stage))

    def forward_seconds(self, stage: int, microbatch_size: float = 1.0) -> float:
        """Forward of a microbatch through a stage (stage 0: head and loss), by its size relative to the workload's."""
        measured, precision = self.workload.measured, self.workload.precision
        if measured and stage == EMBEDDING_STAGE:
            return microbatch_size * measured.head_seconds / 3
        if measured:
            return microbatch_size * measured.forward_seconds * self._share_of_mean_stage(stage)
        if self.workload.efficiency == "utilisation":
            return microbatch_size * self.forward_flops(stage) / self.device.flops_per_second(precision)
        peak = self.device.peak_flops_per_second(precision)
        products = self.forward_operations(stage, microbatch_size)
        return sum(product.count * product.flops / (peak * share_of_peak(product.flops)) for product in products)

    def backward_seconds(self, stage: int, microbatch_size: float = 1.0) -> float:
        """Backward of a microbatch: twice the forward, since each product has two of its size there, unless measured.

        With `recompute_activations` once more the forward of its layers.
        """
        measured = self.workload.measured
        if measured and stage != EMBEDDING_STAGE:
            return microbatch_size * measured.backward_seconds * self._share_of_mean_stage(stage)
        recomputes = self.workload.recompute_activations and stage != EMBEDDING_STAGE
        return (3.0 if recomputes else 2.0) * self.forward_seconds(stage, microbatch_size)

    @property
    def weights_share(self) -> float:
        """Share of a backward that computes the gradients of weights, which nothing of the iteration waits for."""
        return 1.0 / 3.0 if self.workload.recompute_activations else 0.5

    def _share_of_mean_stage(self, stage: int) -> float:
        """Layers of a stage over those of the mean stage."""
        if self.workload.layers_per_stage is None:
            return 1.0
        return self.num_layers(stage) * self.workload.num_stages / self.workload.model.num_layers

    @property
    def activation_bytes(self) -> float:
        """Bytes that cross a stage boundary per full-size microbatch, forward; the gradient is as large."""
        return float(self.tokens_per_microbatch * self.workload.model.dim * VALUE_BYTES[self.workload.precision])

    def weight_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights."""
        return float(self.stage_parameters(stage) * VALUE_BYTES[self.workload.precision])

    def gradient_bytes(self, stage: int) -> float:
        """Bytes of a stage's gradient as nodes send it; by default in the format of the weights."""
        given = self.workload.gradient_bytes_per_parameter
        each = VALUE_BYTES[self.workload.precision] if given is None else given
        return float(self.stage_parameters(stage) * each)

    @property
    def embedding_copy_bytes(self) -> float:
        """Bytes of the gradient of E, or of E⁻¹: half of stage 0. Holders of a copy take the same optimizer step."""
        return self.gradient_bytes(EMBEDDING_STAGE) / 2

    def checkpoint_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights and optimizer state."""
        return self.stored_bytes(self.stage_parameters(stage))

    def stored_bytes(self, num_parameters: int) -> float:
        """Bytes of the weights and the optimizer state of some parameters."""
        given, precision = self.workload.optimizer_bytes_per_parameter, self.workload.precision
        optimizer_bytes = OPTIMIZER_BYTES[precision] if given is None else given
        return float(num_parameters * (VALUE_BYTES[precision] + optimizer_bytes))

    def state_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights, gradient and optimizer state on its device."""
        given = self.workload.gradient_bytes_per_parameter
        held_bytes = self.stage_parameters(stage) * (HELD_GRADIENT_BYTES if given is None else given)
        return self.checkpoint_bytes(stage) + held_bytes
