"""Closed-form durations of equal iterations with periodic saves; exact, since times are whole ticks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from sim.core.records import EventRecord


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

    def saves(self, started_seconds: float, iteration: int, num_before: int) -> RepeatedSaves:
        """The pauses of a leap that starts at a time and after an iteration, without the first `num_before`."""
        each_seconds, first, then, _ = self.cadence
        num_in_a_cycle = int(then) if self.num_pauses > 1 else 0
        cycle_seconds = num_in_a_cycle * each_seconds + self.pause_seconds if num_in_a_cycle else 0.0
        at_seconds = started_seconds + first * each_seconds + num_before * cycle_seconds
        at_iteration, num = iteration + int(first) + num_before * num_in_a_cycle, self.num_pauses - num_before
        return RepeatedSaves(at_seconds, self.pause_seconds, at_iteration, num, cycle_seconds, num_in_a_cycle)


class RepeatedSaves(NamedTuple):
    """A save `num` times: each takes `seconds`; they are `cycle_seconds` and `num_in_a_cycle` iterations apart."""

    started_seconds: float
    seconds: float
    iteration: int
    num: int
    cycle_seconds: float
    num_in_a_cycle: int

    def records(self) -> Iterator[EventRecord]:
        """The records of its starts and ends."""
        for index in range(self.num):
            at_seconds = self.started_seconds + index * self.cycle_seconds
            iteration = self.iteration + index * self.num_in_a_cycle
            yield EventRecord(at_seconds, "checkpoint_started", None, iteration)
            yield EventRecord(at_seconds + self.seconds, "checkpoint_durable", None, iteration)


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
