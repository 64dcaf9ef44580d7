"""The event loop of a run, which counts the events that the run takes to simulate, and ends it after too many."""

from __future__ import annotations

import math
from collections.abc import Callable

import simpy

from sim.core.effort import Effort


class EventLoop(simpy.Environment):
    """An event loop that calls `exhausted` once its effort is more than `most_events`."""

    def __init__(self, effort: Effort) -> None:
        super().__init__(0.0)
        self.effort, self.most_events = effort, math.inf
        self.exhausted: Callable[[], None] = lambda: None

    @property
    def is_exhausted(self) -> bool:
        """Whether too many events have been processed."""
        return self.effort.num_events > self.most_events

    def step(self) -> None:
        """Process the next event."""
        self.effort.num_events += 1
        if self.is_exhausted:
            self.exhausted()
        super().step()
