"""The order of a sweep's work: segments of training when the states they need exist, runs when their segments do."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import islice

from models.training_plan import Demands, Segment, dependencies_of, ends, longest_paths
from models.training_state import Lineage, Position
from sim.experiments.plan import SweepRun

Item = Segment | SweepRun

Rank = tuple[int, int, int]
"""The lowest is done first."""


@dataclass(eq=False)
class Milestone:
    """A step up to which a line is trained, and validated or not, for the runs that need no more of the line.

    num_open: segments not kept yet since the previous milestone, plus 1 while that one is open; then: the next one.
    """

    runs: list[SweepRun] = field(default_factory=list)
    num_open: int = 0
    then: Milestone | None = None


class WorkQueue:
    """Gives runs that are ready first, then segments: line by line, the line with the longest critical path first.

    Life of a segment: waits for the states it needs → ready → submitted → done, and others can start from its state →
    kept, and runs can be simulated with its losses; or given up, with all that depends on it. Life of a run: waits for
    its lines' milestones → ready → submitted.
    """

    def __init__(self, segments: Sequence[Segment], demands: Mapping[SweepRun, Demands]) -> None:
        """Segments in topological order; demands: of each run, empty for those that train nothing."""
        self._ranks = ranks(segments)
        needed = dependencies_of(segments)
        self._sorter = TopologicalSorter(needed)
        self._sorter.prepare()
        self._dependents: dict[Segment, list[Segment]] = {segment: [] for segment in segments}
        for segment, others in needed.items():
            for other in others:
                self._dependents[other].append(segment)
        self._undone = dict.fromkeys(segments)
        self._uses = Counter(state for segment in segments for state in segment.needs)
        self._ready: list[tuple[Rank, Segment]] = []
        self._collect_ready()
        self._milestones: dict[Segment, Milestone] = {}
        self._ends = {run: ends(asked) for run, asked in demands.items()}
        self._num_open = dict.fromkeys(demands, 0)
        self._set_milestones(segments, demands)
        self._ready_runs = [run for run, num_open in reversed(self._num_open.items()) if not num_open]

    def _set_milestones(self, segments: Sequence[Segment], demands: Mapping[SweepRun, Demands]) -> None:
        """Record what each run waits for; assign the segments of each line to its milestones, in order."""
        by_line: dict[Lineage, list[Segment]] = {}
        for segment in segments:
            by_line.setdefault(segment.lineage, []).append(segment)
        milestones: dict[Lineage, dict[tuple[int, bool], Milestone]] = {lineage: {} for lineage in by_line}
        for run, asked in demands.items():
            for lineage, last_step in self._ends[run].items():
                if lineage in milestones:
                    validates = lineage in asked and last_step in asked[lineage].validations
                    milestones[lineage].setdefault((last_step, validates), Milestone()).runs.append(run)
        for lineage, of_line in milestones.items():
            left = deque(sorted(by_line[lineage], key=lambda segment: segment.first_step))
            before = Milestone()
            for (last_step, validates), milestone in sorted(of_line.items(), key=lambda item: item[0]):
                while left and is_needed(left[0], last_step, validates):
                    self._milestones[left.popleft()] = milestone
                    milestone.num_open += 1
                if before.num_open:
                    before.then = milestone
                    milestone.num_open += 1
                for run in milestone.runs if milestone.num_open else ():
                    self._num_open[run] += 1
                before = milestone

    def next(self) -> Item | None:
        """The next item to submit; None where everything left waits for submitted segments."""
        if self._ready_runs:
            return self._ready_runs.pop()
        return heapq.heappop(self._ready)[1] if self._ready else None

    def take_alike(self, segment: Segment, most: int, without: Collection[Segment] = ()) -> list[Segment]:
        """Submit other ready segments that can be stacked with this one: those of the same steps first."""
        if most < 1:
            return []
        kind = segment.kind
        ready = [(other.first_step != segment.first_step, rank, other) for rank, other in self._ready]
        alike = (other for *_, other in sorted(ready) if other not in without and other.kind == kind)
        taken = list(islice(alike, most))
        self._ready = [(rank, other) for rank, other in self._ready if other not in set(taken)]
        heapq.heapify(self._ready)
        return taken

    def again(self, item: Item) -> None:
        """Submit an item once more."""
        if isinstance(item, Segment):
            heapq.heappush(self._ready, (self._ranks[item], item))
        else:
            self._ready_runs.append(item)

    def done(self, segment: Segment) -> None:
        """Let others start from a segment's state."""
        self._end(segment)
        self._sorter.done(segment)
        self._collect_ready()

    def kept(self, segment: Segment) -> None:
        """Let runs be simulated with a segment's losses."""
        milestone = self._milestones.get(segment)
        while milestone is not None:
            milestone.num_open -= 1
            if milestone.num_open:
                return
            for run in milestone.runs:
                if run in self._num_open:
                    self._num_open[run] -= 1
                    if not self._num_open[run]:
                        self._ready_runs.append(run)
            milestone = milestone.then

    def give_up(self, segment: Segment) -> list[SweepRun]:
        """Drop a segment and all that depends on it. Returns the runs among that, which never get ready."""
        lost, runs = [segment], list[SweepRun]()
        while lost:
            gone = lost.pop()
            if gone in self._undone:
                self._end(gone)
                lost += self._dependents[gone]
                milestone = self._milestones.get(gone)
                while milestone is not None:
                    runs += (run for run in milestone.runs if self._num_open.pop(run, 0))
                    milestone = milestone.then
        return runs

    def needs(self, state: Position) -> bool:
        """Whether segments still to be done start from a state."""
        return self._uses[state] > 0

    @property
    def needed_states(self) -> list[Position]:
        """States that segments still to be done start from."""
        return [state for state, uses in self._uses.items() if uses > 0]

    @property
    def num_steps_left(self) -> int:
        """Steps still to be trained."""
        return sum(segment.num_steps for segment in self._undone)

    def num_steps_left_of(self, run: SweepRun) -> int:
        """Steps still to be trained of those that a run needs."""
        last_steps = self._ends[run]
        return sum(
            max(0, min(segment.last_step, last_steps[segment.lineage]) - segment.first_step)
            for segment in self._undone
            if segment.lineage in last_steps
        )

    def _end(self, segment: Segment) -> None:
        if segment in self._undone:
            del self._undone[segment]
            self._uses.subtract(segment.needs)

    def _collect_ready(self) -> None:
        for segment in self._sorter.get_ready():
            if segment in self._undone:  # not given up
                heapq.heappush(self._ready, (self._ranks[segment], segment))


def is_needed(segment: Segment, last_step: int, validates: bool) -> bool:
    """Whether a run that needs a line up to a step needs a segment: for its steps, or for a validation there."""
    return segment.first_step < last_step or (validates and segment.first_step == last_step in segment.validations)


def ranks(segments: Sequence[Segment]) -> dict[Segment, Rank]:
    """The order of segments: by the longest critical path of their line, then from the start of the line on.

    So the last segments are short, and a line that is begun is soon finished, with the runs that wait for it.
    """
    paths, longest = longest_paths(segments), dict[Lineage, int]()
    for segment in segments:
        longest[segment.lineage] = max(longest.get(segment.lineage, 0), paths[segment])
    numbers = {lineage: number for number, lineage in enumerate(longest)}
    return {segment: (-longest[segment.lineage], numbers[segment.lineage], segment.first_step) for segment in segments}
