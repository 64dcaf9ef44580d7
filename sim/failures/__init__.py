"""Failure processes: when nodes are lost, as pure iterators on named random streams.

Belongs here: one file for each process or family of laws, one line each in the table of `registry.py`.
Does not belong here: strategies, the cluster, the event loop.
"""

from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.registry import PLUGINS, PROCESSES, known_processes, process_choice, process_class, processes

__all__ = [
    "PLUGINS", "PROCESSES", "FailureProcess", "ProcessConfig",
    "known_processes", "process_choice", "process_class", "processes",
]  # fmt: skip
