"""Interface between simulation and learning: a Position goes in, a loss comes out; and learners that train nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field
from typing import ClassVar

from models.spec import Routes, TrainingSpec
from models.training_state import DivergedError, Lineage, Position, root


class Training(ABC):
    """Losses of training states, in nats per token."""

    learns: ClassVar[bool] = True
    """Whether losses exist; False: only the seconds of a run are wanted."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int = 1) -> None:
        self.spec, self.iterations_per_step = spec, iterations_per_step
        self.num_trained_steps = 0

    def root(self, routes: Routes) -> Position:
        """State before the first step, when microbatches take the given routes."""
        return root(self.spec, self.iterations_per_step, routes)

    @abstractmethod
    def train_loss(self, position: Position) -> float | None:
        """Loss of the batch of the step that led to this state; None where nothing is learnt.

        Raises ValueError at step 0, DivergedError when training diverges on the way.
        """

    @abstractmethod
    def validation_loss(self, position: Position) -> float | None:
        """Loss on held-out text at this state; None where nothing is learnt."""

    def flush(self) -> None:  # noqa: B027
        """Make all results durable, where they are stored."""


class NoTraining(Training):
    """Training without losses, for runs of which only the seconds matter."""

    learns = False

    def train_loss(self, position: Position) -> None:
        """None."""

    def validation_loss(self, position: Position) -> None:
        """None."""


@dataclass
class ReplayedLosses:
    """Losses by the key of a line and the step, in nats per token; train: a step, and the losses from there on or NaN.

    divergences: messages of lines that diverged; invalid: of states whose validation loss is not finite.
    """

    train: dict[str, tuple[int, array[float]]] = field(default_factory=dict)
    validation: dict[str, dict[int, float]] = field(default_factory=dict)
    divergences: dict[str, str] = field(default_factory=dict)
    invalid: dict[str, dict[int, str]] = field(default_factory=dict)


class ReplayedTraining(Training):
    """Losses from `ReplayedLosses`; DivergedError where training diverged, RuntimeError where a loss is missing."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int, losses: ReplayedLosses) -> None:
        super().__init__(spec, iterations_per_step)
        self.losses = losses

    def train_loss(self, position: Position) -> float:
        """Loss of the batch of the step that led to this state, in nats per token."""
        lineage = position.line_of_step
        first_step, losses = self.losses.train.get(lineage.key, (0, ()))
        index = position.step - first_step
        if 0 <= index < len(losses) and not math.isnan(losses[index]):
            return losses[index]
        raise self._missing(lineage, position.step)

    def validation_loss(self, position: Position) -> float:
        """Loss on held-out text at this state, in nats per token."""
        losses = self.losses.validation.get(position.lineage.key, {})
        if position.step in losses:
            return losses[position.step]
        raise self._missing(position.lineage, position.step)

    def _missing(self, lineage: Lineage, step: int) -> Exception:
        """Error for a missing loss."""
        if message := self.losses.invalid.get(lineage.key, {}).get(step):
            return DivergedError(message)
        for key in reversed(lineage.keys):
            if key in self.losses.divergences:
                return DivergedError(self.losses.divergences[key])
        return RuntimeError(f"no loss is stored for step {step} of line {lineage.key}")
