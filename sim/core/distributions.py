"""Random durations of a given mean, and distributions of mean 1."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from models.spec import Config
from sim.core.units import SECONDS_PER_HOUR


def unit_weibull(rng: np.random.Generator, shape: float) -> float:
    """A Weibull draw of mean 1: scale · Γ(1 + 1/k) = 1."""
    return float(rng.weibull(shape)) / math.gamma(1.0 + 1.0 / shape)


def unit_lognormal(rng: np.random.Generator, sigma: float) -> float:
    """A lognormal draw of mean 1: mu = -sigma²/2."""
    return math.exp(sigma * float(rng.standard_normal()) - sigma**2 / 2)


class Delay(Config):
    """A random duration, given by its mean."""

    mean_hours: float = Field(ge=1e-9, le=1e6, description="its mean, in hours")
    distribution: Literal["fixed", "exponential", "weibull", "lognormal"] = Field(
        "exponential", description="distribution of durations around the mean"
    )
    spread: float | None = Field(
        None, ge=0.05, le=10, description="weibull: its shape k; lognormal: its sigma; default: 1 for both"
    )

    def seconds(self, rng: np.random.Generator) -> float:
        """One duration, in seconds."""
        mean_seconds, spread = self.mean_hours * SECONDS_PER_HOUR, 1.0 if self.spread is None else self.spread
        if self.distribution == "fixed":
            return mean_seconds
        if self.distribution == "exponential":
            return mean_seconds * float(rng.standard_exponential())
        return mean_seconds * (unit_weibull if self.distribution == "weibull" else unit_lognormal)(rng, spread)
