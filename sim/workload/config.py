"""The `workload:` section: target model, batch and schedule; and the plan of an iteration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE, Config, Routes, plain_routes
from sim.core.presets import OrPreset
from sim.workload.schedule import SCHEDULES, Schedule

if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]

Shadow = Literal["with_forward", "eager", "lazy"]


class TargetModel(Config):
    """Shape of the model whose clock is simulated."""

    name: str = Field("custom", description="what outputs call it")
    dim: int = Field(ge=1, le=10**6, description="width of the residual stream")
    num_heads: int = Field(ge=1, le=10**6, description="attention heads")
    num_layers: int = Field(ge=1, le=10**5, description="residual layers, all stages together")
    hidden_dim: int = Field(ge=1, le=10**7, description="feed-forward width (SwiGLU, 3 matrices)")
    vocabulary_size: int = Field(ge=2, le=10**8, description="tokens in the vocabulary")
    description: str = Field("", description="in words")
    source: str = Field("", description="source of the figures")


class MeasuredSeconds(Config):
    """Times of one microbatch measured by the user, in place of FLOPs over device speed.

    They are for a stage with an equal share of the layers; with uneven `layers_per_stage` the time of a stage is
    proportional to its layers. The measured backward includes recomputed activations.
    """

    forward_seconds: float = Field(ge=1.5e-8, le=1e8, description="forward of one microbatch through one layer stage")
    backward_seconds: float = Field(ge=1.5e-8, le=1e8, description="backward of one microbatch through one layer stage")
    head_seconds: float = Field(0.0, ge=0, le=1e8, description="de-embedding and loss of one microbatch, both ways")


class WorkloadConfig(Config):
    """The `workload:` section of a scenario: the target model, which determines the seconds."""

    model: Annotated[TargetModel, OrPreset("models")] = Field(
        "medium", validate_default=True, description="target model: a preset's name or its shape"
    )
    num_stages: int = Field(6, ge=2, le=1000, description="pipeline stages that hold layers (S1..Ss)")
    sequence_length: int = Field(1024, ge=1, le=10**8, description="tokens in a sequence")
    sequences_per_microbatch: int = Field(8, ge=1, le=10**6, description="sequences in a microbatch")
    num_microbatches: int = Field(6, ge=1, le=10_000, description="microbatches of each pipeline and iteration")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of compute and activations")
    gradient_bytes_per_parameter: float | None = Field(
        None,
        gt=0,
        le=64,
        description="bytes of a gradient, sent and held; default: sent in `precision` (fp32 4, bf16 2), held in fp32",
    )
    optimizer_bytes_per_parameter: float | None = Field(
        None,
        ge=0,
        le=64,
        description="bytes of the optimizer's state, with fp32 weights where they are kept beside others; default: "
        "two Adam moments in fp32 (fp32 8), and the fp32 weight (bf16 12). 8-bit Adam with fp32 weights: 6",
    )
    schedule: ScheduleName = Field("1f1b", description="order of forwards and backwards on a node")
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="not gpipe: microbatches in flight in a pipeline; default: enough to hide the hops, as far as they "
        "fit in memory, at least as many as positions that compute (interleaved_1f1b: twice as many as stages)",
    )
    chunks_per_stage: int = Field(1, ge=1, le=100, description="interleaved_1f1b: parts that a stage's layers make")
    layers_per_stage: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="layers of each of S1..Ss; default: equal shares"
    )
    loss_at: Literal["embedding_stage", "last_stage"] = Field(
        "embedding_stage", description="stage that holds final norm, head and loss: stage 0, with the embedding, or Ss"
    )
    gradient_exchange: Literal["ring", "all_to_all"] = Field(
        "ring", description="replicas of a stage: ring all-reduce, or each sends its whole gradient to all others"
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
class Layout:
    """Pipelines that run an iteration in place of the cluster's: fewer, or other ones.

    layers_per_stage: of their stages 1..s. slots: those whose nodes do the work, by stage, then by pipeline; the
    embedding's first, where it has nodes of its own.
    """

    layers_per_stage: tuple[int, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True)
class WorkFactor:
    """A factor on the seconds of a stage's layers, forward and backward; 0: they are left out.

    microbatches, pipelines: for which; None: for all. Pipelines go with `IterationPlan.substitutes`.
    """

    stage: int
    forward: float
    backward: float
    microbatches: tuple[int, ...] | None = None
    pipelines: tuple[int, ...] | None = None

    def applies(self, stage: int, microbatch: int, pipeline: int) -> bool:
        """Whether it is on the seconds of a stage for a microbatch of a pipeline."""
        return (
            stage == self.stage
            and (self.microbatches is None or microbatch in self.microbatches)
            and (self.pipelines is None or pipeline in self.pipelines)
        )


@dataclass(frozen=True)
class IterationPlan:
    """Work of one iteration. `Strategy.adapt_plan` changes a copy of the plain plan, `Strategy.plan_for` one of that.

    num_microbatches per pipeline, each `microbatch_size` × the workload's; max_in_flight in place of the workload's.

    Redundant computation: shadow_forwards and shadow_backwards of the *next* stage that each stage also runs per
    microbatch; shadow: before the activation is sent, right after, or lazily while the node waits;
    shadow_transfers: times per iteration that each stage sends its gradients or weights to the one before.
    CheckFree+: embedding_copies are sent to S1 and Ss meanwhile.

    factors: stages whose layers take other than their usual time for some microbatches.

    substitutes: stage and pipeline of missing nodes, and the stage whose node in the pipeline does their work; that of
    others is done by the nodes left in their stage.

    layout: the pipelines that run; None: those of the cluster, where nodes left in a stage do the work of missing ones.

    shares: microbatches of each pipeline, num_microbatches at most; None: as many in all.

    exchanges: stages whose replicas exchange gradients, or as large a sum, at the end, and the bytes that each node has
    of it; None: all stages exchange their gradients. pairs: pipelines, by number among those that run, that send this
    to each other alone; None: all exchange with all.
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
    factors: tuple[WorkFactor, ...] = ()
    substitutes: tuple[tuple[int, int, int], ...] = ()
    layout: Layout | None = None
    shares: tuple[int, ...] | None = None
    exchanges: tuple[tuple[int, float], ...] | None = None
    pairs: tuple[tuple[int, int], ...] | None = None


def plain_plan(workload: WorkloadConfig) -> IterationPlan:
    """An iteration as the workload defines it, before any strategy changes it."""
    return IterationPlan(workload.num_microbatches, plain_routes(workload.num_stages))


def equal_plan(plain: IterationPlan, plan: IterationPlan) -> IterationPlan:
    """The plain plan with another plan's microbatches; as it is where that plan's batch has another size."""
    if plan.num_microbatches * plan.microbatch_size != plain.num_microbatches:
        return plain
    return replace(plain, num_microbatches=plan.num_microbatches, microbatch_size=plan.microbatch_size)


def schedule_of(workload: WorkloadConfig, plan: IterationPlan, head_computes: bool) -> Schedule:
    """The schedule of a plan; the plan's `max_in_flight` takes precedence over the workload's."""
    return SCHEDULES[workload.schedule](
        workload.num_stages,
        workload.chunks_per_stage,
        plan.num_microbatches,
        plan.routes,
        EMBEDDING_STAGE if workload.loss_at == "embedding_stage" else workload.num_stages,
        head_computes,
        plan.max_in_flight or workload.max_in_flight,
    )
