"""Where the training of many runs is planned, handed out in pieces, and kept: the only writer of the store meanwhile.

Pieces go out with the states they start from and come back as results (`models.segment`); no two of them train the same
step. What has come in is durable before anything else is asked of it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection

from models.replay import ReplayedLosses
from models.segment import TrainedSegment
from models.training_plan import Demands, KnownLine, Segment, plan_work
from models.training_state import Lineage, Position
from models.trajectory import KEYFRAME_INTERVAL_STEPS, environment_key, line_name
from models.trajectory_store import MAX_STEP, Keyframe, TrajectoryStore

MOST_LINES_REMEMBERED = 256

MOST_STEPS_REMEMBERED = 2_000_000
"""Of all lines together, some 100 bytes each."""


class SharedTraining:
    """Keeps the trainings of a store going. `store=None` only plans, as if nothing were known."""

    def __init__(self, store: TrajectoryStore | None, most_steps: int = KEYFRAME_INTERVAL_STEPS) -> None:
        self.store, self.most_steps = store, most_steps
        self.environment = environment_key()
        self.num_trained_steps = 0
        self._arrived: dict[Position, bytes] = {}  # states of pieces that others wait for: no need to read them again
        self._losses: dict[str, dict[int, float]] = {}
        self._dead_ends: dict[str, tuple[int, str]] = {}
        self._invalid: dict[str, dict[int, str]] = {}

    def known(self, lineage: Lineage) -> KnownLine:
        """What the store holds of a line."""
        if self.store is None:
            return KnownLine()
        name = line_name(self.environment, lineage)
        validations = self.store.read_validations(name).keys() | self._invalid.get(lineage.key, {}).keys()
        return KnownLine(self._losses_of(lineage).keys(), validations, self.store.keyframe_steps(name))

    def _losses_of(self, lineage: Lineage) -> dict[int, float]:
        """The known training losses of a line: read once, since nobody else makes any meanwhile."""
        losses = self._losses.pop(lineage.key, None)
        if losses is None:
            name = line_name(self.environment, lineage)
            losses = self.store.read_losses(name, 0, MAX_STEP) if self.store else {}
        self._losses[lineage.key] = losses  # behind all others
        while len(self._losses) > MOST_LINES_REMEMBERED or (
            len(self._losses) > 1 and sum(map(len, self._losses.values())) > MOST_STEPS_REMEMBERED
        ):
            del self._losses[next(iter(self._losses))]
        return losses

    def plan(self, demands: Demands) -> list[Segment]:
        """The pieces that are missing for what is asked for, as far as training gets."""
        return plan_work(self._reachable(demands), self.known, self.most_steps)

    def state(self, position: Position) -> bytes | None:
        """A state as bytes; None where it is gone (the files may be deleted at any time): plan anew."""
        if position in self._arrived:
            return self._arrived[position]
        if self.store is None:
            return None
        return self.store.read_keyframe(line_name(self.environment, position.lineage), position.step)

    def arrived(self, piece: Segment, trained: TrainedSegment) -> None:
        """A piece is done: others can start from its state at once."""
        if trained.state is not None:
            self._arrived[piece.end] = trained.state

    def keep(self, piece: Segment, trained: TrainedSegment, needed: Callable[[], Collection[Position]]) -> None:
        """Make a piece durable. OSError if the disk refuses; needed: the states that later pieces start from."""
        lineage, key = piece.lineage, piece.lineage.key
        if trained.dead_end is not None:
            last_step = max(trained.stretch.steps, default=piece.first_step)
            self._dead_ends[key] = last_step, trained.dead_end
        if trained.invalid:
            self._invalid.setdefault(key, {}).update(trained.invalid)
        self.num_trained_steps += len(trained.stretch.steps)
        if self.store is not None:
            keyframe = Keyframe(piece.last_step, trained.state, bool(lineage.edits)) if trained.state else None

            def in_use() -> Collection[tuple[str, int]]:
                return {(line_name(self.environment, state.lineage), state.step) for state in needed()}

            self.store.commit(line_name(self.environment, lineage), trained.stretch, keyframe, in_use)
            if key in self._losses:
                self._losses[key].update((n, step.train_loss) for n, step in trained.stretch.steps.items())

    def forget(self, still_needed: Callable[[Position], bool]) -> None:
        """Of states that have arrived, hold in memory only those that are still needed."""
        self._arrived = {state: data for state, data in self._arrived.items() if still_needed(state)}

    def losses(self, demands: Demands) -> ReplayedLosses:
        """What is known of what some runs ask for."""
        found = ReplayedLosses(invalid=self._invalid)
        for lineage, demand in demands.items():
            losses = self._losses_of(lineage)
            asked = range(lineage.first_step + 1, demand.last_step + 1)
            found.train[lineage.key] = asked.start, array("d", [losses.get(step, math.nan) for step in asked])
            known = self.store.read_validations(line_name(self.environment, lineage)) if self.store else {}
            found.validation[lineage.key] = {step: known[step] for step in sorted(demand.validations) if step in known}
        found.dead_ends = {key: message for key, (_, message) in self._dead_ends.items()}
        return found

    def _reachable(self, demands: Demands) -> Demands:
        """What is asked for before training diverges."""
        if not self._dead_ends:
            return demands
        reachable: Demands = {}
        for lineage, demand in demands.items():
            if self._is_cut_off(lineage):
                continue
            last_step, _ = self._dead_ends.get(lineage.key, (demand.end, ""))
            validations = {step for step in demand.validations if step <= last_step}
            reachable[lineage] = type(demand)(min(demand.last_step, last_step), validations)
        return reachable

    def _is_cut_off(self, lineage: Lineage) -> bool:
        """Whether a line leaves another one after that has come to its end."""
        for (step, _), key_before in zip(lineage.edits, lineage.keys, strict=False):
            last_step, _ = self._dead_ends.get(key_before, (step, ""))
            if step > last_step:
                return True
        return False
