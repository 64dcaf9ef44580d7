"""Skipping of simulated time in which nothing is due; iterations are skipped only in runs that train nothing.

Until the next event of the loop, an iteration is like the one before it, and so is a blocking save. Any number of them
is one product of ticked seconds, so the results equal those of the run event by event, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import simpy

from models.training_state import Position
from sim.simulation.interruptible import InterruptibleWork
from sim.simulation.iterations import IterationExecutor
from sim.simulation.leap import Cadence, RepeatedIterations, longest
from sim.simulation.log import EventLog, Repeated
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import NodeAdmission, StateTransfers
from sim.strategies import Strategy
from sim.strategies.base import PeriodicSave, StrategyWorld
from sim.workload.config import IterationPlan

Action = float | PeriodicSave
"""Iterations until a strategy acts next, or a save that it repeats."""


def skip(env: simpy.Environment, seconds: float) -> bool:
    """Advance the clock at once if nothing is due by then; return whether it did. SimPy has no public way to do so."""
    until_seconds = env.now + seconds
    if env.peek() <= until_seconds:
        return False
    env._now = until_seconds
    return True


def next_action(strategy: Strategy, world: StrategyWorld, position: Position, iteration_seconds: float) -> Action:
    """The next action that a strategy announces; the next iteration if it announces none."""
    if not announces_actions(type(strategy)):
        return 1.0
    return strategy.next_action(world, position, iteration_seconds)


@cache
def announces_actions(kind: type[Strategy]) -> bool:
    """Whether `next_action` describes this `after_iteration`: no subclass has overridden the latter alone."""
    owner = next(cls for cls in kind.__mro__ if "next_action" in vars(cls))
    return not any("after_iteration" in vars(cls) for cls in kind.__mro__[: kind.__mro__.index(owner)])


class FastForward:
    """Skips iterations, and blocking saves between them, until the next event is due.

    admission: of nodes that may join between two iterations; None if failures have no effect.
    """

    def __init__(
        self,
        iterations: IterationExecutor,
        work: InterruptibleWork,
        placement: StatePlacement,
        admission: NodeAdmission | None,
        transfers: StateTransfers,
        events: EventLog,
    ) -> None:
        self._iterations, self._work, self._placement, self._admission = iterations, work, placement, admission
        self._transfers, self._events = transfers, events

    def leap(
        self, plan: IterationPlan, position: Position, num_iterations: int, action_of: Callable[[float], Action]
    ) -> RepeatedIterations | None:
        """Complete iterations from a Position on before the next event is due; None if there is no time for one.

        num_iterations: of the whole run; action_of: the strategies' next action, given the duration of an iteration.
        """
        work, transfers, admission = self._work, self._transfers, self._admission
        if work.queued or transfers.share_links or (admission and admission.is_expected):
            return None  # the next iterations differ
        iteration = self._iterations.time_in_leaps(plan, self._placement.assignment if admission else None)
        left_seconds = min(work.env.peek(), work.deadline_seconds) - work.env.now
        if iteration is None or iteration.seconds >= left_seconds:
            return None
        action, pause_seconds = action_of(iteration.seconds), None
        if isinstance(action, PeriodicSave):
            if transfers.has_idle_links:
                pause_seconds = transfers.seconds_of(action.transfers)
            cadence = Cadence(iteration.seconds, action.first, action.period, pause_seconds)
        else:
            cadence = Cadence(iteration.seconds, action)
        most = min(num_iterations - position.iteration, self._iterations.most_in_a_leap)
        leap = longest(cadence, left_seconds, most)
        if leap.num_iterations == 0:
            return None
        if leap.num_pauses:
            assert isinstance(action, PeriodicSave)
            self._repeat(action, leap, position)
        self._iterations.complete(leap, iteration.split)
        skipped = skip(work.env, leap.seconds)
        assert skipped, "a leap ends before the next event"
        return leap

    def _repeat(self, save: PeriodicSave, leap: RepeatedIterations, position: Position) -> None:
        """Record the saves of a leap that begins now, from a Position on."""
        now_seconds, cycle_seconds = self._work.now_seconds, leap.cycle_seconds if leap.num_in_a_cycle else 0.0
        first = position.iteration + int(leap.cadence.first), now_seconds + leap.first_pause_seconds
        self._events.repeat(
            Repeated(first[1], leap.pause_seconds, first[0], leap.num_pauses, cycle_seconds, leap.num_in_a_cycle)
        )
        self._transfers.count(save.transfers, leap.num_pauses)
        last = position.iteration + leap.num_iterations - leap.rest
        save.completed(
            Position(position.lineage, last, position.iterations_per_step), now_seconds + leap.last_pause_seconds
        )
