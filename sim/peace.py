"""Time in which nothing happens to the training passes in leaps, where nobody looks at each iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sim.costs import IterationPlan
from sim.event_log import EventLog, Repeated
from sim.execution import Execution
from sim.holders import Holders
from sim.joining import Joining
from sim.leaps import Leap, Rhythm, longest
from sim.messenger import Messenger
from sim.race import Race
from sim.records import EventRecord
from sim.strategies.base import Routine


class Peace:
    """What passes until the next thing is due: iterations and, where they stand still alone, what is saved.

    joining: nodes that may join between two iterations; None where failures have no effect.
    """

    def __init__(
        self,
        execution: Execution,
        race: Race,
        holders: Holders,
        joining: Joining | None,
        messenger: Messenger,
        events: EventLog,
    ) -> None:
        self._execution, self._race, self._holders, self._joining = execution, race, holders, joining
        self._messenger, self._events = messenger, events

    def leap(self, plan: IterationPlan, most: int, routine_of: Callable[[float], Routine]) -> Leap | None:
        """Complete up to so many iterations at once, as long as nothing happens but, now and then, a routine.

        routine_of: what is done after iterations of so many seconds. None where the next iteration may not pass so.
        """
        execution, messenger, left_seconds = self._execution, self._messenger, self._race.quiet_seconds
        priced = execution.price_in_leaps(plan, self._holders.hosts if self._joining else None)
        if priced is None or priced.seconds >= left_seconds or (self._joining and self._joining.is_expected):
            return None
        routine, pause_seconds = routine_of(priced.seconds), None
        if routine.transfers is not None and messenger.is_alone:
            pause_seconds = messenger.seconds_of(routine.transfers)
        rhythm = Rhythm(priced.seconds, routine.first, routine.then, pause_seconds)
        leap = longest(rhythm, left_seconds, min(most, execution.most_in_a_leap))
        if not leap.num_iterations:
            return None
        if leap.num_pauses and routine.transfers is not None:
            messenger.count(routine.transfers, leap.num_pauses)
            self._events.repeat(self._saves(leap))
        execution.leap(leap, priced.split)
        return leap

    def _saves(self, leap: Leap) -> Repeated:
        """The records of what is saved in a leap that begins now."""
        iteration, now_seconds = self._execution.num_completed + int(leap.rhythm.first), self._race.now_seconds
        starts = EventRecord(now_seconds + leap.first_pause_seconds, "checkpoint_started", None, iteration)
        ends = replace(starts, time_seconds=starts.time_seconds + leap.pause_seconds, kind="checkpoint_durable")
        return Repeated((starts, ends), leap.num_pauses, leap.cycle_seconds, leap.num_in_a_cycle)
