"""Recovery strategies. One file for each, one line in `STRATEGIES`; those from outside the project by `PLUGINS`."""

from __future__ import annotations

from sim.core.plugins import PluginError, Plugins
from sim.strategies.base import Strategy, StrategyConfig, UnrecoverableError
from sim.strategies.baselines import NoStrategy, Peer, Restart
from sim.strategies.checkfree import CheckFree, CheckFreePlus
from sim.strategies.checkfree_hybrid import CheckFreeHybrid
from sim.strategies.checkpoint import Checkpoint
from sim.strategies.memory_checkpoint import NeighbourCheckpoint
from sim.strategies.redundant import Redundant
from sim.strategies.reinit import Reinit

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.kind: strategy
    for strategy in (
        NoStrategy,
        Checkpoint,
        NeighbourCheckpoint,
        Redundant,
        CheckFree,
        CheckFreePlus,
        CheckFreeHybrid,
        Reinit,
        Peer,
        Restart,
    )
}

PLUGINS: Plugins[Strategy] = Plugins("churnlab.strategies", Strategy, StrategyConfig)
"""Strategies from outside; entry points of this group name them."""

__all__ = [
    "PLUGINS",
    "STRATEGIES",
    "Strategy",
    "StrategyConfig",
    "UnrecoverableError",
    "known_strategies",
    "strategy_class",
]


def strategy_class(kind: str) -> type[Strategy]:
    """The class of a kind: built in, of an installed package, or `package.module:Class`. Raises PluginError."""
    return STRATEGIES.get(kind) or PLUGINS.find(kind)


def known_strategies() -> dict[str, type[Strategy] | PluginError]:
    """All kinds that have plain names, those of installed packages last; for one that cannot be used, why."""
    return {**STRATEGIES, **{kind: found for kind, found in PLUGINS.known().items() if kind not in STRATEGIES}}
