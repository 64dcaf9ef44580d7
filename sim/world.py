"""The world of one run: a clock, a cluster that fails, and the verbs that spend time in it.

`attempt(seconds)` is the one place where work races failure. Failures that arrive while nobody is attempting,
or while a recovery is under way, queue up; the next attempt meets them first. At an exact tie between the end
of the work and a failure, the failure wins.

An iteration is one event, priced once by itself, or together with the messages that are under way beside it. With
`fidelity: microbatch`, and in the window of a trace, every forward, backward and message of it is an event here. Both
end at the same instant, to the bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

import simpy
from simpy.events import NORMAL, EventPriority

from sim.clock import ticked
from sim.costs import IterationPlan
from sim.failures import FailureProcess
from sim.flows import BackgroundTransfer, Flow, Flows, FlowState
from sim.ledger import IterationSplit, Ledger
from sim.network import STORAGE
from sim.pipeline import AmongOthers, FinishedIteration, Pipeline
from sim.records import Bucket, EventKind, EventRecord, Failure
from sim.schedules import plain_plan
from sim.site import Site
from sim.strategies.base import STORE, Background, Process, Transfer
from sim.strikes import Strikes
from sim.trace import Trace

Fidelity = Literal["iteration", "microbatch"]


class Last(simpy.Event):
    """Comes after all else that is due at this instant, and all that this brings about at once."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=EventPriority(NORMAL + 1))


class GaveUpError(Exception):
    """The run has taken longer than the scenario allows."""


class World:
    """One cluster, one failure process, one clock. `heeds_failures=False` counts failures without effect.

    trace: collects every operation, message and span of the run from then on that it is told of.
    """

    def __init__(
        self,
        site: Site,
        failures: FailureProcess,
        failure_seed: int,
        heeds_failures: bool = True,
        fidelity: Fidelity = "iteration",
        trace: Trace | None = None,
    ) -> None:
        self.costs, self.cluster, self.network = site.costs, site.cluster, site.network
        self.num_stages = site.cluster.num_stages
        self.pipeline = Pipeline(site, failure_seed)
        self.fidelity, self.trace = fidelity, trace
        self.ledger = Ledger()
        self.events: list[EventRecord] = []
        self.deadline_seconds = math.inf
        self.max_executed_iterations = math.inf
        self.num_failures = 0
        self.num_executed_iterations = 0
        self.completed_iterations = 0
        self._env = simpy.Environment()
        self._flows = Flows(self._env)
        self._heeds_failures = heeds_failures
        self._queued: deque[Failure] = deque()
        self._unrebuilt: set[int] = set()
        self._alarm: simpy.Event | None = None
        self._backgrounds: list[BackgroundTransfer] = []
        self._strikes = Strikes(self._env, failures, failure_seed, self.cluster.stages, self._strike)

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
        if seconds <= 0.0 or self._queued:
            return (yield from self._race(None))
        return (yield from self._spend(self._env.timeout(ticked(seconds)), bucket))

    def transfer(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once and wait for the last; a failure ends them all."""
        if self._queued or not transfers:
            return (yield from self._race(None))
        flows = self._send(transfers)
        failure = yield from self._spend(self._env.all_of([flow.arrived for flow in flows]), bucket)
        for flow in flows:
            self._flows.cancel(flow)
        return failure

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> BackgroundTransfer:
        """Send beside the training; any failure ends it undone, also one at the instant it ends."""
        flows, done = self._send(transfers), self._env.event()
        activity = BackgroundTransfer(flows, done, when_lost)
        self._backgrounds.append(activity)

        def run() -> Generator[simpy.Event, Any, None]:
            yield self._env.all_of([flow.arrived for flow in flows])
            yield Last(self._env)  # failures of this very instant come first
            if activity.under_way:
                activity.under_way = False
                self._backgrounds.remove(activity)
                when_done()
                done.succeed()

        self._env.process(run())
        return activity

    def wait_for(self, activity: Background, bucket: Bucket) -> Process[Failure | None]:
        """Stand still until what is under way in the background is done."""
        assert isinstance(activity, BackgroundTransfer)
        if not activity.under_way or self._queued:
            return (yield from self._race(None))
        return (yield from self._spend(activity.done, bucket))

    def bring_back_nodes(self) -> Process[Failure | None]:
        """Detect the failure, wait until every stage has its nodes again, start the processes."""
        config = self.cluster.config
        failure = yield from self.attempt(config.detection_seconds, "detection")
        if failure is None:
            ready_seconds = max(self.cluster.ready_seconds(stage) for stage in self.cluster.stages)
            failure = yield from self.attempt(ready_seconds - self.now_seconds, "provisioning")
        if failure is None:
            failure = yield from self.attempt(config.startup_seconds, "provisioning")
        return failure

    def record(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        """Note an event at this instant."""
        self.events.append(EventRecord(self.now_seconds, kind, stage, iteration, detail))

    # ---- what the training process sees ----------------------------------------------------------

    def plain_plan(self) -> IterationPlan:
        """An iteration as the workload says, before any strategy changes it."""
        return plain_plan(self.costs.workload)

    def run_iteration(self, plan: IterationPlan) -> Process[Failure | None]:
        """Execute one iteration; what a failure interrupts is lost work."""
        if self.num_executed_iterations >= self.max_executed_iterations:
            raise GaveUpError
        started_seconds = self.now_seconds
        self.num_executed_iterations += 1
        others = self._flows.states() if self.network.is_shared else ()
        priced = self._priced(plan, others)
        self._strikes.iteration_begins(self.num_executed_iterations, priced.seconds)
        if self._plays_every_event(priced.seconds, bool(others)):
            split, failure = yield from self._play(plan)
        else:
            split, failure = yield from self._pass(priced)
        self._strikes.iteration_ends(failure is not None)
        if failure is None and self._queued:
            failure = self._queued.popleft()
        if failure is None:
            self.completed_iterations += 1
            self.ledger.complete_iteration(split)
        else:
            self.ledger.spend("lost_work", self.now_seconds - started_seconds)
            if self.trace:
                self.trace.add_span("lost_work", started_seconds, self.now_seconds)
        return failure

    def _priced(self, plan: IterationPlan, others: tuple[FlowState, ...]) -> FinishedIteration | AmongOthers:
        """The iteration that begins now, run by itself; where it jitters and is not to be one event, the usual one."""
        jitters = self.cluster.config.jitter > 0.0
        if others and not jitters:
            return self.pipeline.among(plan, others)
        if jitters and (others or self.fidelity == "microbatch"):
            return self.pipeline.price(plan)
        return self.pipeline.executed(plan, self.num_executed_iterations)

    def _plays_every_event(self, seconds: float, beside_others: bool) -> bool:
        """Asked for, wanted for the trace, or needed since an iteration that draws its times is not alone."""
        if self.trace and self.trace.is_open(self.now_seconds, self.now_seconds + seconds):
            return True
        return self.fidelity == "microbatch" or (beside_others and self.cluster.config.jitter > 0.0)

    def _play(self, plan: IterationPlan) -> Process[tuple[IterationSplit, Failure | None]]:
        """An iteration event by event, in the order that it was priced in."""
        started_seconds, sample = self.now_seconds, self.num_executed_iterations
        if self.fidelity == "iteration":
            sample = self.pipeline.sample_of(sample)
        run = self.pipeline.begin(plan, self._env, self._flows, sample)
        failure = yield from self._race(run.done)
        if failure:
            run.stop()
        if self.trace:
            self.trace.add_iteration(run, started_seconds, self.now_seconds)
        return run.split(self.now_seconds - started_seconds), failure

    def _pass(self, priced: FinishedIteration | AmongOthers) -> Process[tuple[IterationSplit, Failure | None]]:
        """An iteration as one event. Messages under way beside it share its links; a failure ends these anyway."""
        if self._queued:
            return priced.split, (yield from self._race(None))
        if isinstance(priced, AmongOthers):
            self._flows.hold(priced.arrivals_seconds)
        failure = yield from self._race(self._env.timeout(priced.seconds))
        if failure is None and isinstance(priced, AmongOthers):
            self._flows.release(priced.left)
        return priced.split, failure

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
            for flow in activity.flows:
                self._flows.cancel(flow)
            activity.when_lost()
        self._backgrounds.clear()
        if self._alarm:
            sound(self._alarm)

    def _send(self, transfers: Sequence[Transfer]) -> list[Flow]:
        """Start the messages of some transfers, each from replica to replica; a stage's first replica stores it."""
        flows = []
        for transfer in transfers:
            for replica in self.cluster.replicas[: 1 if transfer.target == STORE else None]:
                source, target = (
                    STORAGE if end == STORE else self.cluster.node(end, replica)
                    for end in (transfer.source, transfer.target)
                )
                flow = self._flows.send(self.network.path(source, target), transfer.num_bytes)
                if self.trace:
                    self.trace.follow(flow, transfer.what, source, target, self.now_seconds)
                flows.append(flow)
        return flows

    def _spend(self, until: simpy.Event, bucket: Bucket) -> Process[Failure | None]:
        """Wait for an event or a failure, and book the time to a bucket."""
        started_seconds = self.now_seconds
        failure = yield from self._race(until)
        self.ledger.spend(bucket, self.now_seconds - started_seconds)
        if self.trace:
            self.trace.add_span(bucket, started_seconds, self.now_seconds)
        return failure

    def _race(self, until: simpy.Event | None) -> Process[Failure | None]:
        """Work against failure: the earliest queued Failure, or None when the event has come in peace."""
        if self.now_seconds > self.deadline_seconds:
            raise GaveUpError
        if not self._queued and until is not None:
            self._alarm = alarm = self._env.event()
            # The alarm is processed after everything already due at this instant: a tie goes to the failure.
            assert until.callbacks is not None, "what has happened already is not waited for"
            until.callbacks.append(lambda _: sound(alarm))
            yield alarm
            self._alarm = None
        return self._queued.popleft() if self._queued else None


def sound(alarm: simpy.Event) -> None:
    """Wake whoever waits for the alarm, once."""
    if not alarm.triggered:
        alarm.succeed()
