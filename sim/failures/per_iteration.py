"""Failures per iteration, as in the CheckFree paper's released code: a fixed chance in each, whatever its duration.

A slow strategy then has as many failures per iteration as a fast one, and fewer per hour, so that the published
per-iteration and per-hour rates are not equivalent. For comparison with the paper only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from sim.failures.base import FailureProcess, ProcessConfig


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
    """The released code's process: each stage fails with a fixed probability in every iteration, however long it is.

    Geometric numbers of iterations between failures of a stage.
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
        """Iterations between failures of one stage; see `FailureProcess.unit` for the fraction."""
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
