"""What the target model costs: seconds of a stage, bytes of an activation, of a stage, of a checkpoint.

FLOPs count a multiply and an add as two, per token and layer of width d, feed-forward width f, sequence s:
forward 8 d² (attention projections) + 4 s d (scores and values, not causal, as Megatron counts) + 6 d f
(SwiGLU), backward twice that; de-embedding 2 d V forward. Sources: Korthikanti et al. 2022 (arXiv
2205.05198); the same figures in torchtitan. *Not modelled*: efficiency by operation size, memory limits,
the optimizer's own time, the embedding's look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from models.lineage import EMBEDDING_STAGE, Config, Routes
from sim.presets import or_preset

VALUE_BYTES = {"fp32": 4, "bf16": 2}
CHECKPOINT_BYTES = {"fp32": 12, "bf16": 14}
"""Per parameter: fp32 weight and two Adam moments; bf16 training adds the bf16 weight."""


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
    bf16_tflops: float = Field(gt=0, description="peak 16-bit TFLOP/s")
    fp32_tflops: float = Field(gt=0, description="peak fp32 TFLOP/s")
    memory_gib: float = Field(gt=0, description="device memory in GiB")
    utilisation: float = Field(gt=0, le=1, description="share of the peak that training reaches")
    description: str = Field("", description="in words")
    source: str = Field("", description="where the figures are from")

    def flops_per_second(self, precision: str) -> float:
        """Speed that training reaches in the given number format."""
        peak = self.fp32_tflops if precision == "fp32" else self.bf16_tflops
        return peak * 1e12 * self.utilisation


class MeasuredSeconds(Config):
    """Times of one microbatch measured by the user, in place of FLOPs over device speed."""

    forward_seconds: float = Field(gt=0, description="forward of one microbatch through one layer stage")
    backward_seconds: float = Field(gt=0, description="backward of one microbatch through one layer stage")
    head_seconds: float = Field(0.0, ge=0, description="de-embedding and loss of one microbatch, both ways")


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
    schedule: Literal["gpipe", "1f1b"] = Field("1f1b", description="order of forwards and backwards")
    max_in_flight: int | None = Field(
        None, ge=1, description="1f1b: microbatches in flight in a pipeline; default: as many as positions that compute"
    )
    measured: MeasuredSeconds | None = Field(None, description="measured times, in place of computed ones")


@dataclass(frozen=True)
class IterationPlan:
    """What one iteration has to do. A strategy's `price` changes a copy of the plain plan.

    num_microbatches per pipeline, each `microbatch_size` × the workload's; `shadow_forwards` is the number of
    forwards of the *next* stage that each stage also runs per microbatch (redundant computation).
    """

    num_microbatches: int
    routes: Routes
    microbatch_size: float = 1.0
    shadow_forwards: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one scenario's target model on its device.

    Stages are numbered as everywhere: 0 = the ends (E, final norm, E⁻¹, loss), 1..s = layers.
    """

    workload: WorkloadConfig
    device: Device

    @property
    def tokens_per_microbatch(self) -> int:
        """Tokens of a full-size microbatch."""
        return self.workload.sequences_per_microbatch * self.workload.sequence_length

    def stage_parameters(self, stage: int) -> int:
        """Parameters of a stage: 4 d² + 3 d f + 2 d a layer; 2 V d + d for the ends."""
        model = self.workload.model
        if stage == EMBEDDING_STAGE:
            return 2 * model.vocabulary_size * model.dim + model.dim
        layers = model.num_layers // self.workload.num_stages
        return layers * (4 * model.dim**2 + 3 * model.dim * model.hidden_dim + 2 * model.dim)

    def forward_flops(self, stage: int) -> float:
        """FLOPs of the forward of one full-size microbatch through a stage."""
        model, tokens = self.workload.model, self.tokens_per_microbatch
        if stage == EMBEDDING_STAGE:
            return 2.0 * model.dim * model.vocabulary_size * tokens
        layers = model.num_layers // self.workload.num_stages
        attention = 8 * model.dim**2 + 4 * self.workload.sequence_length * model.dim
        return float(layers * (attention + 6 * model.dim * model.hidden_dim) * tokens)

    def forward_seconds(self, stage: int) -> float:
        """Forward of one full-size microbatch through a stage (stage 0: de-embedding and loss)."""
        measured = self.workload.measured
        if measured:
            return measured.head_seconds / 3 if stage == EMBEDDING_STAGE else measured.forward_seconds
        return self.forward_flops(stage) / self.device.flops_per_second(self.workload.precision)

    def backward_seconds(self, stage: int) -> float:
        """Backward of one full-size microbatch: twice the forward, unless measured."""
        measured = self.workload.measured
        if measured and stage != EMBEDDING_STAGE:
            return measured.backward_seconds
        return 2.0 * self.forward_seconds(stage)

    @property
    def activation_bytes(self) -> float:
        """Bytes that cross a stage boundary per full-size microbatch, forward; the gradient is as large."""
        return float(self.tokens_per_microbatch * self.workload.model.dim * VALUE_BYTES[self.workload.precision])

    def weight_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights, which are also those of its gradient."""
        return float(self.stage_parameters(stage) * VALUE_BYTES[self.workload.precision])

    def checkpoint_bytes(self, stage: int) -> float:
        """Bytes of a stage's weights and optimizer state."""
        return float(self.stage_parameters(stage) * CHECKPOINT_BYTES[self.workload.precision])
