"""One iteration, microbatch by microbatch, as processes on an event loop.

A microbatch starts at the embedding (stage 0), visits the layer stages in the order of its route, goes to the head
(stage 0 again, or the last stage) for the loss, and returns the way it came. A node does one thing at a time; hops do
not occupy it, and share links with whatever else is on its way. A stage exchanges gradients among its replicas as soon
as all of them are done; then come the optimizer and what a strategy adds.

`schedule` says in which order a node works. In the `textbook` order it waits for its next piece of work even where
another has arrived; in the order of `arrival` it takes the first, by that order, of what has.

The work of a place without node is done by others' nodes, then always in the order of arrival: by those that its stage
has left, microbatch by microbatch in turn, or by those of another stage, which do both stages' work.

*Not modelled*: the embedding's look-up; gradients that leave before the node's last backward has ended.
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
from sim.workload.deployment import Assignment, Deployment, Hosts
from sim.workload.schedule import BACKWARD, FORWARD, Visit

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

    rank: int  # compared, and then the pipeline: a store takes out what is first
    replica: int
    visit: Visit = field(compare=False)
    done: simpy.Event = field(compare=False)


@dataclass
class Gate:
    """Where gpipe's heads of some pipelines are: their first backward waits until no forward is left."""

    num_forwards_left: int
    opened: simpy.Event


class IterationRun:
    """One iteration on an event loop: `done` triggers at its end; `operations` and `messages` tell what happened.

    With fewer microbatches in flight than positions that compute, 1f1b has no textbook order, and `arrival` it is.
    hosts: whose node does the work of each place; by default its own does.
    """

    def __init__(
        self,
        site: Deployment,
        env: simpy.Environment,
        flows: Flows,
        plan: IterationPlan,
        order: Order,
        slowness: Slowness,
        hosts: Hosts | None = None,
    ) -> None:
        self.site, self.plan, self.slowness = site, plan, slowness
        self.nodes = Assignment(site.cluster, hosts or site.complete_hosts)
        self.order: Order = order if self.nodes.are_complete else "arrival"
        self.operations: list[Operation] = []
        self.messages: list[Message] = []
        self.busy_seconds = {FORWARD: 0.0, BACKWARD: 0.0, "shadow": 0.0, "optimizer": 0.0}
        self._env, self._flows = env, flows
        self._workload, self._cluster, self._costs = site.costs.workload, site.cluster, site.costs
        self._num_replicas = site.cluster.config.nodes_per_stage
        self.schedule = site.costs.schedule(plan)
        self._orders = self.schedule.orders()
        self._ranks = self.schedule.ranks(self._orders)
        self._visits = self.nodes.dealt(self._orders)
        self._gates = self._gates_of_heads()
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
        """Where the seconds of the completed iteration went, averaged over the nodes that work."""
        num_nodes, busy = len(self.nodes.places), self.busy_seconds
        productive = (busy[FORWARD] + busy[BACKWARD] + busy["optimizer"]) / num_nodes
        redundant = busy["shadow"] / num_nodes
        return IterationSplit(productive, max(0.0, seconds - productive - redundant), redundant)

    # ---- the story of an iteration -----------------------------------------------------------------

    def _iteration(self) -> Process:
        """Pause, microbatches through every pipeline, gradient exchange, optimizer, the strategy's copies."""
        yield self._env.timeout(to_ticks(self._workload.pause_seconds))
        copies = self._embedding_copies() if self.plan.embedding_copies else []
        entrances = [simpy.Resource(self._env, self.schedule.in_flight_limit) for _ in range(self._num_replicas)]
        inboxes = {host: self._inbox(host) for host in self.nodes.places}
        microbatches = [
            self._begin(self._microbatch(number, replica, entrances[replica], inboxes))
            for replica in range(self._num_replicas)
            for number in range(self.plan.num_microbatches)
        ]
        nodes = {host: self._begin(self._node(host, inboxes[host])) for host in self.nodes.places}
        everything = [*nodes.values(), *microbatches]
        awaited = {stage: [nodes[host] for host in self.nodes.of(stage)] for stage in self._cluster.stages}
        awaited[EMBEDDING_STAGE] += microbatches  # which come home there
        overlaps = self._workload.overlap_gradient_exchange
        stages = [self._stage(stage, parts if overlaps else everything) for stage, parts in awaited.items()]
        yield self._env.all_of([self._begin(stage) for stage in stages])
        optimizer_seconds, num_stages_held = (
            to_ticks(self._workload.optimizer_seconds),
            self.nodes.num_stages_held(),
        )
        self.busy_seconds["optimizer"] += optimizer_seconds * sum(num_stages_held)
        yield self._env.timeout(optimizer_seconds * max(num_stages_held))
        for _ in range(self.plan.shadow_transfers):
            yield self._env.all_of([flow.arrived for flow in self._shadow_transfers()])
        yield self._env.all_of([flow.arrived for flow in copies])

    def _microbatch(self, microbatch: int, replica: int, entrance: simpy.Resource, inboxes: dict[int, Any]) -> Process:
        """Admitted, forward along the route to the head, and back to the embedding."""
        with entrance.request() as admitted:
            yield admitted
            home = here = self.nodes.host(EMBEDDING_STAGE, replica, microbatch)
            for visit in self.schedule.visits(microbatch):
                host = self.nodes.host(self.schedule.stage(visit), replica, microbatch)
                yield from self._hop(visit.kind, microbatch, here, host)
                if (gate := self._gates.get(host)) and visit.kind == BACKWARD and visit.position == self.schedule.head:
                    yield gate.opened
                turn = Turn(self._ranks[visit], replica, visit, self._env.event())
                inboxes[host].put(turn)
                yield turn.done
                here = host
            yield from self._hop(BACKWARD, microbatch, here, home)

    def _node(self, host: int, inbox: Any) -> Process:
        """A node: every visit it is to have, one after the other; shadow work when it is due or in between."""
        own_stage, backlog_seconds = host // self._num_replicas, 0.0
        in_order = self._order_is_fixed(own_stage)
        yield from self._nothing_but_shadow_work(host)
        for expected in [self._ranks[visit] for visit in self._visits[host]]:
            waits_from_seconds = float(self._env.now)
            turn = yield inbox.get(lambda turn, expected=expected: turn.rank == expected) if in_order else inbox.get()
            if backlog_seconds:
                hidden_seconds = min(backlog_seconds, float(self._env.now) - waits_from_seconds)
                backlog_seconds -= hidden_seconds
                self._note("shadow", own_stage, host, -1, waits_from_seconds, hidden_seconds)
            visit, stage = turn.visit, self.schedule.stage(turn.visit)
            yield from self._work(visit.kind, stage, host, visit.microbatch, self._visit_seconds(visit, stage))
            shadow_seconds = self._shadow_seconds(visit, stage, turn.replica)
            if shadow_seconds and self.plan.shadow == "with_forward":
                yield from self._work("shadow", stage, host, visit.microbatch, shadow_seconds)
            turn.done.succeed()
            self._open_gate_after(visit, host)
            if shadow_seconds and self.plan.shadow == "eager":
                yield from self._work("shadow", stage, host, visit.microbatch, shadow_seconds)
            elif shadow_seconds and self.plan.shadow == "lazy":
                backlog_seconds += self._at_its_pace(host, shadow_seconds)
        if backlog_seconds:
            yield from self._occupy("shadow", own_stage, host, -1, backlog_seconds)

    def _nothing_but_shadow_work(self, host: int) -> Process:
        """Stage 0 where the head is elsewhere."""
        for place in self.nodes.places[host]:
            stage, replica = divmod(place, self._num_replicas)
            if not self._orders[stage] and self.plan.shadow_forwards and self.nodes.holds_shadow(stage, replica):
                seconds = self.site.shadow_seconds(self.plan, stage)
                for microbatch in range(self.plan.num_microbatches):
                    yield from self._work("shadow", stage, host, microbatch, seconds)

    def _stage(self, stage: int, awaited: list[simpy.Process]) -> Process:
        """A stage exchanges gradients when all that it waits for is done: its own work, or everybody's."""
        yield self._env.all_of(awaited)
        yield self._env.all_of([flow.arrived for flow in self._gradient_exchange(stage)])

    # ---- what it is made of ------------------------------------------------------------------------

    def _begin(self, process: Process) -> simpy.Process:
        self._processes.append(process)
        return self._env.process(process)

    def _inbox(self, host: int) -> Any:
        if self._order_is_fixed(host // self._num_replicas):
            return simpy.FilterStore(self._env)
        return (simpy.Store if self.schedule.is_first_come_first_served else simpy.PriorityStore)(self._env)

    def _order_is_fixed(self, stage: int) -> bool:
        """Whether a stage waits for its next visit in order; with all forwards first the head always does."""
        at_head = self.schedule.forwards_first and stage == self._costs.head_stage
        return self.nodes.are_complete and (self.order == "textbook" or at_head)

    def _gates_of_heads(self) -> dict[int, Gate]:
        """With all forwards first, and no fixed order: what holds back the head's backwards on each node."""
        if not self.schedule.forwards_first or self.nodes.are_complete:
            return {}
        at_head = {visit for visit in self._ranks if visit.position == self.schedule.head and visit.kind == FORWARD}
        forwards = {host: sum(visit in at_head for visit in visits) for host, visits in self._visits.items()}
        return {host: Gate(num, self._env.event()) for host, num in forwards.items() if num}

    def _open_gate_after(self, visit: Visit, host: int) -> None:
        """The last of the head's forwards on a node lets the backwards go."""
        if (gate := self._gates.get(host)) and visit.kind == FORWARD and visit.position == self.schedule.head:
            gate.num_forwards_left -= 1
            if not gate.num_forwards_left:
                gate.opened.succeed()

    def _visit_seconds(self, visit: Visit, stage: int) -> float:
        """Work of a visit to a chunk of a stage's layers, or to the head."""
        seconds = self._costs.forward_seconds if visit.kind == FORWARD else self._costs.backward_seconds
        if visit.position == self.schedule.head:
            return seconds(EMBEDDING_STAGE, self.plan.microbatch_size)
        return seconds(stage, self.plan.microbatch_size) / self._workload.chunks_per_stage

    def _shadow_seconds(self, visit: Visit, stage: int, replica: int) -> float:
        """Shadow work that a visit brings: a stage's for a microbatch, in equal parts for its visits of a kind."""
        per_microbatch = self.plan.shadow_backwards if visit.kind == BACKWARD else self.plan.shadow_forwards
        if not per_microbatch or not self.nodes.holds_shadow(stage, replica, visit.microbatch):
            return 0.0
        of_layers = 0 if stage == EMBEDDING_STAGE else self._workload.chunks_per_stage
        num_visits = of_layers + (stage == self._costs.head_stage)
        return self.site.shadow_seconds(self.plan, stage, visit.kind) / num_visits

    def _work(self, kind: str, stage: int, host: int, microbatch: int, usual_seconds: float) -> Process:
        """Occupy a node for an operation of a stage, as long as it takes there."""
        yield from self._occupy(kind, stage, host, microbatch, self._at_its_pace(host, usual_seconds))

    def _occupy(self, kind: str, stage: int, host: int, microbatch: int, seconds: float) -> Process:
        """Occupy a node for some time."""
        started_seconds = float(self._env.now)
        try:
            yield self._env.timeout(seconds)
        finally:  # a failure may cut it short
            self._note(kind, stage, host, microbatch, started_seconds, float(self._env.now) - started_seconds)

    def _at_its_pace(self, host: int, usual_seconds: float) -> float:
        """What a node takes for work that usually takes so long."""
        node = divmod(host, self._num_replicas)
        return to_ticks(usual_seconds * self._cluster.slowdown(*node) * self.slowness(*node))

    def _note(self, kind: str, stage: int, host: int, microbatch: int, started: float, seconds: float) -> None:
        self.busy_seconds[kind] += seconds
        replica = host % self._num_replicas
        self.operations.append(Operation(kind, stage, replica, microbatch, started, started + seconds))

    def _hop(self, kind: str, microbatch: int, source: int, target: int) -> Process:
        """Send an activation, or its gradient, to the node of the next stage, unless it is the same."""
        if source == target:
            return
        network, num_bytes = self.site.network, self.plan.microbatch_size * self._costs.activation_bytes
        yield self._env.timeout(to_ticks(network.config.software_seconds_per_hop))
        if network.hop_seconds(source, target, num_bytes) > 0.0:
            what = "activation" if kind == FORWARD else "gradient"
            channel = (source, target) if network.is_shared else None
            yield self._send(f"{what} {microbatch}", source, target, num_bytes, channel=channel).arrived

    def _gradient_exchange(self, stage: int) -> list[Flow]:
        """Ring all-reduce: 2 (N - 1) steps of S / N bytes, all links at once; or S bytes from each to each."""
        nodes, num_bytes = self.nodes.of(stage), self._costs.weight_bytes(stage)
        n, what = len(nodes) * self.site.num_alike, f"gradient exchange of stage {stage}"
        if n == 1:
            return []
        if self._workload.gradient_exchange == "ring":
            steps, pairs = 2 * (n - 1), zip(nodes, [*nodes[1:], nodes[0]], strict=True)  # to itself, who stands for all
            return [self._send(what, *pair, num_bytes * steps / n, steps) for pair in pairs]
        return [self._send(what, a, b, num_bytes) for a in nodes for b in nodes if a != b or len(nodes) == 1]

    def _shadow_transfers(self) -> list[Flow]:
        """Each stage's gradients, or weights, to the nodes that hold its shadow."""
        flows = []
        for stage in self._cluster.stages:
            holder, num_bytes = (stage - 1) % len(self._cluster.stages), self._costs.weight_bytes(stage)
            replicas = [replica for replica in self._cluster.replicas if self.nodes.holds_shadow(holder, replica)]
            flows += self._send_to(f"shadow of stage {stage}", stage, holder, replicas, num_bytes)
        return flows

    def _embedding_copies(self) -> list[Flow]:
        """What keeps the copies of E on S1 and of E⁻¹ on Ss in step."""
        flows, num_bytes = [], self._costs.embedding_copy_bytes
        for holder in (1, self._cluster.num_stages):
            flows += self._send_to("copy of the embedding", EMBEDDING_STAGE, holder, self._cluster.replicas, num_bytes)
        return flows

    def _send_to(self, what: str, source: int, target: int, replicas: Sequence[int], num_bytes: float) -> list[Flow]:
        """From a stage's nodes to another's in some pipelines, once where they are the same, and none to itself."""
        pairs = dict.fromkeys((self.nodes.host(source, r), self.nodes.host(target, r)) for r in replicas)
        return [self._send(what, a, b, num_bytes) for a, b in pairs if a != b]

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
