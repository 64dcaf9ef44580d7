"""Training shared by many runs: the plan of its segments, and the store of their results.

Workers train segments (`models.segment`). One process owns the plan and is the only writer of the store.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection

from models.segment import TrainedSegment
from models.state_graph import origins
from models.training import ReplayedLosses
from models.training_plan import Demand, Demands, Segment, StoredLine, ends, plan_segments
from models.training_state import Lineage, Position
from models.trajectory import KEYFRAME_INTERVAL_STEPS, environment_of, line_name
from models.trajectory_store import Keyframe, TrajectoryStore

MAX_LINES_IN_MEMORY, MAX_STEPS_IN_MEMORY = 256, 2_000_000  # steps of all lines together take about 100 bytes each


class SharedTraining:
    """Plan and results of the training of many runs. `store=None`: plan only, with nothing stored."""

    def __init__(self, store: TrajectoryStore | None, max_steps: int = KEYFRAME_INTERVAL_STEPS) -> None:
        self.store, self.max_steps = store, max_steps
        self.num_trained_steps = 0
        self._states: dict[Position, bytes] = {}  # ends of segments, for those that start there
        self._losses: dict[str, dict[int, float]] = {}
        self._divergences: dict[str, tuple[int, str]] = {}
        self._invalid: dict[str, dict[int, str]] = {}

    def stored_line(self, lineage: Lineage) -> StoredLine:
        """Contents of the store for a line."""
        if self.store is None:
            return StoredLine()
        name = name_of(lineage)
        validations = self.store.read_validations(name).keys() | self._invalid.get(lineage.key, {}).keys()
        return StoredLine(self._losses_of(lineage).keys(), validations, self.store.keyframe_steps(name))

    def _losses_of(self, lineage: Lineage) -> dict[int, float]:
        """Stored training losses of a line by step, cached: no other process writes them."""
        losses = self._losses.pop(lineage.key, None)
        if losses is None:
            name = name_of(lineage)
            losses = self.store.read_losses(name) if self.store else {}
        self._losses[lineage.key] = losses  # most recently used last
        while len(self._losses) > MAX_LINES_IN_MEMORY or (
            len(self._losses) > 1 and sum(map(len, self._losses.values())) > MAX_STEPS_IN_MEMORY
        ):
            del self._losses[next(iter(self._losses))]
        return losses

    def plan(self, demands: Demands) -> list[Segment]:
        """Segments to train for these demands, up to the steps where training diverges."""
        return plan_segments(self._before_divergence(demands), self.stored_line, self.max_steps)

    def state(self, position: Position) -> bytes | None:
        """A state as bytes; None where its file is gone (caches may be deleted at any time): plan again."""
        if position in self._states:
            return self._states[position]
        if self.store is None:
            return None
        return self.store.read_keyframe(name_of(position.lineage), position.step)

    def add_state(self, segment: Segment, trained: TrainedSegment) -> None:
        """Hold the end state of a trained segment in memory for the segments that start there."""
        if trained.state is not None:
            self._states[segment.end] = trained.state

    def commit(self, segment: Segment, trained: TrainedSegment, needed: Callable[[], Collection[Position]]) -> None:
        """Write the results of a segment to the store; OSError if the disk refuses. needed: states not to be pruned."""
        lineage, key = segment.lineage, segment.lineage.key
        if trained.divergence is not None:
            last_step = max(trained.results.steps, default=segment.first_step)
            self._divergences[key] = last_step, trained.divergence
        if trained.invalid:
            self._invalid.setdefault(key, {}).update(trained.invalid)
        self.num_trained_steps += len(trained.results.steps)
        if self.store is not None:
            keyframe = Keyframe(segment.last_step, trained.state, bool(lineage.edits)) if trained.state else None

            def in_use() -> Collection[tuple[str, int]]:
                return {(name_of(state.lineage), state.step) for state in needed()}

            self.store.commit(name_of(lineage), trained.results, keyframe, in_use)
            if key in self._losses:
                self._losses[key].update((n, step.train_loss) for n, step in trained.results.steps.items())

    def discard_states(self, still_needed: Callable[[Position], bool]) -> None:
        """Drop the states in memory that are no longer needed."""
        self._states = {state: data for state, data in self._states.items() if still_needed(state)}

    def losses(self, demands: Demands) -> ReplayedLosses:
        """Stored losses for these demands."""
        found = ReplayedLosses(invalid=self._invalid)
        for lineage, demand in demands.items():
            losses = self._losses_of(lineage)
            steps = range(lineage.first_step + 1, demand.last_step + 1)
            found.train[lineage.key] = steps.start, array("d", [losses.get(step, math.nan) for step in steps])
            stored_line = self.store.read_validations(name_of(lineage)) if self.store else {}
            found.validation[lineage.key] = {
                step: stored_line[step] for step in sorted(demand.validations) if step in stored_line
            }
        found.divergences = {key: message for key, (_, message) in self._divergences.items()}
        return found

    def _before_divergence(self, demands: Demands) -> Demands:
        """Demands without the states that lie after a divergence."""
        if not self._divergences:
            return demands
        reachable: Demands = {}
        last_steps = {key: step for key, (step, _) in self._divergences.items()}
        unreachable: set[Lineage] = set()  # begin with a state of a line that diverged before
        for lineage, end in ends(demands).items():
            if any(
                state.lineage in unreachable or state.step > last_steps.get(state.lineage.key, state.step)
                for state in origins(lineage)
            ):
                unreachable.add(lineage)
            elif demand := demands.get(lineage):
                last_step = last_steps.get(lineage.key, end)
                validations = {step for step in demand.validations if step <= last_step}
                reachable[lineage] = Demand(min(demand.last_step, last_step), validations)
        return reachable


def name_of(lineage: Lineage) -> str:
    """Name of a line in the store of this machine."""
    return line_name(environment_of(lineage.spec), lineage)
