"""Failure processes: when each stage loses its nodes, as pure iterators on named random streams.

One file for each, one line in `PROCESSES`. A process knows nothing of strategies or of the event loop.
"""

from __future__ import annotations

from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.bernoulli import BernoulliFailures
from sim.failures.exponential import ExponentialFailures
from sim.failures.never import NoFailures

PROCESSES: dict[str, type[FailureProcess]] = {
    process.kind: process for process in (ExponentialFailures, BernoulliFailures, NoFailures)
}

__all__ = ["PROCESSES", "FailureProcess", "ProcessConfig"]
