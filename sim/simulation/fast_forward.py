"""Skipping of iterations, and of blocking saves, in runs that train nothing.

Iterations are alike until the next event of the loop. Any number of them is one product of ticked seconds: exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from models.training_state import Position
from sim.core.records import Failure
from sim.simulation.leap import Cadence, RepeatedIterations, longest
from sim.simulation.world import World
from sim.strategies import Strategy
from sim.strategies.base import PeriodicSave, Process, StrategyWorld
from sim.workload.config import IterationPlan
from sim.workload.iteration_time import IterationTime

Action = float | PeriodicSave  # iterations until a strategy acts next, or a save that it repeats


def next_action(strategy: Strategy, world: StrategyWorld, position: Position, iteration_seconds: float) -> Action:
    """The next action that a strategy announces; the next iteration if a subclass overrides `after_iteration` alone."""
    kinds = type(strategy).__mro__
    owner = next(index for index, kind in enumerate(kinds) if "next_action" in vars(kind))
    if any("after_iteration" in vars(kind) for kind in kinds[:owner]):
        return 1.0
    return strategy.next_action(world, position, iteration_seconds)


class FastForward:
    """Skips iterations, and blocking saves between them, until the next event is due."""

    def __init__(self, world: World) -> None:
        self._world, self._iterations = world, world.iterations
        self._work, self._transfers = world.work, world.transfers

    def leap(
        self, plan: IterationPlan, position: Position, num_iterations: int, action_of: Callable[[float], Action]
    ) -> Process[tuple[RepeatedIterations, Failure | None] | None]:
        """Complete iterations from a Position on, up to an action that is no periodic save or to a Failure.

        None if the next iteration must be executed by itself. num_iterations: of the whole run; action_of: the
        strategies' next action, given the duration of an iteration.
        """
        work, env, idle = self._work, self._work.env, self._transfers.has_idle_links
        most = min(num_iterations - position.iteration, self._iterations.most_in_a_leap)
        iteration = self._find_repeatable(plan) if most >= 1 else None
        if iteration is None:
            return None
        action = action_of(iteration.seconds)
        if isinstance(action, PeriodicSave):  # the strategy itself does saves whose duration may vary
            save_seconds = self._transfers.seconds_of(action.transfers) if idle else None
            cadence = Cadence(iteration.seconds, action.first, action.period, save_seconds)
        else:
            cadence = Cadence(iteration.seconds, action)
        began_seconds, left_seconds, booked = work.now_seconds, self._failure_free_seconds, None
        leap = longest(cadence, left_seconds, most)
        while True:
            self._iterations.complete(leap, booked, iteration.split)
            if isinstance(action, PeriodicSave):
                self._repeat(action, leap, booked.num_pauses if booked else 0, position, began_seconds)
            booked, leapt_seconds = leap, began_seconds + leap.seconds
            if leapt_seconds > env.now:
                work.skip(leapt_seconds - env.now)
            ends_seconds = leapt_seconds + iteration.seconds
            is_last = leap.num_iterations == most or leap.is_complete or ends_seconds >= work.deadline_seconds
            if is_last or not idle:  # with idle links, no event is a notice, which strategies would answer
                return (leap, None) if leap.num_iterations else None
            failure = yield from work.wait_until(env.timeout(env.peek() - env.now))  # the event may be no failure
            left_seconds = self._failure_free_seconds
            if failure is None and (left_seconds <= 0.0 or self._is_disturbed):
                failure = yield from work.wait(ends_seconds - env.now)
                leap = leap.extended()
                most = leap.num_iterations
            elif failure is None:
                leap = longest(cadence, env.now + left_seconds - began_seconds, most)
            if failure:
                self._iterations.cut(ends_seconds, iteration.seconds)
                return booked, failure

    def _find_repeatable(self, plan: IterationPlan) -> IterationTime | None:
        """The next iteration if those after it are alike, and it may be part of a leap."""
        if self._work.queued or self._is_disturbed:
            return None
        iteration = self._iterations.time_in_leaps(plan, self._world.assignment_for(plan))
        if iteration and iteration.seconds >= self._failure_free_seconds and not self._transfers.has_idle_links:
            return None
        return iteration

    @property
    def _failure_free_seconds(self) -> float:
        seconds: float = min(self._work.env.peek(), self._work.deadline_seconds) - self._work.env.now
        return seconds

    @property
    def _is_disturbed(self) -> bool:
        """Whether the next iterations differ: nodes are about to join, or messages share the links."""
        transfers = self._transfers
        return bool(self._world.joining.nodes() or (transfers.network.is_shared and transfers.flows.under_way))

    def _repeat(
        self, save: PeriodicSave, leap: RepeatedIterations, num_before: int, position: Position, began_seconds: float
    ) -> None:
        """Record the saves of a leap from a Position on, except those recorded before."""
        if leap.num_pauses == num_before:
            return
        saves = leap.saves(began_seconds, position.iteration, num_before)
        self._world.events.repeat(saves)
        self._transfers.count(save.transfers, saves.num)
        last = position.iteration + leap.num_iterations - leap.rest
        last_seconds = saves.started_seconds + (saves.num - 1) * saves.cycle_seconds
        save.completed(replace(position, iteration=last), last_seconds)
