"""Scripted failures: given nodes at given times, for tests and for what-if questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from models.spec import Config
from sim.core.text import format_count
from sim.core.units import SECONDS_PER_HOUR, to_ticks
from sim.failures.base import FailureProcess, Member, ProcessConfig, Scope


class Loss(Config):
    """One loss: its time, and the nodes that match all conditions given."""

    at_seconds: float | None = Field(None, ge=0, le=1e9, description="time of the loss, in seconds of simulated time")
    at_hours: float | None = Field(None, ge=0, le=1e6, description="time of the loss in hours, instead of at_seconds")
    stages: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="nodes of these stages; default: of any")
    replica: int | None = Field(None, ge=0, description="nodes of this pipeline; default: of any")
    region: str | None = Field(None, description="nodes in this region; default: in any")
    downtime_hours: float | None = Field(
        None, ge=0, le=1e6, description="the same nodes return after it; default: never, and replacements are ordered"
    )

    @model_validator(mode="after")
    def _time_and_nodes_are_given(self) -> Self:
        if (self.at_seconds is None) == (self.at_hours is None):
            raise ValueError("a loss has a time: give one of at_seconds, at_hours")
        if not self.stages and self.region is None:
            raise ValueError("a loss concerns some nodes: give stages, a region, or both")
        return self

    @property
    def seconds(self) -> float:
        """Time of the loss, rounded to ticks."""
        return to_ticks(self.at_seconds if self.at_hours is None else self.at_hours * SECONDS_PER_HOUR)  # type: ignore[arg-type]

    def takes(self, member: Member) -> bool:
        """Whether a node matches the conditions; a spare has neither stage nor replica."""
        return (
            (not self.stages or member.stage in self.stages)
            and (self.replica is None or member.replica == self.replica)
            and (self.region is None or member.region == self.region)
        )


class ScriptConfig(ProcessConfig):
    """Options of `script`."""

    kind: Literal["script"] = "script"
    losses: tuple[Loss, ...] = Field((), description="the losses, in any order of times")

    @model_validator(mode="after")
    def _immune_stages_are_not_lost(self) -> Self:
        if immune := sorted({stage for loss in self.losses for stage in loss.stages} & set(self.immune_stages)):
            raise ValueError(f"stages {immune} have losses, but are among immune_stages")
        return self


class ScriptFailures(FailureProcess):
    """Failures as written down: these nodes, at these times. For tests and for what-if questions.

    Losses at one time are separate failures, in the order of the scenario. `notice_seconds` applies to all of them, but
    a notice is never longer than the time since the loss before.
    """

    Config = ScriptConfig
    config: ScriptConfig
    scope: Scope = "cluster"

    def __init__(self, config: ScriptConfig) -> None:
        super().__init__(config)
        self._losses = sorted(config.losses, key=lambda loss: loss.seconds)

    @property
    def mean_uptime_seconds(self) -> float:
        """Time until the last loss, divided by their number."""
        last_seconds = self._losses[-1].seconds if self._losses else 0.0
        return last_seconds / len(self._losses) if last_seconds else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds from one loss to the next: differences of ticks, so that their sums are exact."""
        for before, after in pairwise([0.0, *(loss.seconds for loss in self._losses)]):
            yield after - before

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """The present nodes that match the conditions of the loss."""
        return [member.number for member in members if self._losses[index].takes(member)]

    def downtimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float | None]:  # noqa: ARG002
        """The downtime of each loss."""
        for loss in self._losses:
            yield None if loss.downtime_hours is None else loss.downtime_hours * SECONDS_PER_HOUR

    def describe(self) -> str:
        """For captions."""
        return f"{format_count(len(self._losses), 'loss', 'losses')} by script"
