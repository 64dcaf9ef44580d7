"""How a scenario names a failure process: a kind, a preset, or a class from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.failures.base import FailureProcess, ProcessConfig
from sim.kinds import Plugins, choice

PLUGINS: Plugins[FailureProcess] = Plugins("churnlab.failures", FailureProcess, ProcessConfig)
"""Failure processes from outside; entry points of this group name them."""


def process_choice(configs: Sequence[type[ProcessConfig]]) -> Any:
    """The type of a field that holds a failure process's configuration: one of these, a preset, or one from outside."""
    return choice(configs, PLUGINS, "failures")
