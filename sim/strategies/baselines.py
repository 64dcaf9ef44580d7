"""The reference: failures happen and cost nothing. What the other strategies are measured against."""

from __future__ import annotations

from typing import Literal

from models.training_state import Lineage, Position
from sim.core.records import Failure
from sim.strategies.base import Process, Strategy, StrategyConfig, StrategyWorld, UnrecoverableError


class NoneConfig(StrategyConfig):
    """`none` has no options of its own."""

    kind: Literal["none"] = "none"


class NoStrategy(Strategy):
    """Failures are counted but neither stop the iteration nor change a weight."""

    title = "no failures"
    summary = "failures cost nothing: the reference"
    Config = NoneConfig
    stops_on_failures = False
    supports_sharding = True

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Nothing to do."""
        yield from ()
        return position


# Start again from the first step: what is left when nothing was kept.


class RestartConfig(StrategyConfig):
    """`restart` has no options of its own."""

    kind: Literal["restart"] = "restart"


class Restart(Strategy):
    """Every failure throws the whole training away."""

    summary = "every failure starts training again from the first step"
    Config = RestartConfig
    serves_as_fallback = True
    supports_sharding = True

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Wait for the nodes; all stages draw their first weights again, which takes no transfer."""
        while (yield from world.bring_back_nodes()) is not None:
            pass
        return beginning_of(position)


def beginning_of(position: Position) -> Position:
    """The first state of the training that a Position belongs to."""
    return Position(Lineage(position.lineage.spec), 0, position.iterations_per_step)


# Data-parallel copies alone: a lost node is replaced from another of its stage; a stage without any is gone.
#
# What the redundancy of replicas carries by itself, and where it ends (Oobleck's boundary, SOSP '23).


class PeerConfig(StrategyConfig):
    """`peer` has no options of its own."""

    kind: Literal["peer"] = "peer"


class Peer(Strategy):
    """Nothing is kept beside the replicas. Their copying from each other is the cluster's, under every strategy."""

    summary = "replicas of a stage copy from each other, and that is all: a lost stage is gone"
    Config = PeerConfig

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """There is nobody to copy from."""
        yield from ()
        lost = sorted(world.lost_stages)
        raise UnrecoverableError(f"stage {lost[0]} has lost its last node, and nobody else holds its state")
