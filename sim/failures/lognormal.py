"""Failures after lognormal uptimes: most are short, few are very long."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.delays import unit_lognormal
from sim.failures.base import ProcessConfig, RatedConfig, RenewalProcess


class LognormalConfig(RatedConfig):
    """Options of `lognormal`."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: float = Field(1.0, gt=0, le=10, description="standard deviation of the logarithm of an uptime")


class LognormalFailures(RenewalProcess):
    """Lognormal uptimes of the configured mean: mu = ln(mean) - sigma²/2. Unit draws are scaled by the mean."""

    kind = "lognormal"
    Config: ClassVar[type[ProcessConfig]] = LognormalConfig

    def __init__(self, config: LognormalConfig) -> None:
        self.config: LognormalConfig = config

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return unit_lognormal(rng, self.config.sigma)

    def in_words(self) -> str:
        """For captions."""
        return f"each {self.config.scope} {self.config.how_often} (lognormal, sigma {self.config.sigma:.3g})"
