"""What the target model costs: seconds of a stage, bytes of an activation, of a stage, of a checkpoint.

FLOPs count a multiply and an add as two, per token and layer of width d, feed-forward width f, sequence s:
forward 8 d² (attention projections) + 4 s d (scores and values, not causal, as Megatron counts) + 6 d f
(SwiGLU), backward twice that; de-embedding 2 d V forward. Sources: Korthikanti et al. 2022 (arXiv
2205.05198); the same figures in torchtitan. *Not modelled*: what is no product of matrices, and the embedding's
look-up; by_operation_size also leaves out reading weights from the device's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from models.lineage import EMBEDDING_STAGE, Config, Routes
from sim.presets import or_preset

ScheduleName = Literal["gpipe", "1f1b", "interleaved_1f1b", "fifo"]
Shadow = Literal["with_forward", "eager", "lazy"]
VALUE_BYTES = {"fp32": 4, "bf16": 2}
CHECKPOINT_BYTES = {"fp32": 12, "bf16": 14}
"""Per parameter: fp32 weight and two Adam moments; bf16 training adds the bf16 weight."""
STATE_BYTES = {"fp32": 16, "bf16": 18}
"""Per parameter on the device: the checkpoint's and an fp32 gradient."""
EFFICIENCY_STEPS = ((128e9, 0.95), (16e9, 0.90), (1e9, 0.60), (0.0, 0.10))
"""Share of the peak that a product of so many FLOPs and more reaches: Calculon's table for 16-bit products on A100 and
H100 (Isaev et al. 2023; github.com/calculon-ai/calculon). For other devices, and for fp32, an assumption."""


def share_of_peak(flops: float) -> float:
    """Share of the device's peak that a product of matrices reaches, by its size in FLOPs."""
    return next(share for least, share in EFFICIENCY_STEPS if flops >= least)


@dataclass(frozen=True)
class MatrixProduct:
    """`count` products of matrices of the same size, `flops` each."""

    count: int
    flops: float


class TargetModel(Config):
    """Shape of the model whose clock is simulated."""

    name: str = Field("custom", description="what outputs call it")
    dim: int = Field(ge=1, le=10**6, description="width of the residual stream")
    num_heads: int = Field(ge=1, le=10**6, description="attention heads")
    num_layers: int = Field(ge=1, le=10**5, description="residual layers, all stages together")
    hidden_dim: int = Field(ge=1, le=10**7, description="feed-forward width (SwiGLU, 3 matrices)")
    vocabulary_size: int = Field(ge=2, le=10**8, description="tokens in the vocabulary")
    description: str = Field("", description="in words")
    source: str = Field("", description="where the figures are from")


class Device(Config):
    """The accelerator of a node. Peaks are dense; 16-bit is fp16 where the device has no bf16."""

    name: str = Field("custom", description="what outputs call it")
    bf16_tflops: float = Field(ge=1e-6, description="peak 16-bit TFLOP/s")
    fp32_tflops: float = Field(ge=1e-6, description="peak fp32 TFLOP/s")
    memory_gib: float = Field(gt=0, description="device memory in GiB")
    utilisation: float = Field(gt=0, le=1, description="share of the peak that training reaches")
    spot_usd_per_hour: float | None = Field(None, ge=0, description="price of one device where it can be taken away")
    on_demand_usd_per_hour: float | None = Field(None, ge=0, description="price of one device that stays")
    prices_as_of: str | None = Field(None, description="month of the prices")
    description: str = Field("", description="in words")
    source: str = Field("", description="where the figures are from")

    def flops_per_second(self, precision: str) -> float:
        """Speed that training reaches in the given number format."""
        return self.peak_flops_per_second(precision) * self.utilisation

    def peak_flops_per_second(self, precision: str) -> float:
        """Peak speed in the given number format."""
        return (self.fp32_tflops if precision == "fp32" else self.bf16_tflops) * 1e12


class MeasuredSeconds(Config):
    """Times of one microbatch measured by the user, in place of FLOPs over device speed.

    They are those of a stage with an equal share of the layers; with uneven `layers_per_stage` a stage's time is
    proportional to its layers. Recomputed activations are taken to be part of the measured backward.
    """

    forward_seconds: float = Field(gt=0, le=1e8, description="forward of one microbatch through one layer stage")
    backward_seconds: float = Field(gt=0, le=1e8, description="backward of one microbatch through one layer stage")
    head_seconds: float = Field(0.0, ge=0, le=1e8, description="de-embedding and loss of one microbatch, both ways")


class WorkloadConfig(Config):
    """The `workload:` section of a scenario: the target model, which gives the seconds."""

    model: Annotated[TargetModel, or_preset("models")] = Field(
        "medium", validate_default=True, description="target model: a preset's name or its shape"
    )
    num_stages: int = Field(6, ge=2, le=1000, description="pipeline stages that hold layers (S1..Ss)")
    sequence_length: int = Field(1024, ge=1, le=10**8, description="tokens in a sequence")
    sequences_per_microbatch: int = Field(8, ge=1, le=10**6, description="sequences in a microbatch")
    num_microbatches: int = Field(6, ge=1, le=10_000, description="microbatches of each pipeline and iteration")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of compute and activations")
    schedule: ScheduleName = Field("1f1b", description="order of forwards and backwards on a node")
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="not gpipe: microbatches in flight in a pipeline; default: as many as positions that compute "
        "(interleaved_1f1b: twice as many as stages)",
    )
    chunks_per_stage: int = Field(1, ge=1, le=100, description="interleaved_1f1b: parts that a stage's layers make")
    layers_per_stage: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="layers of each of S1..Ss; default: equal shares"
    )
    loss_at: Literal["embedding_stage", "last_stage"] = Field(
        "embedding_stage", description="who holds final norm, head and loss: stage 0, with the embedding, or Ss"
    )
    gradient_exchange: Literal["ring", "all_to_all"] = Field(
        "ring", description="replicas of a stage: ring all-reduce, or everyone sends its whole gradient to all others"
    )
    overlap_gradient_exchange: bool = Field(
        True, description="a stage exchanges as soon as its own last backward is done, not after the whole pipeline"
    )
    pause_seconds: float = Field(0.0, ge=0, le=1e8, description="fixed pause at the start of each iteration")
    optimizer_seconds: float = Field(
        0.0, ge=0, le=1e8, description="optimizer step and copies at the end of each iteration"
    )
    efficiency: Literal["utilisation", "by_operation_size"] = Field(
        "utilisation",
        description="share of the device's peak: its utilisation for all operations, or one for each product of "
        "matrices, the smaller the product the less",
    )
    recompute_activations: bool = Field(
        False, description="keep only what enters a layer and run its forward again before its backward"
    )
    measured: MeasuredSeconds | None = Field(
        None,
        description="measured times, in place of computed ones; with uneven layers_per_stage: of the mean stage",
    )


@dataclass(frozen=True)
class IterationPlan:
    """What one iteration has to do. A strategy's `price` changes a copy of the plain plan.

    num_microbatches per pipeline, each `microbatch_size` × the workload's; `max_in_flight` in place of the workload's.

    Redundant computation: `shadow_forwards` and `shadow_backwards` of the *next* stage that each stage also runs per
    microbatch, when `shadow` says: before the activation leaves, right after that, or lazily while the node waits;
    `shadow_transfers` times an iteration each stage sends its gradients or weights to the one before. CheckFree+:
    `embedding_copies` go to S1 and Ss meanwhile.
    """

    num_microbatches: int
    routes: Routes
    microbatch_size: float = 1.0
    max_in_flight: int | None = None
    shadow_forwards: float = 0.0
    shadow_backwards: float = 0.0
    shadow: Shadow = "with_forward"
    shadow_transfers: int = 0
    embedding_copies: bool = False


def num_positions(workload: WorkloadConfig, head_computes: bool) -> int:
    """Positions that compute one after the other: the stages, and a head that does on a node of its own."""
    return workload.num_stages + (1 if head_computes and workload.loss_at == "embedding_stage" else 0)


def in_flight_limit(workload: WorkloadConfig, plan: IterationPlan, head_computes: bool) -> int:
    """Most microbatches that are on their way in a pipeline at a time.

    gpipe: all. Others: what the plan or the workload says, else as many as positions that compute one after the other,
    for interleaved_1f1b twice the stages.
    """
    if workload.schedule == "gpipe":
        return plan.num_microbatches
    chosen = plan.max_in_flight or workload.max_in_flight
    if chosen is None and workload.schedule == "interleaved_1f1b":
        chosen = 2 * workload.num_stages
    return min(plan.num_microbatches, chosen or num_positions(workload, head_computes))


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one scenario's target model on its device.

    Stages are numbered as everywhere: 1..s hold layers. Of work, stage 0 stands for the ends (final norm, E⁻¹, loss),
    whoever runs them; of parameters and bytes, for what its node holds: E, and the head where `loss_at` says so.
    """

    workload: WorkloadConfig
    device: Device

    # ---- what a stage holds ----------------------------------------------------------------------

    @property
    def tokens_per_microbatch(self) -> int:
        """Tokens of a full-size microbatch."""
        return self.workload.sequences_per_microbatch * self.workload.sequence_length

    @property
    def head_stage(self) -> int:
        """The stage that holds final norm, head and loss."""
        return EMBEDDING_STAGE if self.workload.loss_at == "embedding_stage" else self.workload.num_stages

    def num_layers(self, stage: int) -> int:
        """Layers of a stage; none at stage 0."""
        if stage == EMBEDDING_STAGE:
            return 0
        if self.workload.layers_per_stage is None:
            return self.workload.model.num_layers // self.workload.num_stages
        return self.workload.layers_per_stage[stage - 1]

    def stage_parameters(self, stage: int) -> int:
        """Parameters of a stage: 4 d² + 3 d f + 2 d a layer; V d for E; V d + d for the head and its norm."""
        model = self.workload.model
        parameters = self.num_layers(stage) * (4 * model.dim**2 + 3 * model.dim * model.hidden_dim + 2 * model.dim)
        if stage == EMBEDDING_STAGE:
            parameters += model.vocabulary_size * model.dim
        if stage == self.head_stage:
            parameters += model.vocabulary_size * model.dim + model.dim
        return parameters

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(map(self.stage_parameters, range(self.workload.num_stages + 1)))

    @property
    def head_computes(self) -> bool:
        """Whether the head takes time."""
        return self.forward_seconds(EMBEDDING_STAGE) > 0.0

    def in_flight_limit(self, plan: IterationPlan) -> int:
        """Most microbatches of a plan that are on their way in a pipeline at a time."""
        return in_flight_limit(self.workload, plan, self.head_computes)

    # ---- time ------------------------------------------------------------------------------------

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

    def _share_of_mean_stage(self, stage: int) -> float:
        """Layers of a stage over those of the mean stage."""
        if self.workload.layers_per_stage is None:
            return 1.0
        return self.num_layers(stage) * self.workload.num_stages / self.workload.model.num_layers

    # ---- bytes -----------------------------------------------------------------------------------

    @property
    def activation_bytes(self) -> float:
        """Bytes that cross a stage boundary per full-size microbatch, forward; the gradient is as large."""
        return float(self.tokens_per_microbatch * self.workload.model.dim * VALUE_BYTES[self.workload.precision])

    def weight_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights, which are also those of its gradient."""
        return float(self.stage_parameters(stage) * VALUE_BYTES[self.workload.precision])

    @property
    def embedding_copy_bytes(self) -> float:
        """The gradient of E, or of E⁻¹: half of stage 0. Who holds a copy takes the same optimizer step with it."""
        return self.weight_bytes(EMBEDDING_STAGE) / 2

    def checkpoint_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights and optimizer state."""
        return float(self.stage_parameters(stage) * CHECKPOINT_BYTES[self.workload.precision])

    def state_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights, gradient and optimizer state on its device."""
        return float(self.stage_parameters(stage) * STATE_BYTES[self.workload.precision])
