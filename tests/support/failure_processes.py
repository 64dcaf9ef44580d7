"""Failures by script that the product's `script` cannot say, as plug-ins that a scenario names by their path.

`ScriptedFailures` counts iterations, or fails nodes by number and age, or has nodes come of themselves; `Losses` takes
nodes of several places, and spares, at one instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sim.failures import FailureProcess, ProcessConfig
from sim.failures.base import Member

Script = dict[Any, tuple[float, ...]]
"""Uptimes of each stage (or other domain) that fails; when the script ends, nothing fails any more."""


class ScriptedConfig(ProcessConfig):
    """Options of `scripted`."""

    kind: str = f"{__name__}:ScriptedFailures"
    uptimes: Script = Field(default_factory=dict)
    unit: Literal["seconds", "iterations"] = "seconds"
    scope: Literal["node", "stage", "region", "cluster"] = "stage"
    away_seconds: float | None = None
    num_initial_nodes: int | None = None
    arrivals: tuple[int, ...] = ()


class ScriptedFailures(FailureProcess):
    """Failures of stages, nodes or regions by script; lost nodes return after `away_seconds`, if given."""

    kind = "scripted"
    unit = "seconds"
    Config = ScriptedConfig

    def __init__(self, config: ScriptedConfig) -> None:
        self.config = config
        self.unit = config.unit
        self._left = {domain: iter(uptimes) for domain, uptimes in config.uptimes.items()}

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        return self._left.get(domain, iter(()))  # a node that returns goes on in the script

    def downtimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float | None]:
        return repeat(self.config.away_seconds) if self.config.away_seconds is not None else iter(())

    def arrivals(self, index: int) -> int:
        return self.config.arrivals[index] if index < len(self.config.arrivals) else 0

    @property
    def num_initial_nodes(self) -> int | None:
        return self.config.num_initial_nodes

    def describe(self) -> str:
        return "failures by script"


class Loss(NamedTuple):
    """Lost slots, seconds since the loss before, and downtime: (stage, replica), None for any; stage -1: spares."""

    after_seconds: float
    who: tuple[tuple[int | None, int | None], ...]
    away_seconds: float | None = None


class LossesConfig(ProcessConfig):
    """Options of `losses`; beside: other such processes at the same time."""

    kind: str = f"{__name__}:Losses"
    scope: Literal["cluster"] = "cluster"
    losses: tuple[Loss, ...] = ()
    beside: tuple[LossesConfig, ...] = ()


class Losses(FailureProcess):
    """Losses of any nodes together by script."""

    kind = "losses"
    unit = "seconds"
    Config = LossesConfig

    def __init__(self, config: LossesConfig) -> None:
        self.config = config

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        return (("losses", self), *((f"losses {n}", Losses(other)) for n, other in enumerate(self.config.beside)))

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        return iter([loss.after_seconds for loss in self.config.losses])

    def downtimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float | None]:
        return iter([loss.away_seconds for loss in self.config.losses])

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:
        def leaves(member: Member) -> bool:
            place = (-1 if member.stage is None else member.stage, member.replica)
            return any(
                all(wanted in (None, found) for wanted, found in zip(who, place, strict=True))
                for who in self.config.losses[index].who
            )

        return [member.number for member in members if leaves(member)]

    def describe(self) -> str:
        return "losses by script"
