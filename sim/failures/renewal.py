"""Independent failures: laws of uptimes, by the hour of the day, of many nodes at once, by iteration; and none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from sim.core.distributions import unit_lognormal, unit_weibull
from sim.core.units import HOURS_PER_DAY, SECONDS_PER_HOUR
from sim.failures.base import (
    FailureProcess,
    MeanConfig,
    Member,
    ProcessConfig,
    RatedConfig,
    Renewal,
    Scope,
)

NUM_DRAWN_AT_ONCE = 256


class ExponentialConfig(RatedConfig):
    """Options of `exponential`."""

    kind: Literal["exponential"] = "exponential"


class ExponentialFailures(Renewal):
    """Independent failures at a constant rate: the memoryless process of the CheckFree paper's setting."""

    Config = ExponentialConfig
    config: ExponentialConfig

    def unit_draw(self, rng: np.random.Generator) -> float:
        """Exponential of mean 1."""
        return float(rng.standard_exponential())

    def describe(self) -> str:
        """What fails how often, as the scenario states it."""
        return self.config.describe_rate


class WeibullConfig(RatedConfig):
    """Options of `weibull`."""

    kind: Literal["weibull"] = "weibull"
    shape: float = Field(
        0.6,
        ge=0.1,
        le=20,
        description="k: below 1 young nodes fail most often, 1 is exponential, above 1 old nodes fail most often",
    )


class WeibullFailures(Renewal):
    """Failures whose chance depends on age: with a shape below 1 young nodes fail most, as spot machines do."""

    Config = WeibullConfig
    config: WeibullConfig
    law = "Weibull, shape {0.shape:.3g}"

    def unit_draw(self, rng: np.random.Generator) -> float:
        """Weibull of mean 1."""
        return unit_weibull(rng, self.config.shape)


class LognormalConfig(RatedConfig):
    """Options of `lognormal`."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: float = Field(1.0, gt=0, le=10, description="standard deviation of the logarithm of an uptime")


class LognormalFailures(Renewal):
    """Failures after lognormal uptimes: most are short, few are very long."""

    Config = LognormalConfig
    config: LognormalConfig
    law = "lognormal, sigma {0.sigma:.3g}"

    def unit_draw(self, rng: np.random.Generator) -> float:
        """Lognormal of mean 1."""
        return unit_lognormal(rng, self.config.sigma)


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
    """Conversion between clock hours and weighted hours, which pass in proportion to the weights (24 per day each)."""

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

    A Poisson process whose rate is constant within each hour of the day. An uptime ends when the integral of the rate
    reaches a unit exponential draw (inversion).
    """

    Config = DiurnalConfig
    config: DiurnalConfig
    begin_seconds = 0.0

    def starting_at(self, now_seconds: float) -> Self:
        """A copy of the process for uptimes that count from an instant of simulated time."""
        process = copy(self)
        process.begin_seconds = now_seconds
        return process

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures of one domain."""
        mean_hours = self.config.mean_uptime_seconds / SECONDS_PER_HOUR
        if math.isinf(mean_hours):
            return
        day = Day(self.config.weights)
        hours = self.config.start_hour + self.begin_seconds / SECONDS_PER_HOUR
        weighted_hours = day.weighted(hours)
        while True:
            weighted_hours += float(rng.standard_exponential()) * mean_hours
            failed_at = day.by_clock(weighted_hours)
            yield (failed_at - hours) * SECONDS_PER_HOUR
            hours = failed_at

    def describe(self) -> str:
        """For captions."""
        weights = self.config.weights
        most, peak = HOURS_PER_DAY * max(weights) / sum(weights), weights.index(max(weights))
        by_hour = f"by the hour of day, {most:.3g} × as often at {peak}:00"
        return f"each {self.config.scope} {self.config.describe_mean} ({by_hour})"


class PoissonConfig(MeanConfig):
    """Options of `poisson`. Rate and mean are those of a node."""

    kind: Literal["poisson"] = "poisson"


class PoissonFailures(FailureProcess):
    """Independent node failures at a constant rate, drawn as one process: for clusters of thousands of nodes.

    In law this is `exponential` of scope `node` (superposition), with one random stream in place of one per node:
    failures at the rate of as many nodes as at time zero, spares included, each of which takes one of as many slots at
    random, a present node or none. If more nodes are present than at time zero, all together fail as often as those
    did. A failure at an immune stage has no effect.
    """

    Config = PoissonConfig
    config: PoissonConfig
    scope: Scope = "cluster"
    accepts_any_order = True
    num_nodes: int | None = None

    def for_members(self, members: Sequence[Member]) -> Self:
        """A copy of the process for so many nodes."""
        process = copy(self)
        process.num_nodes = len(members)
        return process

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between failures of the nodes present at time zero."""
        assert self.num_nodes is not None, "poisson needs for_members first"
        return self.config.mean_uptime_seconds / self.num_nodes if self.num_nodes else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures."""
        mean_seconds = self.mean_uptime_seconds
        while not math.isinf(mean_seconds):
            for unit in rng.standard_exponential(NUM_DRAWN_AT_ONCE).tolist():
                yield unit * mean_seconds

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """One of the present nodes, each with the same chance, or none."""
        assert self.num_nodes is not None, "poisson needs for_members first"
        found = int(rng.random() * max(self.num_nodes, len(members)))
        return [members[found].number] if found < len(members) else []

    def describe(self) -> str:
        """For captions."""
        return f"each node {self.config.describe_mean}"


class PerIterationConfig(ProcessConfig):
    """Options of `bernoulli`."""

    kind: Literal["bernoulli"] = "bernoulli"
    per_iteration_probability: float = Field(
        0.002, ge=0, lt=1, description="probability that a stage fails in one iteration"
    )
    instant: Literal["uniform", "start"] = Field(
        "uniform", description="instant within the iteration: uniformly random, or before its first microbatch"
    )


class PerIterationFailures(FailureProcess):
    """The process of the CheckFree paper's released code: each stage fails with a fixed probability per iteration.

    Iterations of the training are meant: one that is executed again, after a recovery or a rollback, has no more
    failures, so that every strategy has as many. For comparison with the paper only: a slow strategy has as many
    failures per iteration, and fewer per hour.
    """

    unit = "iterations"
    Config = PerIterationConfig
    config: PerIterationConfig

    @property
    def mean_uptime_iterations(self) -> float:
        """Mean number of iterations of the training from one failure of a stage to the next."""
        chance = self.config.per_iteration_probability
        return 1.0 / chance if chance else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Geometric numbers of iterations between failures of one stage; the fraction is the instant."""
        if self.config.per_iteration_probability == 0.0:
            return
        failed_at, next_iteration = 0.0, 0
        while True:
            iteration = next_iteration + int(rng.geometric(self.config.per_iteration_probability)) - 1
            fraction = float(rng.random()) if self.config.instant == "uniform" else 0.0
            yield iteration + fraction - failed_at
            failed_at, next_iteration = iteration + fraction, iteration + 1

    def describe(self) -> str:
        """For captions."""
        return f"each stage fails in an iteration with a chance of {100 * self.config.per_iteration_probability:.3g} %"


class NeverConfig(ProcessConfig):
    """`never` has no options of its own."""

    kind: Literal["never"] = "never"


class NoFailures(FailureProcess):
    """No failures."""

    Config = NeverConfig

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """No uptime ever ends."""
        return iter(())

    def describe(self) -> str:
        """For captions."""
        return "no failures"
