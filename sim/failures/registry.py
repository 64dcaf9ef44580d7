"""How a scenario names a failure process: a kind, a preset, or a class from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.core.plugins import Plugins, choice
from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.correlated import BulkFailures, OutageFailures
from sim.failures.diurnal import DiurnalFailures
from sim.failures.per_iteration import PerIterationFailures
from sim.failures.poisson import PoissonFailures
from sim.failures.renewal import ExponentialFailures, LognormalFailures, WeibullFailures
from sim.failures.script import ScriptFailures
from sim.failures.trace import TraceFailures

PLUGINS: Plugins[FailureProcess] = Plugins("churnlab.failures", FailureProcess, ProcessConfig)
"""Failure processes from outside; entry points of this group name them."""


def process_choice(configs: Sequence[type[ProcessConfig]]) -> Any:
    """The type of a field that holds a failure process's configuration: one of these, a preset, or one from outside."""
    return choice(configs, PLUGINS, "failures")


SINGLE: tuple[type[FailureProcess], ...] = (
    ExponentialFailures,
    WeibullFailures,
    LognormalFailures,
    DiurnalFailures,
    PoissonFailures,
    PerIterationFailures,
    OutageFailures,
    BulkFailures,
    ScriptFailures,
    TraceFailures,
)
"""Processes that can be composed, `never` apart."""
