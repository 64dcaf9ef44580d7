"""Time in which nothing happens to the training passes in leaps, where nobody looks at each iteration."""

from __future__ import annotations

from collections.abc import Callable

from sim.core.records import Failure
from sim.simulation.interruptible import InterruptibleWork
from sim.simulation.iterations import IterationExecutor
from sim.simulation.leap import Cadence, RepeatedIterations, longest
from sim.simulation.log import EventLog, Repeated
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import NodeAdmission, StateTransfers
from sim.strategies.base import Routine
from sim.workload.config import IterationPlan


class FastForward:
    """What passes until the next thing is due: iterations and, where they stand still alone, what is saved.

    joining: nodes that may join between two iterations; None where failures have no effect. drives: whether it goes on
    where something is due that may not concern the training.
    """

    def __init__(
        self,
        execution: IterationExecutor,
        race: InterruptibleWork,
        holders: StatePlacement,
        joining: NodeAdmission | None,
        messenger: StateTransfers,
        events: EventLog,
        drives: bool,
    ) -> None:
        self._execution, self._race, self._holders, self._joining = execution, race, holders, joining
        self._messenger, self._events = messenger, events
        self._drives = drives
        self._began_seconds = 0.0

    def leap(
        self, plan: IterationPlan, most: int, routine_of: Callable[[float], Routine]
    ) -> tuple[RepeatedIterations, Failure | None] | None:
        """Complete up to so many iterations, as long as nothing disturbs but, now and then, a routine.

        routine_of: what is done after iterations of so many seconds. Also the Failure that has ended the next one. None
        where the next one may not pass so.
        """
        execution, messenger = self._execution, self._messenger
        priced = execution.price_in_leaps(plan, self._holders.hosts if self._joining else None)
        most = int(min(most, execution.most_in_a_leap))
        if priced is None or most < 1 or self._race.quiet_seconds <= 0.0 or self._is_disturbed:
            return None
        routine, pause_seconds = routine_of(priced.seconds), None
        if routine.transfers is not None and messenger.is_alone:
            pause_seconds = messenger.seconds_of(routine.transfers)
        rhythm = Cadence(priced.seconds, routine.first, routine.then, pause_seconds)
        leap, failure = self._passed(rhythm, most, execution.num_completed)
        execution.complete(leap, priced.split)
        if routine.transfers is not None:
            messenger.count(routine.transfers, leap.num_pauses)
        if failure:
            execution.cut(self._race.now_seconds - self._began_seconds - leap.seconds, priced.seconds)
        return (leap, failure) if failure or leap.num_iterations else None

    def _passed(self, rhythm: Cadence, most: int, num_before: int) -> tuple[RepeatedIterations, Failure | None]:
        """Leap from now, over what does not concern the training, if anything is due in the midst of an iteration."""
        race, execution = self._race, self._execution
        self._began_seconds = began_seconds = race.now_seconds
        leap = longest(rhythm, race.quiet_seconds, most)
        num_noted = 0
        while True:
            if leap.num_pauses > num_noted:
                self._events.repeat(saves(leap, began_seconds, num_before, num_noted))
                num_noted = leap.num_pauses
            num, at_seconds = leap.num_iterations, began_seconds + leap.seconds
            execution.num_completed = num_before + num
            ends_seconds = at_seconds + rhythm.iteration_seconds
            if num == most or leap.is_complete or not self._drives or ends_seconds > race.deadline_seconds:
                race.env.leap_to(at_seconds)
                return leap, None
            if failure := race.drive(race.env.turn(ends_seconds)):
                return leap, failure
            leap, quiet_seconds = leap.extended(), race.quiet_seconds
            if quiet_seconds <= 0.0 or self._is_disturbed:
                most = num + 1
            else:
                leap = longest(rhythm, ends_seconds - began_seconds + quiet_seconds, most)

    @property
    def _is_disturbed(self) -> bool:
        """Whether iterations have to be looked at one by one: nodes are about to join, or messages on their way."""
        return bool(self._joining and self._joining.is_expected) or self._messenger.is_busy


def saves(leap: RepeatedIterations, began_seconds: float, num_before: int, num_noted: int = 0) -> Repeated:
    """The records of what is saved in a leap, but for those that are noted already."""
    iteration, at_seconds = num_before + int(leap.rhythm.first), began_seconds + leap.first_pause_seconds
    num_in_a_cycle, cycle_seconds = leap.num_in_a_cycle, 0.0
    if num_in_a_cycle:
        cycle_seconds = leap.cycle_seconds
        iteration, at_seconds = iteration + num_noted * num_in_a_cycle, at_seconds + num_noted * cycle_seconds
    return Repeated(
        at_seconds, leap.pause_seconds, iteration, leap.num_pauses - num_noted, cycle_seconds, num_in_a_cycle
    )
