"""Failure processes: when nodes are lost, as pure iterators on named random streams.

Each process has a line in the table of `registry.py`. Strategies and the event loop do not belong here.
"""

from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.registry import (
    PLUGINS,
    PROCESSES,
    known_processes,
    process_choice,
    process_class,
    processes,
    with_default_scope,
)

__all__ = [
    "PLUGINS",
    "PROCESSES",
    "FailureProcess",
    "ProcessConfig",
    "known_processes",
    "process_choice",
    "process_class",
    "processes",
    "with_default_scope",
]
