"""Start again from the first step: what is left when nothing was kept."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.lineage import Lineage, Position
from sim.records import Failure
from sim.strategies.base import Process, Strategy, StrategyConfig, StrategyWorld


class RestartConfig(StrategyConfig):
    """`restart` has no options of its own."""

    kind: Literal["restart"] = "restart"


class Restart(Strategy):
    """Every failure throws the whole training away."""

    kind = "restart"
    summary = "every failure starts training again from the first step"
    Config: ClassVar[type[StrategyConfig]] = RestartConfig
    serves_as_fallback = True
    restores_shares = True

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Wait for the nodes; all stages draw their first weights again, which takes no transfer."""
        while (yield from world.bring_back_nodes()) is not None:
            pass
        return beginning_of(position)


def beginning_of(position: Position) -> Position:
    """The first state of the training that a Position belongs to."""
    return Position(Lineage(position.lineage.spec), 0, position.iterations_per_step)
