"""A calendar of events over plain lists, with SimPy's order, for loops that numba can compile.

Events of the future are on a heap, by time and then by the order in which they were scheduled. Those scheduled for the
present instant wait in a queue behind all that were scheduled for it before: SimPy's order for events of one priority.

An event is a kind and a number that says what it is about. Times are whole ticks, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from heapq import heappop, heappush
from typing import NamedTuple

from sim.core.units import TICKS_PER_SECOND

EXACT_TICKS = 2.0**53
"""From here on doubles are whole numbers anyway."""


class Calendar(NamedTuple):
    """Events to come. `clock` is [now in seconds, events scheduled, place in `present`]."""

    future: list[tuple[float, float, int, int]]  # seconds, order of scheduling, kind, about
    present: list[tuple[int, int]]
    clock: MutableSequence[float]


def schedule(calendar: Calendar, delay_seconds: float, kind: int, about: int) -> None:
    """Schedule an event."""
    clock = calendar.clock
    if delay_seconds > 0.0:
        clock[1] += 1.0
        heappush(calendar.future, (clock[0] + delay_seconds, clock[1], kind, about))
    else:
        calendar.present.append((kind, about))


def next_event(calendar: Calendar) -> tuple[int, int]:
    """Take the next event, at which the clock then is; (-1, -1) if there is none."""
    future, present, clock = calendar.future, calendar.present, calendar.clock
    if future and future[0][0] == clock[0]:
        event = heappop(future)
        return event[2], event[3]
    index = int(clock[2])
    if index < len(present):
        clock[2] += 1.0
        return present[index]
    present.clear()
    clock[2] = 0.0
    if not future:
        return -1, -1
    event = heappop(future)
    clock[0] = event[0]
    return event[2], event[3]


def has_more_now(calendar: Calendar) -> bool:
    """Whether more events are to come at the present instant."""
    future, clock = calendar.future, calendar.clock
    return int(clock[2]) < len(calendar.present) or (len(future) > 0 and future[0][0] == clock[0])


def whole_ticks(seconds: float) -> float:
    """The same as `to_ticks`, in code that numba compiles."""
    ticks = seconds * TICKS_PER_SECOND
    return round(ticks) / TICKS_PER_SECOND if ticks < EXACT_TICKS else seconds
