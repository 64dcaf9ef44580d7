"""Parametric loss curve in place of training: for dry runs without torch and fast tests, not for results.

Loss = floor + span · (1 + p / scale)^-exponent with p the effective progress in steps. An edit lowers p by a tenth;
one that restores older weights of the stage, by the stage's share of the progress made since. Swapped routes slow p.
While a recipe is in force, p grows by the share of the batch's passes through stages that are trained.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from models.recipe import PLAIN, Recipe, rows_by_route
from models.spec import TrainingSpec
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
        spec = position.lineage.spec
        after = [(0, 0.0, speed_of(spec, PLAIN))]  # step, progress and speed at the beginning, then after each entry
        for step, entry in position.lineage.edits:
            since, progress, speed = after[-1]
            progress += speed * (step - since)
            if isinstance(entry, Recipe):
                speed = speed_of(spec, entry)
            elif entry.goes_back_to is None:
                progress *= 1.0 - SETBACK_PER_EDIT
            else:
                since, older, speed_then = after[entry.goes_back_to.num_edits]
                lost = progress - (older + speed_then * (entry.goes_back_to.step - since))
                progress -= max(0.0, lost) / self.spec.model.num_stages
            after.append((step, progress, speed))
        since, progress, speed = after[-1]
        progress += speed * (position.step - since)
        return float(FLOOR + SPAN * (1.0 + progress / SCALE_STEPS) ** -EXPONENT)


@lru_cache
def speed_of(spec: TrainingSpec, recipe: Recipe) -> float:
    """Progress in a step, in steps of the whole batch in plain order."""
    groups = rows_by_route(spec, recipe)
    passes = sum(len(rows) * len(route) for route, rows in groups.items())
    share = passes / (spec.sequences_per_batch * spec.model.num_stages)
    return share * (1.0 - SWAP_SLOWDOWN if len(recipe.routes or spec.routes) > 1 else 1.0)
