"""What of a sweep is to be done next: pieces of training as their states come in, runs as their pieces do."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.training_plan import Demands, Segment, dependencies_of, ends, longest_paths
from models.training_state import Lineage, Position
from sim.experiments.plan import SweepRun

Item = Segment | SweepRun

Rank = tuple[int, int, int]
"""The lowest goes first."""


@dataclass(eq=False)
class Milestone:
    """That a line is trained up to a step, and validated there or not, for the runs that ask for no more of it.

    num_open: pieces not yet kept since the milestone before, and 1 for that one; then: the next of the line.
    """

    runs: list[SweepRun] = field(default_factory=list)
    num_open: int = 0
    then: Milestone | None = None


class WorkQueue:
    """Hands out runs that are ready first, then pieces: line by line, the one with the longest way to the end first.

    Life of a piece: waits for the states it needs → ready → handed out → done, and others can start from its state →
    kept, and runs can be played with its results; or given up, with all that waits for it. Life of a run: waits for
    its lines' milestones → ready → handed out.
    """

    def __init__(self, pieces: Sequence[Segment], demands: Mapping[SweepRun, Demands]) -> None:
        """Pieces in an order in which needs come first; demands: of each run, none for those that train nothing."""
        self._ranks = ranks(pieces)
        self._waiting = {piece: set(needed) for piece, needed in dependencies_of(pieces).items()}
        self._followers: dict[Segment, list[Segment]] = {piece: [] for piece in pieces}
        for piece, needed in self._waiting.items():
            for other in needed:
                self._followers[other].append(piece)
        self._undone = dict.fromkeys(pieces)
        self._uses = Counter(state for piece in pieces for state in piece.needs)
        self._ready: list[tuple[Rank, Segment]] = []
        for piece in pieces:
            self._release(piece)
        self._milestones: dict[Segment, Milestone] = {}
        self._num_open: dict[SweepRun, int] = {}
        self._ready_runs: list[SweepRun] = []
        self._set_milestones(pieces, demands)
        self._ready_runs.reverse()

    def _set_milestones(self, pieces: Sequence[Segment], demands: Mapping[SweepRun, Demands]) -> None:
        """Say what each run waits for."""
        by_line: dict[Lineage, list[Segment]] = {}
        for piece in pieces:
            by_line.setdefault(piece.lineage, []).append(piece)
        milestones: dict[Lineage, dict[tuple[int, bool], Milestone]] = {lineage: {} for lineage in by_line}
        for run, asked in demands.items():
            for lineage, last_step in ends(asked).items():
                if lineage in milestones:
                    validates = lineage in asked and last_step in asked[lineage].validations
                    milestones[lineage].setdefault((last_step, validates), Milestone()).runs.append(run)
        for lineage, of_line in milestones.items():
            left = deque(sorted(by_line[lineage], key=lambda piece: piece.first_step))
            before: Milestone | None = None
            for (last_step, validates), milestone in sorted(of_line.items(), key=lambda item: item[0]):
                while left and serves(left[0], last_step, validates):
                    self._milestones[left.popleft()] = milestone
                    milestone.num_open += 1
                if before is not None and before.num_open:
                    before.then = milestone
                    milestone.num_open += 1
                before = milestone
        self._num_open = dict.fromkeys(demands, 0)
        for milestone in (one for of_line in milestones.values() for one in of_line.values() if one.num_open):
            for run in milestone.runs:
                self._num_open[run] += 1
        self._ready_runs += [run for run, num_open in self._num_open.items() if not num_open]

    def next(self) -> Item | None:
        """What to hand out; None where everything left waits for what is handed out already."""
        if self._ready_runs:
            return self._ready_runs.pop()
        return heapq.heappop(self._ready)[1] if self._ready else None

    def again(self, item: Item) -> None:
        """It was handed out in vain."""
        if isinstance(item, Segment):
            self._release(item)
        else:
            self._ready_runs.append(item)

    def done(self, piece: Segment) -> None:
        """Others can start from its state."""
        self._is_over(piece)
        for follower in self._followers[piece]:
            self._waiting[follower].discard(piece)
            if follower in self._undone:
                self._release(follower)

    def kept(self, piece: Segment) -> None:
        """Runs can be played with its results."""
        milestone = self._milestones.get(piece)
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

    def give_up(self, piece: Segment) -> list[SweepRun]:
        """Nothing comes of it nor of what waits for it; the runs that asked for any of that, which never get ready."""
        lost, concerned = [piece], dict[SweepRun, None]()
        while lost:
            gone = lost.pop()
            if gone in self._undone:
                self._is_over(gone)
                lost += self._followers[gone]
                milestone = self._milestones.get(gone)
                while milestone is not None:
                    concerned |= dict.fromkeys(run for run in milestone.runs if self._num_open.pop(run, 0))
                    milestone = milestone.then
        return list(concerned)

    def needs(self, state: Position) -> bool:
        """Whether pieces still to be done start from a state."""
        return self._uses[state] > 0

    @property
    def needed_states(self) -> list[Position]:
        """States that pieces still to be done start from."""
        return [state for state, uses in self._uses.items() if uses > 0]

    @property
    def num_steps_left(self) -> int:
        """Steps still to be trained."""
        return sum(piece.num_steps for piece in self._undone)

    def _is_over(self, piece: Segment) -> None:
        if piece in self._undone:
            del self._undone[piece]
            self._uses.subtract(piece.needs)

    def _release(self, piece: Segment) -> None:
        if not self._waiting[piece]:
            heapq.heappush(self._ready, (self._ranks[piece], piece))


def serves(piece: Segment, last_step: int, validates: bool) -> bool:
    """Whether somebody needs a piece of a line who asks for it up to a step: for steps, or for a validation there."""
    return piece.first_step < last_step or (validates and piece.first_step == last_step in piece.validations)


def ranks(pieces: Sequence[Segment]) -> dict[Segment, Rank]:
    """Which piece is to be done before which: those of the line with the longest way before it, from its start on.

    So nobody waits long in the end, and a line that is begun is soon finished, and the runs that wait for it.
    """
    ways, longest = longest_paths(pieces), dict[Lineage, int]()
    for piece in pieces:
        longest[piece.lineage] = max(longest.get(piece.lineage, 0), ways[piece])
    places = {lineage: place for place, lineage in enumerate(longest)}
    return {piece: (-longest[piece.lineage], places[piece.lineage], piece.first_step) for piece in pieces}
