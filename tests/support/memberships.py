"""Clusters of a few nodes, and a log of what a failure process does to one."""

from collections.abc import Sequence
from typing import Any

import simpy

from sim.cluster.membership import Membership, Node
from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.rng import stream
from sim.failures import FailureProcess
from sim.simulation.failure_injection import FailureInjector, MembershipObserver


def a_cluster(num_stages: int = 2, regions: tuple[str, ...] = ("a",), **config: object) -> Cluster:
    """Stages 0 to `num_stages`; regions are assigned to slots in turn."""
    return Cluster(ClusterConfig(**config), num_stages, regions)


def seated(fleet: Membership) -> list[int | None]:
    return [None if node is None else node.number for node in fleet.node_at]


def empty_stages(fleet: Membership) -> list[int]:
    return [
        stage
        for stage in fleet.cluster.stages
        if not any(fleet.node_at[slot] for slot in fleet.cluster.slots_of(stage))
    ]


class Log(MembershipObserver):
    """A membership under a failure process, and the observed losses, notices and arrivals."""

    def __init__(self, failures: FailureProcess, cluster: Cluster, seed: int = 0) -> None:
        self.env = simpy.Environment()
        self.lost: list[tuple[float, tuple[int, ...]]] = []
        self.announced: list[bool] = []
        self.notices: list[tuple[float, tuple[int, ...]]] = []
        self.arrivals: list[tuple[float, int, int | None]] = []
        self.at_losses: list[list[int | None]] = []

        self.fleet = Membership(cluster, failures.num_initial_nodes, stream(seed, "places"), failures.initial_regions)
        self.strikes = FailureInjector(self.env, self.fleet, failures, seed, self)
        arrive = self.fleet.arrive

        def arrives(now_seconds: float, *who: Any) -> Any:
            node = arrive(now_seconds, *who)
            self.arrivals.append((now_seconds, node.number, node.slot))
            return node

        self.fleet.arrive = arrives  # type: ignore[method-assign]

    def nodes_lost(self, nodes: list[Node], announced: bool) -> None:
        self.lost.append((self.env.now, tuple(node.number for node in nodes)))
        self.announced.append(announced)
        self.at_losses.append(seated(self.fleet))

    def notice_given(self, numbers: Sequence[int]) -> None:
        self.notices.append((self.env.now, tuple(numbers)))

    def until(self, seconds: float) -> "Log":
        self.env.run(until=seconds)
        return self
