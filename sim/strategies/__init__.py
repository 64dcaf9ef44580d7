"""Recovery strategies: what happens when a stage is lost, and what is done beforehand.

Belongs here: one file for each strategy, one line each in the table below; the contract is `base.py`.
Does not belong here: the event loop, training, figures.
"""

from __future__ import annotations

from sim.core.plugins import PluginError, Plugins
from sim.strategies.base import Strategy, StrategyConfig, UnrecoverableError
from sim.strategies.baselines import NoStrategy, Peer, Restart
from sim.strategies.checkfree import CheckFree, CheckFreePlus, Reinit
from sim.strategies.checkfree_hybrid import CheckFreeHybrid
from sim.strategies.checkpoint import Checkpoint
from sim.strategies.constant_batch import ConstantBatch
from sim.strategies.diloco import Diloco
from sim.strategies.elastic import Elastic
from sim.strategies.memory_checkpoint import NeighbourCheckpoint
from sim.strategies.neighbour_takeover import NeighbourTakeover
from sim.strategies.redundant import Redundant
from sim.strategies.repartition import Repartition
from sim.strategies.skip import Skip
from sim.strategies.stale_stage import StaleStage
from sim.strategies.two_tier_checkpoint import TwoTierCheckpoint

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.kind: strategy
    for strategy in (
        NoStrategy,
        Checkpoint,
        NeighbourCheckpoint,
        TwoTierCheckpoint,
        Redundant,
        CheckFree,
        CheckFreePlus,
        CheckFreeHybrid,
        StaleStage,
        Reinit,
        Peer,
        ConstantBatch,
        Elastic,
        Diloco,
        Repartition,
        Skip,
        NeighbourTakeover,
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
    "answers_lost_nodes",
    "known_strategies",
    "legend_label",
    "strategy_class",
    "trains_apart",
    "trains_otherwise",
]


def strategy_class(kind: str) -> type[Strategy]:
    """The class of a kind: built in, of an installed package, or `package.module:Class`. Raises PluginError."""
    return STRATEGIES.get(kind) or PLUGINS.find(kind)


def answers_lost_nodes(kind: str) -> bool:
    """Whether a strategy does something of its own at the loss of a node whose stage has others.

    False for one from outside that cannot be imported here.
    """
    try:
        found = strategy_class(kind)
    except PluginError:
        return False
    return any(getattr(found, name) is not getattr(Strategy, name) for name in ("plan_for", "recipe_for", "regroup"))


def trains_otherwise(kind: str) -> bool:
    """Whether a strategy may train the proxy in another way while nodes are missing."""
    return trains_apart(kind) or strategy_class(kind).recipe_for is not Strategy.recipe_for


def trains_apart(kind: str) -> bool:
    """Whether pipelines have weights of their own under a strategy. False for one that cannot be imported here."""
    try:
        return strategy_class(kind).position_for is not Strategy.position_for
    except PluginError:
        return False


def known_strategies() -> dict[str, type[Strategy] | PluginError]:
    """All kinds that have plain names, installed ones last; the error in place of a class that cannot be used."""
    return {**STRATEGIES, **{kind: found for kind, found in PLUGINS.known().items() if kind not in STRATEGIES}}


def legend_label(name: str) -> str:
    """The display name of a strategy in a scenario: the title of a built-in kind, else the name itself."""
    return STRATEGIES[name].title or name if name in STRATEGIES else name
