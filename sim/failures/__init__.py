"""Failure processes: when nodes are lost, as pure iterators on named random streams.

Belongs here: one file for each process or family of laws, one line each in the table of `registry.py`.
Does not belong here: strategies, the cluster, the event loop.
"""

from __future__ import annotations

from sim.core.plugins import PluginError
from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.compose import ComposeConfig, ComposedFailures
from sim.failures.registry import PLUGINS, SINGLE, process_choice
from sim.failures.renewal import NoFailures

PROCESSES: dict[str, type[FailureProcess]] = {
    **{process.kind: process for process in SINGLE},
    ComposedFailures.kind: ComposedFailures,
    NoFailures.kind: NoFailures,
}

__all__ = [
    "PLUGINS",
    "PROCESSES",
    "FailureProcess",
    "ProcessConfig",
    "known_processes",
    "process_choice",
    "process_class",
    "processes",
]


def process_class(kind: str) -> type[FailureProcess]:
    """The class of a kind: built in, of an installed package, or `package.module:Class`. Raises PluginError."""
    return PROCESSES.get(kind) or PLUGINS.find(kind)


def processes(config: ProcessConfig) -> tuple[ProcessConfig, ...]:
    """The options of all processes that a configuration composes, or the configuration alone."""
    return config.processes if isinstance(config, ComposeConfig) else (config,)


def known_processes() -> dict[str, type[FailureProcess] | PluginError]:
    """All kinds that have plain names, installed ones last; the error in place of a class that cannot be used."""
    return {**PROCESSES, **{kind: found for kind, found in PLUGINS.known().items() if kind not in PROCESSES}}
