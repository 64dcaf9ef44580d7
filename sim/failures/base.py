"""The contract of a failure process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from models.lineage import Config


class ProcessConfig(Config):
    """Options that every failure process has."""

    kind: str
    immune_stages: tuple[int, ...] = Field(
        (), description="stages that never fail; 0 holds embedding and head, which the paper's runs spare"
    )


class FailureProcess(ABC):
    """Draws, for each stage, the uptimes between one failure and the next.

    `unit` is the clock of an uptime: seconds of simulated time, or iterations executed (the whole part
    counts iterations that end without this failure, the fraction is the instant in the one that fails).
    Uptimes count from the failure before, whatever a strategy does meanwhile: all strategies meet the same
    failures. A failure that finds its stage still vacant strikes nobody.
    """

    kind: ClassVar[str]
    unit: ClassVar[Literal["seconds", "iterations"]]
    Config: ClassVar[type[ProcessConfig]]
    config: ProcessConfig

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Take the process's own options."""

    @abstractmethod
    def uptimes(self, rng: np.random.Generator, stage: int) -> Iterator[float]:
        """Endless uptimes of a stage, in `unit`s."""

    @abstractmethod
    def in_words(self) -> str:
        """The process in a few words, for captions."""
