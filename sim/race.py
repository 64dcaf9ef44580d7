"""Work races failure here, and nowhere else.

Failures that arrive while nobody is at work, or while a recovery is under way, queue up; the next work meets them
first. At an exact tie between the end of the work and a failure, the failure wins.
"""

from __future__ import annotations

import math
from collections import deque

import simpy
from simpy.events import NORMAL, EventPriority

from sim.ledger import Ledger
from sim.records import Bucket, Failure
from sim.strategies.base import Process
from sim.trace import Trace


class GaveUpError(Exception):
    """The run has taken longer than the scenario allows."""


class EventLoop(simpy.Environment):
    """SimPy's, on which time in which nothing is due can pass without an event."""

    def passes(self, seconds: float) -> bool:
        """Let time pass at once if nothing is due until its end, nor at it; whether it has."""
        until_seconds = self._now + seconds
        if self.peek() <= until_seconds:
            return False
        self._now = until_seconds
        return True


class Last(simpy.Event):
    """Comes after all else that is due at this instant, and all that this brings about at once."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=EventPriority(NORMAL + 1))


class Race:
    """One worker, and the failures that it has not been told of yet."""

    def __init__(self, env: EventLoop, ledger: Ledger, trace: Trace | None) -> None:
        self.env, self.ledger, self.trace = env, ledger, trace
        self.deadline_seconds = math.inf
        self.queued: deque[Failure] = deque()
        self._alarm: simpy.Event | None = None

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        return float(self.env.now)

    def tell(self, failure: Failure) -> None:
        """Something has failed: whoever is at work stops."""
        self.queued.append(failure)
        if self._alarm:
            sound(self._alarm)

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
        if self.passes(seconds):
            self.ledger.spend(bucket, seconds)
            return None
        return (yield from self.spend(self.env.timeout(seconds), bucket))

    def run_seconds(self, seconds: float) -> Process[Failure | None]:
        """Work for so many ticked seconds: the earliest queued Failure, or None."""
        if self.passes(seconds):
            return None
        return (yield from self.run(self.env.timeout(seconds)))

    def passes(self, seconds: float) -> bool:
        """Work for so long in one leap, if nothing at all happens until then; whether it has."""
        if self.queued or self.trace or self.env.now > self.deadline_seconds:
            return False
        return self.env.passes(seconds)

    @property
    def quiet_seconds(self) -> float:
        """Time until the next thing is due, or the deadline; none where a failure waits to be met."""
        if self.queued:
            return 0.0
        return min(self.env.peek(), self.deadline_seconds) - float(self.env.now)

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
