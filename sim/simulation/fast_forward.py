"""Skipping of simulated time in which nothing is due: only for runs that train nothing.

Until the next event of the loop, an iteration is like the one before it, and so is a blocking save. Any number of them
is one product of ticked seconds, so the results equal those of the run event by event, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy

from sim.simulation.interruptible import InterruptibleWork
from sim.simulation.iterations import IterationExecutor
from sim.simulation.leap import Cadence, RepeatedIterations, longest
from sim.simulation.log import EventLog, Repeated
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import NodeAdmission, StateTransfers
from sim.strategies.base import Routine
from sim.workload.config import IterationPlan


def skip(env: simpy.Environment, seconds: float) -> bool:
    """Advance the clock at once if nothing is due by then; return whether it did. SimPy has no public way to do so."""
    until_seconds = env.now + seconds
    if env.peek() <= until_seconds:
        return False
    env._now = until_seconds
    return True


class FastForward:
    """Passes over iterations, and over blocking saves between them, until the next event is due.

    admission: of nodes that may join between two iterations; None if failures have no effect.
    """

    def __init__(
        self,
        execution: IterationExecutor,
        work: InterruptibleWork,
        placement: StatePlacement,
        admission: NodeAdmission | None,
        transfers: StateTransfers,
        events: EventLog,
    ) -> None:
        self._execution, self._work, self._placement, self._admission = execution, work, placement, admission
        self._transfers, self._events = transfers, events

    def leap(self, plan: IterationPlan, most: int, routine_of: Callable[[float], Routine]) -> RepeatedIterations | None:
        """Complete up to `most` iterations before the next event is due; None if there is no time for one.

        routine_of: what the strategies do after iterations of some seconds.
        """
        execution, transfers, left_seconds = self._execution, self._transfers, self._failure_free_seconds
        priced = execution.price_in_leaps(plan, self._placement.hosts if self._admission else None)
        if priced is None or priced.seconds >= left_seconds or self._is_disturbed:
            return None
        most = int(min(most, execution.most_in_a_leap))
        routine, pause_seconds = routine_of(priced.seconds), None
        if routine.transfers is not None and transfers.is_alone:
            pause_seconds = transfers.seconds_of(routine.transfers)
        cadence = Cadence(priced.seconds, routine.first, routine.then, pause_seconds)
        leap = longest(cadence, left_seconds, most)
        if leap.num_iterations == 0:
            return None
        if leap.num_pauses:
            assert routine.transfers is not None
            self._events.repeat(saves(leap, self._work.now_seconds, execution.num_completed))
            transfers.count(routine.transfers, leap.num_pauses)
        execution.complete(leap, priced.split)
        skipped = skip(self._work.env, leap.seconds)
        assert skipped, "a leap ends before the next event"
        return leap

    @property
    def _failure_free_seconds(self) -> float:
        """Time until the next event is due, or the deadline; none if a failure is queued."""
        work = self._work
        return 0.0 if work.queued else min(work.env.peek(), work.deadline_seconds) - work.now_seconds

    @property
    def _is_disturbed(self) -> bool:
        """Whether iterations differ: nodes are about to join, or messages share the links."""
        return bool(self._admission and self._admission.is_expected) or self._transfers.is_busy


def saves(leap: RepeatedIterations, began_seconds: float, num_before: int) -> Repeated:
    """The records of the saves in a leap that begins after some iterations."""
    iteration, at_seconds = num_before + int(leap.rhythm.first), began_seconds + leap.first_pause_seconds
    cycle_seconds = leap.cycle_seconds if leap.num_in_a_cycle else 0.0
    return Repeated(at_seconds, leap.pause_seconds, iteration, leap.num_pauses, cycle_seconds, leap.num_in_a_cycle)
