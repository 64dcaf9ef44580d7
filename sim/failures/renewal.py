"""Laws of independent uptimes: exponential, Weibull, lognormal; and no failures at all."""

from __future__ import annotations

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
