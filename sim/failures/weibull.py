"""Failures whose chance depends on age: with a shape below 1 the young fail most, as spot and volunteer nodes do."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.delays import unit_weibull
from sim.failures.base import ProcessConfig, RatedConfig, RenewalProcess


class WeibullConfig(RatedConfig):
    """Options of `weibull`."""

    kind: Literal["weibull"] = "weibull"
    shape: float = Field(
        0.6, ge=0.1, le=20, description="k: below 1 the young fail most, 1 is exponential, above 1 the old fail most"
    )


class WeibullFailures(RenewalProcess):
    """Weibull uptimes of the configured mean: scale = mean / Γ(1 + 1/k). Unit draws are scaled by the mean."""

    kind = "weibull"
    Config: ClassVar[type[ProcessConfig]] = WeibullConfig

    def __init__(self, config: WeibullConfig) -> None:
        self.config: WeibullConfig = config

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return unit_weibull(rng, self.config.shape)

    def in_words(self) -> str:
        """For captions."""
        return f"each {self.config.scope} {self.config.how_often} (Weibull, shape {self.config.shape:.3g})"
