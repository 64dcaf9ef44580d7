"""One iteration, microbatch by microbatch, as processes on an event loop.

A microbatch starts at the embedding (stage 0), visits the layer stages in the order of its route, goes to the head
(stage 0 again, or the last stage) for the loss, and returns the way it came. A node does one thing at a time; hops do
not occupy it, and share links with whatever else is on its way. A stage exchanges gradients among its replicas as soon
as all of them are done; then come the optimizer and what a strategy adds.

`sim.schedules` says in which order a node works. In the `textbook` order it waits for its next piece of work even where
another has arrived; in the order of `arrival` it takes the first, by that order, of what has.

*Not modelled*: the embedding's look-up; gradients that leave before the stage's last backward has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from models.lineage import EMBEDDING_STAGE
from sim.clock import ticked
from sim.costs import IterationPlan
from sim.flows import Flow, Flows
from sim.ledger import IterationSplit
from sim.records import Message, Operation
from sim.schedules import BACKWARD, FORWARD, Visit
from sim.site import Site

Order = Literal["textbook", "arrival"]
Process = Generator[simpy.Event, Any, None]
Slowness = Callable[[int, int], float]
"""How much longer than usual a stage's node of a replica takes for the operation it is about to begin."""


def even_pace(stage: int, replica: int) -> float:  # noqa: ARG001
    """Every operation takes its usual time."""
    return 1.0


@dataclass(order=True)
class Turn:
    """A visit that has arrived at its stage and waits for its turn there; `done` tells the microbatch."""

    rank: int  # also compared: a store takes out what is first
    done: simpy.Event = field(compare=False)


class IterationRun:
    """One iteration on an event loop: `done` triggers at its end; `operations` and `messages` tell what happened.

    With fewer microbatches in flight than positions that compute, 1f1b has no textbook order, and `arrival` it is.
    """

    def __init__(
        self, site: Site, env: simpy.Environment, flows: Flows, plan: IterationPlan, order: Order, slowness: Slowness
    ) -> None:
        self.site, self.plan, self.order, self.slowness = site, plan, order, slowness
        self.operations: list[Operation] = []
        self.messages: list[Message] = []
        self.busy_seconds = {FORWARD: 0.0, BACKWARD: 0.0, "shadow": 0.0, "optimizer": 0.0}
        self._env, self._flows = env, flows
        self._workload, self._cluster, self._costs = site.costs.workload, site.cluster, site.costs
        self._num_replicas = site.cluster.config.nodes_per_stage
        self.schedule = site.schedule(plan)
        self._orders = self.schedule.orders()
        self._ranks = {visit: rank for visits in self._orders.values() for rank, visit in enumerate(visits)}
        self._processes: list[Process] = []
        self._under_way: dict[Flow, None] = {}
        self.done = self._begin(self._iteration())

    def stop(self) -> None:
        """A failure has ended the iteration: every process stops where it is, every message is lost."""
        for process in self._processes:
            process.close()
        for flow in list(self._under_way):
            self._flows.cancel(flow)

    def split(self, seconds: float) -> IterationSplit:
        """Where the seconds of the completed iteration went, averaged over the nodes."""
        num_nodes = len(self._cluster.stages) * self._num_replicas
        busy = self.busy_seconds
        productive = (busy[FORWARD] + busy[BACKWARD] + busy["optimizer"]) / num_nodes
        redundant = busy["shadow"] / num_nodes
        return IterationSplit(productive, max(0.0, seconds - productive - redundant), redundant)

    # ---- the story of an iteration -----------------------------------------------------------------

    def _iteration(self) -> Process:
        """Pause, microbatches through every pipeline, gradient exchange, optimizer, the strategy's copies."""
        yield self._env.timeout(ticked(self._workload.pause_seconds))
        copies = self._embedding_copies() if self.plan.embedding_copies else []
        entrances = [simpy.Resource(self._env, self.schedule.max_in_flight) for _ in range(self._num_replicas)]
        inboxes = {(stage, r): self._inbox(stage) for stage in self._cluster.stages for r in range(self._num_replicas)}
        microbatches = [
            self._begin(self._microbatch(number, replica, entrances[replica], inboxes))
            for replica in range(self._num_replicas)
            for number in range(self.plan.num_microbatches)
        ]
        nodes = {
            stage: [self._begin(self._node(stage, r, inboxes[stage, r])) for r in range(self._num_replicas)]
            for stage in self._cluster.stages
        }
        nodes[EMBEDDING_STAGE] += microbatches  # which come home there
        everything = [part for parts in nodes.values() for part in parts]
        overlaps = self._workload.overlap_gradient_exchange
        stages = [self._stage(stage, parts if overlaps else everything) for stage, parts in nodes.items()]
        yield self._env.all_of([self._begin(stage) for stage in stages])
        optimizer_seconds = ticked(self._workload.optimizer_seconds)
        self.busy_seconds["optimizer"] += optimizer_seconds * len(self._cluster.stages) * self._num_replicas
        yield self._env.timeout(optimizer_seconds)
        for _ in range(self.plan.shadow_transfers):
            yield self._env.all_of([flow.arrived for flow in self._shadow_transfers()])
        yield self._env.all_of([flow.arrived for flow in copies])

    def _microbatch(self, microbatch: int, replica: int, entrance: simpy.Resource, inboxes: dict[Any, Any]) -> Process:
        """Admitted, forward along the route to the head, and back to the embedding."""
        with entrance.request() as admitted:
            yield admitted
            here = EMBEDDING_STAGE
            for visit in self.schedule.way(microbatch):
                stage = self.schedule.stage(visit)
                yield from self._hop(visit.kind, microbatch, replica, here, stage)
                turn = Turn(self._ranks[visit], self._env.event())
                inboxes[stage, replica].put(turn)
                yield turn.done
                here = stage
            yield from self._hop(BACKWARD, microbatch, replica, here, EMBEDDING_STAGE)

    def _node(self, stage: int, replica: int, inbox: Any) -> Process:
        """A stage's node: every visit it is to have, one after the other; shadow work when it is due or in between."""
        order, in_order = self._orders[stage], self._order_is_fixed(stage)
        backlog_seconds = 0.0
        if not order and self.plan.shadow_forwards:  # stage 0 where the head is elsewhere: nothing but shadow work
            seconds = self.site.shadow_seconds(self.plan, stage)
            for microbatch in range(self.plan.num_microbatches):
                yield from self._work("shadow", stage, replica, microbatch, seconds)
        for expected in range(len(order)):
            waits_from_seconds = float(self._env.now)
            turn = yield inbox.get(lambda turn, expected=expected: turn.rank == expected) if in_order else inbox.get()
            if backlog_seconds:
                hidden_seconds = min(backlog_seconds, float(self._env.now) - waits_from_seconds)
                backlog_seconds -= hidden_seconds
                self._note("shadow", stage, replica, -1, waits_from_seconds, hidden_seconds)
            visit = order[turn.rank]
            yield from self._work(visit.kind, stage, replica, visit.microbatch, self._visit_seconds(visit, stage))
            shadow_seconds = self._shadow_seconds(visit, stage)
            if shadow_seconds and self.plan.shadow == "with_forward":
                yield from self._work("shadow", stage, replica, visit.microbatch, shadow_seconds)
            turn.done.succeed()
            if shadow_seconds and self.plan.shadow == "eager":
                yield from self._work("shadow", stage, replica, visit.microbatch, shadow_seconds)
            elif shadow_seconds and self.plan.shadow == "lazy":
                backlog_seconds += self._at_its_pace(stage, replica, shadow_seconds)
        if backlog_seconds:
            yield from self._occupy("shadow", stage, replica, -1, backlog_seconds)

    def _stage(self, stage: int, awaited: list[simpy.Process]) -> Process:
        """A stage exchanges gradients when all that it waits for is done: its own work, or everybody's."""
        yield self._env.all_of(awaited)
        yield self._env.all_of([flow.arrived for flow in self._gradient_exchange(stage)])

    # ---- what it is made of ------------------------------------------------------------------------

    def _begin(self, process: Process) -> simpy.Process:
        self._processes.append(process)
        return self._env.process(process)

    def _inbox(self, stage: int) -> Any:
        if self._order_is_fixed(stage):
            return simpy.FilterStore(self._env)
        return (simpy.Store if self._workload.schedule == "fifo" else simpy.PriorityStore)(self._env)

    def _order_is_fixed(self, stage: int) -> bool:
        """Whether a stage waits for its next visit in order; gpipe's head always does, all forwards first."""
        return self.order == "textbook" or (self._workload.schedule == "gpipe" and stage == self._costs.head_stage)

    def _visit_seconds(self, visit: Visit, stage: int) -> float:
        """Work of a visit to a chunk of a stage's layers, or to the head."""
        seconds = self._costs.forward_seconds if visit.kind == FORWARD else self._costs.backward_seconds
        if visit.position == self.schedule.head:
            return seconds(EMBEDDING_STAGE, self.plan.microbatch_size)
        return seconds(stage, self.plan.microbatch_size) / self._workload.chunks_per_stage

    def _shadow_seconds(self, visit: Visit, stage: int) -> float:
        """Shadow work that a visit brings: a stage's for a microbatch, in equal parts for its forwards."""
        if visit.kind == BACKWARD or not self.plan.shadow_forwards:
            return 0.0
        num_forwards = 0 if stage == EMBEDDING_STAGE else self._workload.chunks_per_stage
        num_forwards += 1 if stage == self._costs.head_stage else 0
        return self.site.shadow_seconds(self.plan, stage) / num_forwards

    def _work(self, kind: str, stage: int, replica: int, microbatch: int, usual_seconds: float) -> Process:
        """Occupy a node for an operation, as long as it takes there."""
        yield from self._occupy(kind, stage, replica, microbatch, self._at_its_pace(stage, replica, usual_seconds))

    def _occupy(self, kind: str, stage: int, replica: int, microbatch: int, seconds: float) -> Process:
        """Occupy a node for some time."""
        started_seconds = float(self._env.now)
        try:
            yield self._env.timeout(seconds)
        finally:  # a failure may cut it short
            self._note(kind, stage, replica, microbatch, started_seconds, float(self._env.now) - started_seconds)

    def _at_its_pace(self, stage: int, replica: int, usual_seconds: float) -> float:
        """What a node takes for work that usually takes so long."""
        return ticked(usual_seconds * self._cluster.slowdown(stage, replica) * self.slowness(stage, replica))

    def _note(self, kind: str, stage: int, replica: int, microbatch: int, started: float, seconds: float) -> None:
        self.busy_seconds[kind] += seconds
        self.operations.append(Operation(kind, stage, replica, microbatch, started, started + seconds))

    def _hop(self, kind: str, microbatch: int, replica: int, source: int, target: int) -> Process:
        """Send an activation, or its gradient, to the next stage's node in this pipeline."""
        if source == target:
            return
        network, num_bytes = self.site.network, self.plan.microbatch_size * self._costs.activation_bytes
        nodes = self._cluster.node(source, replica), self._cluster.node(target, replica)
        yield self._env.timeout(ticked(network.config.software_seconds_per_hop))
        if network.hop_seconds(*nodes, num_bytes) > 0.0:
            what = "activation" if kind == FORWARD else "gradient"
            channel = nodes if network.is_shared else None
            yield self._send(f"{what} {microbatch}", *nodes, num_bytes, channel=channel).arrived

    def _gradient_exchange(self, stage: int) -> list[Flow]:
        """Ring all-reduce: 2 (N - 1) steps of S / N bytes, all links at once; or S bytes from each to each."""
        nodes, num_bytes = self._cluster.nodes_of(stage), self._costs.weight_bytes(stage)
        n, what = len(nodes), f"gradient exchange of stage {stage}"
        if n == 1:
            return []
        if self._workload.gradient_exchange == "ring":
            steps = 2 * (n - 1)
            return [self._send(what, a, nodes[(i + 1) % n], num_bytes * steps / n, steps) for i, a in enumerate(nodes)]
        return [self._send(what, a, b, num_bytes) for a in nodes for b in nodes if a != b]

    def _shadow_transfers(self) -> list[Flow]:
        """Each stage's gradients, or weights, to the node that holds its shadow."""
        flows = []
        for stage in self._cluster.stages:
            holder, num_bytes = (stage - 1) % len(self._cluster.stages), self._costs.weight_bytes(stage)
            for a, b in zip(self._cluster.nodes_of(stage), self._cluster.nodes_of(holder), strict=True):
                flows.append(self._send(f"shadow of stage {stage}", a, b, num_bytes))
        return flows

    def _embedding_copies(self) -> list[Flow]:
        """What keeps the copies of E on S1 and of E⁻¹ on Ss in step."""
        sources = self._cluster.nodes_of(EMBEDDING_STAGE)
        return [
            self._send("copy of the embedding", source, target, self._costs.embedding_copy_bytes)
            for holder in (1, self._cluster.num_stages)
            for source, target in zip(sources, self._cluster.nodes_of(holder), strict=True)
        ]

    def _send(
        self, what: str, source: int, target: int, num_bytes: float, num_latencies: int = 1, channel: Hashable = None
    ) -> Flow:
        flow = self._flows.send(self.site.network.path(source, target), num_bytes, num_latencies, channel)
        self._under_way[flow] = None
        started_seconds = float(self._env.now)

        def ended(now_seconds: float) -> None:
            del self._under_way[flow]
            arrived = flow.arrived.triggered
            self.messages.append(Message(what, source, target, num_bytes, started_seconds, now_seconds, arrived))

        flow.when_ended.append(ended)
        return flow
