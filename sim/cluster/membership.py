"""Membership of the cluster: which nodes are active, and in which slot each works.

Life of a node: it arrives → is assigned to a vacant slot, or idles as a spare until one is vacant → is lost, for good
or to return. Every strategy meets the same failures and arrivals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from sim.cluster.topology import Cluster
from sim.core.records import NodeCount


@dataclass(eq=False)
class Node:
    """An active node; a new object for each arrival. Numbers count first arrivals, from 0."""

    number: int
    region: str
    slot: int | None = None
    assigned_seconds: float = 0.0


class Membership:
    """Active nodes and the slots they work in; at the start one for each slot and spare, or some placed at random."""

    def __init__(
        self,
        cluster: Cluster,
        num_initial_nodes: int | None = None,
        rng: np.random.Generator | None = None,
        initial_regions: Sequence[str] | None = None,
    ):
        self.cluster = cluster
        self.nodes: dict[int, Node] = {}
        self.node_at: list[Node | None] = [None] * len(cluster.regions_of_nodes)
        self.num_arrived = self.num_lost = 0
        self.active: list[int] = []  # numbers; the last one moves to the index of a node that leaves
        self.counts: list[NodeCount] = []  # of active nodes, from each instant at which it changes
        self._index_in_active: dict[int, int] = {}
        self._num_at = [0] * len(cluster.stages)
        self._vacant: dict[tuple[int, str], list[tuple[float, int]]] = {}  # by stage and region: since when, slot
        for slot in range(len(self.node_at)):
            self._vacate(slot, 0.0)
        self._idle: dict[int, Node] = {}  # nodes without slot, by number, in order of arrival
        if rng is None or num_initial_nodes is None:
            self._fill_all_slots()
        else:
            self._fill_at_random(num_initial_nodes, rng, initial_regions)
        self._record_count(0.0)

    def _fill_all_slots(self) -> None:
        for slot, region in enumerate(self.cluster.regions_of_nodes):
            self.nodes[slot] = self.node_at[slot] = Node(slot, region, slot)
        self._num_at = [self.cluster.config.nodes_per_stage] * len(self.cluster.stages)
        self._vacant.clear()
        self.num_arrived = len(self.node_at)
        self._add_active(self.nodes)
        for _ in range(self.cluster.config.num_spares):
            self.arrive(0.0)

    def _fill_at_random(self, num_nodes: int, rng: np.random.Generator, regions: Sequence[str] | None) -> None:
        for number in range(num_nodes):
            self.nodes[number] = Node(number, regions[number] if regions else self._region_in_turn(number))
        self.num_arrived = num_nodes
        self._add_active(self.nodes)
        for number in rng.permutation(num_nodes):
            self._assign(self.nodes[int(number)], 0.0)
        self._idle = dict(sorted(self._idle.items()))

    def has_node(self, stage: int) -> bool:
        """Whether any slot of a stage has a node."""
        return self._num_at[self.cluster.host_of(stage)] > 0

    @property
    def lacking_stages(self) -> list[int]:
        """Stages that cannot work: without any node or, with sharded state, without all of them."""
        if not self._vacant:
            return []
        cluster = self.cluster
        return [stage for stage in cluster.stages_with_nodes if self._num_at[stage] < cluster.num_shares]

    def works(self, stage: int) -> bool:
        """Whether a stage has all nodes that it needs."""
        return self._num_at[self.cluster.host_of(stage)] >= self.cluster.num_shares

    def arrive(self, now_seconds: float, region: str | None = None, number: int | None = None) -> Node:
        """Add a node: a new one, or a returning one by its number. Default region: the next in turn."""
        if number is None:
            number = self.num_arrived
            self.num_arrived += 1
        node = self.nodes[number] = Node(number, region or self._region_in_turn(number))
        self._add_active((number,))
        self._assign(node, now_seconds)
        self._record_count(now_seconds)
        return node

    def lose(self, numbers: Iterable[int], now_seconds: float) -> list[Node]:
        """Remove nodes; their slots stay vacant until `assign_spares`."""
        lost = [self.nodes.pop(number) for number in numbers]
        self.num_lost += len(lost)
        self._record_count(now_seconds)
        for node in lost:
            index, last = self._index_in_active.pop(node.number), self.active.pop()
            if last != node.number:
                self.active[index], self._index_in_active[last] = last, index
            if node.slot is None:
                del self._idle[node.number]
            else:
                self.node_at[node.slot] = None
                self._num_at[self.cluster.stage_of(node.slot)] -= 1
                self._vacate(node.slot, now_seconds)
        return lost

    def assign_spares(self, now_seconds: float) -> None:
        """Assign idle nodes to vacant slots, longest idle first."""
        while self._vacant and self._idle:
            number = next(iter(self._idle))
            self._assign(self._idle.pop(number), now_seconds)

    def _assign(self, node: Node, now_seconds: float) -> None:
        """Assign a node to the vacant slot that needs one most, if there is any."""
        node.slot, node.assigned_seconds = self._take_neediest_slot(node), now_seconds
        if node.slot is None:
            self._idle[node.number] = node
        else:
            self.node_at[node.slot] = node
            self._num_at[self.cluster.stage_of(node.slot)] += 1

    def _vacate(self, slot: int, now_seconds: float) -> None:
        place = self.cluster.stage_of(slot), self.cluster.regions_of_nodes[slot]
        heappush(self._vacant.setdefault(place, []), (now_seconds, slot))

    def _take_neediest_slot(self, node: Node) -> int | None:
        """Vacant slot of highest priority: in a stage without node, then in the node's region, then longest vacant."""

        def need(place: tuple[int, str]) -> tuple[bool, bool, float, int]:
            stage, region = place
            return self.has_node(stage), region != node.region, *self._vacant[place][0]

        if not self._vacant:
            return None
        place = min(self._vacant, key=need)
        _, slot = heappop(self._vacant[place])
        if not self._vacant[place]:
            del self._vacant[place]
        return slot

    def _add_active(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._index_in_active[number] = len(self.active)
            self.active.append(number)

    def _region_in_turn(self, number: int) -> str:
        return self.cluster.regions[number % len(self.cluster.regions)]

    def _record_count(self, now_seconds: float) -> None:
        if self.counts and self.counts[-1].time_seconds == now_seconds:
            self.counts.pop()
        self.counts.append(NodeCount(now_seconds, len(self.nodes)))


def node_seconds(counts: Sequence[NodeCount], until_seconds: float) -> float:
    """Node-seconds until an instant, spares included: what is paid for."""
    total = 0.0
    for count, then in zip(counts, [*counts[1:], None], strict=True):
        if count.time_seconds >= until_seconds:
            break
        ends_seconds = until_seconds if then is None else min(then.time_seconds, until_seconds)
        total += count.num_nodes * (ends_seconds - count.time_seconds)
    return total
