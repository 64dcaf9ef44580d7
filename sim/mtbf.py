"""Mean time between failures that concern the training, as the failure process has it."""

from __future__ import annotations

import math
from typing import TypeGuard

import simpy

from sim.cluster import Cluster, ClusterConfig
from sim.failures import FailureProcess, ProcessConfig
from sim.failures.poisson import PoissonFailures
from sim.fleet import Node
from sim.prices import Memo
from sim.strikes import Strikes

OTHER_LUCK = 2**62
"""A seed for what may be expected, which nobody's own failures should be drawn from."""
NUM_LOSSES, MOST_EVENTS, MOST_SECONDS = 2000, 300_000, 1e9
_MEANS_SECONDS: Memo[tuple[ClusterConfig, tuple[str, ...], ProcessConfig], float] = Memo(most=64)
"""Played once for each process."""


def mtbf_seconds(cluster: Cluster, failures: FailureProcess, iteration_seconds: float) -> float:
    """Mean time between strikes that take a node with a place, or a stage; inf where nothing fails.

    Exact where stages or nodes fail by themselves; else the mean of other luck, played on the fleet alone.
    """
    by_themselves = [part for _, part in failures.parts if part.scope in ("node", "stage") or fails_as_nodes_do(part)]
    if len(by_themselves) < len(failures.parts):
        processes = (failures, *(part for _, part in failures.parts))
        if not all(type(process).__module__.startswith("sim.") for process in processes):
            return mean_seconds_between_losses(cluster, failures)  # what comes from outside need not be pure
        where = cluster.config, cluster.regions_of_nodes, failures.config
        return _MEANS_SECONDS.get(where, lambda: mean_seconds_between_losses(cluster, failures))
    num_per_second = 0.0
    for part in by_themselves:
        num_stages = len([stage for stage in cluster.stages if stage not in part.config.immune_stages])
        num_domains = num_stages * (1 if part.scope == "stage" else len(cluster.replicas))
        mean = part.mean_uptime_iterations * iteration_seconds
        if part.unit == "seconds":
            mean = part.config.mean_uptime_seconds if fails_as_nodes_do(part) else part.mean_uptime_seconds
        num_per_second += num_domains / mean
    return 1.0 / num_per_second if num_per_second else math.inf


def fails_as_nodes_do(part: FailureProcess) -> TypeGuard[PoissonFailures]:
    """Whether a process of the whole cluster is the sum of its nodes' own."""
    return isinstance(part, PoissonFailures)


def mean_seconds_between_losses(cluster: Cluster, failures: FailureProcess) -> float:
    """Mean time between strikes that take a node with a place, from a fleet that is played alone; inf without any.

    Over 2000 strikes, so with a standard error of 2 % where they come at random.
    """
    env, losses_seconds = simpy.Environment(), []

    def lost(nodes: list[Node], announced: bool) -> None:  # noqa: ARG001
        if any(node.place is not None for node in nodes):
            losses_seconds.append(float(env.now))

    Strikes(env, cluster, failures, OTHER_LUCK, lost, lambda: None, lambda _: None)
    for _ in range(MOST_EVENTS):
        if len(losses_seconds) == NUM_LOSSES or env.peek() > MOST_SECONDS:
            break
        env.step()
    return losses_seconds[-1] / len(losses_seconds) if losses_seconds else math.inf
