"""When stages are struck: failure processes as processes of the event loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import simpy

from sim.clock import ticked
from sim.failures import FailureProcess
from sim.rng import stream


class Strikes:
    """Calls `strike(stage)` at the instants of one failure process, a stream of its own for each stage.

    Processes that count iterations strike within an iteration, at a fraction of what it usually takes.
    """

    def __init__(
        self,
        env: simpy.Environment,
        failures: FailureProcess,
        seed: int,
        stages: Iterable[int],
        strike: Callable[[int], None],
    ) -> None:
        self._env, self._strike = env, strike
        self._due: list[tuple[int, int]] = []
        self._by_iteration: list[tuple[int, Iterator[float], float]] = []
        for stage in stages:
            if stage in failures.config.immune_stages:
                continue
            uptimes = failures.uptimes(stream(seed, "failures", process=failures.kind, domain=stage), stage)
            if failures.unit == "seconds":
                env.process(self._life(stage, uptimes))
            else:
                self._by_iteration.append((stage, uptimes, next(uptimes, math.inf)))

    def iteration_begins(self, execution: int, usual_seconds: float) -> None:
        """Schedule the strikes of processes that count iterations and whose turn is this one."""
        for index, (stage, uptimes, at_iteration) in enumerate(self._by_iteration):
            if at_iteration >= execution:
                continue
            seconds = max(0.0, at_iteration - (execution - 1)) * usual_seconds
            self._due.append((execution, stage))
            self._env.process(self._strike_within(stage, seconds, execution))
            self._by_iteration[index] = (stage, uptimes, at_iteration + next(uptimes, math.inf))

    def iteration_ends(self, failed: bool) -> None:
        """Strikes of it that are still to come find it over, if a failure has ended it; else they come at its end."""
        due, self._due = self._due, []
        for _, stage in () if failed else due:
            self._strike(stage)

    def _life(self, stage: int, uptimes: Iterator[float]) -> Generator[simpy.Event, Any, None]:
        """Life of a stage's failure process: up for a while, struck, and the same again."""
        for uptime_seconds in uptimes:
            if math.isinf(uptime_seconds):
                return
            yield self._env.timeout(ticked(uptime_seconds))
            self._strike(stage)

    def _strike_within(self, stage: int, seconds: float, execution: int) -> Generator[simpy.Event, Any, None]:
        """A strike in the iteration that begins now; none if another failure has ended that iteration before."""
        yield self._env.timeout(ticked(seconds))
        if (execution, stage) in self._due:
            self._due.remove((execution, stage))
            self._strike(stage)
