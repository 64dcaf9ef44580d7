"""Independent failures at a constant rate: the memoryless process of the CheckFree paper's setting."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from sim.failures.base import ProcessConfig, RatedConfig, RenewalProcess


class ExponentialConfig(RatedConfig):
    """Options of `exponential`."""

    kind: Literal["exponential"] = "exponential"


class ExponentialFailures(RenewalProcess):
    """Exponential uptimes with P(failure within an hour) = rate_per_hour, so a rate of -ln(1 - h) per hour.

    Unit draws are scaled by the mean, so that two rates under one seed see the same luck.
    """

    kind = "exponential"
    Config: ClassVar[type[ProcessConfig]] = ExponentialConfig

    def __init__(self, config: ExponentialConfig) -> None:
        self.config: ExponentialConfig = config

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return float(rng.standard_exponential())

    def in_words(self) -> str:
        """For captions."""
        return self.config.rate_in_words
