"""The world of a run: what strategies and the training process see, and what losses of nodes mean for the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, groupby
from typing import Any

import simpy

from models.spec import EMBEDDING_STAGE
from sim.cluster.flows import BackgroundTransfer
from sim.cluster.membership import Membership, Node
from sim.core.records import Bucket, EventKind, Failure, Synchronisation
from sim.core.text import format_list
from sim.core.units import SECONDS_PER_HOUR, to_ticks
from sim.failures import FailureProcess
from sim.simulation.event_loop import EventLoop
from sim.simulation.failure_injection import FailureInjector, MembershipObserver, mtbf_seconds
from sim.simulation.interruptible import InterruptibleWork, NoNodesError
from sim.simulation.iterations import IterationExecutor
from sim.simulation.joining import Joining, Sources
from sim.simulation.log import EventLog
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import StateTransfers
from sim.strategies.base import Background, Process, Transfer
from sim.workload.config import IterationPlan, Layout
from sim.workload.costs import Costs
from sim.workload.deployment import Assignment, Deployment
from sim.workload.iteration_time import IterationTimes
from sim.workload.window import plain_plan_on

MORE_NODES = "try a trace that brings nodes or starts again (failures.loop)"


@dataclass
class World(MembershipObserver):
    """One cluster, one failure process, one clock: `sim.strategies.base.StrategyWorld`, and what the process needs.

    As observer of the membership it records failures, updates the placement of state, and interrupts the training;
    `stops_on_failures` false: failures are only recorded. on_notice: called at a notice that concerns the last nodes
    with a stage's state. bytes_of_joining: what a node is sent that joins others of a stage.
    """

    failures: FailureProcess
    work: InterruptibleWork
    events: EventLog
    membership: Membership
    placement: StatePlacement
    transfers: StateTransfers
    iteration_times: IterationTimes
    stops_on_failures: bool
    on_notice: Callable[[], None]
    bytes_of_joining: Callable[[Costs, int], float]
    injector: FailureInjector = field(init=False)
    iterations: IterationExecutor = field(init=False)
    joining: Joining = field(init=False)
    synchronisations: list[Synchronisation] = field(default_factory=list)
    num_failures: int = 0
    is_undetected: bool = False
    _arrival: simpy.Event | None = None
    _leaving: list[Node] = field(default_factory=list)  # nodes whose loss a notice has announced
    _kept: float = 0.0  # share of the interrupted iteration that the next one continues with

    def __post_init__(self) -> None:
        self.ledger, self.cluster = self.work.ledger, self.membership.cluster
        self.num_stages, self.costs = self.cluster.num_stages, self.iteration_times.deployment.costs
        self.hold, self.held, self.cover = self.placement.hold, self.placement.held, self.placement.cover
        self.leave_out = self.placement.leave_out
        self.num_pipelines = len(self.cluster.replicas)
        self.joining = Joining(
            self.membership,
            self.placement,
            self.transfers,
            partial(self.bytes_of_joining, self.costs),
            lambda stage, replica: self._note("node_joined", stage, f"replica {replica}"),
        )
        self.background, self.seconds_of = self.transfers.background, self.transfers.seconds_of

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        return self.work.now_seconds

    @property
    def lost_stages(self) -> frozenset[int]:
        """Stages whose state is lost and not recovered yet."""
        return frozenset(self.placement.lost_stages)

    @property
    def covered_stages(self) -> frozenset[int]:
        """Stages whose work and state another one has taken over."""
        return frozenset(self.placement.covers)

    @property
    def left_out(self) -> frozenset[int]:
        """Stages without their state, around which training continues."""
        return frozenset(self.placement.left_out)

    @property
    def returning_stages(self) -> frozenset[int]:
        """Stages left out of which a node has started up."""
        if not self.placement.left_out:
            return frozenset()
        return self.left_out.intersection(map(self.cluster.stage_of, self.joining.ready(self.work.env)))

    @property
    def vacancies(self) -> frozenset[tuple[int, int]]:
        """Stage and pipeline of each place without a node that holds its stage's state."""
        return self.placement.vacancies

    @property
    def site(self) -> Deployment:
        """The nodes and links of the scenario, and what its iterations cost there."""
        return self.iteration_times.deployment

    def iteration_seconds(self, plan: IterationPlan) -> float:
        """Duration of an iteration of a plan on the nodes of its layout, else on all places; without jitter."""
        return self.iteration_times.alone(plan).seconds

    def holds(self, slot: int) -> bool:
        """Whether the node at a place takes part with its state."""
        return self.placement.holds(slot)

    def slots(self, ready: bool = False) -> list[int]:
        """Places that have a node; ready: only those whose node takes part or has started up."""
        started_seconds = self.now_seconds - self.cluster.config.startup_seconds
        return [
            slot
            for slot, node in enumerate(self.membership.node_at)
            if node and (not ready or self.placement.holds(slot) or node.assigned_seconds <= started_seconds)
        ]

    @property
    def cut_share(self) -> float:
        """Share of the iteration that was done when the last failure interrupted it."""
        return self.iterations.cut_share

    @cached_property
    def mtbf_seconds(self) -> float:
        """Mean time between failures that take a node with a slot, or a stage, by the failure process."""
        return mtbf_seconds(self.cluster, self.failures, self.iteration_times.split(self.plain_plan()).seconds)

    @cached_property
    def _plain_plan(self) -> IterationPlan:
        return plain_plan_on(self.iteration_times.deployment)

    def attempt(self, seconds: float, bucket: Bucket) -> Process[Failure | None]:
        """Spend seconds, booked to one bucket; the Failure that interrupts them, or None."""
        if seconds <= 0.0 or self.work.queued:
            return self.work.next_failure()
        return (yield from self.work.wait(to_ticks(seconds), bucket))

    def transfer(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once and wait for the last; a failure ends them all."""
        if self.work.queued or not transfers:
            return self.work.next_failure()
        return (yield from self.transfers.send(transfers, bucket))

    def wait_for(self, activity: Background, bucket: Bucket) -> Process[Failure | None]:
        """Wait until a background transfer is done."""
        assert isinstance(activity, BackgroundTransfer)
        if not activity.under_way or self.work.queued:
            return self.work.next_failure()
        self.transfers.foresee(activity)
        return (yield from self.work.wait_until(activity.done, bucket))

    def detect(self) -> Process[Failure | None]:
        """Wait until a failure is detected; no time if a notice announced it."""
        seconds = self.cluster.config.detection_seconds if self.is_undetected else 0.0
        failure = yield from self.attempt(seconds, "detection")
        self.is_undetected = self.is_undetected and failure is not None
        return failure

    def bring_back_nodes(self) -> Process[Failure | None]:
        """Detect the failure, wait until every stage has a node, start the processes on the nodes of lost stages."""
        failure = yield from self.detect()
        failure = failure or (yield from self._wait_for_nodes())
        if failure is None:
            slots: Iterable[int] = self.placement.missing
            if not self.cluster.is_sharded:
                slots = chain.from_iterable(map(self.cluster.slots_of, sorted(self.placement.lost_stages)))
            self.placement.receive(self._nodes_at(slots))
            failure = yield from self.attempt(self.cluster.config.startup_seconds, "provisioning")
        return failure

    def resume_iteration(self, kept: float = 1.0) -> None:
        """Let the next iteration continue with a share of what was done when the last failure interrupted it."""
        self._kept = kept

    def record(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        """Record an event at this instant."""
        self.events.note(self.now_seconds, kind, stage, iteration, detail)

    def record_synchronisation(self, iteration: int, num_replicas: int, num_complete: int) -> None:
        """Record that so many replicas have been averaged while so many pipelines were complete."""
        self.synchronisations.append(Synchronisation(self.now_seconds, num_replicas, num_complete, self.num_pipelines))
        detail = f"{num_replicas} of {self.num_pipelines} replicas, {num_complete} complete"
        self.record("synchronised", None, iteration, detail)

    def plain_plan(self) -> IterationPlan:
        """The plan of an iteration before any strategy changes it."""
        return self._plain_plan

    def run_iteration(self, plan: IterationPlan) -> Process[Failure | None]:
        """Execute one iteration on the nodes that hold the state; the Failure that interrupts it, or None."""
        return self.joining.run_beside(self.iterations.run(plan, self.assignment_for(plan)))

    def assignment_for(self, plan: IterationPlan) -> Assignment | None:
        """The slot whose node does the work of each slot in an iteration; None: its own, or that of the layout."""
        if plan.layout:
            return None
        if not plan.substitutes:
            return self.placement.assignment
        assignment = list(self.placement.assignment or self.iteration_times.deployment.complete_assignment)
        for stage, replica, substitute in plan.substitutes:
            assignment[self.cluster.slot(stage, replica)] = self.cluster.slot(substitute, replica)
        return tuple(assignment)

    def layout(self, nodes: Mapping[int, Sequence[int]]) -> Layout:
        """Pipelines made of the nodes of some stages, each by the number of the pipeline that it belongs to."""
        slots = (
            self.cluster.slot(stage, replica)
            for stage in sorted(nodes)
            if stage >= self.cluster.first_stage
            for replica in nodes[stage]
        )
        layers = (self.costs.num_layers(stage) for stage in sorted(nodes) if stage != EMBEDDING_STAGE)
        return Layout(tuple(layers), tuple(slots))

    def gather(self, wait: Callable[[], Process[Failure | None]]) -> Process[None]:
        """Wait at the start, in the strategy's way, where places have no node; the others hold the initial state."""
        if self.stops_on_failures and None in self.membership.node_at:
            for slot, node in enumerate(self.membership.node_at):
                if node is None:
                    self.placement.lose(slot)
            is_waiting = True
            while is_waiting:
                failure = yield from wait()
                if failure is None:
                    self.finish_recovery()
                is_waiting = failure is not None or bool(self.placement.lost_stages)
        self.is_undetected = False
        self.joining.waited_seconds = self.now_seconds

    def admit_nodes(self, beside: bool | None = None, sources: Sources | None = None) -> Process[Failure | None]:
        """Let nodes take part that have arrived and started up, once they have been sent their stage's state."""
        return (yield from self.joining.admit(self.work.env, beside, sources))

    def rejoin(self, stages: Collection[int], transfers: Sequence[Transfer]) -> Process[Failure | None]:
        """Send stages that were left out their state, so that they take part again."""
        ready = self.joining.ready(self.work.env)
        self.placement.receive({slot: node for slot, node in ready.items() if self.cluster.stage_of(slot) in stages})
        failure = yield from self.transfer(transfers, "state_transfer")
        if failure is None:
            self.placement.gain(self.placement.receiving)
            for stage in sorted(stages):
                self._note("stage_returned", stage)
        self.placement.receive({})
        return failure

    def wait_for_joining(self, most_seconds: float = math.inf) -> Process[Failure | None]:
        """Wait for the next event that may let more nodes join: an arrival, the end of a start-up, of a transfer."""
        work, nodes = self.work, self.joining.nodes()
        ready_seconds = [node.assigned_seconds + self.cluster.config.startup_seconds for node in nodes.values()]
        starting = [seconds for seconds in ready_seconds if seconds > self.now_seconds]
        if self.joining.is_under_way:
            last_seconds = [self.now_seconds + most_seconds] if most_seconds < math.inf else []
            timeouts = (work.env.timeout(to_ticks(s - self.now_seconds)) for s in [*starting, *last_seconds])
            until = work.env.any_of([self.joining.arrived(work.env), *timeouts])
            return (yield from work.wait_until(until, "state_transfer"))
        if starting:
            return (yield from self.attempt(min(min(starting) - self.now_seconds, most_seconds), "provisioning"))
        if not self.injector.may_bring_nodes and not work.queued and most_seconds == math.inf:
            raise NoNodesError(self._describe_too_few())
        return (yield from self._wait_for_arrival(most_seconds))

    def regroup(self) -> Process[Failure | None]:
        """Continue without a lost node whose stage has others: detect the loss, and regroup."""
        failure = yield from self.detect()
        return failure or (yield from self.attempt(self.cluster.config.regroup_seconds, "provisioning"))

    def wait_for_nodes(self, least: int) -> Process[Failure | None]:
        """Wait until so many places have a node."""
        while len(self.slots()) < least:
            if not self.injector.may_bring_nodes and not self.work.queued:
                raise NoNodesError(self._describe_fewer_than(least))
            if failure := (yield from self._wait_for_arrival()):
                return failure
        return self.work.next_failure()

    def recut(
        self, stage_at: Mapping[int, int], transfers: Sequence[Transfer], least_seconds: float, detail: str
    ) -> Process[Failure | None]:
        """Recut pipelines: the nodes of some slots hold a stage each from then on, all others nothing."""
        nodes = self._nodes_at(stage_at)
        self.placement.receive(nodes)
        assigned_seconds = [node.assigned_seconds for slot, node in nodes.items() if not self.placement.holds(slot)]
        ready_seconds = max(assigned_seconds, default=-math.inf) + self.cluster.config.startup_seconds
        failure = yield from self.attempt(max(least_seconds, ready_seconds - self.now_seconds), "provisioning")
        failure = failure or (yield from self.transfer(transfers, "state_transfer"))
        if failure is None:
            self.placement.cut_anew(stage_at)
            self._note("recut", None, detail)
        self.placement.receive({})
        return failure

    def set_aside(self, slots: Iterable[int]) -> None:
        """Leave out the nodes of some slots until pipelines are recut."""
        self.placement.set_aside.update(self._nodes_at(slots))

    def finish_recovery(self) -> None:
        """Note that all lost stages have their state again, except those with a failure that is still queued."""
        failed = (self.cluster.stages_on(failure.stage) for failure in self.work.queued)
        queued = self.placement.lost_stages.intersection(chain.from_iterable(failed))
        receiving, node_at = self.placement.receiving, self.membership.node_at
        self.placement.rebuilt([slot for slot, node in receiving.items() if node_at[slot] is node], queued)
        self.placement.receive({})
        self.iterations.keep_of_cut(self._kept)
        self._kept = 0.0

    def limit_events(self, most_events: int) -> None:
        """End the run after so many events: its deadline is then over, and a failure ends the work in progress."""
        env, work = self.work.env, self.work

        def exhausted() -> None:
            if work.deadline_seconds >= 0.0:
                work.deadline_seconds = -math.inf
                work.interrupt(Failure(self.now_seconds, 0, announced=True))

        if isinstance(env, EventLoop):
            env.most_events, env.exhausted = most_events, exhausted

    def run(self, process: Generator[Any, Any, None]) -> None:
        """Run the event loop until the process ends. RuntimeError if no events are left before that."""
        env = self.work.env
        try:
            env.run(until=env.process(process))
        except RuntimeError as error:
            if "No scheduled events left" not in str(error):
                raise
            raise RuntimeError(
                f"the event queue is empty at {self.now_seconds:.6g} s after {self.iterations.num_completed} "
                f"iterations with the job unfinished: it waits for something that no process will do (lost stages: "
                f"{sorted(self.placement.lost_stages)})"
            ) from error

    def _wait_for_nodes(self) -> Process[Failure | None]:
        """Wait until every stage that is needed has a node, or all nodes if its state is sharded."""
        work, unneeded = self.work, self.placement.covers.keys() | self.placement.left_out
        while lacking := [stage for stage in self.membership.lacking_stages if stage not in unneeded]:
            if not self.injector.may_bring_nodes and not work.queued:
                raise NoNodesError(self._describe_end(lacking))
            if failure := (yield from self._wait_for_arrival()):
                return failure
        return work.next_failure()

    def _wait_for_arrival(self, most_seconds: float = math.inf) -> Process[Failure | None]:
        """Wait until a node arrives, at most for so long, or the time of the run is over."""
        work = self.work
        bucket: Bucket = "provisioning" if self.injector.num_awaited else "waiting_for_nodes"
        self._arrival = until = work.env.event()
        if not (math.isinf(work.deadline_seconds) and math.isinf(most_seconds)):
            left_seconds = min(max(0.0, work.deadline_seconds - work.now_seconds) + 1.0, most_seconds)
            until = work.env.any_of([until, work.env.timeout(to_ticks(left_seconds))])
        return (yield from work.wait_until(until, bucket))

    def _describe_too_few(self) -> str:
        """That the strategy waits for nodes that will never come, and what would bring some."""
        hours = f"{self.now_seconds / SECONDS_PER_HOUR:.3g} h"
        missing = format_list([f"{replica} of stage {stage}" for stage, replica in sorted(self.vacancies)])
        return (
            f"too few nodes are left for the strategy and none can come any more: after {hours} "
            f"{len(self.membership.active)} nodes are active, without replica {missing}; "
            f"{MORE_NODES}, or a strategy that needs fewer replicas"
        )

    def _describe_fewer_than(self, least: int) -> str:
        """That pipelines cannot be cut for the nodes at hand, and what would bring more."""
        hours = f"{self.now_seconds / SECONDS_PER_HOUR:.3g} h"
        return (
            f"too few nodes are left to recut pipelines and none can come any more: after {hours} "
            f"{len(self.membership.active)} nodes are active, and the model needs {least}; {MORE_NODES}, "
            "or devices with more memory"
        )

    def _describe_end(self, lacking: Sequence[int]) -> str:
        """Which stages wait for nodes that will never come, and what would bring some."""
        stages = f"stage {lacking[0]} has" if len(lacking) == 1 else f"stages {format_list([*map(str, lacking)])} have"
        num_active, num_stages = len(self.membership.active), len(self.cluster.stages)
        hours = f"{self.now_seconds / SECONDS_PER_HOUR:.3g} h"
        end = f"{stages} no node and none can come any more: after {hours} {num_active} nodes are active"
        if num_active >= num_stages:
            end += f", enough for {num_stages} stages, but nodes do not move between stages"
        return f"{end}; {MORE_NODES}, or fewer stages"

    def _nodes_at(self, slots: Iterable[int]) -> dict[int, Node]:
        return {slot: node for slot in slots if (node := self.membership.node_at[slot])}

    def nodes_lost(self, nodes: list[Node], announced: bool) -> None:
        """Handle the loss of nodes, stage by stage: the last that held a stage's state, or some of several."""
        placement, lost = self.placement, sorted(node.slot for node in nodes if node.slot is not None)
        self.joining.lose(lost)
        for stage, slots_of_stage in groupby(lost, self.cluster.stage_of):
            slots = list(slots_of_stage)
            was_lost, is_empty = stage in placement.lost_stages, not self.membership.works(stage)
            is_relevant = was_lost or any(placement.holds(slot) or slot in placement.receiving for slot in slots)
            is_failure = is_empty
            if self.stops_on_failures:
                took_the_state = [placement.lose(slot) for slot in slots]
                is_failure = any(took_the_state) or ((was_lost or stage in placement.left_out) and is_empty)
                if is_failure:
                    self.joining.lose(self.cluster.slots_of(stage))
            self.num_failures += is_failure
            self._note_loss(stage, slots, is_failure)
            if self.stops_on_failures and is_relevant:
                self.is_undetected = self.is_undetected or not announced
                self.transfers.end_backgrounds(None if is_failure else slots)
                self.work.interrupt(Failure(self.now_seconds, stage, announced))

    def _note_loss(self, stage: int, slots: Sequence[int], is_failure: bool) -> None:
        if is_failure:
            self._note("failure", stage)
            return
        replicas = [str(self.cluster.place_of(slot)[1]) for slot in slots]
        self._note("node_lost", stage, f"replica{'s' if len(replicas) > 1 else ''} {', '.join(replicas)}")

    def nodes_arrived(self) -> None:
        """Let the training process check whether the nodes that it waits for are there."""
        if self._arrival and not self._arrival.triggered:
            self._arrival.succeed()

    def notice_given(self, numbers: Sequence[int]) -> None:
        """Handle a notice that nodes will leave; strategies react if these are the last with a stage's state."""
        self._leaving = [node for node in self._leaving if self.membership.nodes.get(node.number) is node]
        self._leaving += [self.membership.nodes[number] for number in numbers]
        slots = {node.slot for node in self._leaving}
        new_slots = [slot for number in numbers if (slot := self.membership.nodes[number].slot) is not None]
        stages = sorted(set(map(self.cluster.stage_of, new_slots)))
        for stage in stages:
            self._note("notice", stage)
        if not self.stops_on_failures:
            return
        if self.cluster.is_sharded:
            is_needed = not self.placement.lost_stages.issuperset(stages)
        else:
            is_needed = any(last and slots.issuperset(last) for last in map(self.placement.of, stages))
        if is_needed:
            self.on_notice()

    def _note(self, kind: EventKind, stage: int | None, detail: str = "") -> None:
        self.events.note(self.now_seconds, kind, stage, self.ledger.num_iterations, detail)
