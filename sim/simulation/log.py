"""What happened in a run, event by event; what happens again and again in peace takes one entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from sim.core.records import EventKind, EventRecord, IterationRecord
from sim.simulation.leap import RepeatedIterations


class Repeated(NamedTuple):
    """A save `num` times, from its start to its end, so many seconds and iterations apart."""

    started_seconds: float
    seconds: float
    iteration: int
    num: int
    cycle_seconds: float
    num_in_a_cycle: int

    def records(self) -> Iterator[EventRecord]:
        """One by one."""
        for time in range(self.num):
            at_seconds = self.started_seconds + time * self.cycle_seconds
            iteration = self.iteration + time * self.num_in_a_cycle
            yield EventRecord(at_seconds, "checkpoint_started", None, iteration)
            yield EventRecord(at_seconds + self.seconds, "checkpoint_durable", None, iteration)


Noted = tuple[float, EventKind, int | None, int, str]
"""The fields of a record, which is made when it is asked for."""


class EventLog(Sequence[EventRecord]):
    """Events in the order in which they happened."""

    def __init__(self) -> None:
        self._entries: list[Noted | Repeated] = []
        self._length = 0

    def note(self, time_seconds: float, kind: EventKind, stage: int | None, iteration: int, detail: str) -> None:
        """One more."""
        self._entries.append((time_seconds, kind, stage, iteration, detail))
        self._length += 1

    def repeat(self, saves: Repeated) -> None:
        """Some saves more."""
        self._entries.append(saves)
        self._length += 2 * saves.num

    def kinds(self) -> Counter[EventKind]:
        """How many of each kind."""
        kinds: Counter[EventKind] = Counter(entry[1] for entry in self._entries if not isinstance(entry, Repeated))
        num_saves = sum(entry.num for entry in self._entries if isinstance(entry, Repeated))
        kinds["checkpoint_started"] += num_saves
        kinds["checkpoint_durable"] += num_saves
        return kinds

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __iter__(self) -> Iterator[EventRecord]:
        """One by one."""
        for entry in self._entries:
            if isinstance(entry, Repeated):
                yield from entry.records()
            else:
                yield EventRecord(*entry)

    @overload
    def __getitem__(self, index: int) -> EventRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[EventRecord]: ...

    def __getitem__(self, index: int | slice) -> EventRecord | list[EventRecord]:
        """Some of them; takes the time of all."""
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        """Equal events, in a log or in a list."""
        return isinstance(other, EventLog | list) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """As a list's."""
        return repr(list(self))


def kinds_of(events: Iterable[EventRecord]) -> Counter[EventKind]:
    """How many events of each kind there are."""
    if not isinstance(events, EventLog):
        return Counter(event.kind for event in events)
    return events.kinds()


# Iterations that were completed without anything being learnt: equal ones that follow each other take one entry.
#
# A fleet's run has millions of them. They are told one by one to whoever asks, as columns to whoever writes them.


class Stretch(NamedTuple):
    """Iterations from the `first` on, each of so many seconds: `num` one right after the other, a pause, and again."""

    first: int
    num: int
    started_seconds: float
    seconds: float
    lineage: str
    num_legs: int = 1
    pause_seconds: float = 0.0

    @property
    def num_iterations(self) -> int:
        """In all legs."""
        return self.num * self.num_legs

    def continued(self, more: Stretch) -> Stretch | None:
        """Both as one, where the other goes on right where this ends, in the same way."""
        if (
            self.num_legs == more.num_legs == 1
            and more.first == self.first + self.num
            and more.seconds == self.seconds
            and more.started_seconds == self.started_seconds + self.num * self.seconds
            and more.lineage == self.lineage
        ):
            return Stretch(self.first, self.num + more.num, self.started_seconds, self.seconds, self.lineage)
        return None


class IterationLog(Sequence[IterationRecord]):
    """Completed iterations, in order; each is one that has been completed before, or the next."""

    def __init__(self, iterations_per_step: int = 1) -> None:
        self.iterations_per_step = iterations_per_step
        self.stretches: list[Stretch] = []
        self._length = 0
        self._last = 0

    def complete(self, stretch: Stretch) -> None:
        """Some iterations have been completed, the next in time."""
        self._length += stretch.num_iterations
        self._last = max(self._last, stretch.first + stretch.num_iterations - 1)
        if self.stretches and (whole := self.stretches[-1].continued(stretch)):
            self.stretches[-1] = whole
        else:
            self.stretches.append(stretch)

    def leap(self, leap: RepeatedIterations, first: int, started_seconds: float, lineage: str) -> None:
        """A leap that begins with the iteration `first`."""
        each_seconds, num = leap.cadence.iteration_seconds, int(leap.cadence.first) if leap.num_pauses else 0
        if num:
            self.complete(Stretch(first, num, started_seconds, each_seconds, lineage))
            first, started_seconds = first + num, started_seconds + num * each_seconds + leap.pause_seconds
        if leap.num_pauses > 1:
            num, legs = leap.num_in_a_cycle, leap.num_pauses - 1
            self.complete(Stretch(first, num, started_seconds, each_seconds, lineage, legs, leap.pause_seconds))
            first, started_seconds = first + num * legs, started_seconds + legs * leap.cycle_seconds
        if leap.rest:
            self.complete(Stretch(first, leap.rest, started_seconds, each_seconds, lineage))

    @property
    def num_distinct(self) -> int:
        """Iterations completed once or more: all up to the last."""
        return self._last

    def columns(self) -> dict[str, npt.NDArray[Any] | list[None]]:
        """The fields of all records."""
        times = np.zeros(self._last + 1, np.int64)
        first, executions, starts, seconds = [], [], [], []
        for stretch in self.stretches:
            indices = np.arange(stretch.num_iterations)
            whole = slice(stretch.first, stretch.first + stretch.num_iterations)
            times[whole] += 1
            executions.append(times[whole].copy())
            first.append(stretch.first + indices)
            pauses_seconds = stretch.pause_seconds * (indices // stretch.num)
            starts.append(stretch.started_seconds + stretch.seconds * indices + pauses_seconds)  # exact, as ticks are
            seconds.append(stretch.seconds)
        iterations = _joined(first, np.int64)
        nums = [stretch.num_iterations for stretch in self.stretches]
        started_seconds = _joined(starts, np.float64)
        return {
            "iteration": iterations,
            "step": iterations // self.iterations_per_step,
            "execution": _joined(executions, np.int64),
            "started_seconds": started_seconds,
            "ended_seconds": started_seconds + np.repeat(np.array(seconds), nums),
            "lineage": np.repeat(np.array([stretch.lineage for stretch in self.stretches], dtype=object), nums),
            "train_loss": [None] * self._length,
            "validation_loss": [None] * self._length,
        }

    def __len__(self) -> int:
        """How many were completed."""
        return self._length

    def __iter__(self) -> Iterator[IterationRecord]:
        """One by one."""
        columns = [column if isinstance(column, list) else column.tolist() for column in self.columns().values()]
        return (IterationRecord(*row) for row in zip(*columns, strict=True))

    @overload
    def __getitem__(self, index: int) -> IterationRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[IterationRecord]: ...

    def __getitem__(self, index: int | slice) -> IterationRecord | list[IterationRecord]:
        """Some of them; takes the time of all."""
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        """Equal records, in a log or in a list."""
        if not isinstance(other, IterationLog | list) or len(self) != len(other):
            return False
        if isinstance(other, list):
            return list(self) == other
        theirs = other.columns()
        return all(list(column) == list(theirs[name]) for name, column in self.columns().items())

    __hash__ = None  # type: ignore[assignment]


def num_rerun(iterations: Sequence[IterationRecord]) -> int:
    """How many had been completed before, when they were completed."""
    if isinstance(iterations, IterationLog):
        return len(iterations) - iterations.num_distinct
    return sum(record.execution > 1 for record in iterations)


def _joined(parts: list[npt.NDArray[Any]], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
