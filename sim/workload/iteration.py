"""One iteration, microbatch by microbatch, as processes on an event loop.

A microbatch starts at the embedding (stage 0), visits the layer stages in the order of its route, goes to the head
(stage 0 again, or the last stage) for the loss, and returns the same way. A node does one operation at a time; hops do
not occupy it, and share links with other messages. A stage exchanges gradients among its replicas as soon as all of
them are done; then come the optimizer and what a strategy adds.

In the `textbook` order a node waits for the next visit of the schedule even if another has arrived; in the order of
`arrival` it takes, of the visits that have arrived, the first by the schedule. With a `service` order it waits for the
next visit of that order.

The work of a slot without node is done by substitutes, always in the order of arrival: by the nodes left in its stage,
which take microbatches in turn, or by those of another stage, which then do the work of both stages.

*Not modelled*: the embedding's look-up; gradients sent before the node's last backward has ended.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass, field
from typing import Any

import simpy

from models.spec import EMBEDDING_STAGE
from sim.cluster.flows import Flow, Flows
from sim.core.ledger import IterationSplit
from sim.core.records import Message, Operation
from sim.core.units import to_ticks
from sim.workload.iteration_work import IterationWork, TimeFactor, Transmission
from sim.workload.schedule import BACKWARD, FORWARD, WEIGHTS, Visit

Process = Generator[simpy.Event, Any, None]


@dataclass(order=True)
class PendingVisit:
    """A visit that waits at its node; `done` resumes the microbatch."""

    rank: int  # compared first, then the pipeline: a priority store returns the lowest
    replica: int
    visit: Visit = field(compare=False)
    done: simpy.Event = field(compare=False)


@dataclass
class HeadBarrier:
    """At a node that computes heads, if all forwards come first: backwards wait until no forward is left."""

    num_forwards_left: int
    open: simpy.Event


class IterationRun:
    """One iteration on an event loop: `done` triggers at its end; `operations` and `messages` are its record."""

    def __init__(
        self, work: IterationWork, env: simpy.Environment, flows: Flows, time_factor: TimeFactor | None = None
    ) -> None:
        self.work, self.placement, self.schedule, self.plan = work, work.placement, work.schedule, work.plan
        self.operations: list[Operation] = []
        self.messages: list[Message] = []
        self.busy_seconds = {FORWARD: 0.0, BACKWARD: 0.0, WEIGHTS: 0.0, "shadow": 0.0}
        self._env, self._flows, self._time_factor = env, flows, time_factor
        self._num_replicas = len(work.cluster.replicas)
        self._backlog = WEIGHTS if self.schedule.splits_backward else "shadow"
        self._ranks = self.schedule.ranks()
        self._visits = self._expected_visits()
        self._barriers = self._head_barriers()
        self._processes: list[Process] = []
        self._under_way: dict[Flow, None] = {}
        self.done = self._start(self._iteration())

    def stop(self) -> None:
        """Stop all processes and cancel all messages, after a failure."""
        for process in self._processes:
            process.close()
        for flow in list(self._under_way):
            self._flows.cancel(flow)

    def split(self, seconds: float) -> IterationSplit:
        """Productive, waiting and redundant seconds of the completed iteration."""
        busy = self.busy_seconds
        return self.work.split(seconds, busy[FORWARD] + busy[BACKWARD] + busy[WEIGHTS], busy["shadow"])

    # ---- processes --------------------------------------------------------------------------------

    def _iteration(self) -> Process:
        """Pause, microbatches through every pipeline, gradient exchange, optimizer, copies for the strategy."""
        yield self._env.timeout(to_ticks(self.work.workload.pause_seconds))
        copies = [self._send(one).arrived for one in self.work.embedding_copies()]
        admissions = [simpy.Resource(self._env, self.schedule.in_flight_limit) for _ in range(self._num_replicas)]
        queues = {node: self._make_queue(node) for node in self.placement.slots}
        microbatches = [
            self._start(self._microbatch(number, replica, admissions[replica], queues))
            for replica in range(self._num_replicas)
            for number in range(self.work.num_microbatches(replica))
        ]
        nodes = {node: self._start(self._run_node(node, queues[node])) for node in self.placement.slots}
        exchanges = []
        for stage in self.work.cluster.stages:
            before = [nodes[node] for node in self.placement.nodes_of(stage)]
            if stage == EMBEDDING_STAGE:
                before += microbatches  # which end there
            if not self.work.workload.overlap_gradient_exchange:
                before = [*nodes.values(), *microbatches]
            exchanges.append(self._start(self._exchange_gradients(stage, before)))
        yield self._env.all_of(exchanges)
        yield self._env.timeout(self.work.optimizer_seconds * max(self.placement.num_stages_by_node()))
        for _ in range(self.plan.shadow_transfers):
            yield self._send_all(self.work.shadow_transfers())
        yield self._env.all_of(copies)

    def _microbatch(self, microbatch: int, replica: int, admission: simpy.Resource, queues: dict[int, Any]) -> Process:
        """Run a microbatch: admission, forwards along the route to the head, backwards to the embedding."""
        with admission.request() as admitted:
            yield admitted
            home = here = self.placement.node(EMBEDDING_STAGE, replica, microbatch)
            for visit in self.schedule.visits(microbatch):
                node = self.placement.node(self.schedule.stage(visit), replica, microbatch)
                yield from self._hop(visit.kind, microbatch, here, node)
                if visit.kind == BACKWARD and visit.position == self.schedule.head and node in self._barriers:
                    yield self._barriers[node].open
                pending = PendingVisit(self._ranks[visit], replica, visit, self._env.event())
                queues[node].put(pending)
                yield pending.done
                here = node
            yield from self._hop(BACKWARD, microbatch, here, home)

    def _run_node(self, node: int, queue: Any) -> Process:
        """Run all visits of a node, one after the other, with shadow work when due or while the node waits."""
        own_stage, backlog_seconds = self.work.cluster.stage_of(node), 0.0
        in_order = self.work.is_order_fixed(own_stage)
        for stage, microbatch, seconds in self.work.idle_shadow_seconds(node):
            yield from self._work("shadow", stage, node, microbatch, seconds)
        for expected in self._visits[node]:
            idle_since_seconds = float(self._env.now)
            is_next = [lambda one, expected=expected: (one.replica, one.visit) == expected] if in_order else []
            pending = yield queue.get(*is_next)
            if backlog_seconds:
                hidden_seconds = min(backlog_seconds, float(self._env.now) - idle_since_seconds)
                backlog_seconds -= hidden_seconds
                self._record(self._backlog, own_stage, node, -1, idle_since_seconds, hidden_seconds)
            visit, stage = pending.visit, self.schedule.stage(pending.visit)
            seconds = self.work.visit_seconds(visit, stage, pending.replica)
            yield from self._work(visit.kind, stage, node, visit.microbatch, seconds)
            holds_shadow = self.placement.holds_shadow(stage, pending.replica, visit.microbatch)
            shadow_seconds = self.work.shadow_seconds(visit.kind, stage) if holds_shadow else 0.0
            if shadow_seconds and self.plan.shadow == "with_forward":
                yield from self._work("shadow", stage, node, visit.microbatch, shadow_seconds)
            pending.done.succeed()
            self._count_forward_at_head(visit, node)
            if shadow_seconds and self.plan.shadow == "eager":
                yield from self._work("shadow", stage, node, visit.microbatch, shadow_seconds)
            elif shadow_seconds and self.plan.shadow == "lazy":
                backlog_seconds += self._actual_seconds(node, shadow_seconds)
            elif deferred_seconds := self.work.deferred_seconds(visit, stage, pending.replica):
                backlog_seconds += self._actual_seconds(node, deferred_seconds)
                due_seconds = backlog_seconds - self.work.most_deferred_seconds(node)
                if due_seconds > 0.0:
                    backlog_seconds -= due_seconds
                    yield from self._occupy(WEIGHTS, stage, node, visit.microbatch, due_seconds)
        if backlog_seconds:
            yield from self._occupy(self._backlog, own_stage, node, -1, backlog_seconds)

    def _exchange_gradients(self, stage: int, before: list[simpy.Process]) -> Process:
        """Exchange the gradients of a stage after other processes."""
        yield self._env.all_of(before)
        yield self._send_all(self.work.gradient_exchange(stage))

    # ---- queues and order --------------------------------------------------------------------------

    def _start(self, process: Process) -> simpy.Process:
        self._processes.append(process)
        return self._env.process(process)

    def _make_queue(self, node: int) -> Any:
        if self.work.is_order_fixed(self.work.cluster.stage_of(node)):
            return simpy.FilterStore(self._env)
        return (simpy.Store if self.schedule.is_first_come_first_served else simpy.PriorityStore)(self._env)

    def _expected_visits(self) -> dict[int, list[tuple[int, Visit]]]:
        """Pipelines and visits that each node serves; in order, where the order is fixed."""
        if self.work.service is None:
            found = self.placement.visits_by_node(self.schedule.orders())
            return {
                node: [(r, visit) for r, visit in visits if visit.microbatch < self.work.num_microbatches(r)]
                for node, visits in found.items()
            }
        visits: dict[int, list[tuple[int, Visit]]] = {node: [] for node in self.placement.slots}
        of_microbatch = [self.schedule.visits(number) for number in range(self.plan.num_microbatches)]
        for number in self.work.service.tolist():
            microbatch, index = divmod(number, len(of_microbatch[0]))
            replica, microbatch = divmod(microbatch, self.plan.num_microbatches)
            visit = of_microbatch[microbatch][index]
            visits[self.placement.node(self.schedule.stage(visit), replica, microbatch)].append((replica, visit))
        return visits

    def _head_barriers(self) -> dict[int, HeadBarrier]:
        """Barriers of the nodes that compute heads, if all forwards come first and no order is fixed."""
        if not self.work.has_barriers:
            return {}
        at_head = {visit for visit in self._ranks if visit.position == self.schedule.head and visit.kind == FORWARD}
        forwards = {node: sum(visit in at_head for _, visit in visits) for node, visits in self._visits.items()}
        return {node: HeadBarrier(num, self._env.event()) for node, num in forwards.items() if num}

    def _count_forward_at_head(self, visit: Visit, node: int) -> None:
        """Open the barrier of a node after the last forward of its heads."""
        if (barrier := self._barriers.get(node)) and visit.kind == FORWARD and visit.position == self.schedule.head:
            barrier.num_forwards_left -= 1
            if not barrier.num_forwards_left:
                barrier.open.succeed()

    def _work(self, kind: str, stage: int, node: int, microbatch: int, nominal_seconds: float) -> Process:
        """Occupy a node for an operation of a stage."""
        yield from self._occupy(kind, stage, node, microbatch, self._actual_seconds(node, nominal_seconds))

    def _occupy(self, kind: str, stage: int, node: int, microbatch: int, seconds: float) -> Process:
        """Occupy a node for some time."""
        started_seconds = float(self._env.now)
        try:
            yield self._env.timeout(seconds)
        finally:  # a failure may cut it short, or occur as it begins
            worked_seconds = float(self._env.now) - started_seconds
            if worked_seconds or not seconds:
                self._record(kind, stage, node, microbatch, started_seconds, worked_seconds)

    def _actual_seconds(self, node: int, nominal_seconds: float) -> float:
        """Seconds that a node takes for work of given nominal seconds."""
        slot = self.work.slot(node)
        own = self.work.cluster.place_of(slot)
        factor = self._time_factor(*self.work.deployment.place_of(slot)) if self._time_factor else 1.0
        return to_ticks(nominal_seconds * self.work.cluster.slowdown(*own) * factor)

    def _record(self, kind: str, stage: int, node: int, microbatch: int, started: float, seconds: float) -> None:
        self.busy_seconds[kind] += seconds
        deployment = self.work.deployment
        own_stage, replica = deployment.place_of(self.work.slot(node))
        stage = own_stage if deployment.whole else stage
        self.operations.append(Operation(kind, stage, replica, microbatch, started, started + seconds))

    def _hop(self, kind: str, microbatch: int, source: int, target: int) -> Process:
        """Send an activation, or its gradient, to the node of the next stage, unless that is the same node."""
        if source == target:
            return
        network = self.work.deployment.network
        yield self._env.timeout(to_ticks(network.config.software_seconds_per_hop))
        if self.work.hop_takes_time(source, target):
            what = "activation" if kind == FORWARD else "gradient"
            channel = (source, target) if network.is_shared else None
            yield self._send(Transmission(f"{what} {microbatch}", source, target, self.work.hop_bytes), channel).arrived

    def _send_all(self, sent: list[Transmission]) -> simpy.Event:
        """Send messages at once; the event triggers when all have arrived."""
        return self._env.all_of([self._send(one).arrived for one in sent])

    def _send(self, sent: Transmission, channel: Hashable = None) -> Flow:
        source, target = self.work.end(sent.source), self.work.end(sent.target)
        flow = self._flows.send(self.work.path(sent.source, sent.target), sent.num_bytes, sent.num_latencies, channel)
        self._under_way[flow] = None
        started_seconds = float(self._env.now)

        def ended(now_seconds: float) -> None:
            del self._under_way[flow]
            arrived = flow.arrived.triggered
            if arrived or now_seconds > started_seconds:
                about = sent.what, source, target, sent.num_bytes
                self.messages.append(Message(*about, started_seconds, now_seconds, arrived))

        flow.when_ended.append(ended)
        return flow


def run_alone(work: IterationWork, time_factor: TimeFactor | None = None) -> IterationRun:
    """An iteration that has run on an event loop of its own, from time 0. Raises RuntimeError on a deadlock."""
    env = simpy.Environment()
    run = IterationRun(work, env, Flows(env), time_factor)
    env.run(until=run.done)
    return run
