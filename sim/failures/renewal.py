"""Laws of independent uptimes: exponential, Weibull, lognormal, geometric in iterations; and no failures at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from sim.core.distributions import unit_lognormal, unit_weibull
from sim.failures.base import FailureProcess, ProcessConfig, RatedConfig, Renewal


class ExponentialConfig(RatedConfig):
    """Options of `exponential`."""

    kind: Literal["exponential"] = "exponential"


class ExponentialFailures(Renewal):
    """Independent failures at a constant rate: the memoryless process of the CheckFree paper's setting.

    P(failure within an hour) = rate_per_hour, so the rate is -ln(1 - rate_per_hour) per hour.
    """

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
        0.6, ge=0.1, le=20, description="k: below 1 young nodes fail most, 1 is exponential, above 1 old ones fail most"
    )


class WeibullFailures(Renewal):
    """Failures whose chance depends on age: with a shape below 1 young nodes fail most, as spot and volunteer nodes do.

    Scale = mean / Γ(1 + 1/k).
    """

    Config = WeibullConfig
    config: WeibullConfig

    def unit_draw(self, rng: np.random.Generator) -> float:
        """Weibull of mean 1."""
        return unit_weibull(rng, self.config.shape)

    def describe(self) -> str:
        """What fails how often, and the law."""
        return f"{super().describe()} (Weibull, shape {self.config.shape:.3g})"


class LognormalConfig(RatedConfig):
    """Options of `lognormal`."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: float = Field(1.0, gt=0, le=10, description="standard deviation of the logarithm of an uptime")


class LognormalFailures(Renewal):
    """Failures after lognormal uptimes: most are short, few are very long.

    mu = ln(mean) - sigma²/2.
    """

    Config = LognormalConfig
    config: LognormalConfig

    def unit_draw(self, rng: np.random.Generator) -> float:
        """Lognormal of mean 1."""
        return unit_lognormal(rng, self.config.sigma)

    def describe(self) -> str:
        """What fails how often, and the law."""
        return f"{super().describe()} (lognormal, sigma {self.config.sigma:.3g})"


class PerIterationConfig(ProcessConfig):
    """Options of `bernoulli`."""

    kind: Literal["bernoulli"] = "bernoulli"
    per_iteration_probability: float = Field(
        0.002, ge=0, lt=1, description="chance that a stage fails in one iteration"
    )
    instant: Literal["uniform", "start"] = Field(
        "uniform", description="instant within the iteration: uniformly random, or before its first microbatch"
    )


class PerIterationFailures(FailureProcess):
    """The process of the CheckFree paper's released code: each stage fails with a fixed probability per iteration.

    A slow strategy has as many failures per iteration as a fast one, and fewer per hour, so that the published
    per-iteration and per-hour rates are not equivalent. For comparison with the paper only.
    """

    unit = "iterations"
    Config = PerIterationConfig
    config: PerIterationConfig

    @property
    def mean_uptime_iterations(self) -> float:
        """Mean number of executed iterations from one failure of a stage to the next."""
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
