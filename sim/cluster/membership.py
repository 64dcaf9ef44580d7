"""Which nodes are there, and in which place each works.

Life of a node: it arrives → takes a vacant place, or idles as a spare until one is vacant → is lost, for good or to
return. All of it depends on failures and arrivals alone, so every strategy meets the same churn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import Cluster
from sim.core.records import NodeCount


@dataclass(eq=False)
class Node:
    """A node that is there; a new object each time it comes. Numbers count first arrivals, from 0."""

    number: int
    region: str
    place: int | None = None
    seated_seconds: float = 0.0


class Membership:
    """The nodes of a cluster as they come and go. A vacant place takes a spare at once, if there is one."""

    def __init__(self, cluster: Cluster, num_initial_nodes: int | None = None, rng: np.random.Generator | None = None):
        """Every place and every spare's has its node; or, with a number of nodes, as many, seated by lot."""
        self.cluster = cluster
        self.nodes: dict[int, Node] = {}
        self.node_at: list[Node | None] = [None] * len(cluster.regions_of_nodes)
        self.num_arrived = 0
        self.num_lost = 0
        self._num_at = [0] * len(cluster.stages)
        self.roster: list[int] = []
        """Numbers of the nodes that are there; who leaves gives its entry to the last."""
        self._entries: dict[int, int] = {}
        self._vacant: dict[int, float] = dict.fromkeys(range(len(self.node_at)), 0.0)
        """Places without node, and since when."""
        self._idle: dict[int, Node] = {}
        """Nodes without place, by number, as they came."""
        self.counts: list[NodeCount] = []
        """How many nodes are there, from each instant on at which that changes."""
        if num_initial_nodes is None:
            for place, region in enumerate(cluster.regions_of_nodes):
                self.nodes[place] = self.node_at[place] = Node(place, region, place)
            self._num_at = [cluster.config.nodes_per_stage] * len(cluster.stages)
            self._vacant.clear()
            self.num_arrived = len(self.node_at)
            self._enrol(self.nodes)
            for _ in range(cluster.config.num_spares):
                self.arrive(0.0)
            self._count(0.0)
            return
        assert rng is not None
        for number in range(num_initial_nodes):
            self.nodes[number] = Node(number, self._region_in_turn(number))
        self.num_arrived = num_initial_nodes
        self._enrol(self.nodes)
        for number in rng.permutation(num_initial_nodes):
            self._seat(self.nodes[int(number)], 0.0)
        self._idle = dict(sorted(self._idle.items()))
        self._count(0.0)

    def has_node(self, stage: int) -> bool:
        """Whether any place of a stage has a node."""
        return self._num_at[stage] > 0

    @property
    def lacking_stages(self) -> list[int]:
        """Stages that cannot work: without any node or, where each node holds a share of the state, without all."""
        if not self._vacant:
            return []
        return [stage for stage, num_nodes in enumerate(self._num_at) if num_nodes < self.cluster.num_shares]

    def works(self, stage: int) -> bool:
        """Whether a stage has the nodes that it cannot work without."""
        return self._num_at[stage] >= self.cluster.num_shares

    @property
    def empty_stages(self) -> list[int]:
        """Stages without any node."""
        return [stage for stage, num_nodes in enumerate(self._num_at) if not num_nodes] if self._vacant else []

    def arrive(self, now_seconds: float, region: str | None = None, number: int | None = None) -> Node:
        """A node comes: a new one, or one that returns by its number. Default region: dealt in turn."""
        if number is None:
            number = self.num_arrived
            self.num_arrived += 1
        node = self.nodes[number] = Node(number, region or self._region_in_turn(number))
        self._enrol((number,))
        self._seat(node, now_seconds)
        self._count(now_seconds)
        return node

    def lose(self, numbers: Iterable[int], now_seconds: float) -> list[Node]:
        """These nodes are gone; their places stay vacant until `seat_spares`."""
        lost = [self.nodes.pop(number) for number in numbers]
        self.num_lost += len(lost)
        self._count(now_seconds)
        for node in lost:
            self._strike_off(node.number)
            if node.place is None:
                del self._idle[node.number]
            else:
                self.node_at[node.place] = None
                self._num_at[self.cluster.stage_of(node.place)] -= 1
                self._vacant[node.place] = now_seconds
        return lost

    def seat_spares(self, now_seconds: float) -> None:
        """Idle nodes take vacant places, those that have idled longest first."""
        while self._vacant and self._idle:
            number = next(iter(self._idle))
            self._seat(self._idle.pop(number), now_seconds)

    def _seat(self, node: Node, now_seconds: float) -> None:
        """A node takes the vacant place that needs one most, if there is any."""
        node.place, node.seated_seconds = self._wanted_place(node), now_seconds
        if node.place is None:
            self._idle[node.number] = node
        else:
            self.node_at[node.place] = node
            self._num_at[self.cluster.stage_of(node.place)] += 1
            del self._vacant[node.place]

    def _wanted_place(self, node: Node) -> int | None:
        """The vacant place that needs a node most: of a stage without any, then in its region, then longest vacant."""
        if len(self._vacant) < 2:
            return next(iter(self._vacant), None)
        regions = self.cluster.regions_of_nodes

        def need(place: int) -> tuple[bool, bool, float, int]:
            has_another = self.has_node(self.cluster.stage_of(place))
            return has_another, regions[place] != node.region, self._vacant[place], place

        return min(self._vacant, key=need)

    def _enrol(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._entries[number] = len(self.roster)
            self.roster.append(number)

    def _strike_off(self, number: int) -> None:
        entry, last = self._entries.pop(number), self.roster.pop()
        if last != number:
            self.roster[entry], self._entries[last] = last, entry

    def _region_in_turn(self, number: int) -> str:
        return self.cluster.regions[number % len(self.cluster.regions)]

    def _count(self, now_seconds: float) -> None:
        if self.counts and self.counts[-1].time_seconds == now_seconds:
            self.counts.pop()
        self.counts.append(NodeCount(now_seconds, len(self.nodes)))


def node_seconds(counts: Sequence[NodeCount], until_seconds: float) -> float:
    """Seconds of nodes that are there, spares among them, until an instant: what is paid for until then."""
    total = 0.0
    for count, then in zip(counts, [*counts[1:], None], strict=True):
        if count.time_seconds >= until_seconds:
            break
        ends_seconds = until_seconds if then is None else min(then.time_seconds, until_seconds)
        total += count.num_nodes * (ends_seconds - count.time_seconds)
    return total
