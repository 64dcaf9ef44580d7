"""Parametric loss curve in place of training: for dry runs without torch and fast tests, not for results.

Loss = floor + span · (1 + p / scale)^-exponent with p the effective progress in steps. An edit lowers p by a tenth;
one that restores older weights of the stage, by the stage's share of the progress made since. Swapped routes slow p.
"""

from __future__ import annotations

import zlib

from models.training import Training
from models.training_state import Position

FLOOR, SPAN, SCALE_STEPS, EXPONENT = 1.2, 4.3, 20.0, 0.5
SETBACK_PER_EDIT, SWAP_SLOWDOWN = 0.1, 0.05


class CurveTraining(Training):
    """Losses from a formula; nothing is trained."""

    def train_loss(self, position: Position) -> float:
        """Validation loss plus deterministic noise of at most 0.05."""
        if position.step == 0:
            raise ValueError("no step led to step 0: it has no training loss")
        noise = zlib.crc32(f"{self.spec.data_seed}/{position.step}".encode()) / 2**32 - 0.5
        return self.validation_loss(position) + 0.1 * noise

    def validation_loss(self, position: Position) -> float:
        """Value of the curve at the effective progress of this state."""
        speed = 1.0 - SWAP_SLOWDOWN if len(position.lineage.spec.routes) > 1 else 1.0
        after_edits = [(0, 0.0)]  # (step, progress) of the beginning, then just after each edit
        for step, edit in position.lineage.edits:
            since, progress = after_edits[-1]
            progress += speed * (step - since)
            if edit.goes_back_to is None:
                progress *= 1.0 - SETBACK_PER_EDIT
            else:
                since, older = after_edits[edit.goes_back_to.num_edits]
                lost = progress - (older + speed * (edit.goes_back_to.step - since))
                progress -= max(0.0, lost) / self.spec.model.num_stages
            after_edits.append((step, progress))
        since, progress = after_edits[-1]
        progress += speed * (position.step - since)
        return float(FLOOR + SPAN * (1.0 + progress / SCALE_STEPS) ** -EXPONENT)
