"""The world of one run: a clock, a cluster that fails, and the verbs that spend time in it.

It joins the parts of the simulation: work that a failure can interrupt (`interruptible`), the execution of iterations
(`iterations`), the nodes (`sim.cluster.membership`) and the states that they hold (`state_placement`). It decides what
a loss means for the training and how nodes come back, and it is the narrow view that strategies have of all this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from functools import cached_property, partial
from typing import Any

import simpy

from models.training_state import Position
from sim.cluster.flows import BackgroundTransfer, Flows
from sim.cluster.membership import Node
from sim.core.ledger import Ledger
from sim.core.records import Bucket, EventKind, Failure
from sim.core.units import to_ticks
from sim.failures import FailureProcess
from sim.simulation.failure_injection import FailureInjector, mtbf_seconds
from sim.simulation.fast_forward import FastForward, skip
from sim.simulation.interruptible import InterruptibleWork
from sim.simulation.iterations import Fidelity, IterationExecutor
from sim.simulation.log import EventLog
from sim.simulation.recorder import EventRecorder
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import NodeAdmission, StateTransfers
from sim.strategies.base import Background, Process, Transfer
from sim.workload.config import IterationPlan, plain_plan
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import IterationTimeCache, IterationTimes


class World:
    """One cluster, one failure process, one clock. `stops_on_failures=False` counts failures without effect.

    trace: collects every operation, message and span of the run from then on that it is told of. prices: those known
    already of the site, on its network.
    """

    def __init__(
        self,
        site: Deployment,
        failures: FailureProcess,
        failure_seed: int,
        stops_on_failures: bool = True,
        fidelity: Fidelity = "iteration",
        trace: EventRecorder | None = None,
        prices: IterationTimeCache | None = None,
    ) -> None:
        prices = prices or IterationTimeCache(site.network)
        self.costs, self.cluster, self.network = site.costs, site.cluster, site.network
        self.num_stages = site.cluster.num_stages
        self.ledger = Ledger()
        self.events = EventLog()
        self.num_failures = 0
        self.when_noticed: Callable[[], None] = lambda: None
        self._env = simpy.Environment(0.0)
        flows = Flows(self._env)
        self._process, self.stops_on_failures = failures, stops_on_failures
        self._holders = StatePlacement(site.cluster)
        self._undetected = self._resumes = False
        self._arrival: simpy.Event | None = None
        self._leaving: list[Node] = []
        """Nodes whose loss a notice has announced."""
        self.work = InterruptibleWork(self._env, self.ledger, trace, partial(skip, self._env))
        strikes = FailureInjector(
            self._env, site.cluster, failures, failure_seed, self._lost, self._arrived, self._noticed
        )
        self.fleet, self._strikes = strikes.fleet, strikes
        self.messenger = StateTransfers(self.work, flows, self._holders, prices, strikes.gives_notice)
        self.joining = NodeAdmission(self.work, self.fleet, self._holders, self.messenger, self._joined)
        self.joining.join_bytes = site.costs.checkpoint_bytes
        self.execution = IterationExecutor(site, failure_seed, self.work, flows, strikes, fidelity, prices)
        joining = self.joining if stops_on_failures else None
        self.fast_forward = FastForward(self.execution, self.work, self._holders, joining, self.messenger, self.events)

    # ---- what strategies see (sim.strategies.base.StrategyWorld) ----------------------------------

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        return self.work.now_seconds

    @property
    def lost_stages(self) -> frozenset[int]:
        """Stages whose state is gone and not rebuilt yet."""
        return frozenset(self._holders.lost_stages)

    @property
    def covered_stages(self) -> frozenset[int]:
        """Stages whose work and state another one has taken over."""
        return frozenset(self._holders.covers)

    @property
    def cut_share(self) -> float:
        """Share of the iteration that was done when the last failure cut it."""
        return self.execution.cut_share

    @cached_property
    def mtbf_seconds(self) -> float:
        """Mean time between strikes that take a node with a place, or a stage, as the failure process has it."""
        return mtbf_seconds(self.cluster, self._process, self.pipeline.split(self.plain_plan()).seconds)

    def attempt(self, seconds: float, bucket: Bucket) -> Process[Failure | None]:
        """Spend seconds, all booked to one bucket; the Failure that cut them short, or None."""
        if seconds <= 0.0 or self.work.queued:
            return self.work.next_failure()
        return (yield from self.work.wait(to_ticks(seconds), bucket))

    def transfer(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once and wait for the last; a failure ends them all."""
        if self.work.queued or not transfers:
            return self.work.next_failure()
        if self.messenger.is_alone:
            return (yield from self.messenger.stand_still(transfers, bucket))
        return (yield from self.messenger.arrive(self.messenger.send(transfers), bucket))

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> BackgroundTransfer:
        """Send beside the training; any failure ends it undone, also one at the instant it ends."""
        return self.messenger.background(transfers, when_done, when_lost)

    def wait_for(self, activity: Background, bucket: Bucket) -> Process[Failure | None]:
        """Stand still until what is under way in the background is done."""
        assert isinstance(activity, BackgroundTransfer)
        if not activity.under_way or self.work.queued:
            return self.work.next_failure()
        return (yield from self.work.wait_until(activity.done, bucket))

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """How long such transfers take when they have the network to themselves."""
        return self.messenger.seconds_of(transfers)

    def detect(self) -> Process[Failure | None]:
        """Wait until the others know of a failure; no time where a notice came before it."""
        seconds = self.cluster.config.detection_seconds if self._undetected else 0.0
        failure = yield from self.attempt(seconds, "detection")
        self._undetected = self._undetected and failure is not None
        return failure

    def bring_back_nodes(self) -> Process[Failure | None]:
        """Detect the failure, wait until every stage has a node, start the processes on those of lost stages."""
        failure = yield from self.detect()
        if failure is None:
            failure = yield from self._wait_for_nodes()
        if failure is None:
            self._holders.receiving = self._nodes_of(self._holders.lost_stages)
            failure = yield from self.attempt(self.cluster.config.startup_seconds, "provisioning")
        return failure

    def hold(self, stage: int, what: str, position: Position) -> None:
        """The nodes of a stage now hold a copy beside their own state."""
        self._holders.keep(stage, what, position)

    def held(self, stage: int, what: str) -> Position | None:
        """The Position of a copy that a stage's nodes hold."""
        return self._holders.copy(stage, what)

    def cover(self, stage: int, holder: int) -> None:
        """Another stage's nodes take over a lost stage's work, until it has its own again."""
        self._holders.cover(stage, holder)

    def resume_iteration(self) -> None:
        """The next iteration goes on from where the last failure cut it."""
        self._resumes = True

    def record(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        """Note an event at this instant."""
        self.events.note(self.work.now_seconds, kind, stage, iteration, detail)

    # ---- what the training process sees ----------------------------------------------------------

    @property
    def pipeline(self) -> IterationTimes:
        """Prices iterations."""
        return self.execution.pipeline

    @property
    def supplies_nodes(self) -> bool:
        """Whether the failure process says how many nodes there are."""
        return self._strikes.failures.supplies_nodes

    def plain_plan(self) -> IterationPlan:
        """An iteration as the workload says, before any strategy changes it."""
        return plain_plan(self.costs.workload)

    def run_iteration(self, plan: IterationPlan) -> Process[Failure | None]:
        """Execute one iteration on the nodes that have the state; the Failure that ended it, or None."""
        return self.execution.run(plan, self._holders.hosts if self.stops_on_failures else None)

    def gather(self) -> Process[None]:
        """Wait until every stage has a node, at the very beginning: all that are there have the first state."""
        for place, node in enumerate(self.fleet.node_at):
            if node is None and self.stops_on_failures:
                self._holders.lose(place)
        while self._holders.lost_stages:
            if (yield from self.bring_back_nodes()) is None:
                self.rebuilt()
        self._undetected = False
        self.joining.seconds = self.now_seconds

    def admit_nodes(self) -> Process[Failure | None]:
        """Nodes that have come and started up get their stage's state from those that have it, and take part."""
        if not self.stops_on_failures:
            return None
        return (yield from self.joining.admit())

    def regroup(self) -> Process[Failure | None]:
        """After the loss of a node whose stage has another: detect it, and let the others go on without it."""
        failure = yield from self.detect()
        if failure is None:
            failure = yield from self.attempt(self.cluster.config.regroup_seconds, "provisioning")
        return failure

    def rebuilt(self) -> None:
        """All lost stages have their state again, but for those whose failure nobody has been told of."""
        untold = {failure.stage for failure in self.work.queued} & self._holders.lost_stages
        still_there = [place for place, node in self._holders.receiving.items() if self.fleet.node_at[place] is node]
        self._holders.rebuilt(still_there, untold)
        self._holders.receiving = {}
        if not self._resumes:
            self.execution.forget_cut()
        self._resumes = False

    def run(self, process: Generator[Any, Any, None]) -> None:
        """Let time pass until the process ends. RuntimeError if nothing is left to wait for before that."""
        try:
            self._env.run(until=self._env.process(process))
        except RuntimeError as error:
            if "No scheduled events left" not in str(error):
                raise
            raise RuntimeError(
                f"the event queue is empty at {self.now_seconds:.6g} s after {self.execution.num_completed} iterations "
                f"with the job unfinished: it waits for something that no process will do (lost stages: "
                f"{sorted(self._holders.lost_stages)})"
            ) from error

    # ---- losses and arrivals ---------------------------------------------------------------------

    def _lost(self, nodes: list[Node], announced: bool) -> None:
        """Nodes are gone: each stage concerned is struck."""
        struck: dict[int, list[int]] = {}
        for place in sorted(node.place for node in nodes if node.place is not None):
            struck.setdefault(self.cluster.stage_of(place), []).append(place)
        for stage, places in struck.items():
            self._stage_struck(stage, places, announced)

    def _stage_struck(self, stage: int, places: list[int], announced: bool) -> None:
        """A stage has lost nodes now, the last that held its state or one of several: whoever works is told."""
        was_lost, emptied = stage in self._holders.lost_stages, not self.fleet.works(stage)
        concerns = was_lost or any(self._holders.holds(place) or place in self._holders.receiving for place in places)
        is_failure = emptied
        if self.stops_on_failures:
            took_the_state = [self._holders.lose(place) for place in places]
            is_failure = any(took_the_state) or (was_lost and emptied)
        self.num_failures += is_failure
        self.record("failure" if is_failure else "node_lost", stage, self.execution.num_completed)
        if not self.stops_on_failures or not concerns:
            return
        self._undetected = self._undetected or not announced
        self.messenger.end_backgrounds()
        self.work.interrupt(Failure(self.now_seconds, stage, announced))

    def _joined(self, stage: int, replica: int) -> None:
        self.record("node_joined", stage, self.execution.num_completed, f"replica {replica}")

    def _arrived(self) -> None:
        """Nodes have come: whoever waits for them looks again."""
        if self._arrival and not self._arrival.triggered:
            self._arrival.succeed()

    def _noticed(self, numbers: Sequence[int]) -> None:
        """Nodes are about to leave; strategies are told where a stage's last holders are among them."""
        self._leaving = [node for node in self._leaving if self.fleet.nodes.get(node.number) is node]
        self._leaving += [self.fleet.nodes[number] for number in numbers]
        places = [node.place for node in self._leaving if node.place is not None]
        new_places = [place for number in numbers if (place := self.fleet.nodes[number].place) is not None]
        stages = sorted(set(map(self.cluster.stage_of, new_places)))
        for stage in stages:
            self.record("notice", stage, self.execution.num_completed)
        if not self.stops_on_failures:
            return
        if self.cluster.is_sharded:
            is_needed = bool(set(stages) - self._holders.lost_stages)
        else:
            is_needed = any(last and last <= set(places) for last in (set(self._holders.of(s)) for s in stages))
        if is_needed:
            self.when_noticed()

    def _wait_for_nodes(self) -> Process[Failure | None]:
        """Until every stage has a node, or all that hold shares of it; a stage that another covers can do without."""
        while set(self.fleet.lacking_stages) - self._holders.covers.keys():
            bucket: Bucket = "provisioning" if self._strikes.num_awaited else "waiting_for_nodes"
            self._arrival = until = self._env.event()
            if not math.isinf(self.work.deadline_seconds):
                left_seconds = max(0.0, self.work.deadline_seconds - self.now_seconds) + 1.0
                until = self._env.any_of([until, self._env.timeout(to_ticks(left_seconds))])
            failure = yield from self.work.wait_until(until, bucket)
            if failure:
                return failure
        return self.work.next_failure()

    def _nodes_of(self, stages: Collection[int]) -> dict[int, Node]:
        """The nodes that are there at the places of some stages; where they hold shares, those that lack theirs."""
        if self.cluster.is_sharded:
            return {place: node for place in self._holders.missing if (node := self.fleet.node_at[place])}
        places = [place for stage in sorted(stages) for place in self.cluster.nodes_of(stage)]
        return {place: node for place in places if (node := self.fleet.node_at[place])}
