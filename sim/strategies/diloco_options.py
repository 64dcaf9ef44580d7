"""Options of `diloco`, which of them exclude each other, and the bytes that a synchronisation sends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sim.core.text import format_list
from sim.strategies.base import ClusterConfig, Costs, StrategyConfig, WorkloadConfig
from sim.strategies.baselines import too_few_replicas
from sim.strategies.replica_recovery import (
    FP32_BYTES,
    Intervals,
    NeighbourCopy,
    Rebuilt,
    RebuiltByPlainAverage,
    RebuiltPlus,
    ReplicaRecovery,
)
from sim.strategies.replica_saves import (
    NeighbourCheckpoints,
    OwnCheckpoint,
    RebuiltOrStale,
    StaleStages,
    TwoTierCheckpoints,
)

Compression = Literal["none", "bf16", "int8", "int4", "top_k"]

FACTORS: dict[str, float] = {"none": 1.0, "bf16": 1 / 2, "int8": 1 / 4, "int4": 1 / 8, "top_k": 1 / 146}
"""Bytes sent, as a share of those in fp32; top_k: 1.6 % of the values in 2 bits, 146 × fewer (arXiv 2603.08163)."""

LostStage = Literal[
    "leave",
    "global",
    "checkfree",
    "checkfree_plus",
    "reinit",
    "neighbour_copy",
    "checkpoint",
    "neighbour_checkpoint",
    "two_tier_checkpoint",
    "stale_stage",
    "checkfree_hybrid",
]

RECOVERIES: dict[str, type[ReplicaRecovery]] = {
    "global": ReplicaRecovery,
    "checkfree": Rebuilt,
    "checkfree_plus": RebuiltPlus,
    "reinit": RebuiltByPlainAverage,
    "neighbour_copy": NeighbourCopy,
    "checkpoint": OwnCheckpoint,
    "neighbour_checkpoint": NeighbourCheckpoints,
    "two_tier_checkpoint": TwoTierCheckpoints,
    "stale_stage": StaleStages,
    "checkfree_hybrid": RebuiltOrStale,
}
"""By the names of `lost_stage`, except `leave`."""

DEFAULT_INTERVAL = 25
DEFAULT_MEMORY_INTERVAL = 1

GO_WITH_PAIRS: dict[str, str | float] = {
    "outer_learning_rate": 1.0,
    "outer_momentum": 0.0,
    "mixing": 1.0,
    "weights": "equal",
    "overlap_iterations": 0,
    "lost_stage": "leave",
    "joiner_optimizer": "peer",
}
"""Values of options for pairs, which have no global weights and no outer optimizer."""


class DilocoConfig(StrategyConfig):
    """Options of `diloco`."""

    kind: Literal["diloco"] = "diloco"
    inner_steps: int = Field(100, ge=1, le=10**9, description="iterations between two synchronisations (H)")
    outer_learning_rate: float = Field(0.7, gt=0, le=100, description="learning rate of the outer step")
    outer_momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of the outer step")
    min_replicas: int = Field(1, ge=1, description="fewest complete pipelines to train with (quorum); else it waits")
    join_timeout_seconds: float = Field(
        0.0, ge=0, le=1e8, description="longest wait at a synchronisation for pipelines that are coming back"
    )
    joiner_optimizer: Literal["peer", "fresh"] = Field(
        "peer", description="Adam's state of a pipeline that comes back: that of another one, or none"
    )
    partners: Literal["all", "pairs"] = Field(
        "all",
        description="replicas that average: all; or each with one other, in turn (NoLoCo), by plain averages",
    )
    lost_stage: LostStage = Field(
        "leave",
        description="what a pipeline that lost a node does once it is replaced: leave its steps, and begin from the "
        "global weights at the next synchronisation; or continue at once. global: the lost stage takes the global "
        "weights; checkfree, checkfree_plus, reinit: it is rebuilt from the pipeline's own stages; neighbour_copy: it "
        "is unchanged, from an exact copy on the node of the stage before; checkpoint: all stages of the pipeline roll "
        "back to its own last save in the store; neighbour_checkpoint: to that in the memory of its nodes; "
        "two_tier_checkpoint: to the latest of both; stale_stage: only the lost stage rolls back, to the store; "
        "checkfree_hybrid: it is rebuilt as by checkfree_plus where that is possible, and else rolls back",
    )
    interval_iterations: int | None = Field(
        None,
        ge=1,
        description="for a lost_stage with saves: iterations between two saves of each pipeline; default: "
        f"{DEFAULT_INTERVAL}",
    )
    memory_interval_iterations: int | None = Field(
        None,
        ge=1,
        description="for lost_stage two_tier_checkpoint: iterations between two saves in memory; more where sending "
        f"the copies takes longer; default: {DEFAULT_MEMORY_INTERVAL}",
    )
    weights: Literal["equal", "tokens"] = Field(
        "equal",
        description="weight of a replica in the mean: equal, or the tokens learnt since the last synchronisation",
    )
    compression: Compression = Field(
        "none",
        description="format of the differences that are sent; it shortens synchronisations, and its effect on the loss "
        "is not computed",
    )
    sent_share: float | None = Field(
        None, gt=0, le=1, description="share of the bytes in fp32 that is sent, in place of that of `compression`"
    )
    fragments: int = Field(1, ge=1, description="groups of stages that are synchronised in turn")
    overlap_iterations: int = Field(
        0,
        ge=0,
        description="iterations during which the differences are sent beside the training; 0: all wait for them",
    )
    mixing: float = Field(
        1.0, gt=0, le=1, description="share of the global weights in those from which a replica continues"
    )

    @property
    def intervals(self) -> Intervals:
        """Iterations between saves of each pipeline, for a lost_stage with saves."""
        memory_iterations = self.memory_interval_iterations or DEFAULT_MEMORY_INTERVAL
        return Intervals(self.interval_iterations or DEFAULT_INTERVAL, memory_iterations)

    @property
    def recovery(self) -> type[ReplicaRecovery] | None:
        """What brings a replica back before the next synchronisation; None: nothing does."""
        return RECOVERIES.get(self.lost_stage)


def impossible(config: DilocoConfig, workload: WorkloadConfig) -> str | None:
    """What makes the options impossible for a workload, or None."""
    num_stages, apart = workload.num_stages + 1, config.inner_steps // config.fragments
    if config.sent_share is not None and config.compression != "none":
        return f"sent_share {config.sent_share:g} is in place of compression '{config.compression}': give one of them"
    if config.fragments > num_stages:
        return f"fragments {config.fragments} is more than the stages, {num_stages} with that of the embedding"
    if config.inner_steps % config.fragments:
        return f"inner_steps {config.inner_steps} is no multiple of fragments, {config.fragments}"
    if config.overlap_iterations >= apart:
        return (
            f"overlap_iterations {config.overlap_iterations} is not less than the iterations between two "
            f"synchronisations, {apart}"
        )
    if config.partners == "pairs":
        for field, value in GO_WITH_PAIRS.items():
            if (found := getattr(config, field)) != value:
                return f"partners 'pairs' goes with {field} {in_words(value)}, found {in_words(found)}"
    recovery = config.recovery
    for field, with_it in (
        ("interval_iterations", [name for name, each in RECOVERIES.items() if each.saves]),
        ("memory_interval_iterations", [name for name, each in RECOVERIES.items() if each.saves_in_two_tiers]),
    ):
        if getattr(config, field) is not None and config.lost_stage not in with_it:
            names = format_list([f"'{name}'" for name in with_it], "or")
            return f"{field} goes with lost_stage {names}, found '{config.lost_stage}'"
    return recovery.check(workload) if recovery else None


def impossible_on(config: DilocoConfig, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:
    """What makes the options impossible on a cluster, or None."""
    if config.recovery and config.recovery.needs_embedding_nodes and cluster.embedding_on == "first_stage":
        return (
            f"lost_stage '{config.lost_stage}' needs the embedding on nodes of its own: set cluster.embedding_on to "
            f"'own_node', found '{cluster.embedding_on}'"
        )
    return too_few_replicas(config.min_replicas, cluster, sequences_per_batch)


def in_words(value: str | float) -> str:
    """A value of an option as messages write it."""
    return f"'{value}'" if isinstance(value, str) else f"{value:g}"


def global_bytes(config: DilocoConfig, costs: Costs, stage: int) -> float:
    """Bytes of a stage's global weights and, with outer momentum, their velocity, in fp32; pairs have none."""
    if config.partners == "pairs":
        return 0.0
    return float(costs.stage_parameters(stage) * FP32_BYTES * (2 if config.outer_momentum else 1))


def sent_bytes(config: DilocoConfig, costs: Costs, stage: int) -> float:
    """Bytes of a stage's differences as nodes send them."""
    factor = FACTORS[config.compression] if config.sent_share is None else config.sent_share
    return costs.stage_parameters(stage) * FP32_BYTES * factor
