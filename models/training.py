"""The port between simulation and learning: a Position goes in, a loss comes out."""

from __future__ import annotations

from typing import Protocol

from models.spec import Routes, TrainingSpec
from models.training_state import Position, root


class Training(Protocol):
    """Turns training states into losses (nats per token). Implemented by `models.trajectory.Trajectory`."""

    num_trained_steps: int

    def root(self, routes: Routes) -> Position:
        """The state before the first step, when microbatches take the given routes."""
        ...

    def train_loss(self, position: Position) -> float | None:
        """Loss of the batch of the step that led to this state. ValueError at step 0. None where nothing learns."""
        ...

    def validation_loss(self, position: Position) -> float | None:
        """Loss on held-out text at this state. None where nothing learns."""
        ...

    def flush(self) -> None:
        """Make what is known durable."""
        ...


class NoTraining:
    """Time only: Positions without losses."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int = 1) -> None:
        self.spec, self.iterations_per_step = spec, iterations_per_step
        self.num_trained_steps = 0

    def root(self, routes: Routes) -> Position:
        """The state before the first step."""
        return root(self.spec, self.iterations_per_step, routes)

    def train_loss(self, position: Position) -> float | None:  # noqa: ARG002
        """Nothing was learnt."""
        return None

    def validation_loss(self, position: Position) -> float | None:  # noqa: ARG002
        """Nothing was learnt."""
        return None

    def flush(self) -> None:
        """Nothing to keep."""
