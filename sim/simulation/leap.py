"""Closed-form durations of equal iterations with periodic saves.

Times are whole ticks, so that products are exact and a leap ends at the same instant as the run event by event.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Cadence(NamedTuple):
    """Iterations of equal duration, a pause after the `first` ones, and one after every `then`; None: no pauses."""

    iteration_seconds: float
    first: float
    then: float = math.inf
    pause_seconds: float | None = None


class RepeatedIterations(NamedTuple):
    """A leap: `first` iterations and a pause, `num_pauses - 1` times `then` iterations and a pause, and `rest` more.

    num_iterations: number of all iterations; seconds: total duration; is_complete: whether a pause is due at the end.
    """

    cadence: Cadence
    num_pauses: int
    rest: int
    num_iterations: int
    seconds: float
    is_complete: bool

    def extended(self) -> RepeatedIterations:
        """The leap with one more iteration."""
        rest, seconds = self.rest + 1, self.seconds + self.cadence.iteration_seconds
        is_complete = rest >= (self.cadence.then if self.num_pauses else self.cadence.first)
        return RepeatedIterations(self.cadence, self.num_pauses, rest, self.num_iterations + 1, seconds, is_complete)

    @property
    def pause_seconds(self) -> float:
        """Duration of a pause."""
        return self.cadence.pause_seconds or 0.0

    @property
    def first_pause_seconds(self) -> float:
        """Time from the start of the leap to the first pause."""
        return self.cadence.first * self.cadence.iteration_seconds

    @property
    def num_in_a_cycle(self) -> int:
        """Iterations from one pause to the next; 0 if there is only one."""
        return int(self.cadence.then) if self.num_pauses > 1 else 0

    @property
    def cycle_seconds(self) -> float:
        """Time from one pause to the next."""
        return self.num_in_a_cycle * self.cadence.iteration_seconds + self.pause_seconds

    @property
    def last_pause_seconds(self) -> float:
        """Time from the start of the leap to the last pause."""
        return self.seconds - self.rest * self.cadence.iteration_seconds - self.pause_seconds


def plain_leap(num: int, seconds: float) -> RepeatedIterations:
    """Some iterations without pauses, each of some seconds."""
    return RepeatedIterations(Cadence(seconds, math.inf), 0, num, num, num * seconds, is_complete=False)


def longest(cadence: Cadence, left_seconds: float, most: float) -> RepeatedIterations:
    """The longest leap of up to `most` iterations that takes less than `left_seconds`.

    It ends with an iteration or with a pause; `rest` is at most the number of iterations until the next pause.
    """
    each_seconds, first, then, pause_seconds = cadence
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
    return RepeatedIterations(cadence, num_pauses, rest, num_done + rest, seconds, rest >= until_pause)


def num_before(seconds: float, left_seconds: float, most: float) -> int:
    """The largest number, up to `most`, of durations of some seconds that together take less than `left_seconds`."""
    if not seconds < left_seconds:
        return 0
    num = most if math.isinf(left_seconds) else min(most, math.ceil(left_seconds / seconds))
    while num > 0 and num * seconds >= left_seconds:  # quotients are rounded
        num -= 1
    return int(num)
