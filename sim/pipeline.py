"""One iteration of the pipeline, microbatch by microbatch, as a small simulation of its own.

A microbatch starts at the embedding (stage 0), visits the layer stages in the order of its route, comes
back to stage 0 for the de-embedding and the loss, and returns the way it came. A node runs its forwards and
backwards one at a time; hops between nodes take the link's time and do not occupy the node. The training loop
prices an iteration once for each plan and treats it as one event.

gpipe: all forwards, then all backwards. 1f1b: the i-th of p compute positions runs ahead with p - i forwards
and then does one forward and one backward in turn, so it holds at most p - i + 1 microbatches; with
`max_in_flight` K in place of p, K - i + 1. With p equal stages, no transfer time and a free head both take
(m + p - 1)(t_f + t_b).

That is the textbook order: a node waits for its next piece of work even where another has arrived. Over slow
links, and where routes differ (CheckFree+), a node does better to take what has arrived, by the schedule's logical
time. An iteration is priced by the faster of the two, whatever the plan, so that no strategy gains by its order;
no more than K microbatches are in flight in either. At K = p swapped routes cost a pipeline without transfer times
up to a quarter more time, at K = 2 p about nothing.

*Not modelled*: links shared by messages, the embedding's look-up, the optimizer.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import simpy

from models.lineage import EMBEDDING_STAGE
from sim.cluster import Cluster
from sim.costs import Costs, IterationPlan
from sim.ledger import IterationSplit
from sim.network import Network

FORWARD, BACKWARD = "forward", "backward"
Order = Literal["textbook", "arrival"]
ROUNDING = 1e-9
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Operation:
    """A forward or backward that a stage's node ran."""

    kind: str
    stage: int
    microbatch: int
    start_seconds: float
    end_seconds: float


class Pipeline:
    """Prices iteration plans for one cluster: `split(plan)` is cached."""

    def __init__(self, costs: Costs, cluster: Cluster, network: Network) -> None:
        self.costs = costs
        self.cluster = cluster
        self.network = network
        self._prices: dict[IterationPlan, IterationSplit] = {}

    def split(self, plan: IterationPlan) -> IterationSplit:
        """How long an iteration takes and where its time goes: slowest pipeline, then gradient all-reduce."""
        if plan not in self._prices:
            self._prices[plan] = self._price(plan)
        return self._prices[plan]

    def _price(self, plan: IterationPlan) -> IterationSplit:
        replicas_by_regions = {
            tuple(self.cluster.region(stage, replica) for stage in self.cluster.stages): replica
            for replica in range(self.cluster.config.nodes_per_stage)
        }
        pipeline_seconds = max(
            fastest_run(plan, self.costs, self.cluster, self.network, replica).seconds
            for replica in replicas_by_regions.values()
        )
        all_reduce_seconds = max(
            self.network.all_reduce_seconds(self.cluster.regions_of(stage), self.costs.weight_bytes(stage))
            for stage in self.cluster.stages
        )
        num_nodes = len(self.cluster.stages)
        productive = sum(stage_seconds(self.costs, plan, stage) for stage in self.cluster.stages) / num_nodes
        redundant = sum(shadow_seconds(self.costs, plan, stage) for stage in self.cluster.stages) / num_nodes
        productive, redundant = productive * plan.num_microbatches, redundant * plan.num_microbatches
        bubble = pipeline_seconds + all_reduce_seconds - productive - redundant
        return IterationSplit(productive, max(0.0, bubble), redundant)


def stage_seconds(costs: Costs, plan: IterationPlan, stage: int) -> float:
    """Forward and backward of one of the plan's microbatches on a stage, without shadow work."""
    return plan.microbatch_size * (costs.forward_seconds(stage) + costs.backward_seconds(stage))


def shadow_seconds(costs: Costs, plan: IterationPlan, stage: int) -> float:
    """Forwards of the next stage (the last one's next is stage 0) that a stage also runs per microbatch."""
    following = (stage + 1) % (costs.workload.num_stages + 1)
    return plan.shadow_forwards * plan.microbatch_size * costs.forward_seconds(following)


@dataclass(frozen=True, order=True)
class Visit:
    """A forward or backward of a microbatch at a position of its route; the last position is the head."""

    kind: str
    position: int
    microbatch: int


def logical_time(visit: Visit, schedule: str, num_positions: int, max_in_flight: int) -> tuple[int, int]:
    """When a visit would be made if every operation took one unit: what orders a stage's work.

    On plain routes this gives the textbook order of each schedule. `num_positions` compute; one beyond them (a
    head that does nothing) counts as part of the last.
    """
    i, k = min(visit.position + 1, num_positions), visit.microbatch
    if schedule == "gpipe":
        return (0, i + k) if visit.kind == FORWARD else (1, k - i)
    if visit.kind == FORWARD:
        return (i + 2 * k, k)
    return (2 * max(num_positions, max_in_flight) - i + 1 + 2 * k, k)


@dataclass(order=True)
class Turn:
    """A visit that has arrived at its stage and waits for its turn there; `done` tells the microbatch."""

    logical_time: tuple[int, int]
    visit: Visit  # also compared: a store takes out what is equal
    done: simpy.Event = field(compare=False)


class PipelineRun:
    """One iteration of one pipeline: the `seconds` it takes and the `operations` its nodes ran.

    order: `textbook`, or `arrival` (see the module's text). With fewer microbatches in flight than positions that
    compute, 1f1b has no textbook order, and `arrival` it is.
    """

    def __init__(
        self, plan: IterationPlan, costs: Costs, cluster: Cluster, network: Network, replica: int, order: Order
    ) -> None:
        self.order = order
        self.plan, self.costs, self.cluster, self.network, self.replica = plan, costs, cluster, network, replica
        self.operations: list[Operation] = []
        self._env = simpy.Environment()
        self._head = cluster.num_stages
        self._num_positions = self._head + (1 if self._work_seconds(FORWARD, EMBEDDING_STAGE) else 0)
        self._max_in_flight = plan.num_microbatches
        if costs.workload.schedule == "1f1b":
            self._max_in_flight = costs.workload.max_in_flight or self._num_positions
            if self._max_in_flight < self._num_positions:
                self.order = "arrival"
        self._entrance = simpy.Resource(self._env, self._max_in_flight)
        self._inboxes: dict[int, Any] = {
            stage: (simpy.FilterStore if self._order_is_fixed(stage) else simpy.PriorityStore)(self._env)
            for stage in cluster.stages
        }
        microbatches = [self._env.process(self._microbatch(number)) for number in range(plan.num_microbatches)]
        for stage in cluster.stages:
            self._env.process(self._node(stage))
        self._env.run(until=self._env.all_of(microbatches))  # raises on a deadlock, where run() would end early
        self.seconds = float(self._env.now)

    def _microbatch(self, microbatch: int) -> Process:
        """Admitted, forward along the route to the head, and back to the embedding."""
        with self._entrance.request() as admitted:
            yield admitted
            here = EMBEDDING_STAGE
            for visit in self._way(microbatch):
                stage = self._stage(visit)
                yield from self._hop(here, stage)
                turn = Turn(self._logical_time(visit), visit, self._env.event())
                self._inboxes[stage].put(turn)
                yield turn.done
                here = stage
            yield from self._hop(here, EMBEDDING_STAGE)

    def _order_is_fixed(self, stage: int) -> bool:
        """Whether a stage waits for its next visit in order; gpipe's head always does, all forwards first."""
        gpipe_head = self.costs.workload.schedule == "gpipe" and stage == EMBEDDING_STAGE
        return self.order == "textbook" or gpipe_head

    def _node(self, stage: int) -> Process:
        """A stage's node: every visit it is to have, one after the other."""
        inbox = self._inboxes[stage]
        ways = [visit for microbatch in range(self.plan.num_microbatches) for visit in self._way(microbatch)]
        visits = [visit for visit in ways if self._stage(visit) == stage]
        for expected in sorted(visits, key=self._logical_time):
            if self._order_is_fixed(stage):
                turn = yield inbox.get(lambda turn, expected=expected: turn.visit == expected)
            else:
                turn = yield inbox.get()
            start_seconds = float(self._env.now)
            yield self._env.timeout(self._work_seconds(turn.visit.kind, stage))
            end_seconds = float(self._env.now)
            self.operations.append(Operation(turn.visit.kind, stage, turn.visit.microbatch, start_seconds, end_seconds))
            turn.done.succeed()

    def _way(self, microbatch: int) -> list[Visit]:
        forwards = [Visit(FORWARD, position, microbatch) for position in range(self._head + 1)]
        return forwards + [replace(visit, kind=BACKWARD) for visit in reversed(forwards)]

    def _stage(self, visit: Visit) -> int:
        route = self.plan.routes[visit.microbatch % len(self.plan.routes)]
        return EMBEDDING_STAGE if visit.position == self._head else route[visit.position]

    def _logical_time(self, visit: Visit) -> tuple[int, int]:
        return logical_time(visit, self.costs.workload.schedule, self._num_positions, self._max_in_flight)

    def _work_seconds(self, kind: str, stage: int) -> float:
        if kind == BACKWARD:
            return self.plan.microbatch_size * self.costs.backward_seconds(stage)
        forward_seconds = self.plan.microbatch_size * self.costs.forward_seconds(stage)
        return forward_seconds + shadow_seconds(self.costs, self.plan, stage)

    def _hop(self, source: int, target: int) -> Process:
        """Send an activation, or its gradient, to the next stage's node in this pipeline."""
        if source == target:
            return
        regions = self.cluster.region(source, self.replica), self.cluster.region(target, self.replica)
        num_bytes = self.plan.microbatch_size * self.costs.activation_bytes
        yield self._env.timeout(self.network.seconds(*regions, num_bytes))


def fastest_run(plan: IterationPlan, costs: Costs, cluster: Cluster, network: Network, replica: int = 0) -> PipelineRun:
    """The iteration of a pipeline in the order that suits it best; the textbook's where both are equal."""
    textbook, arrival = (PipelineRun(plan, costs, cluster, network, replica, order) for order in get_args(Order))
    return arrival if arrival.seconds < textbook.seconds * (1 - ROUNDING) else textbook
