"""Failures whose rate follows the hour of the day, as owners return to their desktops and clouds fill up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from sim.core.units import SECONDS_PER_HOUR
from sim.failures.base import FailureProcess, RatedConfig

HOURS_PER_DAY = 24


class DiurnalConfig(RatedConfig):
    """Options of `diurnal`. The mean is that over a long time, the inverse of the average rate over a day."""

    kind: Literal["diurnal"] = "diurnal"
    profile: tuple[Annotated[float, Field(ge=0, le=1e9)], ...] | None = Field(
        None,
        min_length=HOURS_PER_DAY,
        max_length=HOURS_PER_DAY,
        description="weight of each hour of the day, from 0 to 23; replaces amplitude and peak_hour",
    )
    amplitude: float = Field(
        0.5, ge=0, le=1, description="a smooth day: rate = average × (1 + amplitude × a cosine), constant in each hour"
    )
    peak_hour: float = Field(15.0, ge=0, lt=HOURS_PER_DAY, description="hour of day at which a smooth day's rate peaks")
    start_hour: float = Field(0.0, ge=0, lt=HOURS_PER_DAY, description="hour of day at simulated time zero")

    @field_validator("profile")
    @classmethod
    def _some_hour_has_weight(cls, profile: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if profile is not None and not sum(profile):
            raise ValueError("all 24 weights are 0; give at least one hour a weight, or rate_per_hour: 0")
        return profile

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each hour of the day."""
        if self.profile is not None:
            return self.profile
        middles = (hour + 0.5 - self.peak_hour for hour in range(HOURS_PER_DAY))
        return tuple(1.0 + self.amplitude * math.cos(2 * math.pi * middle / HOURS_PER_DAY) for middle in middles)


class Day:
    """Conversion between clock hours and weighted hours, which pass in proportion to the weights; both are 24 a day."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        cumulated = np.cumsum([0.0, *weights])
        self._until = HOURS_PER_DAY * cumulated / cumulated[-1]

    def weighted(self, hours: float) -> float:
        """Weighted hours that have passed at a clock hour."""
        days, hour = divmod(hours, HOURS_PER_DAY)
        before = int(hour)
        within = (hour - before) * (self._until[before + 1] - self._until[before])
        return float(days * HOURS_PER_DAY + self._until[before] + within)

    def by_clock(self, weighted_hours: float) -> float:
        """The inverse of `weighted`; for an hour without weight, its end."""
        days, rest = divmod(weighted_hours, HOURS_PER_DAY)
        before = int(np.searchsorted(self._until, rest, side="right")) - 1
        within = (rest - self._until[before]) / (self._until[before + 1] - self._until[before])
        return float(days * HOURS_PER_DAY + before + within)


class DiurnalFailures(FailureProcess):
    """Failures whose rate follows the hour of the day, as desktop use and cloud demand do.

    A Poisson process whose rate is constant within each hour of the day, and the same every day.

    Draws are unit exponential cumulative hazards: an uptime ends when the integral of the rate reaches its draw
    (inversion, exact since the rate is piecewise constant).
    """

    Config = DiurnalConfig
    config: DiurnalConfig

    def __init__(self, config: DiurnalConfig, begin_seconds: float = 0.0) -> None:
        super().__init__(config)
        self._begin_seconds = begin_seconds

    def starting_at(self, now_seconds: float) -> DiurnalFailures:
        """The process for uptimes that count from an instant of simulated time."""
        return DiurnalFailures(self.config, now_seconds)

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures of one domain."""
        mean_hours = self.config.mean_uptime_seconds / SECONDS_PER_HOUR
        if math.isinf(mean_hours):
            return
        day = Day(self.config.weights)
        hours = self.config.start_hour + self._begin_seconds / SECONDS_PER_HOUR
        weighted_hours = day.weighted(hours)
        while True:
            weighted_hours += float(rng.standard_exponential()) * mean_hours
            failed_at = day.by_clock(weighted_hours)
            yield (failed_at - hours) * SECONDS_PER_HOUR
            hours = failed_at

    def describe(self) -> str:
        """For captions."""
        weights = self.config.weights
        most = HOURS_PER_DAY * max(weights) / sum(weights)
        peak = weights.index(max(weights))
        by_hour = f"by the hour of day, {most:.3g} × as often at {peak}:00"
        return f"each {self.config.scope} {self.config.describe_mean} ({by_hour})"
