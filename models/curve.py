"""Parametric loss curve in place of training: for dry runs without torch and fast tests, not for results.

Loss = floor + span · (1 + p / scale)^-exponent with p the effective progress in steps. An edit lowers p by a tenth;
one that restores older weights of the stage, by the stage's share of the progress made since. Swapped routes slow p.
While a recipe is in force, p grows by the share of the batch's passes through stages that are trained. A merge adds
up what each source has gained over the line's own p; rate, momentum and shares play no part, and merges of some stages
count where stage 0 is among them.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import NamedTuple

from models.recipe import PLAIN, Recipe, rows_by_route
from models.spec import EMBEDDING_STAGE, TrainingSpec
from models.training import Training
from models.training_state import Entry, Lineage, Merge, Position

FLOOR, SPAN, SCALE_STEPS, EXPONENT = 1.2, 4.3, 20.0, 0.5
SETBACK_PER_EDIT, SWAP_SLOWDOWN = 0.1, 0.05


class Progress(NamedTuple):
    """Effective progress at the first step of a line, and its growth per step, in steps."""

    step: int
    progress: float
    speed: float

    def at(self, step: int) -> float:
        """Effective progress at a later step of the line."""
        return self.progress + self.speed * (step - self.step)


class CurveTraining(Training):
    """Losses from a formula; nothing is trained."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int = 1) -> None:
        super().__init__(spec, iterations_per_step)
        self._progress: dict[str, Progress] = {}  # by the key of a line

    def train_loss(self, position: Position) -> float | None:
        """Validation loss plus deterministic noise of at most 0.05."""
        if position.replicas or position.lineage.is_at_rest:
            return super().train_loss(position)
        if position.step == 0:
            raise ValueError("no step led to step 0: it has no training loss")
        return self.validation_loss_of(position) + self._noise(position.step)

    def loss_of_step(self, lineage: Lineage, step: int) -> float:
        """Validation loss after the step, plus noise."""
        return self.validation_loss_of(Position(lineage, step)) + self._noise(step)

    def _noise(self, step: int) -> float:
        return 0.1 * (zlib.crc32(f"{self.spec.data_seed}/{step}".encode()) / 2**32 - 0.5)

    def validation_loss_of(self, state: Position) -> float:
        """Value of the curve at the effective progress of this state."""
        progress = self._first_progress(state.lineage).at(state.step)
        return float(FLOOR + SPAN * (1.0 + progress / SCALE_STEPS) ** -EXPONENT)

    def _first_progress(self, lineage: Lineage) -> Progress:
        """Progress at the first step of a line, after its last entry."""
        number = len(lineage.edits)
        while number > 0 and lineage.keys[number] not in self._progress:
            number -= 1
        found = self._progress.get(lineage.keys[number], Progress(0, 0.0, speed_of(lineage.spec, PLAIN)))
        self._progress[lineage.keys[number]] = found
        for step, entry in lineage.edits[number:]:
            number += 1
            found = self._after_entry(lineage, found, step, entry)
            self._progress[lineage.keys[number]] = found
        return found

    def _after_entry(self, lineage: Lineage, before: Progress, step: int, entry: Entry) -> Progress:
        """Progress after an entry of a lineage."""
        progress, speed, num_stages = before.at(step), before.speed, lineage.spec.model.num_stages
        if isinstance(entry, Recipe):
            return Progress(step, progress, speed_of(lineage.spec, entry))
        if isinstance(entry, Merge):
            if entry.stages is not None and EMBEDDING_STAGE not in entry.stages:
                return Progress(step, progress, speed)
            gained = sum(self._first_progress(source.lineage).at(source.step) - progress for source in entry.sources)
            return Progress(step, progress + gained, speed)
        if (moment := entry.goes_back_to) is None:
            return Progress(step, progress * (1.0 - SETBACK_PER_EDIT), speed)
        lost = progress - self._progress[lineage.keys[moment.num_edits]].at(moment.step)
        return Progress(step, progress - max(0.0, lost) / num_stages, speed)


@lru_cache
def speed_of(spec: TrainingSpec, recipe: Recipe) -> float:
    """Progress in a step, in steps of the whole batch in plain order."""
    groups = rows_by_route(spec, recipe)
    passes = sum(len(rows) * len(route) for route, rows in groups.items())
    share = passes / (spec.sequences_per_batch * spec.model.num_stages)
    return share * (1.0 - SWAP_SLOWDOWN if len(recipe.routes or spec.routes) > 1 else 1.0)
