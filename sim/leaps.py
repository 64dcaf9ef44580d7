"""Leaps over time in which nothing happens but what repeats itself: iterations, and a pause now and then to save.

Times are whole ticks, so that products are exact and a leap ends at the same instant as event after event does.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Rhythm(NamedTuple):
    """Iterations of so many seconds; after `first` of them, and then after every `then`, a pause. None: no pauses."""

    iteration_seconds: float
    first: float
    then: float = math.inf
    pause_seconds: float | None = None


class Leap(NamedTuple):
    """What passes at once: `first` iterations and a pause, `num_pauses - 1` times `then` and one, and `rest` more."""

    rhythm: Rhythm
    num_pauses: int
    num_until_last_pause: int
    rest: int

    @property
    def num_iterations(self) -> int:
        """Iterations completed."""
        return self.num_until_last_pause + self.rest

    @property
    def is_complete(self) -> bool:
        """Whether a pause would be next."""
        return self.rest >= (self.rhythm.then if self.num_pauses else self.rhythm.first)

    def extended(self) -> Leap:
        """With the next iteration."""
        return Leap(self.rhythm, self.num_pauses, self.num_until_last_pause, self.rest + 1)

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
        return self.num_until_last_pause * self.rhythm.iteration_seconds + (self.num_pauses - 1) * self.pause_seconds

    @property
    def pauses_seconds(self) -> float:
        """All pauses together."""
        return self.num_pauses * self.pause_seconds

    @property
    def seconds(self) -> float:
        """The whole."""
        return self.num_iterations * self.rhythm.iteration_seconds + self.pauses_seconds


def longest(rhythm: Rhythm, left_seconds: float, most: float) -> Leap:
    """The longest leap that ends before so many seconds have passed, of up to so many iterations.

    It ends with an iteration, or with a pause; `rest` is at most what is left until the next pause.
    """
    each_seconds = rhythm.iteration_seconds
    num_pauses = num_done = 0
    spent_seconds, until_pause = 0.0, rhythm.first
    if rhythm.pause_seconds is not None and rhythm.first <= most:
        leg_seconds = rhythm.first * each_seconds + rhythm.pause_seconds
        if leg_seconds < left_seconds:
            cycle_seconds = rhythm.then * each_seconds + rhythm.pause_seconds
            more = num_before(cycle_seconds, left_seconds - leg_seconds, (most - rhythm.first) // rhythm.then)
            num_pauses, num_done = 1 + more, int(rhythm.first + more * rhythm.then if more else rhythm.first)
            spent_seconds = leg_seconds + more * cycle_seconds if more else leg_seconds
            until_pause = rhythm.then
    rest = num_before(each_seconds, left_seconds - spent_seconds, min(until_pause, most - num_done))
    return Leap(rhythm, num_pauses, num_done, rest)


def num_before(seconds: float, left_seconds: float, most: float) -> int:
    """How many times so long can pass, one after the other, before so many seconds have; up to so many."""
    if not seconds < left_seconds:
        return 0
    num = most if math.isinf(left_seconds) else min(most, math.ceil(left_seconds / seconds))
    while num > 0 and num * seconds >= left_seconds:  # quotients are rounded
        num -= 1
    return int(num)
