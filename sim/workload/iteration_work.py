"""What one iteration computes and sends, whatever runs it: who does which visit, for how long, and all messages.

`iteration.py` runs it on SimPy's event loop, `arrays/loop.py` over arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from models.spec import EMBEDDING_STAGE
from sim.cluster.network import Path
from sim.core.ledger import IterationSplit
from sim.core.units import to_ticks
from sim.workload.config import IterationPlan
from sim.workload.deployment import Assignment, Deployment, WorkPlacement, exchange_pipelines
from sim.workload.schedule import BACKWARD, FORWARD, Ints, Schedule, Visit

Order = Literal["textbook", "arrival"]

TimeFactor = Callable[[int, int], float]
"""(stage, replica) → factor on the time of the next operation of that node: its jitter."""


@dataclass(frozen=True)
class Transmission:
    """Bytes from node to node, as `num_latencies` messages one after the other."""

    what: str
    source: int
    target: int
    num_bytes: float
    num_latencies: int = 1


class IterationWork:
    """Work of one iteration of a plan. Its nodes are those of `exchange_pipelines`; `slot` gives the real ones.

    pipelines: the real one in each place of a pipeline.

    order: `textbook` needs a complete cluster and a schedule with `has_textbook_order`.
    assignment: node that does the work of each slot; default: its own.
    service: visits in the order in which nodes serve them (`arrays.run.service_order`); default: that of `order`.
    """

    def __init__(
        self,
        deployment: Deployment,
        plan: IterationPlan,
        order: Order,
        assignment: Assignment | None = None,
        service: Ints | None = None,
    ) -> None:
        self.deployment, self.plan = deployment, plan
        self.cluster, self.costs, self.workload = deployment.cluster, deployment.costs, deployment.costs.workload
        assignment, self.pipelines = assignment or deployment.complete_assignment, self.cluster.replicas
        if plan.shares is None:
            assignment, self.pipelines = exchange_pipelines(assignment, self.cluster)
        self.placement = WorkPlacement(self.cluster, assignment)
        self.order: Order = order if self.placement.is_complete else "arrival"
        self.schedule: Schedule = self.costs.schedule(plan)
        self.service = service

    def num_microbatches(self, replica: int) -> int:
        """Microbatches of a pipeline of the placement."""
        return self.plan.shares[replica] if self.plan.shares else self.plan.num_microbatches

    def slot(self, node: int) -> int:
        """Slot of a node of the placement."""
        stage = self.cluster.stage_of(node)
        return self.cluster.slot(stage, self.pipelines[node - self.cluster.slot(stage, 0)])

    def end(self, node: int) -> int:
        """Slot of a node of the placement in the network: its end of a path."""
        return self.deployment.end(self.slot(node))

    def path(self, source: int, target: int) -> Path:
        """Path between two nodes of the placement."""
        return self.deployment.network.path(self.end(source), self.end(target))

    def hop_takes_time(self, source: int, target: int) -> bool:
        """Whether a hop between two nodes of the placement takes time besides the software's."""
        return self.deployment.network.hop_seconds(self.end(source), self.end(target), self.hop_bytes) > 0.0

    @property
    def optimizer_seconds(self) -> float:
        """Seconds of the optimizer step of a stage."""
        return to_ticks(self.workload.optimizer_seconds)

    def split(self, seconds: float, visit_seconds: float, shadow_seconds: float) -> IterationSplit:
        """Productive, waiting and redundant seconds of a completed iteration, averaged over the nodes that work.

        visit_seconds, shadow_seconds: of all nodes together.
        """
        num_nodes = len(self.placement.slots)
        optimizer_seconds = self.optimizer_seconds * sum(self.placement.num_stages_by_node())
        productive, redundant = (visit_seconds + optimizer_seconds) / num_nodes, shadow_seconds / num_nodes
        return IterationSplit(productive, max(0.0, seconds - productive - redundant), redundant)

    # ---- order -----------------------------------------------------------------------------------

    def is_order_fixed(self, stage: int) -> bool:
        """Whether nodes of a stage wait for their next visit in an order; heads always do with forwards first."""
        if self.service is not None:
            return True
        at_head = self.schedule.forwards_first and stage == self.costs.head_stage
        return self.placement.is_complete and (self.order == "textbook" or at_head)

    @cached_property
    def has_barriers(self) -> bool:
        """Whether backwards of heads wait until no forward is left at their node, in whatever order it works."""
        return self.schedule.forwards_first and not self.placement.is_complete

    # ---- operations --------------------------------------------------------------------------------

    def _whole_seconds(self, visit: Visit, stage: int) -> float:
        seconds = self.costs.forward_seconds if visit.kind == FORWARD else self.costs.backward_seconds
        if visit.position == self.schedule.head:
            return seconds(EMBEDDING_STAGE, self.plan.microbatch_size)
        return seconds(stage, self.plan.microbatch_size) / self.workload.chunks_per_stage

    def nominal_seconds(self, visit: Visit, stage: int) -> float:
        """Seconds of a visit, a chunk of layers or the head, without the plan's factors and what is put off."""
        return self._whole_seconds(visit, stage) - self.nominal_deferred_seconds(visit, stage)

    def visit_seconds(self, visit: Visit, stage: int, place: int) -> float:
        """Seconds of a visit on a node of usual speed; place: of its pipeline in the placement."""
        return self._scaled(self.nominal_seconds(visit, stage), visit, stage, place)

    def nominal_deferred_seconds(self, visit: Visit, stage: int) -> float:
        """Seconds of the gradients of weights after a backward, where the schedule puts them off, without factors."""
        if not self.schedule.splits_backward or visit.kind == FORWARD:
            return 0.0
        return self.costs.weights_share * self._whole_seconds(visit, stage)

    def deferred_seconds(self, visit: Visit, stage: int, place: int) -> float:
        """The same on a node of usual speed, with the plan's factors."""
        return self._scaled(self.nominal_deferred_seconds(visit, stage), visit, stage, place)

    def _scaled(self, seconds: float, visit: Visit, stage: int, place: int) -> float:
        """Seconds of a visit with the plan's factors."""
        for factor in self.plan.factors if visit.position != self.schedule.head else ():
            if factor.applies(stage, visit.microbatch, self.pipelines[place]):
                seconds *= factor.forward if visit.kind == FORWARD else factor.backward
        return seconds

    def most_deferred_seconds(self, node: int) -> float:
        """Most seconds of gradients of weights that a node puts off: of one microbatch for each stage before it."""
        if not self.schedule.splits_backward:
            return 0.0
        stage = self.cluster.stage_of(node)
        position = stage or self.schedule.num_positions
        visits = [Visit(BACKWARD, 0, 0)] * (stage != EMBEDDING_STAGE)
        visits += [Visit(BACKWARD, self.schedule.head, 0)] * (stage == self.costs.head_stage)
        seconds = sum(self.nominal_deferred_seconds(visit, stage) for visit in visits)
        return to_ticks((position - 1) * seconds * self.cluster.slowdown(*self.cluster.place_of(self.slot(node))))

    def shadow_seconds(self, kind: str, stage: int) -> float:
        """Nominal seconds of shadow work after a visit: equal parts of what a stage does per microbatch."""
        if not (self.plan.shadow_backwards if kind == BACKWARD else self.plan.shadow_forwards):
            return 0.0
        of_layers = 0 if stage == EMBEDDING_STAGE else self.workload.chunks_per_stage
        num_visits = of_layers + (stage == self.costs.head_stage)
        return self.deployment.shadow_seconds(self.plan, stage, kind) / num_visits

    def idle_shadow_seconds(self, node: int) -> list[tuple[int, int, float]]:
        """Stage, microbatch and nominal seconds of shadow work at stage 0 if the head is elsewhere.

        Nothing visits the node then.
        """
        found: list[tuple[int, int, float]] = []
        for slot in self.placement.slots[node]:
            stage, replica = self.cluster.place_of(slot)
            visited = stage != EMBEDDING_STAGE or self.costs.head_stage == EMBEDDING_STAGE
            if not visited and self.plan.shadow_forwards and self.placement.holds_shadow(stage, replica):
                seconds = self.deployment.shadow_seconds(self.plan, stage)
                found += [(stage, number, seconds) for number in range(self.num_microbatches(replica))]
        return found

    # ---- messages other than hops ----------------------------------------------------------------------

    @property
    def hop_bytes(self) -> float:
        """Bytes of an activation, or of its gradient."""
        return self.plan.microbatch_size * self.costs.activation_bytes

    def gradient_exchange(self, stage: int) -> list[Transmission]:
        """Ring all-reduce: 2 (N - 1) steps of S / N bytes on all links at once; or S bytes from each to each.

        In pairs: S bytes in both directions.
        """
        nodes, num_bytes = self.placement.nodes_of(stage), self.costs.gradient_bytes(stage)
        if self.plan.exchanges is not None:
            num_bytes = dict(self.plan.exchanges).get(stage, 0.0)
        n, what = len(nodes) * self.deployment.num_represented, f"gradient exchange of stage {stage}"
        if n == 1 or not num_bytes:
            return []
        if self.plan.pairs is not None:
            both = [ends for one, other in self.plan.pairs for ends in ((one, other), (other, one))]
            both = both if len(nodes) > 1 else both[:1]  # one node that represents all
            return [Transmission(what, nodes[a % len(nodes)], nodes[b % len(nodes)], num_bytes) for a, b in both]
        if self.workload.gradient_exchange == "ring":
            steps = 2 * (n - 1)
            following = [*nodes[1:], nodes[0]]  # itself, if it represents all
            pairs = zip(nodes, following, strict=True)
            return [Transmission(what, a, b, num_bytes * steps / n, steps) for a, b in pairs]
        return [Transmission(what, a, b, num_bytes) for a in nodes for b in nodes if a != b or len(nodes) == 1]

    def shadow_transfers(self) -> list[Transmission]:
        """Gradients, or weights, of each stage to the nodes that hold its shadow; in each of the plan's rounds."""
        sent = []
        for stage in self.cluster.stages:
            target, num_bytes = (stage - 1) % len(self.cluster.stages), self.costs.weight_bytes(stage)
            replicas = [replica for replica in self.cluster.replicas if self.placement.holds_shadow(target, replica)]
            sent += self._between(f"shadow of stage {stage}", stage, target, replicas, num_bytes)
        return sent

    def embedding_copies(self) -> list[Transmission]:
        """Gradients that keep the copies of E on S1 and of E⁻¹ on Ss up to date, if the plan has them."""
        if not self.plan.embedding_copies:
            return []
        num_bytes, what, replicas = self.costs.embedding_copy_bytes, "copy of the embedding", self.cluster.replicas
        targets = (1, self.cluster.num_stages)
        return [one for to in targets for one in self._between(what, EMBEDDING_STAGE, to, replicas, num_bytes)]

    def _between(
        self, what: str, source: int, target: int, replicas: Sequence[int], num_bytes: float
    ) -> list[Transmission]:
        """From the nodes of a stage to those of another in some pipelines: once per pair, none to itself."""
        pairs = dict.fromkeys((self.placement.node(source, r), self.placement.node(target, r)) for r in replicas)
        return [Transmission(what, a, b, num_bytes) for a, b in pairs if a != b]
