"""One iteration of the pipeline, microbatch by microbatch, as a small simulation of its own.

A microbatch starts at the embedding (stage 0), visits the layer stages in the order of its route, comes
back to stage 0 for the de-embedding and the loss, and returns the way it came. A node runs one forward or
backward at a time; hops between nodes take the link's time and do not delay the node. The loop prices an
iteration once for each plan and then treats it as one event.

gpipe: backwards begin when the last microbatch has reached the loss. 1f1b: a node prefers backwards, and
the i-th of p compute positions holds at most p - i + 1 microbatches (with swapped routes only the entrance
is bounded, at p: bounds of two stages that feed each other would deadlock).
With p equal stages, no transfer time and a free head both take (m + p - 1)(t_f + t_b).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from models.lineage import EMBEDDING_STAGE
from sim.cluster import Cluster
from sim.costs import Costs, IterationPlan
from sim.ledger import IterationSplit
from sim.network import Network

FORWARD, BACKWARD = "forward", "backward"
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
        num_replicas = self.cluster.config.nodes_per_stage
        pipeline_seconds = max(
            PipelineRun(plan, self.costs, self.cluster, self.network, replica).seconds
            for replica in range(num_replicas)
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


class PipelineRun:
    """One iteration of one pipeline: `seconds` it takes, the `operations` run, microbatches held at most."""

    def __init__(self, plan: IterationPlan, costs: Costs, cluster: Cluster, network: Network, replica: int = 0) -> None:
        self.plan, self.costs, self.cluster, self.network, self.replica = (
            plan,
            costs,
            cluster,
            network,
            replica,
        )
        self.operations: list[Operation] = []
        self._env = simpy.Environment()
        self._nodes = {stage: simpy.PriorityResource(self._env) for stage in cluster.stages}
        self._places = {stage: simpy.Resource(self._env, limit) for stage, limit in self._limits().items()}
        self._at_loss = 0
        self._all_at_loss = self._env.event()
        for microbatch in range(plan.num_microbatches):
            self._env.process(self._microbatch(microbatch))
        self._env.run()
        self.seconds = float(self._env.now)

    def _limits(self) -> dict[int, int]:
        """Microbatches that a stage may hold between a forward and its backward."""
        m, s = self.plan.num_microbatches, self.cluster.num_stages
        if self.costs.workload.schedule == "gpipe":
            return dict.fromkeys(range(1, s + 1), m)
        depth = s + 1 if self.costs.forward_seconds(EMBEDDING_STAGE) else s
        if len(self.plan.routes) > 1:
            return {EMBEDDING_STAGE: depth}
        return {stage: depth - i for i, stage in enumerate(self.plan.routes[0])}

    def _microbatch(self, microbatch: int) -> Process:
        """From the embedding to the loss and back, holding a place in every stage on the way."""
        route = self.plan.routes[microbatch % len(self.plan.routes)]
        held = {}
        if EMBEDDING_STAGE in self._places:
            held[EMBEDDING_STAGE] = self._places[EMBEDDING_STAGE].request()
            yield held[EMBEDDING_STAGE]
        here = EMBEDDING_STAGE
        for stage in route:
            yield from self._hop(here, stage)
            if stage in self._places:
                held[stage] = self._places[stage].request()
                yield held[stage]
            yield from self._run(FORWARD, stage, microbatch)
            here = stage
        yield from self._hop(here, EMBEDDING_STAGE)
        yield from self._run(FORWARD, EMBEDDING_STAGE, microbatch)
        yield from self._until_backward_may_begin()
        yield from self._run(BACKWARD, EMBEDDING_STAGE, microbatch)
        here = EMBEDDING_STAGE
        for stage in reversed(route):
            yield from self._hop(here, stage)
            yield from self._run(BACKWARD, stage, microbatch)
            if stage in held:
                self._places[stage].release(held[stage])
            here = stage
        yield from self._hop(here, EMBEDDING_STAGE)
        if EMBEDDING_STAGE in held:
            self._places[EMBEDDING_STAGE].release(held[EMBEDDING_STAGE])

    def _until_backward_may_begin(self) -> Process:
        self._at_loss += 1
        if self._at_loss == self.plan.num_microbatches:
            self._all_at_loss.succeed()
        if self.costs.workload.schedule == "gpipe":
            yield self._all_at_loss

    def _run(self, kind: str, stage: int, microbatch: int) -> Process:
        seconds = self.costs.forward_seconds(stage) if kind == FORWARD else self.costs.backward_seconds(stage)
        seconds *= self.plan.microbatch_size
        if kind == FORWARD:
            seconds += shadow_seconds(self.costs, self.plan, stage)
        if seconds == 0.0:
            return
        with self._nodes[stage].request(priority=0 if kind == BACKWARD else 1) as turn:
            yield turn
            start_seconds = float(self._env.now)
            yield self._env.timeout(seconds)
            self.operations.append(Operation(kind, stage, microbatch, start_seconds, float(self._env.now)))

    def _hop(self, source: int, target: int) -> Process:
        """Send an activation, or its gradient, to the next stage's node in this pipeline."""
        regions = self.cluster.region(source, self.replica), self.cluster.region(target, self.replica)
        seconds = self.network.seconds(*regions, self.plan.microbatch_size * self.costs.activation_bytes)
        yield self._env.timeout(seconds)
