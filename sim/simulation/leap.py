"""Leaps over time in which nothing happens but what repeats itself: iterations, and a pause now and then to save.

Times are whole ticks, so that products are exact and a leap ends at the same instant as event after event does.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Cadence(NamedTuple):
    """Iterations of so many seconds; after `first` of them, and then after every `then`, a pause. None: no pauses."""

    iteration_seconds: float
    first: float
    then: float = math.inf
    pause_seconds: float | None = None


class RepeatedIterations(NamedTuple):
    """What passes at once: `first` iterations and a pause, `num_pauses - 1` times `then` and one, and `rest` more.

    num_iterations: all that are completed; seconds: the whole; is_complete: whether a pause would be next.
    """

    rhythm: Cadence
    num_pauses: int
    rest: int
    num_iterations: int
    seconds: float
    is_complete: bool

    @property
    def pause_seconds(self) -> float:
        """Each pause."""
        return self.rhythm.pause_seconds or 0.0

    @property
    def first_pause_seconds(self) -> float:
        """From the beginning until the first pause."""
        return self.rhythm.first * self.rhythm.iteration_seconds

    @property
    def num_in_a_cycle(self) -> int:
        """Iterations from one pause to the next; 0 where there is no next."""
        return int(self.rhythm.then) if self.num_pauses > 1 else 0

    @property
    def cycle_seconds(self) -> float:
        """From one pause to the next."""
        return self.num_in_a_cycle * self.rhythm.iteration_seconds + self.pause_seconds

    @property
    def last_pause_seconds(self) -> float:
        """From the beginning until the last pause."""
        return self.seconds - self.rest * self.rhythm.iteration_seconds - self.pause_seconds


def longest(rhythm: Cadence, left_seconds: float, most: float) -> RepeatedIterations:
    """The longest leap that ends before so many seconds have passed, of up to so many iterations.

    It ends with an iteration, or with a pause; `rest` is at most what is left until the next pause.
    """
    each_seconds, first, then, pause_seconds = rhythm
    num_pauses = num_done = 0
    spent_seconds, until_pause = 0.0, first
    if pause_seconds is not None and first <= most:
        leg_seconds = first * each_seconds + pause_seconds
        if leg_seconds < left_seconds:
            cycle_seconds = then * each_seconds + pause_seconds
            more = num_before(cycle_seconds, left_seconds - leg_seconds, (most - first) // then)
            num_pauses, num_done, until_pause = 1 + more, int(first), then
            spent_seconds = leg_seconds
            if more:
                num_done, spent_seconds = int(first + more * then), leg_seconds + more * cycle_seconds
    rest = num_before(each_seconds, left_seconds - spent_seconds, min(until_pause, most - num_done))
    seconds = spent_seconds + rest * each_seconds
    return RepeatedIterations(rhythm, num_pauses, rest, num_done + rest, seconds, rest >= until_pause)


def num_before(seconds: float, left_seconds: float, most: float) -> int:
    """How many times so long can pass, one after the other, before so many seconds have; up to so many."""
    if not seconds < left_seconds:
        return 0
    num = most if math.isinf(left_seconds) else min(most, math.ceil(left_seconds / seconds))
    while num > 0 and num * seconds >= left_seconds:  # quotients are rounded
        num -= 1
    return int(num)
