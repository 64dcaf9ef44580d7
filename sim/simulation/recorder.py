"""Recording of operations, messages and spans within a window of simulated time, for timelines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sim.cluster.flows import Flow
from sim.core.records import Bucket, Message, Operation, Span
from sim.workload.iteration import IterationRun


@dataclass
class EventRecorder:
    """Records from `start_seconds` to `end_seconds`; iterations that overlap the window are recorded whole."""

    start_seconds: float = 0.0
    end_seconds: float = math.inf
    operations: list[Operation] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    _followed: dict[Flow, Callable[[float], None]] = field(default_factory=dict)

    def is_open(self, from_seconds: float, until_seconds: float) -> bool:
        """Whether an interval overlaps the window."""
        return from_seconds < self.end_seconds and until_seconds > self.start_seconds

    def add_iteration(self, run: IterationRun, start_seconds: float, end_seconds: float) -> None:
        """Record an iteration that was played event by event."""
        if self.is_open(start_seconds, end_seconds):
            self.operations += run.operations
            self.messages += run.messages

    def add_span(self, bucket: Bucket, start_seconds: float, end_seconds: float) -> None:
        """Record time that the training process spent on something other than completed iterations."""
        if end_seconds > start_seconds and self.is_open(start_seconds, end_seconds):
            self.spans.append(Span(bucket, start_seconds, end_seconds))

    def follow(self, flow: Flow, what: str, source: int, target: int, start_seconds: float) -> None:
        """Record a message of a recovery or a checkpoint when it ends, arrived or not."""

        def ended(end_seconds: float) -> None:
            self._followed.pop(flow, None)
            if self.is_open(start_seconds, end_seconds):
                arrived = flow.arrived.triggered
                self.messages.append(Message(what, source, target, flow.num_bytes, start_seconds, end_seconds, arrived))

        self._followed[flow] = ended
        flow.when_ended.append(ended)

    def close(self, now_seconds: float) -> None:
        """End the recording with the run: messages that are still under way end now."""
        for ended in list(self._followed.values()):
            ended(now_seconds)
