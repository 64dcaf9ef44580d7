"""Where iterations run: what they cost, on which nodes, over which links."""

from __future__ import annotations

from dataclasses import dataclass

from models.lineage import EMBEDDING_STAGE
from sim.cluster import Cluster
from sim.costs import Costs, IterationPlan
from sim.network import Network
from sim.schedules import Schedule


@dataclass(frozen=True)
class Site:
    """Where iterations run: what they cost, on which nodes, over which links."""

    costs: Costs
    cluster: Cluster
    network: Network

    def schedule(self, plan: IterationPlan) -> Schedule:
        """Who does what in which order."""
        costs = self.costs
        return Schedule(costs.workload, plan, costs.head_computes, costs.in_flight_limit(plan))

    def shadow_seconds(self, plan: IterationPlan, stage: int) -> float:
        """Forwards of the next stage (the last one's next is stage 0) that a stage also runs per microbatch."""
        following, size = (stage + 1) % len(self.cluster.stages), plan.microbatch_size
        seconds = self.costs.forward_seconds(following, size) if following != EMBEDDING_STAGE else 0.0
        if following == self.costs.head_stage:
            seconds += self.costs.forward_seconds(EMBEDDING_STAGE, size)
        return plan.shadow_forwards * seconds
