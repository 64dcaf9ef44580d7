"""The table of failure processes, and the type of a scenario field that names one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.core.choice import choice
from sim.core.plugins import Plugins
from sim.failures.base import FailureProcess, ProcessConfig
from sim.failures.correlated import BulkFailures, OutageFailures
from sim.failures.diurnal import DiurnalFailures
from sim.failures.per_iteration import PerIterationFailures
from sim.failures.poisson import PoissonFailures
from sim.failures.renewal import ExponentialFailures, LognormalFailures, NoFailures, WeibullFailures
from sim.failures.script import ScriptFailures
from sim.failures.trace import TraceFailures

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
"""Built-in processes, in the order in which they are listed; `compose` and `never` follow. Add a new one here."""

COMPOSABLE: dict[str, type[FailureProcess]] = {
    **{process.kind: process for process in SINGLE},
    NoFailures.kind: NoFailures,
}
"""Built-in processes by kind, without `compose`."""

PLUGINS: Plugins[FailureProcess] = Plugins("churnlab.failures", FailureProcess, ProcessConfig)
"""Failure processes from outside; entry points of this group name them."""


def process_choice(processes: Sequence[type[FailureProcess]]) -> Any:
    """The type of a field that holds the options of one of these processes, a preset, or a process from outside."""
    return choice([process.Config for process in processes], PLUGINS, "failures")


def build_process(config: ProcessConfig) -> FailureProcess:
    """The process of a configuration other than that of `compose`."""
    return (COMPOSABLE.get(config.kind) or PLUGINS.find(config.kind))(config)
