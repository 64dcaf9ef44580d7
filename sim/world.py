"""The world of one run: a clock, a cluster that fails, and the verbs that spend time in it.

`attempt(seconds)` is the one place where work races failure. Failures that arrive while nobody is attempting,
or while a recovery is under way, queue up; the next attempt meets them first. At an exact tie between the end
of the work and a failure, the failure wins.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import simpy

from models.lineage import plain_routes
from sim.cluster import Cluster
from sim.costs import Costs, IterationPlan
from sim.failures import FailureProcess
from sim.ledger import IterationSplit, Ledger
from sim.network import Network
from sim.pipeline import Pipeline
from sim.records import Bucket, EventKind, EventRecord, Failure
from sim.rng import stream
from sim.strategies.base import Process, Transfer


class GaveUpError(Exception):
    """The run has taken longer than the scenario allows."""


class BackgroundActivity:
    """Something beside the training: under way → done at `ends_seconds`, or ended undone by a failure."""

    def __init__(self, ends_seconds: float, when_lost: Callable[[], None]) -> None:
        self.ends_seconds = ends_seconds
        self.when_lost = when_lost
        self.under_way = True


class World:
    """One cluster, one failure process, one clock. `heeds_failures=False` counts failures without effect."""

    def __init__(
        self,
        costs: Costs,
        cluster: Cluster,
        network: Network,
        failures: FailureProcess,
        failure_seed: int,
        heeds_failures: bool = True,
    ) -> None:
        self.costs = costs
        self.cluster = cluster
        self.network = network
        self.num_stages = cluster.num_stages
        self.pipeline = Pipeline(costs, cluster, network)
        self.ledger = Ledger()
        self.events: list[EventRecord] = []
        self.deadline_seconds = math.inf
        self.max_executed_iterations = math.inf
        self.num_failures = 0
        self.num_executed_iterations = 0
        self.completed_iterations = 0
        self._env = simpy.Environment()
        self._heeds_failures = heeds_failures
        self._queued: deque[Failure] = deque()
        self._unrebuilt: set[int] = set()
        self._alarm: simpy.Event | None = None
        self._backgrounds: list[BackgroundActivity] = []
        self._iteration_under_way = False
        self._by_iteration: list[tuple[int, Iterator[float], float]] = []
        self._start(failures, failure_seed)

    # ---- what strategies see (sim.strategies.base.StrategyWorld) ----------------------------------

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        return float(self._env.now)

    @property
    def lost_stages(self) -> frozenset[int]:
        """Stages whose state is gone and not rebuilt yet."""
        return frozenset(self._unrebuilt)

    def attempt(self, seconds: float, bucket: Bucket) -> Process[Failure | None]:
        """Spend seconds, all booked to one bucket; the Failure that cut them short, or None."""
        started_seconds = self.now_seconds
        failure = yield from self._race(seconds)
        self.ledger.spend(bucket, self.now_seconds - started_seconds)
        return failure

    def transfer_seconds(self, transfers: Sequence[Transfer]) -> float:
        """Duration of transfers that start together, each from replica to replica, without contention."""
        return max(
            (
                self.network.seconds(
                    self.cluster.region(transfer.source, replica),
                    self.cluster.region(transfer.target, replica),
                    transfer.num_bytes,
                )
                for transfer in transfers
                for replica in range(self.cluster.config.nodes_per_stage)
            ),
            default=0.0,
        )

    def transfer(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once and wait for the last."""
        return (yield from self.attempt(self.transfer_seconds(transfers), bucket))

    def storage_seconds(self, num_bytes: float) -> float:
        """Time between the cluster and the checkpoint store."""
        return self.network.storage_seconds(num_bytes)

    def background(
        self, seconds: float, when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> BackgroundActivity:
        """Start something beside the training; any failure ends it undone, also one at the instant it ends."""
        activity = BackgroundActivity(self.now_seconds + seconds, when_lost)
        self._backgrounds.append(activity)

        def run() -> Generator[simpy.Event, Any, None]:
            yield self._env.timeout(seconds)
            yield self._env.timeout(0)  # failures of this very instant come first
            if activity.under_way:
                activity.under_way = False
                self._backgrounds.remove(activity)
                when_done()

        self._env.process(run())
        return activity

    def bring_back_nodes(self) -> Process[Failure | None]:
        """Detect the failure, wait until every stage has its nodes again, start the processes."""
        config = self.cluster.config
        failure = yield from self.attempt(config.detection_seconds, "detection")
        if failure is None:
            ready_seconds = max(self.cluster.ready_seconds(stage) for stage in self.cluster.stages)
            failure = yield from self.attempt(max(0.0, ready_seconds - self.now_seconds), "provisioning")
        if failure is None:
            failure = yield from self.attempt(config.startup_seconds, "provisioning")
        return failure

    def record(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        """Note an event at this instant."""
        self.events.append(EventRecord(self.now_seconds, kind, stage, iteration, detail))

    # ---- what the training process sees ----------------------------------------------------------

    def plain_plan(self) -> IterationPlan:
        """An iteration as the workload says, before any strategy changes it."""
        return IterationPlan(self.costs.workload.num_microbatches, plain_routes(self.num_stages))

    def run_iteration(self, split: IterationSplit) -> Process[Failure | None]:
        """Execute one iteration; what a failure interrupts is lost work."""
        if self.num_executed_iterations >= self.max_executed_iterations:
            raise GaveUpError
        started_seconds = self.now_seconds
        self._strike_by_iteration(split.seconds)
        self.num_executed_iterations += 1
        self._iteration_under_way = True
        failure = yield from self._race(split.seconds)
        self._iteration_under_way = False
        if failure is None:
            self.completed_iterations += 1
            self.ledger.complete_iteration(split)
        else:
            self.ledger.spend("lost_work", self.now_seconds - started_seconds)
        return failure

    def roll_back(self, num_iterations: int) -> None:
        """Only the first `num_iterations` iterations still count."""
        self.ledger.roll_back(num_iterations)
        self.completed_iterations = num_iterations

    def rebuilt(self) -> None:
        """All lost stages have their state again, but for those whose failure nobody has been told of."""
        self._unrebuilt = {failure.stage for failure in self._queued}

    def run(self, process: Generator[Any, Any, None]) -> None:
        """Let time pass until the process ends. RuntimeError if nothing is left to wait for before that."""
        try:
            self._env.run(until=self._env.process(process))
        except RuntimeError as error:
            if "No scheduled events left" not in str(error):
                raise
            raise RuntimeError(
                f"the event queue is empty at {self.now_seconds:.6g} s after {self.completed_iterations} iterations "
                f"with the job unfinished: it waits for something that no process will do (lost stages: "
                f"{sorted(self._unrebuilt)})"
            ) from error

    # ---- failures --------------------------------------------------------------------------------

    def _start(self, failures: FailureProcess, seed: int) -> None:
        for stage in self.cluster.stages:
            if stage in failures.config.immune_stages:
                continue
            uptimes = failures.uptimes(stream(seed, "failures", process=failures.kind, domain=stage), stage)
            if failures.unit == "seconds":
                self._env.process(self._strikes(stage, uptimes))
            else:
                self._by_iteration.append((stage, uptimes, next(uptimes, math.inf)))

    def _strikes(self, stage: int, uptimes: Iterator[float]) -> Generator[simpy.Event, Any, None]:
        """Life of a stage's failure process: up for a while, struck, and the same again."""
        for uptime_seconds in uptimes:
            if math.isinf(uptime_seconds):
                return
            yield self._env.timeout(uptime_seconds)
            self._strike(stage)

    def _strike_by_iteration(self, iteration_seconds: float) -> None:
        """Schedule the strikes of processes that count iterations and whose turn is this one."""
        for index, (stage, uptimes, at_iteration) in enumerate(self._by_iteration):
            if at_iteration >= self.num_executed_iterations + 1:
                continue
            fraction = at_iteration - self.num_executed_iterations
            self._env.process(
                self._strike_within(stage, fraction * iteration_seconds, self.num_executed_iterations + 1)
            )
            self._by_iteration[index] = (stage, uptimes, at_iteration + next(uptimes, math.inf))

    def _strike_within(self, stage: int, seconds: float, execution: int) -> Generator[simpy.Event, Any, None]:
        """A strike in the iteration that begins now; none if another failure has ended that iteration before."""
        yield self._env.timeout(seconds)
        if self._iteration_under_way and self.num_executed_iterations == execution:
            self._strike(stage)

    def _strike(self, stage: int) -> None:
        """A stage loses its nodes now: background work is undone and whoever attempts something is told."""
        if not self.cluster.lose(stage, self.now_seconds):
            return
        self.num_failures += 1
        self.record("failure", stage, self.completed_iterations)
        if not self._heeds_failures:
            return
        self._unrebuilt.add(stage)
        self._queued.append(Failure(self.now_seconds, stage))
        for activity in self._backgrounds:
            activity.under_way = False
            activity.when_lost()
        self._backgrounds.clear()
        if self._alarm:
            sound(self._alarm)

    def _race(self, seconds: float) -> Process[Failure | None]:
        """Work against failure: the earliest queued Failure, or None when the seconds have passed in peace."""
        if self.now_seconds > self.deadline_seconds:
            raise GaveUpError
        if not self._queued and seconds > 0.0:
            self._alarm = alarm = self._env.event()
            # The alarm is processed after everything already due at this instant: a tie goes to the failure.
            deadline = self._env.timeout(seconds)
            deadline.callbacks.append(lambda _: sound(alarm))
            yield alarm
            self._alarm = None
        return self._queued.popleft() if self._queued else None


def sound(alarm: simpy.Event) -> None:
    """Wake whoever waits for the alarm, once."""
    if not alarm.triggered:
        alarm.succeed()
