"""Interface between simulation and learning: a Position goes in, a loss comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from models.spec import Routes, TrainingSpec
from models.training_state import Position, root


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
