"""What the node at each place does over a run, as intervals of simulated time, from the files of the run alone.

A lost node is named by the event. In files of older versions, which do not, it is taken to be the next one that joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

State = Literal["computing", "lost work", "waiting", "recovering", "gone"]
STATES: tuple[State, ...] = State.__args__  # type: ignore[attr-defined]
ENDS_OF_RECOVERY = ("recovered", "regrouped")
LOSSES = ("failure", "node_lost")


@dataclass(frozen=True)
class Records:
    """The tables of one run's files. Stages count the embedding's; places are those that have nodes."""

    iterations: pd.DataFrame
    events: pd.DataFrame
    nodes: pd.DataFrame
    num_stages: int
    num_replicas: int
    num_places: int
    wall_clock_seconds: float


def activity(records: Records) -> pd.DataFrame:
    """Return intervals `place`, `state`, `start_seconds`, `end_seconds`. Later rows cover earlier ones.

    place: stage × nodes of a stage + pipeline. Where there is no row, the run has ended.
    """
    training, absences = _training(records), Attendance(records).absences()
    rows = [(place, *interval[:3]) for interval in training for place in _places(records, interval)]
    rows += [(place, "gone", start, end) for place, start, end in absences]
    found = pd.DataFrame(rows, columns=["place", "state", "start_seconds", "end_seconds"])
    return found[found["end_seconds"] > found["start_seconds"]].reset_index(drop=True)


def undone(records: Records) -> NDArray[np.bool_]:
    """Whether a later rollback undid each completed iteration."""
    ended, numbers = (records.iterations[name].to_numpy() for name in ("ended_seconds", "iteration"))
    events, found = records.events, np.zeros(len(ended), dtype=bool)
    recovered = events[events["kind"] == "recovered"].drop_duplicates("time_seconds")
    back_to = dict(zip(recovered["time_seconds"], recovered["iteration"], strict=True))
    for seconds in events.loc[events["kind"] == "rolled_back", "time_seconds"]:
        found |= (ended <= seconds) & (numbers > back_to.get(seconds, 0))
    return found


Interval = tuple[State, float, float, frozenset[int] | None]  # of some stages; None: of all


def _places(records: Records, interval: Interval) -> Iterator[int]:
    stages = range(records.num_stages) if interval[3] is None else interval[3]
    for stage in stages:
        yield from range(stage * records.num_replicas, (stage + 1) * records.num_replicas)


def _training(records: Records) -> list[Interval]:
    """Joined iterations of one state, and what happens between them."""
    iterations, is_undone, found = records.iterations, undone(records), list[Interval]()
    starts, ends = (iterations[f"{name}_seconds"].to_numpy(float) for name in ("started", "ended"))
    events = records.events[records.events["kind"].isin((*LOSSES, *ENDS_OF_RECOVERY, "rolled_back"))]
    rows = list(events[["kind", "time_seconds", "stage"]].itertuples(index=False, name=None))
    times = events["time_seconds"].to_numpy(float)
    first, at = 0, 0.0
    for number in range(len(starts) + 1):
        start = starts[number] if number < len(starts) else records.wall_clock_seconds
        is_gap = start > at + 1e-6
        changes = 0 < number < len(starts) and is_undone[number] != is_undone[number - 1]
        if number > first and (is_gap or changes or number == len(starts)):
            found.append(("lost work" if is_undone[first] else "computing", starts[first], at, None))
            first = number
        if is_gap:
            inside = slice(np.searchsorted(times, at), np.searchsorted(times, start, side="right"))
            found += _gap(rows[inside], at, start)
        at = ends[number] if number < len(ends) else at
    return found


def _gap(events: Sequence[tuple[str, float, float]], start: float, end: float) -> Iterator[Interval]:
    """The time between two iterations: an interrupted iteration, then waiting, and the recovery of lost stages.

    events: kind, seconds and stage of each.
    """
    yield "waiting", start, end, None
    everyone = any(kind == "rolled_back" for kind, *_ in events)  # all stages load an older state
    since, lost = start, set[int]()
    for kind, seconds, stage in events:
        if kind in LOSSES and not pd.isna(stage):
            if not lost:
                yield "lost work", since, seconds, None
                since = seconds
            lost.add(int(stage))
        elif kind in ENDS_OF_RECOVERY and lost:
            yield "recovering", since, seconds, None if everyone else frozenset(lost)
            since, lost = seconds, set()
    if lost:
        yield "recovering", since, end, None if everyone else frozenset(lost)


class Attendance:
    """The nodes of all stages, event by event."""

    def __init__(self, records: Records) -> None:
        self._records = records
        events = records.events.dropna(subset=["stage"])
        self._events = list(events[["kind", "time_seconds", "stage", "detail"]].itertuples(index=False, name=None))
        self._num = records.num_replicas
        nodes = records.nodes  # as arrays, since `_recover` reads them at each event
        self._times, self._counts = nodes["time_seconds"].to_numpy(float), nodes["num_nodes"].to_numpy()
        self._absent: dict[int, float] = {}  # since when, by place
        self._found: list[tuple[int, float, float]] = []
        self._joins: dict[int, list[float]] = {}
        self._failures: dict[int, list[float]] = {}
        for kind, seconds, stage, detail in self._events:
            if kind == "node_joined":
                self._joins.setdefault(self._place(stage, detail), []).append(seconds)
            elif kind == "failure":
                self._failures.setdefault(int(stage), []).append(seconds)

    def absences(self) -> list[tuple[int, float, float]]:
        """Place, start and end of each absence of a node."""
        lost, left_out = set[int](), set[int]()
        for kind, seconds, stage, detail in self._events:
            places = range(int(stage) * self._num, (int(stage) + 1) * self._num)
            if kind == "failure":
                self._lose(places, seconds)
                lost.add(int(stage))
            elif kind == "node_lost":
                self._lose(self._lost_places(stage, seconds, detail), seconds)
            elif kind == "node_joined":
                self._return([self._place(stage, detail)], seconds)
            elif kind == "stage_left_out":
                left_out.add(int(stage))
            elif kind == "stage_returned":
                left_out.discard(int(stage))
                self._recover({int(stage)}, seconds)
            elif kind == "recovered":
                self._recover(lost - left_out, seconds)
                lost.clear()
        self._return(list(self._absent), self._records.wall_clock_seconds)
        return self._found

    def _place(self, stage: float, detail: str) -> int:
        return int(stage) * self._num + int(detail.removeprefix("replica "))

    def _lost_places(self, stage: float, seconds: float, detail: str) -> list[int]:
        """The places of lost nodes, of one stage."""
        first = int(stage) * self._num
        if detail.startswith("replica"):
            return [first + int(replica) for replica in detail.partition(" ")[2].split(", ")]
        present = [place for place in range(first, first + self._num) if place not in self._absent]
        return sorted(present, key=lambda place: self._next(self._joins, place, seconds))[:1]

    @staticmethod
    def _next(times: dict[int, list[float]], key: int, seconds: float) -> float:
        return next((time for time in times.get(key, ()) if time > seconds), np.inf)

    def _lose(self, places: Iterable[int], seconds: float) -> None:
        for place in places:
            self._absent.setdefault(place, seconds)

    def _return(self, places: Iterable[int], seconds: float) -> None:
        for place in places:
            if place in self._absent:
                self._found.append((place, self._absent.pop(place), seconds))

    def _recover(self, stages: set[int], seconds: float) -> None:
        """End the absences in recovered stages, except of nodes that join later; earlier, if all nodes were there."""
        places = [place for stage in stages for place in range(stage * self._num, (stage + 1) * self._num)]
        missing = self._num_missing(seconds) - len(set(self._absent) - set(places))
        present = set[int]()  # stages with a node
        for place in sorted(places, key=lambda place: -self._next(self._joins, place, seconds)):
            stage = place // self._num
            joins_later = self._next(self._joins, place, seconds) < self._next(self._failures, stage, seconds)
            if joins_later and missing > 0 and stage in present:
                missing -= 1
                continue
            present.add(stage)
            if place in self._absent:
                self._return([place], min(seconds, self._complete_from(self._absent[place])))

    def _num_missing(self, seconds: float) -> int:
        """The number of places without a node at an instant, as far as spares do not hide it."""
        number = int(np.searchsorted(self._times, seconds, side="right")) - 1
        return max(0, self._records.num_places - int(self._counts[max(number, 0)]))

    def _complete_from(self, seconds: float) -> float:
        """The first time from `seconds` on at which there are nodes for all places."""
        is_complete = (self._times >= seconds) & (self._counts >= self._records.num_places)
        return float(self._times[is_complete].min()) if is_complete.any() else np.inf
