"""A parametric loss curve behind the training port: dry runs without torch, and fast tests. Not science.

Loss = floor + span · (1 + p / scale)^-exponent with p the effective progress in steps. An edit sets p back
by a tenth; one that brings a stage's own older weights back, by that stage's share (one of the layer stages) of the
progress made since, if any was. Swapped routes slow p by a twentieth. Only the direction of these effects is meant.
"""

from __future__ import annotations

import zlib

from models.spec import Routes, TrainingSpec
from models.training_state import Edit, Position, root

FLOOR, SPAN, SCALE_STEPS, EXPONENT = 1.2, 4.3, 20.0, 0.5
SETBACK_PER_EDIT, SWAP_SLOWDOWN = 0.1, 0.05


class CurveTraining:
    """A training that only pretends: losses from a formula, for every Position at once."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int = 1) -> None:
        self.spec = spec
        self.iterations_per_step = iterations_per_step
        self.num_trained_steps = 0

    def root(self, routes: Routes) -> Position:
        """The state before the first step."""
        return root(self.spec, self.iterations_per_step, routes)

    def train_loss(self, position: Position) -> float:
        """The validation loss with a little deterministic noise."""
        if position.step == 0:
            raise ValueError("no step led to step 0: it has no training loss")
        noise = zlib.crc32(f"{self.spec.data_seed}/{position.step}".encode()) / 2**32 - 0.5
        return self.validation_loss(position) + 0.1 * noise

    def validation_loss(self, position: Position) -> float:
        """The curve at the effective progress of this state."""
        speed = 1.0 - SWAP_SLOWDOWN if len(position.lineage.spec.routes) > 1 else 1.0
        after_edits = [(0, 0.0)]  # (step, progress) of the beginning, then just after each edit
        for step, edit in position.lineage.edits:
            since, progress = after_edits[-1]
            after_edits.append((step, self._set_back(progress + speed * (step - since), edit, after_edits, speed)))
        since, progress = after_edits[-1]
        progress += speed * (position.step - since)
        return float(FLOOR + SPAN * (1.0 + progress / SCALE_STEPS) ** -EXPONENT)

    def _set_back(self, progress: float, edit: Edit, after_edits: list[tuple[int, float]], speed: float) -> float:
        moment = edit.goes_back_to
        if moment is None:
            return progress * (1.0 - SETBACK_PER_EDIT)
        since, older = after_edits[moment.num_edits]
        lost = progress - (older + speed * (moment.step - since))
        return progress - max(0.0, lost) / self.spec.model.num_stages

    def flush(self) -> None:
        """Nothing to keep."""
