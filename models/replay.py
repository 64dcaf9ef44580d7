"""Losses that are known already, behind the training port: what a run is played with when its training is done."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from models.spec import Routes, TrainingSpec
from models.training_state import DivergedError, Lineage, Position, root


@dataclass
class ReplayedLosses:
    """Training and validation losses by the key of a line and the step, in nats per token.

    train: a step, and the losses of the steps from it on, NaN where one is not known: long runs have many.
    dead_ends: what there is to say of lines of which the next step could not be made; invalid: of states of which the
    validation loss is not finite.
    """

    train: dict[str, tuple[int, array[float]]] = field(default_factory=dict)
    validation: dict[str, dict[int, float]] = field(default_factory=dict)
    dead_ends: dict[str, str] = field(default_factory=dict)
    invalid: dict[str, dict[int, str]] = field(default_factory=dict)


class ReplayedTraining:
    """Answers from what is known; implements `models.training.Training`.

    DivergedError where training came to an end on the way to a state, RuntimeError where nothing is known of it.
    """

    def __init__(self, spec: TrainingSpec, iterations_per_step: int, losses: ReplayedLosses) -> None:
        self.spec, self.iterations_per_step, self.losses = spec, iterations_per_step, losses
        self.num_trained_steps = 0

    def root(self, routes: Routes) -> Position:
        """The state before the first step."""
        return root(self.spec, self.iterations_per_step, routes)

    def train_loss(self, position: Position) -> float:
        """Loss of the batch of the step that led to this state, in nats per token."""
        lineage = position.line_of_step
        first_step, losses = self.losses.train.get(lineage.key, (0, ()))
        place = position.step - first_step
        if 0 <= place < len(losses) and not math.isnan(losses[place]):
            return losses[place]
        raise self._unknown(lineage, position.step)

    def validation_loss(self, position: Position) -> float:
        """Loss on held-out text at this state, in nats per token."""
        loss = self.losses.validation.get(position.lineage.key, {}).get(position.step)
        if loss is None:
            raise self._unknown(position.lineage, position.step)
        return loss

    def _unknown(self, lineage: Lineage, step: int) -> Exception:
        """Why a loss is not known."""
        if message := self.losses.invalid.get(lineage.key, {}).get(step):
            return DivergedError(message)
        for key in reversed(lineage.keys):
            if key in self.losses.dead_ends:
                return DivergedError(self.losses.dead_ends[key])
        return RuntimeError(f"nothing is known of step {step} of line {lineage.key}")

    def flush(self) -> None:
        """Nothing to keep."""
