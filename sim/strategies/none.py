"""The reference: failures happen and cost nothing. What the other strategies are measured against."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.lineage import Position
from sim.records import Failure
from sim.strategies.base import Process, Strategy, StrategyConfig, StrategyWorld


class NoneConfig(StrategyConfig):
    """`none` has no options of its own."""

    kind: Literal["none"] = "none"


class NoStrategy(Strategy):
    """Failures are counted but neither stop the iteration nor change a weight."""

    kind = "none"
    summary = "failures cost nothing: the reference"
    Config: ClassVar[type[StrategyConfig]] = NoneConfig
    heeds_failures = False
    restores_shares = True

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Nothing to do."""
        yield from ()
        return position
