"""Independent failures with random uptimes: exponential, Weibull, lognormal, or none at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.core.distributions import unit_lognormal, unit_weibull
from sim.failures.base import FailureProcess, ProcessConfig, RatedConfig, RenewalProcess


class ExponentialConfig(RatedConfig):
    """Options of `exponential`."""

    kind: Literal["exponential"] = "exponential"


class ExponentialFailures(RenewalProcess):
    """Independent failures at a constant rate: the memoryless process of the CheckFree paper's setting.

    Exponential uptimes with P(failure within an hour) = rate_per_hour, so a rate of -ln(1 - h) per hour.

    Unit draws are scaled by the mean, so that two rates under one seed see the same luck.
    """

    kind = "exponential"
    Config: ClassVar[type[ProcessConfig]] = ExponentialConfig

    def __init__(self, config: ExponentialConfig) -> None:
        self.config: ExponentialConfig = config

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return float(rng.standard_exponential())

    def describe(self) -> str:
        """For captions."""
        return self.config.describe_rate


class WeibullConfig(RatedConfig):
    """Options of `weibull`."""

    kind: Literal["weibull"] = "weibull"
    shape: float = Field(
        0.6, ge=0.1, le=20, description="k: below 1 the young fail most, 1 is exponential, above 1 the old fail most"
    )


class WeibullFailures(RenewalProcess):
    """Failures whose chance depends on age: with a shape below 1 the young fail most, as spot and volunteer nodes do.

    Weibull uptimes of the configured mean: scale = mean / Γ(1 + 1/k). Unit draws are scaled by the mean.
    """

    kind = "weibull"
    Config: ClassVar[type[ProcessConfig]] = WeibullConfig

    def __init__(self, config: WeibullConfig) -> None:
        self.config: WeibullConfig = config

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return unit_weibull(rng, self.config.shape)

    def describe(self) -> str:
        """For captions."""
        return f"each {self.config.scope} {self.config.describe_mean} (Weibull, shape {self.config.shape:.3g})"


class LognormalConfig(RatedConfig):
    """Options of `lognormal`."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: float = Field(1.0, gt=0, le=10, description="standard deviation of the logarithm of an uptime")


class LognormalFailures(RenewalProcess):
    """Failures after lognormal uptimes: most are short, few are very long.

    Lognormal uptimes of the configured mean: mu = ln(mean) - sigma²/2. Unit draws are scaled by the mean.
    """

    kind = "lognormal"
    Config: ClassVar[type[ProcessConfig]] = LognormalConfig

    def __init__(self, config: LognormalConfig) -> None:
        self.config: LognormalConfig = config

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return unit_lognormal(rng, self.config.sigma)

    def describe(self) -> str:
        """For captions."""
        return f"each {self.config.scope} {self.config.describe_mean} (lognormal, sigma {self.config.sigma:.3g})"


class NeverConfig(ProcessConfig):
    """`never` has no options of its own."""

    kind: Literal["never"] = "never"


class NoFailures(FailureProcess):
    """No failures.

    No uptime ever ends.
    """

    kind = "never"
    unit = "seconds"
    Config: ClassVar[type[ProcessConfig]] = NeverConfig

    def __init__(self, config: NeverConfig) -> None:
        self.config: NeverConfig = config

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """None at all."""
        return iter(())

    def describe(self) -> str:
        """For captions."""
        return "no failures"
