"""Work races failure here, and nowhere else.

Failures that arrive while nobody is at work, or while a recovery is under way, queue up; the next work meets them
first. At an exact tie between the end of the work and a failure, the failure wins.
"""

from __future__ import annotations

import math
from collections import deque

import simpy
from simpy.events import NORMAL, EventPriority

from sim.core.ledger import Ledger
from sim.core.records import Bucket, Failure
from sim.simulation.recorder import EventRecorder
from sim.strategies.base import Process


class GaveUpError(Exception):
    """The run has taken longer than the scenario allows."""


Turn = tuple[float, int, int]
"""An event's place in the queue: time, priority, and number in the order in which events were scheduled."""


class EventLoop(simpy.Environment):
    """SimPy's, which a process can drive itself: time passes without an event of its own to wait for.

    For this it looks at SimPy's queue and sets its clock, for which there is no public way.
    """

    def __init__(self) -> None:
        super().__init__(0.0)

    def turn(self, at_seconds: float) -> Turn:
        """The place in the queue of an event that would be scheduled now."""
        return at_seconds, NORMAL, next(self._eid)

    def is_due_before(self, turn: Turn) -> bool:
        """Whether something is due before what has this place."""
        return bool(self._queue) and self._queue[0] < turn

    def passes(self, seconds: float) -> bool:
        """Let time pass at once if nothing is due until then, nor at the end; whether it has."""
        until_seconds = self._now + seconds
        if (self._queue and self._queue[0][0] <= until_seconds) or math.isinf(until_seconds):
            return False
        self._now = until_seconds
        return True

    def end_at(self, at_seconds: float) -> None:
        """Nothing more happens, and it is that late."""
        self._queue.clear()
        self._now = at_seconds

    def leap_to(self, at_seconds: float) -> None:
        """Let time pass at once in which nothing is due."""
        assert at_seconds <= self.peek(), "something is due before"
        self._now = at_seconds


class Last(simpy.Event):
    """Comes after all else that is due at this instant, and all that this brings about at once."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=EventPriority(NORMAL + 1))


class InterruptibleWork:
    """One worker, and the failures that it has not been told of yet."""

    def __init__(self, env: EventLoop, ledger: Ledger, trace: EventRecorder | None) -> None:
        self.env, self.ledger, self.trace = env, ledger, trace
        self.deadline_seconds = math.inf
        self.queued: deque[Failure] = deque()
        self._alarm: simpy.Event | None = None
        self._is_driving = False
        self._stops: Turn | None = None

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        now_seconds: float = self.env.now
        return now_seconds

    def tell(self, failure: Failure) -> None:
        """Something has failed: whoever is at work stops."""
        self.queued.append(failure)
        if self._alarm:
            sound(self._alarm)
        if self._is_driving and self._stops is None:
            self._stops = self.env.turn(self.now_seconds)

    def spend(self, until: simpy.Event | None, bucket: Bucket) -> Process[Failure | None]:
        """Wait for an event or a failure, and book the time to a bucket."""
        started_seconds = self.now_seconds
        failure = yield from self.run(until)
        self.ledger.spend(bucket, self.now_seconds - started_seconds)
        if self.trace:
            self.trace.add_span(bucket, started_seconds, self.now_seconds)
        return failure

    def spend_seconds(self, seconds: float, bucket: Bucket) -> Process[Failure | None]:
        """Wait for so many ticked seconds or a failure, and book the time to a bucket."""
        if self._passes(seconds):
            self.ledger.spend(bucket, seconds)
            return None
        started_seconds = self.now_seconds
        failure = yield from self.run_seconds(seconds)
        self.ledger.spend(bucket, self.now_seconds - started_seconds)
        if self.trace:
            self.trace.add_span(bucket, started_seconds, self.now_seconds)
        return failure

    def run_seconds(self, seconds: float) -> Process[Failure | None]:
        """Work for so many ticked seconds: the earliest queued Failure, or None."""
        if self._passes(seconds):
            return None
        if self.trace or self.queued or self.now_seconds > self.deadline_seconds or math.isinf(seconds):
            return (yield from self.run(self.env.timeout(seconds)))
        return self.drive(self.env.turn(self.now_seconds + seconds))

    def _passes(self, seconds: float) -> bool:
        """Let time pass at once if nothing is due until then, nor at the end; whether it has."""
        env = self.env
        if self.queued or self.trace or env.now > self.deadline_seconds:
            return False
        return env.passes(seconds)

    def drive(self, end: Turn) -> Failure | None:
        """Work until the place of an event that nobody waits for: what `run` does until one, without it.

        All that is due happens meanwhile, as SimPy would have it: until the end has its turn, or a failure is told of,
        and then what is due at that instant and was scheduled by then.
        """
        env = self.env
        if not env.is_due_before((end[0], NORMAL + 1, 0)):
            env.leap_to(end[0])
            return None
        self._is_driving = True
        while self._stops is None and env.is_due_before(end):
            env.step()
        if self._stops is None:
            env.leap_to(end[0])
            self._stops = env.turn(end[0])
        while env.is_due_before(self._stops):
            env.step()
        self._is_driving, self._stops = False, None
        return self.queued.popleft() if self.queued else None

    @property
    def quiet_seconds(self) -> float:
        """Time until the next thing is due, or the deadline; none where a failure waits to be met."""
        if self.queued:
            return 0.0
        env, until_seconds = self.env, self.deadline_seconds
        if (due_seconds := env.peek()) < until_seconds:
            until_seconds = due_seconds
        return until_seconds - env.now

    def run(self, until: simpy.Event | None) -> Process[Failure | None]:
        """Work until an event: the earliest queued Failure, or None when the event has come in peace.

        Raises GaveUpError after the deadline.
        """
        if self.now_seconds > self.deadline_seconds:
            raise GaveUpError
        if not self.queued and until is not None:
            self._alarm = alarm = self.env.event()
            # The alarm is processed after everything already due at this instant: a tie goes to the failure.
            assert until.callbacks is not None, "what has happened already is not waited for"
            until.callbacks.append(lambda _: sound(alarm))
            yield alarm
            self._alarm = None
        return self.queued.popleft() if self.queued else None


def sound(alarm: simpy.Event) -> None:
    """Wake whoever waits for the alarm, once."""
    if not alarm.triggered:
        alarm.succeed()
