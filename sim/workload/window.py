"""Default of `max_in_flight`: microbatches in flight that hide the hops, as far as they fit in the devices' memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from models.spec import EMBEDDING_STAGE
from sim.cluster.topology import ClusterConfig, first_stage_of, num_shares_of
from sim.core.units import BYTES_PER_GIB
from sim.workload.config import IterationPlan, equal_plan, plain_plan
from sim.workload.costs import Costs
from sim.workload.deployment import Deployment
from sim.workload.memory import needed_bytes

ROUNDING = 1e-9  # quotients of seconds are rounded
SHORT_HOPS = 0.05
"""Share of a microbatch's time alone up to which hops are short: the window is the schedule's own, as published."""
SPARE = 2
"""Factor on the window of Little's law, since forwards and backwards reach a node in bunches."""


def plain_plan_on(deployment: Deployment, microbatches_of: IterationPlan | None = None) -> IterationPlan:
    """The plan of an iteration before any strategy changes it, with the default window where the workload has none.

    microbatches_of: a plan of the same batch whose microbatches it is to have.
    """
    plan = plain_plan(deployment.costs.workload)
    return with_default_window(deployment, plan if microbatches_of is None else equal_plan(plan, microbatches_of))


def with_default_window(deployment: Deployment, plan: IterationPlan) -> IterationPlan:
    """A plan with the default window where the workload has none."""
    costs = deployment.costs
    schedule = costs.schedule(plan)
    if not schedule.limits_in_flight or schedule.is_interleaved or costs.workload.max_in_flight is not None:
        return plan
    fitting = window_that_fits(
        costs, plan, embedding_bytes(costs, deployment.cluster.config), deployment.cluster.num_shares
    )
    most = min(plan.num_microbatches, window_that_hides_hops(deployment, plan), fitting)
    return replace(plan, max_in_flight=most) if most > schedule.in_flight_limit else plan


def embedding_bytes(costs: Costs, cluster: ClusterConfig) -> list[float]:
    """Bytes of the embedding on the devices of each stage where it has no nodes of its own."""
    kept = [0.0] * (costs.workload.num_stages + 1)
    if host := first_stage_of(cluster):
        kept[host] = costs.state_bytes(EMBEDDING_STAGE) / num_shares_of(cluster)
    return kept


def window_that_hides_hops(deployment: Deployment, plan: IterationPlan) -> int:
    """Microbatches in flight with which the slowest node or link of a pipeline hardly ever waits for the others.

    Twice those of Little's law: the time that a microbatch alone takes there and back over the time that it occupies
    the bottleneck. The schedule's own where hops are short. Messages of other pipelines are not considered.
    """
    site = deployment.representative or deployment
    return max(window_of_pipeline(site, plan, replica) for replica in site.cluster.replicas)


def occupied_seconds(deployment: Deployment, plan: IterationPlan, replica: int) -> list[float]:
    """Seconds that one microbatch occupies the node of each stage of a pipeline."""
    costs, cluster = deployment.costs, deployment.cluster
    found = [0.0] * len(cluster.stages)
    for work in cluster.stages:
        stage = costs.head_stage if work == EMBEDDING_STAGE else work
        seconds = costs.forward_seconds(work, plan.microbatch_size) + costs.backward_seconds(work, plan.microbatch_size)
        found[stage] += seconds * cluster.slowdown(stage, replica)
    return found


def window_of_pipeline(deployment: Deployment, plan: IterationPlan, replica: int) -> int:
    """`window_that_hides_hops` of one pipeline."""
    costs, cluster, network = deployment.costs, deployment.cluster, deployment.network
    num_bytes = plan.microbatch_size * costs.activation_bytes
    occupied = occupied_seconds(deployment, plan, replica)
    hops_seconds, busiest_seconds = 0.0, max(occupied)
    on_link: dict[object, float] = {}
    visited = [*cluster.stages, *([EMBEDDING_STAGE] if costs.head_stage == EMBEDDING_STAGE else [])]
    ways = [way for a, b in pairwise(visited) for way in ((a, b), (b, a))]
    for a, b in ways:
        source, target = (deployment.end(cluster.slot(stage, replica)) for stage in (a, b))
        if source == target:
            continue
        seconds = network.hop_seconds(source, target, num_bytes)
        hops_seconds += network.config.software_seconds_per_hop + seconds
        for link in network.path(source, target).links if seconds else ():
            on_link[link] = on_link.get(link, 0.0) + num_bytes / link.bytes_per_second
    bottleneck_seconds = max(busiest_seconds, *on_link.values(), 0.0)
    if bottleneck_seconds <= 0.0:
        return plan.num_microbatches
    alone_seconds = math.fsum(occupied) + hops_seconds
    if hops_seconds <= SHORT_HOPS * alone_seconds:
        return costs.schedule(plan).default_in_flight()
    return SPARE * math.ceil(alone_seconds / bottleneck_seconds - ROUNDING)


def window_that_fits(costs: Costs, plan: IterationPlan, extra_bytes: Sequence[float], num_shares: int) -> int:
    """Most microbatches in flight for which every stage fits in a device's memory; at least 1.

    extra_bytes: what a strategy keeps on the devices of each stage.
    """
    room_bytes = costs.device.memory_gib * BYTES_PER_GIB
    windows = [plan.num_microbatches]
    for stage, extra in enumerate(extra_bytes):
        one, two = (
            needed_bytes(costs, replace(plan, num_microbatches=2, max_in_flight=most), stage, extra, num_shares)
            for most in (1, 2)
        )
        if two > one:
            windows.append(1 + math.floor((room_bytes - one) / (two - one)))
    return max(1, min(windows))
