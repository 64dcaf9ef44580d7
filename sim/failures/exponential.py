"""Independent failures at a constant rate: the memoryless process of the CheckFree paper's setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from sim.failures.base import FailureProcess, ProcessConfig, RatedConfig


class ExponentialConfig(RatedConfig):
    """Options of `exponential`."""

    kind: Literal["exponential"] = "exponential"


class ExponentialFailures(FailureProcess):
    """Exponential uptimes with P(failure within an hour) = rate_per_hour, so a rate of -ln(1 - h) per hour.

    Unit draws are scaled by the mean, so that two rates under one seed see the same luck.
    """

    kind = "exponential"
    unit = "seconds"
    Config: ClassVar[type[ProcessConfig]] = ExponentialConfig

    def __init__(self, config: ExponentialConfig) -> None:
        self.config: ExponentialConfig = config

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures of one domain."""
        while True:
            yield float(rng.standard_exponential()) * self.config.mean_uptime_seconds

    def in_words(self) -> str:
        """For captions."""
        return self.config.rate_in_words
