"""Recovery strategies. One file for each, one line in `STRATEGIES`."""

from __future__ import annotations

from sim.strategies.base import Strategy, StrategyConfig, UnrecoverableError
from sim.strategies.checkfree import CheckFree, CheckFreePlus
from sim.strategies.checkpoint import Checkpoint
from sim.strategies.none import NoStrategy
from sim.strategies.redundant import Redundant
from sim.strategies.restart import Restart

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.kind: strategy for strategy in (NoStrategy, Checkpoint, Redundant, CheckFree, CheckFreePlus, Restart)
}

__all__ = ["STRATEGIES", "Strategy", "StrategyConfig", "UnrecoverableError"]
