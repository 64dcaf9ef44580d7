"""What a run costs: hours of nodes, for which the cloud is paid, times the price of one.

*Not modelled*: storage, traffic, minimum billing times, prices that move while a run goes on.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.clock import SECONDS_PER_HOUR
from sim.cluster import ClusterConfig


def usd_per_node_hour(cluster: ClusterConfig) -> float | None:
    """Price of a node, which is one device; None where it is not known."""
    device = cluster.device
    return device.spot_usd_per_hour if cluster.price == "spot" else device.on_demand_usd_per_hour


def num_nodes(cluster: ClusterConfig, num_stages: int) -> int:
    """Nodes of a cluster that is complete: those of every stage, stage 0 included, and the spares."""
    return (num_stages + 1) * cluster.nodes_per_stage + cluster.num_spares


def node_hours(
    cluster: ClusterConfig, num_stages: int, wall_clock_seconds: float, losses_seconds: Iterable[float]
) -> float:
    """Hours of nodes that are there in T seconds of wall-clock time: N · T - Σ n · min(provisioning, T - t), over 3600.

    Each stage lost, at time t, takes n = nodes_per_stage nodes with it; as many are ordered at once, and are paid
    from when they are there. Between them the cluster is complete: N nodes, idle spares among them.
    """
    absent_seconds = sum(
        cluster.nodes_per_stage * min(cluster.provisioning_seconds, wall_clock_seconds - lost_seconds)
        for lost_seconds in losses_seconds
    )
    return (num_nodes(cluster, num_stages) * wall_clock_seconds - absent_seconds) / SECONDS_PER_HOUR
