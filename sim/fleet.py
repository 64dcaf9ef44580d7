"""Which nodes are there, and in which place each works.

Life of a node: it arrives → takes a vacant place, or idles as a spare until one is vacant → is lost, for good or to
return. All of it depends on failures and arrivals alone, so every strategy meets the same churn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sim.cluster import Cluster


@dataclass(eq=False)
class Node:
    """A node that is there; a new object each time it comes. Numbers count first arrivals, from 0."""

    number: int
    region: str
    place: int | None = None
    seated_seconds: float = 0.0


class Fleet:
    """The nodes of a cluster as they come and go. A vacant place takes a spare at once, if there is one."""

    def __init__(self, cluster: Cluster, num_initial_nodes: int | None = None, rng: np.random.Generator | None = None):
        """Every place and every spare's has its node; or, with a number of nodes, as many, seated by lot."""
        self.cluster = cluster
        self.nodes: dict[int, Node] = {}
        self.node_at: list[Node | None] = [None] * len(cluster.regions_of_nodes)
        self.num_arrived = 0
        self.num_lost = 0
        self._vacant_since_seconds = [0.0] * len(self.node_at)
        self._node_seconds = self._counted_until_seconds = 0.0
        if num_initial_nodes is None:
            for place, region in enumerate(cluster.regions_of_nodes):
                self.nodes[place] = self.node_at[place] = Node(place, region, place)
            self.num_arrived = len(self.node_at)
            for _ in range(cluster.config.num_spares):
                self.arrive(0.0)
            return
        assert rng is not None
        for number in range(num_initial_nodes):
            self.nodes[number] = Node(number, self._region_in_turn(number))
        self.num_arrived = num_initial_nodes
        for number in rng.permutation(num_initial_nodes):
            self._seat(self.nodes[int(number)], 0.0)

    def has_node(self, stage: int) -> bool:
        """Whether any place of a stage has a node."""
        return any(self.node_at[place] is not None for place in self.cluster.nodes_of(stage))

    @property
    def empty_stages(self) -> list[int]:
        """Stages without any node."""
        return [stage for stage in self.cluster.stages if not self.has_node(stage)]

    def node_seconds(self, now_seconds: float) -> float:
        """Seconds of nodes that were there, spares among them, until now: what is paid for."""
        return self._node_seconds + len(self.nodes) * (now_seconds - self._counted_until_seconds)

    def arrive(self, now_seconds: float, region: str | None = None, number: int | None = None) -> Node:
        """A node comes: a new one, or one that returns by its number. Default region: dealt in turn."""
        self._count(now_seconds)
        if number is None:
            number = self.num_arrived
            self.num_arrived += 1
        node = self.nodes[number] = Node(number, region or self._region_in_turn(number))
        self._seat(node, now_seconds)
        return node

    def lose(self, numbers: Iterable[int], now_seconds: float) -> list[Node]:
        """These nodes are gone; their places stay vacant until `seat_spares`."""
        self._count(now_seconds)
        lost = [self.nodes.pop(number) for number in numbers]
        self.num_lost += len(lost)
        for node in lost:
            if node.place is not None:
                self.node_at[node.place] = None
                self._vacant_since_seconds[node.place] = now_seconds
        return lost

    def seat_spares(self, now_seconds: float) -> None:
        """Idle nodes take vacant places, those that have idled longest first."""
        if None in self.node_at:
            for node in self.nodes.values():
                if node.place is None:
                    self._seat(node, now_seconds)

    def _seat(self, node: Node, now_seconds: float) -> None:
        """A node takes the vacant place that needs one most, if there is any."""
        node.place, node.seated_seconds = self._wanted_place(node), now_seconds
        if node.place is not None:
            self.node_at[node.place] = node

    def _wanted_place(self, node: Node) -> int | None:
        """The vacant place that needs a node most: of a stage without any, then in its region, then longest vacant."""
        vacant = [place for place, there in enumerate(self.node_at) if there is None]
        if not vacant:
            return None
        regions = self.cluster.regions_of_nodes

        def need(place: int) -> tuple[bool, bool, float, int]:
            has_another = self.has_node(self.cluster.stage_of(place))
            return has_another, regions[place] != node.region, self._vacant_since_seconds[place], place

        return min(vacant, key=need)

    def _region_in_turn(self, number: int) -> str:
        return self.cluster.regions[number % len(self.cluster.regions)]

    def _count(self, now_seconds: float) -> None:
        self._node_seconds = self.node_seconds(now_seconds)
        self._counted_until_seconds = now_seconds
