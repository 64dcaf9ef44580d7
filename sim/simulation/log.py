"""Logs of a run in which records that repeat at equal intervals share one entry: a large cluster's run has millions."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sim.core.records import EventKind, EventRecord, IterationRecord
from sim.simulation.leap import RepeatedIterations, RepeatedSaves, plain_leap

Record = TypeVar("Record")


class RepeatingLog(Sequence[Record]):
    """A sequence of records that equals a list of the same records; indexing takes the time of expanding all."""

    def __init__(self) -> None:
        self._length = 0

    @abstractmethod
    def __iter__(self) -> Iterator[Record]: ...

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RepeatingLog | list) and len(self) == len(other) and list(self) == list(other)


class EventLog(RepeatingLog[EventRecord]):
    """Events in the order in which they occurred. An entry holds the fields of a record, or a repeated save."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[tuple[float, EventKind, int | None, int, str] | RepeatedSaves] = []

    def note(self, time_seconds: float, kind: EventKind, stage: int | None, iteration: int, detail: str) -> None:
        """Add an event."""
        self._entries.append((time_seconds, kind, stage, iteration, detail))
        self._length += 1

    def repeat(self, saves: RepeatedSaves) -> None:
        """Add repeated saves."""
        self._entries.append(saves)
        self._length += 2 * saves.num

    def kinds(self) -> Counter[EventKind]:
        """Number of events of each kind."""
        kinds: Counter[EventKind] = Counter(entry[1] for entry in self._entries if not isinstance(entry, RepeatedSaves))
        num_saves = sum(entry.num for entry in self._entries if isinstance(entry, RepeatedSaves))
        kinds.update(checkpoint_started=num_saves, checkpoint_durable=num_saves)
        return kinds

    def times_of(self, kind: EventKind) -> list[float]:
        """Times of events of a kind other than saves."""
        return [entry[0] for entry in self._entries if not isinstance(entry, RepeatedSaves) and entry[1] == kind]

    def __iter__(self) -> Iterator[EventRecord]:
        for entry in self._entries:
            if isinstance(entry, RepeatedSaves):
                yield from entry.records()
            else:
                yield EventRecord(*entry)


def kinds_of(events: Iterable[EventRecord]) -> Counter[EventKind]:
    """Number of events of each kind."""
    return events.kinds() if isinstance(events, EventLog) else Counter(event.kind for event in events)


def num_failures_until(events: Iterable[EventRecord], seconds: float, kind: EventKind = "failure") -> int:
    """Number of stages lost up to an instant; kind `node_lost`: of nodes whose stages had others."""
    if isinstance(events, EventLog):
        return sum(time <= seconds for time in events.times_of(kind))
    return sum(event.kind == kind and event.time_seconds <= seconds for event in events)


class Stretch(NamedTuple):
    """Consecutive iterations from number `first` on, and when they start."""

    first: int
    started_seconds: float
    leap: RepeatedIterations
    lineage: str

    def starts_seconds(self) -> npt.NDArray[np.float64]:
        """The start of each iteration; exact, as ticks are."""
        each_seconds, first_pause, period, pause_seconds = self.leap.cadence
        indices = np.arange(self.leap.num_iterations)
        starts = np.asarray(self.started_seconds + each_seconds * indices, np.float64)
        if self.leap.num_pauses:
            before = np.where(indices < first_pause, 0.0, 1.0 + (indices - first_pause) // period)
            starts += (pause_seconds or 0.0) * np.minimum(before, self.leap.num_pauses)
        return starts


class IterationLog(RepeatingLog[IterationRecord]):
    """Completed iterations of a run that trains nothing; `num_distinct`: those completed at least once."""

    def __init__(self, iterations_per_step: int = 1) -> None:
        super().__init__()
        self.iterations_per_step = iterations_per_step
        self.stretches: list[Stretch] = []
        self.num_distinct = 0

    def add(self, first: int, started_seconds: float, leap: RepeatedIterations, lineage: str) -> None:
        """Add the iterations of a leap, joined with those before them if these are alike and without pauses."""
        num = leap.num_iterations
        self._length += num
        self.num_distinct = max(self.num_distinct, first + num - 1)
        if self.stretches:
            first_before, started_before, before, lineage_before = self.stretches[-1]
            is_alike = leap.cadence.iteration_seconds == before.cadence.iteration_seconds and lineage == lineage_before
            goes_on = (
                first == first_before + before.num_iterations and started_seconds == started_before + before.seconds
            )
            if is_alike and goes_on and not leap.num_pauses and not before.num_pauses:
                leap = plain_leap(before.num_iterations + num, leap.cadence.iteration_seconds)
                first, started_seconds = first_before, started_before
                self.stretches.pop()
        self.stretches.append(Stretch(first, started_seconds, leap, lineage))

    def columns(self) -> dict[str, npt.NDArray[Any] | list[None]]:
        """The fields of all records."""
        times = np.zeros(self.num_distinct + 1, np.int64)
        iterations = starts_seconds = executions = np.zeros(0, np.int64)
        parts = []
        for stretch in self.stretches:
            numbers = np.arange(stretch.first, stretch.first + stretch.leap.num_iterations)
            times[numbers] += 1
            parts.append((numbers, times[numbers], stretch.starts_seconds()))
        if parts:
            iterations, executions, starts_seconds = (np.concatenate(part) for part in zip(*parts, strict=True))
        nums = [stretch.leap.num_iterations for stretch in self.stretches]
        seconds = np.array([stretch.leap.cadence.iteration_seconds for stretch in self.stretches])
        return {
            "iteration": iterations,
            "step": iterations // self.iterations_per_step,
            "execution": executions,
            "started_seconds": np.asarray(starts_seconds, np.float64),
            "ended_seconds": np.asarray(starts_seconds, np.float64) + np.repeat(seconds, nums),
            "lineage": np.repeat(np.array([stretch.lineage for stretch in self.stretches], dtype=object), nums),
            "train_loss": [None] * self._length,
            "validation_loss": [None] * self._length,
        }

    def __iter__(self) -> Iterator[IterationRecord]:
        columns = [column if isinstance(column, list) else column.tolist() for column in self.columns().values()]
        return (IterationRecord(*row) for row in zip(*columns, strict=True))


def num_rerun(iterations: Sequence[IterationRecord]) -> int:
    """Number of records of iterations that had been completed before."""
    if isinstance(iterations, IterationLog):
        return len(iterations) - iterations.num_distinct
    return sum(record.execution > 1 for record in iterations)
