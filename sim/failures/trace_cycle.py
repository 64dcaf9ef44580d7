"""One pass through a repeated trace, and the numbers of its nodes in the simulated cluster."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from sim.failures.history import TraceRow
from sim.failures.trace_rows import names_nodes


class TraceEvent(NamedTuple):
    """An instant of a trace: of `num_before` nodes, `left` leave; then `num_came` nodes arrive, numbered `came`."""

    seconds: float
    num_before: int
    left: tuple[int, ...]
    num_came: int
    came: tuple[int, ...]


class TraceCycle:
    """One pass through a repeated trace, and the numbers of its nodes in the simulated cluster.

    A node that arrives while `max_nodes` are present is left out with its loss. The others are numbered by arrival. In
    a trace of counts, the node that arrived last leaves first. If the end is joined to the start, surplus nodes (the
    last to arrive) leave at the end, or missing nodes arrive. The nodes present then continue as those of the start, in
    order of arrival. offset_seconds: start of the first pass in the trace. initial: numbers in the trace of the
    nodes present at the offset.
    """

    def __init__(self, rows: Sequence[TraceRow], max_nodes: int | None, offset_seconds: float, joined: bool) -> None:
        self.events: list[TraceEvent] = []
        kept: dict[int, int] = {}  # present nodes: number in the trace -> number among the kept nodes
        naming, num_kept, num_arrived = names_nodes(rows), 0, 0
        unnamed: list[int] = []
        for seconds, num_came, num_left, leaving in rows:
            num_before = len(kept)
            names = leaving if naming else [unnamed.pop() for _ in range(num_left)]
            left = tuple(kept.pop(name) for name in names if name in kept)
            room = num_came if max_nodes is None else min(num_came, max_nodes - len(kept))
            kept.update({num_arrived + index: num_kept + index for index in range(room)})
            if not naming:
                unnamed.extend(range(num_arrived, num_arrived + num_came))
            came = tuple(range(num_arrived, num_arrived + room))
            num_kept, num_arrived = num_kept + room, num_arrived + num_came
            self.events.append(TraceEvent(seconds, num_before, left, room, came))
            if seconds <= offset_seconds:
                self._initial, self._num_by_offset = list(kept.values()), num_kept
                self.initial = tuple(kept)
        num_start, present = self.events.pop(0).num_came, list(kept.values())
        self.num_initial = len(self._initial)
        self._stay, surplus = present[:num_start], present[num_start:]
        if joined and self.events:  # the last event joins the end to the start
            last = self.events[-1]
            num_in_vain = min(len(surplus), last.num_came)  # would arrive and leave at the same instant
            gone, num_came = surplus[: len(surplus) - num_in_vain], last.num_came - num_in_vain
            came = (*last.came[:num_came], *range(len(self._stay), num_start))
            self.events[-1] = last._replace(left=(*last.left, *gone), num_came=len(came), came=came)
            num_kept -= num_in_vain
        self._num_in_first = num_kept - self._num_by_offset
        self._num_in_next = num_kept - len(self._stay)

    def number(self, node: int, cycle: int) -> int:
        """Number in the cluster of a node of the trace, in pass `cycle` (from 0)."""
        while cycle:
            if node >= len(self._stay):  # it arrived in this pass
                first = self.num_initial + self._num_in_first + (cycle - 1) * self._num_in_next
                return first + node - len(self._stay)
            # Present since the previous pass, under another number; a number that does not change is one of pass 0.
            cycle, node = (cycle - 1, self._stay[node]) if self._stay[node] != node else (0, node)
        if node >= self._num_by_offset:
            return self.num_initial + node - self._num_by_offset
        return bisect_left(self._initial, node)
