"""Independent stage failures at a constant rate: the memoryless process of the CheckFree paper's setting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.failures.base import FailureProcess, ProcessConfig


class ExponentialConfig(ProcessConfig):
    """Options of `exponential`."""

    kind: Literal["exponential"] = "exponential"
    rate_per_hour: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="chance that a stage fails within an hour (0.1 = 10 %), as the paper states rates",
    )


class ExponentialFailures(FailureProcess):
    """Exponential uptimes with P(failure within an hour) = rate_per_hour, so a rate of -ln(1 - h) per hour.

    Unit draws are scaled by the mean, so that two rates under one seed see the same luck. A replacement is
    as good as new, which for this process is no different from an old one.
    """

    kind = "exponential"
    unit = "seconds"
    Config: ClassVar[type[ProcessConfig]] = ExponentialConfig

    def __init__(self, config: ExponentialConfig) -> None:
        self.config: ExponentialConfig = config
        rate_per_second = -math.log1p(-config.rate_per_hour) / 3600.0
        self.mean_seconds = 1.0 / rate_per_second if rate_per_second else math.inf

    def uptimes(self, rng: np.random.Generator, stage: int) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures of one stage."""
        while True:
            yield float(rng.standard_exponential()) * self.mean_seconds

    def in_words(self) -> str:
        """For captions."""
        return f"each stage fails within an hour with a chance of {100 * self.config.rate_per_hour:.3g} %"
