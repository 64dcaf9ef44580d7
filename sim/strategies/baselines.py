"""Strategies without state of their own: the failure-free reference, restart, and replicas alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.training_state import Position
from sim.core.records import Failure
from sim.strategies.base import (
    ClusterConfig,
    Process,
    Strategy,
    StrategyConfig,
    StrategyWorld,
    UnrecoverableError,
    beginning_of,
)


class NoneConfig(StrategyConfig):
    """`none` has no options of its own."""

    kind: Literal["none"] = "none"


class NoStrategy(Strategy):
    """The reference for comparisons: failures are counted, but neither interrupt nor change the training."""

    title = "no failures"
    summary = "the reference: failures have no cost"
    Config = NoneConfig
    stops_on_failures = False
    supports_sharding = True

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Never called, since failures do not interrupt."""
        yield from ()
        return position


class RestartConfig(StrategyConfig):
    """`restart` has no options of its own."""

    kind: Literal["restart"] = "restart"


class Restart(Strategy):
    """Every failure loses the whole training, which starts again from the first step."""

    summary = "restart the training from the first step after every failure"
    Config = RestartConfig
    serves_as_fallback = True
    supports_sharding = True

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Wait for the nodes; all stages draw their initial weights again, which needs no transfer."""
        while (yield from world.bring_back_nodes()) is not None:
            pass
        return beginning_of(position)


class PeerConfig(StrategyConfig):
    """`peer` has no options of its own."""

    kind: Literal["peer"] = "peer"


class Peer(Strategy):
    """Data-parallel replicas alone: a stage that loses all its nodes is lost (the limit of Oobleck, SOSP '23)."""

    summary = "copy the state from other replicas of the stage; a lost stage cannot be recovered"
    Config: ClassVar[type[StrategyConfig]] = PeerConfig

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Impossible: no node holds the state."""
        yield from ()
        lost = sorted(world.lost_stages)
        raise UnrecoverableError(f"stage {lost[0]} has lost its last node, and no other node holds its state")


def too_few_replicas(min_replicas: int, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:
    """That there are fewer pipelines than a strategy needs, or fewer rows than pipelines, for `check_site`, or None."""
    if min_replicas > cluster.nodes_per_stage:
        return f"min_replicas {min_replicas} is more than cluster.nodes_per_stage, {cluster.nodes_per_stage}"
    return too_few_rows(cluster, sequences_per_batch)


def too_few_rows(cluster: ClusterConfig, sequences_per_batch: int) -> str | None:
    """That the proxy's batch has no row for each pipeline, for `check_site`, or None."""
    if sequences_per_batch >= cluster.nodes_per_stage:
        return None
    return (
        f"training.sequences_per_batch {sequences_per_batch} is less than cluster.nodes_per_stage, "
        f"{cluster.nodes_per_stage}: each pipeline needs a row of the batch"
    )
