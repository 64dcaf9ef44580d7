"""Interface between simulation and learning: a Position goes in, a loss comes out; and learners that train nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field
from typing import ClassVar

from models.spec import Routes, TrainingSpec
from models.state_graph import all_lines
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

    def train_loss(self, position: Position) -> float | None:
        """Loss of the batch of the step that led to this state; None where nothing is learnt.

        Of several replicas: the mean loss of the steps of those that take part, weighted by the rows each trains on; a
        step that several share counts once. Raises ValueError at step 0, DivergedError when training diverges on the
        way.
        """
        if position.step == 0:
            raise ValueError("no step led to step 0: it has no training loss and no gradient")
        states = [replica for replica in position.replicas if replica] if position.replicas else [position]
        lines = dict.fromkeys(state.line_of_step for state in states)
        learning = [lineage for lineage in lines if not lineage.is_at_rest]
        losses = [self.loss_of_step(lineage, position.step) for lineage in learning]
        found = [loss for loss in losses if loss is not None]
        if len(losses) < 2 or len(found) < len(losses):
            return found[0] if len(found) == len(losses) == 1 else None
        nums_rows = [lineage.recipe.num_rows(lineage.spec) for lineage in learning]
        return sum(num * loss for num, loss in zip(nums_rows, found, strict=True)) / sum(nums_rows)

    def validation_loss(self, position: Position) -> float | None:
        """Loss on held-out text at this state; None where nothing is learnt.

        Of several replicas: that of the global weights, which change in merges alone.
        """
        return self.validation_loss_of(position.settled)

    @abstractmethod
    def loss_of_step(self, lineage: Lineage, step: int) -> float | None:
        """Loss of the batch of a step of a line, which led to its state at `step`; the line is not at rest there."""

    @abstractmethod
    def validation_loss_of(self, state: Position) -> float | None:
        """Loss on held-out text at the state of a single line, a settled Position."""

    def flush(self) -> None:  # noqa: B027
        """Make all results durable, where they are stored."""


class NoTraining(Training):
    """Training without losses, for runs of which only the seconds matter."""

    learns = False

    def loss_of_step(self, lineage: Lineage, step: int) -> None:
        """None."""

    def validation_loss_of(self, state: Position) -> None:
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

    def loss_of_step(self, lineage: Lineage, step: int) -> float:
        """Loss of the batch of a step, in nats per token."""
        first_step, losses = self.losses.train.get(lineage.key, (0, ()))
        index = step - first_step
        if 0 <= index < len(losses) and not math.isnan(losses[index]):
            return losses[index]
        raise self._missing(lineage, step)

    def validation_loss_of(self, state: Position) -> float:
        """Loss on held-out text at a state, in nats per token."""
        losses = self.losses.validation.get(state.lineage.key, {})
        if state.step in losses:
            return losses[state.step]
        raise self._missing(state.lineage, state.step)

    def _missing(self, lineage: Lineage, step: int) -> Exception:
        """Error for a missing loss."""
        if message := self.losses.invalid.get(lineage.key, {}).get(step):
            return DivergedError(message)
        for line in reversed(all_lines({lineage: step})):
            if line.key in self.losses.divergences:
                return DivergedError(self.losses.divergences[line.key])
        return RuntimeError(f"no loss is stored for step {step} of line {lineage.key}")
