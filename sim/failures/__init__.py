"""Failure processes: when nodes are lost, as pure iterators on named random streams.

One file for each, one line in `SINGLE` (of `compose`). A process knows nothing of strategies or of the event loop.
"""

from __future__ import annotations

from sim.core.plugins import PluginError
from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.compose import ComposeConfig, ComposedFailures
from sim.failures.registry import PLUGINS, SINGLE
from sim.failures.renewal import NoFailures

BUILT_IN: tuple[type[FailureProcess], ...] = (*SINGLE, ComposedFailures, NoFailures)
PROCESSES = {process.kind: process for process in BUILT_IN}

__all__ = ["PROCESSES", "FailureProcess", "ProcessConfig", "known_processes", "process_class", "processes"]


def process_class(kind: str) -> type[FailureProcess]:
    """The class of a kind: built in, of an installed package, or `package.module:Class`. Raises PluginError."""
    return PROCESSES.get(kind) or PLUGINS.find(kind)


def processes(config: ProcessConfig) -> tuple[ProcessConfig, ...]:
    """A failure process's options, or those of all that it is composed of."""
    return config.processes if isinstance(config, ComposeConfig) else (config,)


def known_processes() -> dict[str, type[FailureProcess] | PluginError]:
    """All kinds that have plain names, those of installed packages last; for one that cannot be used, why."""
    return {**PROCESSES, **{kind: found for kind, found in PLUGINS.known().items() if kind not in PROCESSES}}
