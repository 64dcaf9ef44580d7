"""One iteration, microbatch by microbatch, as processes on an event loop.

A microbatch starts at the embedding (stage 0), visits the layer stages in the order of its route, goes to the head
(stage 0 again, or the last stage) for the loss, and returns the same way. A node does one operation at a time; hops do
not occupy it, and share links with other messages. A stage exchanges gradients among its replicas as soon as all of
them are done; then come the optimizer and what a strategy adds.

In the `textbook` order a node waits for the next visit of the schedule even if another has arrived; in the order of
`arrival` it takes, of the visits that have arrived, the first by the schedule.

The work of a slot without node is done by substitutes, always in the order of arrival: by the nodes left in its stage,
which take microbatches in turn, or by those of another stage, which then do the work of both stages.

*Not modelled*: the embedding's look-up; gradients sent before the node's last backward has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from models.spec import EMBEDDING_STAGE
from sim.cluster.flows import Flow, Flows
from sim.core.ledger import IterationSplit
from sim.core.records import Message, Operation
from sim.core.units import to_ticks
from sim.workload.config import IterationPlan
from sim.workload.deployment import Assignment, Deployment, WorkPlacement
from sim.workload.schedule import BACKWARD, FORWARD, Visit

Order = Literal["textbook", "arrival"]

Process = Generator[simpy.Event, Any, None]

TimeFactor = Callable[[int, int], float]
"""(stage, replica) → factor on the time of the next operation of that node."""


def unit_factor(stage: int, replica: int) -> float:  # noqa: ARG001
    """No jitter: every operation takes its nominal time."""
    return 1.0


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
    """One iteration on an event loop: `done` triggers at its end; `operations` and `messages` are its record.

    order: `textbook` needs a complete cluster and a schedule with `has_textbook_order`.
    assignment: node that does the work of each slot; default: its own.
    """

    def __init__(
        self,
        deployment: Deployment,
        env: simpy.Environment,
        flows: Flows,
        plan: IterationPlan,
        order: Order,
        time_factor: TimeFactor,
        assignment: Assignment | None = None,
    ) -> None:
        self.deployment, self.plan, self.time_factor = deployment, plan, time_factor
        self.placement = WorkPlacement(deployment.cluster, assignment or deployment.complete_assignment)
        self.order: Order = order if self.placement.is_complete else "arrival"
        self.operations: list[Operation] = []
        self.messages: list[Message] = []
        self.busy_seconds = {FORWARD: 0.0, BACKWARD: 0.0, "shadow": 0.0, "optimizer": 0.0}
        self._env, self._flows = env, flows
        self._workload, self._cluster, self._costs = deployment.costs.workload, deployment.cluster, deployment.costs
        self._num_replicas = deployment.cluster.config.nodes_per_stage
        self.schedule = deployment.costs.schedule(plan)
        self._orders = self.schedule.orders()
        self._ranks = self.schedule.ranks(self._orders)
        self._visits = self.placement.visits_by_node(self._orders)
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
        """Productive, waiting and redundant seconds of the completed iteration, averaged over the nodes that work."""
        num_nodes, busy = len(self.placement.slots), self.busy_seconds
        productive = (busy[FORWARD] + busy[BACKWARD] + busy["optimizer"]) / num_nodes
        redundant = busy["shadow"] / num_nodes
        return IterationSplit(productive, max(0.0, seconds - productive - redundant), redundant)

    # ---- processes --------------------------------------------------------------------------------

    def _iteration(self) -> Process:
        """Pause, microbatches through every pipeline, gradient exchange, optimizer, copies for the strategy."""
        yield self._env.timeout(to_ticks(self._workload.pause_seconds))
        copies = self._embedding_copies() if self.plan.embedding_copies else []
        admissions = [simpy.Resource(self._env, self.schedule.in_flight_limit) for _ in range(self._num_replicas)]
        queues = {node: self._make_queue(node) for node in self.placement.slots}
        microbatches = [
            self._start(self._microbatch(number, replica, admissions[replica], queues))
            for replica in range(self._num_replicas)
            for number in range(self.plan.num_microbatches)
        ]
        nodes = {node: self._start(self._run_node(node, queues[node])) for node in self.placement.slots}
        exchanges = []
        for stage in self._cluster.stages:
            before = [nodes[node] for node in self.placement.nodes_of(stage)]
            if stage == EMBEDDING_STAGE:
                before += microbatches  # which end there
            if not self._workload.overlap_gradient_exchange:
                before = [*nodes.values(), *microbatches]
            exchanges.append(self._start(self._exchange_gradients(stage, before)))
        yield self._env.all_of(exchanges)
        optimizer_seconds = to_ticks(self._workload.optimizer_seconds)
        num_stages_by_node = self.placement.num_stages_by_node()
        self.busy_seconds["optimizer"] += optimizer_seconds * sum(num_stages_by_node)
        yield self._env.timeout(optimizer_seconds * max(num_stages_by_node))
        for _ in range(self.plan.shadow_transfers):
            yield self._env.all_of([flow.arrived for flow in self._shadow_transfers()])
        yield self._env.all_of([flow.arrived for flow in copies])

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
        own_stage, backlog_seconds = node // self._num_replicas, 0.0
        in_order = self._order_is_fixed(own_stage)
        yield from self._shadow_work_without_visits(node)
        for expected in [self._ranks[visit] for visit in self._visits[node]]:
            idle_since_seconds = float(self._env.now)
            is_next = [lambda one, expected=expected: one.rank == expected] if in_order else []
            pending = yield queue.get(*is_next)
            if backlog_seconds:
                hidden_seconds = min(backlog_seconds, float(self._env.now) - idle_since_seconds)
                backlog_seconds -= hidden_seconds
                self._record("shadow", own_stage, node, -1, idle_since_seconds, hidden_seconds)
            visit, stage = pending.visit, self.schedule.stage(pending.visit)
            yield from self._work(visit.kind, stage, node, visit.microbatch, self._visit_seconds(visit, stage))
            shadow_seconds = self._shadow_seconds(visit, stage, pending.replica)
            if shadow_seconds and self.plan.shadow == "with_forward":
                yield from self._work("shadow", stage, node, visit.microbatch, shadow_seconds)
            pending.done.succeed()
            self._count_forward_at_head(visit, node)
            if shadow_seconds and self.plan.shadow == "eager":
                yield from self._work("shadow", stage, node, visit.microbatch, shadow_seconds)
            elif shadow_seconds and self.plan.shadow == "lazy":
                backlog_seconds += self._actual_seconds(node, shadow_seconds)
        if backlog_seconds:
            yield from self._occupy("shadow", own_stage, node, -1, backlog_seconds)

    def _shadow_work_without_visits(self, node: int) -> Process:
        """Shadow work of stage 0 if the head is elsewhere, so that nothing visits it."""
        for slot in self.placement.slots[node]:
            stage, replica = divmod(slot, self._num_replicas)
            if not self._orders[stage] and self.plan.shadow_forwards and self.placement.holds_shadow(stage, replica):
                seconds = self.deployment.shadow_seconds(self.plan, stage)
                for microbatch in range(self.plan.num_microbatches):
                    yield from self._work("shadow", stage, node, microbatch, seconds)

    def _exchange_gradients(self, stage: int, before: list[simpy.Process]) -> Process:
        """Exchange the gradients of a stage after other processes."""
        yield self._env.all_of(before)
        yield self._env.all_of([flow.arrived for flow in self._gradient_exchange(stage)])

    # ---- queues and order --------------------------------------------------------------------------

    def _start(self, process: Process) -> simpy.Process:
        self._processes.append(process)
        return self._env.process(process)

    def _make_queue(self, node: int) -> Any:
        if self._order_is_fixed(node // self._num_replicas):
            return simpy.FilterStore(self._env)
        return (simpy.Store if self.schedule.is_first_come_first_served else simpy.PriorityStore)(self._env)

    def _order_is_fixed(self, stage: int) -> bool:
        """Whether nodes of a stage wait for the next visit of the schedule; heads always do with forwards first."""
        at_head = self.schedule.forwards_first and stage == self._costs.head_stage
        return self.placement.is_complete and (self.order == "textbook" or at_head)

    def _head_barriers(self) -> dict[int, HeadBarrier]:
        """Barriers of the nodes that compute heads, if all forwards come first and no order is fixed."""
        if not self.schedule.forwards_first or self.placement.is_complete:
            return {}
        at_head = {visit for visit in self._ranks if visit.position == self.schedule.head and visit.kind == FORWARD}
        forwards = {node: sum(visit in at_head for visit in visits) for node, visits in self._visits.items()}
        return {node: HeadBarrier(num, self._env.event()) for node, num in forwards.items() if num}

    def _count_forward_at_head(self, visit: Visit, node: int) -> None:
        """Open the barrier of a node after the last forward of its heads."""
        if (barrier := self._barriers.get(node)) and visit.kind == FORWARD and visit.position == self.schedule.head:
            barrier.num_forwards_left -= 1
            if not barrier.num_forwards_left:
                barrier.open.succeed()

    def _visit_seconds(self, visit: Visit, stage: int) -> float:
        """Nominal seconds of a visit: a chunk of a stage's layers, or the head."""
        seconds = self._costs.forward_seconds if visit.kind == FORWARD else self._costs.backward_seconds
        if visit.position == self.schedule.head:
            return seconds(EMBEDDING_STAGE, self.plan.microbatch_size)
        return seconds(stage, self.plan.microbatch_size) / self._workload.chunks_per_stage

    def _shadow_seconds(self, visit: Visit, stage: int, replica: int) -> float:
        """Nominal seconds of shadow work after a visit: equal parts of what a stage does per microbatch."""
        per_microbatch = self.plan.shadow_backwards if visit.kind == BACKWARD else self.plan.shadow_forwards
        if not per_microbatch or not self.placement.holds_shadow(stage, replica, visit.microbatch):
            return 0.0
        of_layers = 0 if stage == EMBEDDING_STAGE else self._workload.chunks_per_stage
        num_visits = of_layers + (stage == self._costs.head_stage)
        return self.deployment.shadow_seconds(self.plan, stage, visit.kind) / num_visits

    def _work(self, kind: str, stage: int, node: int, microbatch: int, nominal_seconds: float) -> Process:
        """Occupy a node for an operation of a stage."""
        yield from self._occupy(kind, stage, node, microbatch, self._actual_seconds(node, nominal_seconds))

    def _occupy(self, kind: str, stage: int, node: int, microbatch: int, seconds: float) -> Process:
        """Occupy a node for some time."""
        started_seconds = float(self._env.now)
        try:
            yield self._env.timeout(seconds)
        finally:  # a failure may cut it short
            self._record(kind, stage, node, microbatch, started_seconds, float(self._env.now) - started_seconds)

    def _actual_seconds(self, node: int, nominal_seconds: float) -> float:
        """Seconds that a node takes for work of given nominal seconds."""
        own = divmod(node, self._num_replicas)
        return to_ticks(nominal_seconds * self._cluster.slowdown(*own) * self.time_factor(*own))

    def _record(self, kind: str, stage: int, node: int, microbatch: int, started: float, seconds: float) -> None:
        self.busy_seconds[kind] += seconds
        replica = node % self._num_replicas
        self.operations.append(Operation(kind, stage, replica, microbatch, started, started + seconds))

    def _hop(self, kind: str, microbatch: int, source: int, target: int) -> Process:
        """Send an activation, or its gradient, to the node of the next stage, unless that is the same node."""
        if source == target:
            return
        network, num_bytes = self.deployment.network, self.plan.microbatch_size * self._costs.activation_bytes
        yield self._env.timeout(to_ticks(network.config.software_seconds_per_hop))
        if network.hop_seconds(source, target, num_bytes) > 0.0:
            what = "activation" if kind == FORWARD else "gradient"
            channel = (source, target) if network.is_shared else None
            yield self._send(f"{what} {microbatch}", source, target, num_bytes, channel=channel).arrived

    def _gradient_exchange(self, stage: int) -> list[Flow]:
        """Ring all-reduce: 2 (N - 1) steps of S / N bytes on all links at once; or S bytes from each to each."""
        nodes, num_bytes = self.placement.nodes_of(stage), self._costs.weight_bytes(stage)
        n, what = len(nodes) * self.deployment.num_represented, f"gradient exchange of stage {stage}"
        if n == 1:
            return []
        if self._workload.gradient_exchange == "ring":
            steps, pairs = (
                2 * (n - 1),
                zip(nodes, [*nodes[1:], nodes[0]], strict=True),
            )  # or to itself, representing all
            return [self._send(what, *pair, num_bytes * steps / n, steps) for pair in pairs]
        return [self._send(what, a, b, num_bytes) for a in nodes for b in nodes if a != b or len(nodes) == 1]

    def _shadow_transfers(self) -> list[Flow]:
        """Gradients, or weights, of each stage to the nodes that hold its shadow."""
        flows = []
        for stage in self._cluster.stages:
            target, num_bytes = (stage - 1) % len(self._cluster.stages), self._costs.weight_bytes(stage)
            replicas = [replica for replica in self._cluster.replicas if self.placement.holds_shadow(target, replica)]
            flows += self._send_to(f"shadow of stage {stage}", stage, target, replicas, num_bytes)
        return flows

    def _embedding_copies(self) -> list[Flow]:
        """Gradients that keep the copies of E on S1 and of E⁻¹ on Ss up to date."""
        num_bytes, what = self._costs.embedding_copy_bytes, "copy of the embedding"
        targets = (1, self._cluster.num_stages)
        copies = [self._send_to(what, EMBEDDING_STAGE, target, self._cluster.replicas, num_bytes) for target in targets]
        return [flow for flows in copies for flow in flows]

    def _send_to(self, what: str, source: int, target: int, replicas: Sequence[int], num_bytes: float) -> list[Flow]:
        """From the nodes of a stage to those of another in some pipelines: once per pair, none to itself."""
        pairs = dict.fromkeys((self.placement.node(source, r), self.placement.node(target, r)) for r in replicas)
        return [self._send(what, a, b, num_bytes) for a, b in pairs if a != b]

    def _send(
        self, what: str, source: int, target: int, num_bytes: float, num_latencies: int = 1, channel: Hashable = None
    ) -> Flow:
        flow = self._flows.send(self.deployment.network.path(source, target), num_bytes, num_latencies, channel)
        self._under_way[flow] = None
        started_seconds = float(self._env.now)

        def ended(now_seconds: float) -> None:
            del self._under_way[flow]
            arrived = flow.arrived.triggered
            self.messages.append(Message(what, source, target, num_bytes, started_seconds, now_seconds, arrived))

        flow.when_ended.append(ended)
        return flow
