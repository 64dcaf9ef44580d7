"""Iterations that were completed without anything being learnt: equal ones that follow each other take one entry.

A fleet's run has millions of them. They are told one by one to whoever asks, as columns to whoever writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from sim.records import IterationRecord


@dataclass(frozen=True)
class Stretch:
    """`num` iterations one right after the other, from the `first` on, each of so many seconds."""

    first: int
    num: int
    started_seconds: float
    seconds: float
    lineage: str

    def continues(self, before: Stretch) -> bool:
        """Whether it goes on where another ends, in the same way."""
        return (
            self.first == before.first + before.num
            and self.seconds == before.seconds
            and self.started_seconds == before.started_seconds + before.num * before.seconds
            and self.lineage == before.lineage
        )


class IterationLog(Sequence[IterationRecord]):
    """Completed iterations, in order; begun at the first, or at one that has been completed before or is the next."""

    def __init__(self, iterations_per_step: int = 1) -> None:
        self.iterations_per_step = iterations_per_step
        self.stretches: list[Stretch] = []
        self._length = 0
        self._last = 0

    def complete(self, stretch: Stretch) -> None:
        """Some iterations have been completed, the next in time."""
        self._length += stretch.num
        self._last = max(self._last, stretch.first + stretch.num - 1)
        if self.stretches and stretch.continues(before := self.stretches[-1]):
            num, started_seconds = before.num + stretch.num, before.started_seconds
            stretch = Stretch(before.first, num, started_seconds, stretch.seconds, stretch.lineage)
            self.stretches.pop()
        self.stretches.append(stretch)

    @property
    def num_distinct(self) -> int:
        """Iterations completed once or more: all up to the last."""
        return self._last

    def columns(self) -> dict[str, npt.NDArray[Any] | list[None]]:
        """The fields of all records."""
        times = np.zeros(self._last + 1, np.int64)
        first, executions, starts, ends = [], [], [], []
        for stretch in self.stretches:
            whole = slice(stretch.first, stretch.first + stretch.num)
            times[whole] += 1
            executions.append(times[whole].copy())
            first.append(np.arange(stretch.first, stretch.first + stretch.num))
            begins = stretch.started_seconds + stretch.seconds * np.arange(stretch.num + 1)  # exact, as ticks are
            starts.append(begins[:-1])
            ends.append(begins[1:])
        iterations = _joined(first, np.int64)
        nums = [stretch.num for stretch in self.stretches]
        return {
            "iteration": iterations,
            "step": iterations // self.iterations_per_step,
            "execution": _joined(executions, np.int64),
            "started_seconds": _joined(starts, np.float64),
            "ended_seconds": _joined(ends, np.float64),
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
        if isinstance(other, IterationLog):
            return (self.stretches, self.iterations_per_step) == (other.stretches, other.iterations_per_step)
        return isinstance(other, list) and len(self) == len(other) and list(self) == other

    __hash__ = None  # type: ignore[assignment]


def num_rerun(iterations: Sequence[IterationRecord]) -> int:
    """How many had been completed before, when they were completed."""
    if isinstance(iterations, IterationLog):
        return len(iterations) - iterations.num_distinct
    return sum(record.execution > 1 for record in iterations)


def _joined(parts: list[npt.NDArray[Any]], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
