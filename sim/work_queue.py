"""What of a sweep is to be done next: pieces of training as their states come in, runs as their pieces do."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

from models.lineage import Lineage, Position
from models.work import Demands, Piece, ends, longest_ways, waits_for
from sim.sweep_plan import SweepRun

Item = Piece | SweepRun
Rank = tuple[int, int, int]
"""The lowest goes first."""


class WorkQueue:
    """Hands out runs that are ready first, then pieces: line by line, the one with the longest way to the end first.

    Life of a piece: waits for the states it needs → ready → handed out → done, and others can start from its state →
    kept, and runs can be played with its results; or given up, with all that waits for it. Life of a run: waits for
    pieces → ready → handed out.
    """

    def __init__(self, pieces: Sequence[Piece], demands: Mapping[SweepRun, Demands]) -> None:
        """Pieces in an order in which needs come first; demands: of each run, none for those that train nothing."""
        self._ranks = ranks(pieces)
        self._waiting = {piece: set(needed) for piece, needed in waits_for(pieces).items()}
        self._followers: dict[Piece, list[Piece]] = {piece: [] for piece in pieces}
        for piece, needed in self._waiting.items():
            for other in needed:
                self._followers[other].append(piece)
        self._undone = dict.fromkeys(pieces)
        self._uses = Counter(state for piece in pieces for state in piece.needs)
        self._runs_of: dict[Piece, list[SweepRun]] = {piece: [] for piece in pieces}
        self._pieces_of: dict[SweepRun, set[Piece]] = {}
        self._ready_runs: list[SweepRun] = []
        self._ready: list[tuple[Rank, Piece]] = []
        by_line: dict[Lineage, list[Piece]] = {}
        for piece in pieces:
            by_line.setdefault(piece.lineage, []).append(piece)
            self._release(piece)
        for run, asked in demands.items():
            self._pieces_of[run] = {
                piece
                for lineage, end in ends(asked).items()
                for piece in by_line.get(lineage, ())
                if piece.first_step <= end
            }
            for piece in self._pieces_of[run]:
                self._runs_of[piece].append(run)
            if not self._pieces_of[run]:
                self._ready_runs.append(run)
        self._ready_runs.reverse()

    def next(self) -> Item | None:
        """What to hand out; None where everything left waits for what is handed out already."""
        if self._ready_runs:
            return self._ready_runs.pop()
        return heapq.heappop(self._ready)[1] if self._ready else None

    def again(self, item: Item) -> None:
        """It was handed out in vain."""
        if isinstance(item, Piece):
            self._release(item)
        else:
            self._ready_runs.append(item)

    def done(self, piece: Piece) -> None:
        """Others can start from its state."""
        self._is_over(piece)
        for follower in self._followers[piece]:
            self._waiting[follower].discard(piece)
            if follower in self._undone:
                self._release(follower)

    def kept(self, piece: Piece) -> None:
        """Runs can be played with its results."""
        for run in self._runs_of[piece]:
            if run in self._pieces_of:
                self._pieces_of[run].discard(piece)
                if not self._pieces_of[run]:
                    self._ready_runs.append(run)

    def give_up(self, piece: Piece) -> list[SweepRun]:
        """Nothing comes of it nor of what waits for it; the runs that asked for any of that, which never get ready."""
        lost, concerned = [piece], dict[SweepRun, None]()
        while lost:
            gone = lost.pop()
            if gone in self._undone:
                self._is_over(gone)
                lost += self._followers[gone]
                concerned |= dict.fromkeys(run for run in self._runs_of[gone] if self._pieces_of.pop(run, None))
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

    def _is_over(self, piece: Piece) -> None:
        if piece in self._undone:
            del self._undone[piece]
            self._uses.subtract(piece.needs)

    def _release(self, piece: Piece) -> None:
        if not self._waiting[piece]:
            heapq.heappush(self._ready, (self._ranks[piece], piece))


def ranks(pieces: Sequence[Piece]) -> dict[Piece, Rank]:
    """Which piece is to be done before which: those of the line with the longest way before it, from its start on.

    So nobody waits long in the end, and a line that is begun is soon finished, and the runs that wait for it.
    """
    ways, longest = longest_ways(pieces), dict[Lineage, int]()
    for piece in pieces:
        longest[piece.lineage] = max(longest.get(piece.lineage, 0), ways[piece])
    places = {lineage: place for place, lineage in enumerate(longest)}
    return {piece: (-longest[piece.lineage], places[piece.lineage], piece.first_step) for piece in pieces}
