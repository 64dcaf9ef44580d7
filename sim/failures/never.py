"""A world in which nothing fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from sim.failures.base import FailureProcess, ProcessConfig


class NeverConfig(ProcessConfig):
    """`never` has no options of its own."""

    kind: Literal["never"] = "never"


class NoFailures(FailureProcess):
    """No uptime ever ends."""

    kind = "never"
    unit = "seconds"
    Config: ClassVar[type[ProcessConfig]] = NeverConfig

    def __init__(self, config: NeverConfig) -> None:
        self.config: NeverConfig = config

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """None at all."""
        return iter(())

    def in_words(self) -> str:
        """For captions."""
        return "no failures"
