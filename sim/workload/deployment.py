"""Where iterations run: what they cost, on which nodes, over which links, and whose node does which work."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.spec import EMBEDDING_STAGE
from sim.cluster.network import Network
from sim.cluster.topology import Cluster
from sim.workload.config import IterationPlan
from sim.workload.costs import Costs
from sim.workload.schedule import FORWARD, Visit

Hosts = tuple[int, ...]
"""For each place, by number, the place whose node does its work; itself where that has a node."""


def pipelines_are_alike(cluster: Cluster, network: Network) -> bool:
    """Whether all pipelines of a complete cluster take the same, each as if alone, but for exchanging gradients.

    That is: equal nodes in the same region, stage by stage, and links that no two pipelines share.
    """
    num_pipelines, regions = len(cluster.replicas), cluster.regions_of_nodes
    are_apart = not network.is_shared or (
        network.config.access is None and (network.config.sharing == "node_pair" or len(cluster.regions) == 1)
    )
    return (
        are_apart
        and all(slow.replica is None for slow in cluster.config.stragglers)
        and all(len(set(regions[stage * num_pipelines : (stage + 1) * num_pipelines])) == 1 for stage in cluster.stages)
    )


def stand_ins(missing: Collection[int], cluster: Cluster, covers: Mapping[int, int] | None = None) -> Hosts:
    """Who does the work of places without node: other replicas of the stage, dealt to in turn so that loads are even.

    Where several are left, this is whose turn comes first; they take turns (`Assignment.host`).

    covers: stages whose work another stage's nodes do, each in its pipeline, and which stage that is; all places of
    such a stage go to the other one's. AssertionError where nobody is left.
    """
    covers = covers or {}
    gone = frozenset(missing)
    hosts = list(range(len(cluster.stages) * len(cluster.replicas)))
    assert all(0 <= place < len(hosts) for place in gone), "places have numbers from 0 up"
    for stage in cluster.stages:
        if stage in covers:
            continue
        places = cluster.nodes_of(stage)
        there = [place for place in places if place not in gone]
        assert there, f"stage {stage} has no node, and no other stage covers it"
        vacant = [place for place in places if place in gone]
        for turn, place in enumerate(vacant, start=bisect(there, vacant[0]) if vacant else 0):
            hosts[place] = there[turn % len(there)]
    for stage, holder in covers.items():
        assert holder not in covers, f"stage {holder} does not do its own work"
        for place, covering in zip(cluster.nodes_of(stage), cluster.nodes_of(holder), strict=True):
            hosts[place] = hosts[covering]
    return tuple(hosts)


@dataclass(frozen=True)
class Assignment:
    """Which node does which work in an iteration. A node is named by the number of its place."""

    cluster: Cluster
    hosts: Hosts

    @cached_property
    def places(self) -> dict[int, list[int]]:
        """The nodes that work, in order, and the places whose work each does."""
        places: dict[int, list[int]] = {host: [] for host in sorted(set(self.hosts))}
        for place, host in enumerate(self.hosts):
            places[host].append(place)
        assert all(host in done for host, done in places.items()), "who does others' work does its own"
        return places

    @cached_property
    def are_complete(self) -> bool:
        """Whether every place has a node, which does its work."""
        return len(self.places) == len(self.hosts)

    def host(self, stage: int, replica: int, microbatch: int = 0) -> int:
        """Who does a stage's work for a microbatch of a pipeline.

        Where the pipeline has a node for it, that one; else all that the stage, or the one that covers it, has left
        take turns, microbatch by microbatch.
        """
        host = self.hosts[self.cluster.node(stage, replica)]
        doing = self.cluster.stage_of(host)
        if host == self.cluster.node(doing, replica):
            return host
        left = self._left[doing]
        return left[(left.index(host) + microbatch) % len(left)]

    def dealt(self, orders: Mapping[int, Sequence[Visit]]) -> dict[int, list[Visit]]:
        """The visits that are made to each node, of every stage's; in order, where each pipeline has its own node."""
        visits: dict[int, list[Visit]] = {host: [] for host in self.places}
        for stage, order in orders.items():
            for visit in order:
                for replica in self.cluster.replicas:
                    visits[self.host(stage, replica, visit.microbatch)].append(visit)
        return visits

    @cached_property
    def _left(self) -> dict[int, list[int]]:
        """The nodes of each stage that do their own work."""
        left: dict[int, list[int]] = {}
        for place, host in enumerate(self.hosts):
            if place == host:
                left.setdefault(self.cluster.stage_of(place), []).append(place)
        return left

    def of(self, stage: int) -> list[int]:
        """Who does a stage's work, each once."""
        return list(dict.fromkeys(self.hosts[place] for place in self.cluster.nodes_of(stage)))

    def num_stages_held(self) -> list[int]:
        """Of how many stages each node does the work."""
        num_replicas = len(self.cluster.replicas)
        return [len({place // num_replicas for place in places}) for places in self.places.values()]

    def holds_shadow(self, stage: int, replica: int, microbatch: int = 0) -> bool:
        """Whether who does a stage's work for a microbatch of a pipeline holds the shadow of the next stage for it.

        Not where that is another stage's node, nor where it does the next stage's work as well.
        """
        host, following = self.host(stage, replica, microbatch), (stage + 1) % len(self.cluster.stages)
        return self.cluster.stage_of(host) == stage and host != self.host(following, replica, microbatch)


@dataclass(frozen=True)
class Deployment:
    """Where iterations run: what they cost, on which nodes, over which links."""

    costs: Costs
    cluster: Cluster
    network: Network
    num_alike: int = 1
    """Pipelines that each of these stands for."""

    @cached_property
    def one_of_all(self) -> Deployment | None:
        """The same with one pipeline that stands for all, where they are alike; what it takes is what all take."""
        cluster, num_pipelines = self.cluster, len(self.cluster.replicas)
        if num_pipelines == 1 or not pipelines_are_alike(cluster, self.network):
            return None
        changed: dict[str, Any] = {"nodes_per_stage": 1, "placement": "by_hand"}
        regions = tuple(cluster.regions_of_nodes[cluster.node(stage, 0)] for stage in cluster.stages)
        one = Cluster(cluster.config.model_copy(update=changed), cluster.num_stages, regions)
        return Deployment(self.costs, one, Network(self.network.config, one.regions_of_nodes), num_pipelines)

    @cached_property
    def complete_hosts(self) -> Hosts:
        """Every place has a node, which does its work."""
        return stand_ins((), self.cluster)

    def shadow_seconds(self, plan: IterationPlan, stage: int, kind: str = FORWARD) -> float:
        """Shadow forwards, or backwards, of a stage per microbatch: of the next one, or for the last of stage 0."""
        following, size = (stage + 1) % len(self.cluster.stages), plan.microbatch_size
        usual_seconds = self.costs.forward_seconds if kind == FORWARD else self.costs.backward_seconds
        seconds = usual_seconds(following, size) if following != EMBEDDING_STAGE else 0.0
        if following == self.costs.head_stage:
            seconds += usual_seconds(EMBEDDING_STAGE, size)
        return (plan.shadow_forwards if kind == FORWARD else plan.shadow_backwards) * seconds
