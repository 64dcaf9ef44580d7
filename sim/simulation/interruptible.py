"""Work that a failure can interrupt: the only place where the training process waits.

A failure that occurs meanwhile is queued; the next wait returns it first. At an equal instant, the failure wins.
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


class NoNodesError(Exception):
    """A stage waits for a node, and none can come any more."""


class InterruptibleWork:
    """Waits of the training process, and the queue of failures that it has not met yet."""

    def __init__(self, env: simpy.Environment, ledger: Ledger, recorder: EventRecorder | None) -> None:
        self.env, self.ledger, self.recorder = env, ledger, recorder
        self.deadline_seconds = math.inf
        self.queued: deque[Failure] = deque()
        self._alarm: simpy.Event | None = None

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        now_seconds: float = self.env.now
        return now_seconds

    def interrupt(self, failure: Failure) -> None:
        """Queue a failure and end the current wait, if there is one."""
        self.queued.append(failure)
        if self._alarm:
            trigger_late(self._alarm, rank=1)

    def skip(self, seconds: float) -> bool:
        """Advance the clock at once if nothing is due by then; return whether it did. SimPy has no public way."""
        until_seconds = self.env.now + seconds
        if self.env.peek() <= until_seconds:
            return False
        self.env._now = until_seconds
        return True

    def wait(self, seconds: float, bucket: Bucket | None = None) -> Process[Failure | None]:
        """Wait for some ticked seconds or a failure; book the time to a bucket, unless the caller does."""
        if not self.queued and self.env.now <= self.deadline_seconds and self.skip(seconds):
            if bucket:
                self._book(bucket, seconds)
            return None
        return (yield from self.wait_until(self.env.timeout(seconds), bucket))

    def wait_until(self, event: simpy.Event, bucket: Bucket | None = None) -> Process[Failure | None]:
        """Wait for an event or a failure: the earliest queued Failure, or None. GaveUpError after the deadline."""
        started_seconds: float = self.env.now
        if not self.queued and started_seconds <= self.deadline_seconds:
            self._alarm = alarm = self.env.event()
            # The alarm is processed after everything else of this instant: a tie goes to the failure.
            assert event.callbacks is not None, "the event has been processed already"
            event.callbacks.append(lambda _: trigger_late(alarm, rank=1))
            yield alarm
            self._alarm = None
            if bucket:
                self._book(bucket, self.env.now - started_seconds)
            return self.queued.popleft() if self.queued else None
        return self.next_failure()

    def next_failure(self) -> Failure | None:
        """Take the earliest queued failure; None if there is none. GaveUpError after the deadline."""
        if self.env.now > self.deadline_seconds:
            raise GaveUpError
        return self.queued.popleft() if self.queued else None

    def _book(self, bucket: Bucket, seconds: float) -> None:
        self.ledger.spend(bucket, seconds)
        if self.recorder:
            self.recorder.add_span(bucket, self.now_seconds - seconds, self.now_seconds)


def trigger_late(event: simpy.Event, rank: int) -> None:
    """Trigger an event that is then processed after all others of this instant, also those that they trigger.

    rank: order among these late events; the training process is resumed by events of rank 1.
    """
    if not event.triggered:
        event._ok, event._value = True, None
        event.env.schedule(event, priority=EventPriority(NORMAL + rank))
