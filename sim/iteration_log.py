"""Iterations that were completed without anything being learnt: equal ones that follow each other take one entry.

A fleet's run has millions of them. They are told one by one to whoever asks, as columns to whoever writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from sim.leaps import Leap
from sim.records import IterationRecord


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

    def leap(self, leap: Leap, first: int, started_seconds: float, lineage: str) -> None:
        """A leap that begins with the iteration `first`."""
        each_seconds, num = leap.rhythm.iteration_seconds, int(leap.rhythm.first) if leap.num_pauses else 0
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
