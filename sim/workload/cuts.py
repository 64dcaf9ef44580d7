"""Cuts of the model into pipelines for the nodes at hand: which there are, which fit, and the plan of an iteration.

As in Varuna and Parcae, depth and number of pipelines are chosen together, for a batch that stays. For a number of
nodes there is one cut for each depth, Oobleck's templates without a fixed set of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.spec import EMBEDDING_STAGE
from sim.cluster.topology import ClusterConfig, first_stage_of
from sim.core.text import format_count
from sim.core.units import BYTES_PER_GIB
from sim.workload.config import IterationPlan, Layout, plain_plan
from sim.workload.costs import Costs
from sim.workload.deployment import Deployment
from sim.workload.memory import needed_bytes
from sim.workload.window import embedding_bytes, with_default_window


@dataclass(frozen=True)
class Cut:
    """Pipelines of so many layers in each stage. num_microbatches: of each pipeline, in an iteration."""

    layers_per_stage: tuple[int, ...]
    num_pipelines: int
    num_microbatches: int

    @property
    def num_stages(self) -> int:
        """Stages that hold layers, in each pipeline."""
        return len(self.layers_per_stage)

    def num_nodes(self, cluster: ClusterConfig) -> int:
        """Nodes that take part."""
        return self.num_pipelines * (self.num_stages + 1 - first_stage_of(cluster))

    def __str__(self) -> str:
        pipelines = format_count(self.num_pipelines, "pipeline")
        return f"{pipelines} of {format_count(self.num_stages, 'stage')}"


@dataclass(frozen=True)
class PlacedCut:
    """A cut and its nodes. places: slots that take part, by stage, then by pipeline, as in a `Layout`."""

    cut: Cut
    places: tuple[int, ...]

    def stage_at(self, first_stage: int) -> dict[int, int]:
        """The stage of the cut at each place."""
        return {slot: first_stage + number // self.cut.num_pipelines for number, slot in enumerate(self.places)}


def scenario_cut(deployment: Deployment) -> PlacedCut:
    """The pipelines of the scenario, all nodes at their places."""
    workload, cluster = deployment.costs.workload, deployment.cluster
    layers = tuple(deployment.costs.num_layers(stage) for stage in cluster.stages[1:])
    cut = Cut(layers, len(cluster.replicas), workload.num_microbatches)
    return PlacedCut(cut, tuple(range(cluster.num_slots)))


def cuts_for(costs: Costs, cluster: ClusterConfig, num_nodes: int) -> list[Cut]:
    """One cut for each depth that the nodes suffice for, whether it fits in memory or not, the shallowest first.

    All have the scenario's batch, in equal parts rounded up; no pipeline is without a part of it. Stages have equal
    numbers of layers, the first ones one more where that leaves a rest; at the scenario's depth, its own.
    """
    workload = costs.workload
    total, others = workload.num_microbatches * cluster.nodes_per_stage, 1 - first_stage_of(cluster)
    found = []
    for num_stages in range(1, min(num_nodes - others, workload.model.num_layers) + 1):
        each = math.ceil(total / min(num_nodes // (num_stages + others), total))
        found.append(Cut(equal_shares(costs, num_stages), math.ceil(total / each), each))
    return found


def equal_shares(costs: Costs, num_stages: int) -> tuple[int, ...]:
    """Layers of each of so many stages; the scenario's where it has as many."""
    if num_stages == costs.workload.num_stages:
        return tuple(costs.num_layers(stage) for stage in range(1, num_stages + 1))
    each, rest = divmod(costs.workload.model.num_layers, num_stages)
    return tuple(each + (stage < rest) for stage in range(num_stages))


def fits(costs: Costs, cluster: ClusterConfig, cut: Cut) -> bool:
    """Whether every stage of a cut fits in the memory of a device, with the schedule's own window."""
    own = costs.cut(cut.layers_per_stage)
    plan = replace(plain_plan(own.workload), num_microbatches=cut.num_microbatches)
    beside = enumerate(embedding_bytes(own, cluster))
    most_bytes = max(needed_bytes(own, plan, stage, extra_bytes) for stage, extra_bytes in beside)
    return most_bytes <= costs.device.memory_gib * BYTES_PER_GIB


def fitting_cuts(costs: Costs, cluster: ClusterConfig, num_nodes: int) -> list[Cut]:
    """The cuts for a number of nodes that fit in memory."""
    return [cut for cut in cuts_for(costs, cluster, num_nodes) if fits(costs, cluster, cut)]


def fewest_nodes(costs: Costs, cluster: ClusterConfig) -> int:
    """The least number of nodes with a cut that fits; that of the scenario's own places if there is no smaller one."""
    most = (costs.workload.num_stages + 1 - first_stage_of(cluster)) * cluster.nodes_per_stage
    return next((num for num in range(1, most) if fitting_cuts(costs, cluster, num)), most)


ROUNDING = 1e-6
"""Share by which durations may differ from their sums, since operations last whole ticks."""


def least_seconds(costs: Costs, cut: Cut) -> float:
    """A lower bound of an iteration at the speed of the device: the work of a stage, and one microbatch's way to it.

    Before its first forward, a stage waits for those of the stages before it, and these have their last backward after
    its own.
    """
    own = costs.cut(cut.layers_per_stage)
    head_seconds, *seconds = [own.forward_seconds(s) + own.backward_seconds(s) for s in range(cut.num_stages + 1)]
    if own.head_stage == EMBEDDING_STAGE:
        seconds.append(head_seconds)
    else:
        seconds[-1] += head_seconds
    bounds = [sum(seconds[:at]) + cut.num_microbatches * each for at, each in enumerate(seconds)]
    return (1.0 - ROUNDING) * max(bounds)


def plan_of(deployment: Deployment, placed: PlacedCut) -> IterationPlan:
    """The plain plan of an iteration on recut pipelines, with the default window where the workload has none."""
    layout = Layout(placed.cut.layers_per_stage, placed.places)
    site = deployment.laid_out(layout)
    plan = replace(plain_plan(site.costs.workload), num_microbatches=placed.cut.num_microbatches)
    return replace(with_default_window(site, plan), layout=layout)


def placed_by_region(
    cut: Cut, slots: Sequence[int], regions: Sequence[str], first_stage: int
) -> tuple[PlacedCut, PlacedCut]:
    """A cut on the nodes of some slots, region after region: pipeline by pipeline, and stage by stage."""
    order, num = sorted(slots, key=lambda slot: (regions[slot], slot)), cut.num_pipelines
    depth = cut.num_stages + 1 - first_stage
    by_pipeline = tuple(order[pipeline * depth + stage] for stage in range(depth) for pipeline in range(num))
    return PlacedCut(cut, by_pipeline), PlacedCut(cut, tuple(order[: depth * num]))
