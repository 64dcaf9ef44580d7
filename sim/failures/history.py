"""Histories of nodes: the intervals in which each node was present, and the rows of a trace that say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from operator import sub
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.failures.trace_text import MAX_ROWS, MAX_SECONDS

Count = Annotated[int, Field(ge=0, le=MAX_ROWS)]

TraceRow = Annotated[
    tuple[Annotated[float, Field(ge=0, le=MAX_SECONDS)], Count, Count, tuple[Annotated[int, Field(ge=0)], ...]],
    Field(description="seconds since the first, nodes that arrive, nodes that leave, their numbers if known"),
]
"""An instant at which something changed. Nodes are numbered by arrival from 0, and leave before others arrive."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class History:
    """Intervals of presence, in order of their starts; seconds count from the first instant of the observation.

    node: the number of the interval's node, a place in `names`; region: of the interval, a place in `regions`.
    is_lost: whether the node was lost at the end; otherwise nothing is known of it after that (censored).
    is_begun: whether the node arrived at the start; otherwise it was there before, and its age is not known.
    seconds: how long the observation lasts.
    """

    node: Ints
    start: Floats
    end: Floats
    is_lost: Flags
    is_begun: Flags
    seconds: float
    names: tuple[str, ...]
    region: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    regions: tuple[str, ...] = ()

    @property
    def uptimes(self) -> Floats:
        """Seconds of presence in each interval."""
        return self.end - self.start

    @property
    def node_seconds(self) -> float:
        """Seconds of presence of all nodes together."""
        return float(self.uptimes.sum())

    @property
    def num_lost(self) -> int:
        """Number of losses."""
        return int(self.is_lost.sum())

    def region_of(self, interval: int) -> str | None:
        """The region of an interval; None where the history has none."""
        return self.regions[self.region[interval]] if self.regions else None

    def downtimes(self) -> Floats:
        """Seconds from each loss to the return of the same node, of nodes that returned."""
        order = np.lexsort((self.start, self.node))
        node, start, end, lost = (each[order] for each in (self.node, self.start, self.end, self.is_lost))
        returned = (node[1:] == node[:-1]) & lost[:-1]
        gaps = np.asarray(start[1:] - end[:-1], float)
        return np.asarray(gaps[returned], float)


def sorted_history(history: History) -> History:
    """The history with its intervals in order of their starts."""
    order = np.argsort(history.start, kind="stable")
    columns = {name: getattr(history, name)[order] for name in ("node", "start", "end", "is_lost", "is_begun")}
    region = history.region[order] if history.regions else history.region
    return replace(history, **columns, region=region)


def rows_of_history(history: History) -> tuple[TraceRow, ...]:
    """The rows of a trace with the same arrivals and losses; each interval is a node, numbered by arrival."""
    lost = np.flatnonzero(history.is_lost)
    instants = np.unique(np.concatenate(([0.0, history.seconds], history.start, history.end[lost])))
    came = np.bincount(np.searchsorted(instants, history.start), minlength=len(instants)).tolist()
    at = np.searchsorted(instants, history.end[lost])
    leaving: list[list[int]] = [[] for _ in instants]
    for row, number in zip(at.tolist(), lost.tolist(), strict=True):
        leaving[row].append(number)
    return tuple(
        (seconds, num_came, len(numbers), tuple(numbers))
        for seconds, num_came, numbers in zip(instants.tolist(), came, leaving, strict=True)
    )


def history_of_rows(rows: Sequence[TraceRow], nodes: Sequence[int] = ()) -> History | None:
    """The history in rows that name the nodes that leave, or have a single node; None for others.

    nodes: the node of each arrival; by default each arrival is a node of its own, or all are the single node.
    """
    starts: list[float] = []
    ends: dict[int, float] = {}
    present: list[int] = []
    names_all = any(row[3] for row in rows)
    if not names_all and max(fleet_counts(rows)[1]) > 1:
        return None
    for seconds, num_came, num_left, leaving in rows:
        for number in leaving if names_all else [present.pop() for _ in range(num_left)]:
            ends[number] = seconds
        arrived = range(len(starts), len(starts) + num_came)
        starts += [seconds] * num_came
        if not names_all:
            present += arrived
    single = not names_all
    numbers = list(nodes) or ([0] * len(starts) if single else list(range(len(starts))))
    end_seconds = rows[-1][0]
    return History(
        node=np.array(numbers, np.int64),
        start=np.array(starts, float),
        end=np.array([ends.get(number, end_seconds) for number in range(len(starts))], float),
        is_lost=np.array([number in ends for number in range(len(starts))], bool),
        is_begun=np.ones(len(starts), bool),
        seconds=end_seconds,
        names=tuple(str(number) for number in range(max(numbers, default=-1) + 1)),
    )


def fleet_counts(rows: Sequence[TraceRow]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The instants of a trace in seconds, and the number of nodes present from each on."""
    instants, came, left, _ = zip(*rows, strict=True)
    return instants, tuple(accumulate(map(sub, came, left)))


def node_seconds(rows: Sequence[TraceRow]) -> float:
    """Seconds of presence of all nodes of a trace together."""
    instants, present = fleet_counts(rows)
    return sum(num * (then - at) for num, (at, then) in zip(present, pairwise(instants), strict=False))
