"""What a run costs: hours of nodes that are there, idle spares among them, times the price of one.

*Not modelled*: storage, traffic, minimum billing times, prices that move while a run goes on.
"""

from __future__ import annotations

from sim.cluster import ClusterConfig


def usd_per_node_hour(cluster: ClusterConfig) -> float | None:
    """Price of a node, which is one device; None where it is not known."""
    device = cluster.device
    return device.spot_usd_per_hour if cluster.price == "spot" else device.on_demand_usd_per_hour


def num_nodes(cluster: ClusterConfig, num_stages: int) -> int:
    """Nodes of a cluster that is complete: those of every stage, stage 0 included, and the spares."""
    return (num_stages + 1) * cluster.nodes_per_stage + cluster.num_spares
