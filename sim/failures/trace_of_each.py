"""Replay of a trace by each node independently: it follows a node of the trace from a random offset."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, Self

import numpy as np

from sim.failures.base import SECONDS_PER_HOUR, FailureProcess, ProcessConfig, Scope
from sim.failures.history import History


class EachNode(FailureProcess):
    """Independent replay by each node; offsets are uniform over the hours in which nodes of the trace are present.

    With `additions: replay` a node follows one node of the trace, including its absences, and continues at the start of
    the trace after its end. With `ignore` it is lost as in the trace and replaced. A replacement starts like a random
    node of the trace. If the trace ends before the loss of a node, the node continues as another one. Nodes are then
    lost as often per hour of presence as those of the trace.
    """

    Config = ProcessConfig
    config: Any  # of `trace`
    kind = "trace"
    scope: Scope = "node"
    begin_seconds = 0.0

    def __init__(self, config: Any, history: History) -> None:
        super().__init__(config)
        self._history = history
        self._replays = config.additions == "replay"
        self._presence = np.cumsum(history.uptimes)
        self._now: dict[int | str, int] = {}  # current or last interval of each domain
        order = np.lexsort((history.start, history.node))
        same = np.append(history.node[order][1:] == history.node[order][:-1], False)
        firsts = order[np.append(True, ~same[:-1])]
        first_of = dict(zip(history.node[firsts].tolist(), firsts.tolist(), strict=True))
        self._next = np.empty(len(order), np.int64)  # next interval of the same node; after the last one its first
        self._next[order] = [
            order[place + 1] if same[place] else first_of[node]
            for place, node in enumerate(history.node[order].tolist())
        ]

    def starting_at(self, now_seconds: float) -> Self:
        """Return a copy of the process whose uptimes count from an instant of simulated time."""
        process = copy(self)
        process.begin_seconds = now_seconds
        return process

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Seconds until each loss of one node."""
        if not self._history.num_lost and not (self._replays and self._has_absences):
            return
        while True:
            seconds = self._first_uptime(rng, domain) if self._is_first(domain) else self._following_uptime(rng, domain)
            if seconds is None:
                return
            yield seconds * self.config.time_scale

    @property
    def _has_absences(self) -> bool:
        """Whether any node of the trace is ever absent."""
        return self._history.node_seconds < self._history.seconds * len(set(self._history.node.tolist()))

    def _is_first(self, domain: int | str) -> bool:
        return domain not in self._now and (self._replays or not self.begin_seconds)

    def _first_uptime(self, rng: np.random.Generator, domain: int | str) -> float | None:
        """Remainder of an interval from a random instant of presence."""
        instant = float(rng.random()) * float(self._presence[-1])
        interval = int(np.searchsorted(self._presence, instant, side="right"))
        return self._until_loss(rng, domain, interval, float(self._presence[interval]) - instant)

    def _following_uptime(self, rng: np.random.Generator, domain: int | str) -> float | None:
        interval = int(self._next[self._now[domain]]) if self._replays else self._drawn(rng)
        return self._until_loss(rng, domain, interval, float(self._history.uptimes[interval]))

    def _drawn(self, rng: np.random.Generator) -> int:
        """A random interval."""
        return int(rng.integers(len(self._presence)))

    def _until_loss(self, rng: np.random.Generator, domain: int | str, interval: int, seconds: float) -> float | None:
        """Seconds until the loss at the end of an interval or of a following one; None if there is no loss."""
        for _ in range(10 * len(self._presence) + 100):
            if self._is_over(interval):
                self._now[domain] = interval
                return seconds
            interval = int(self._next[interval]) if self._replays else self._drawn(rng)
            seconds += float(self._history.uptimes[interval])
        return None

    def _is_over(self, interval: int) -> bool:
        """Whether a node leaves at the end of an interval. A replay joins the end of the trace to its start."""
        if self._history.is_lost[interval]:
            return True
        return self._replays and float(self._history.start[self._next[interval]]) > 0.0

    def downtimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float | None]:  # noqa: ARG002
        """Seconds until the node of the trace returns; None with `ignore`, since replacements are ordered."""
        history = self._history
        while True:
            interval = self._now[domain]
            away = float(history.start[self._next[interval]] - history.end[interval])
            if away < 0:  # after the end of the trace
                away += history.seconds
            yield away * self.config.time_scale if self._replays else None

    @property
    def mean_uptime_seconds(self) -> float:
        """Hours of presence per loss."""
        lost = sum(map(self._is_over, range(len(self._presence))))
        return self._history.node_seconds / lost * self.config.time_scale if lost else float("inf")

    def describe(self) -> str:
        """For captions."""
        hours = self.mean_uptime_seconds / SECONDS_PER_HOUR
        return f"each node independently follows a node of the trace, with a loss every {hours:.3g} h of presence"
