"""Deployment of the workload: costs, cluster and network, and which node does the work of which slot."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import eq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import EMBEDDING_STAGE
from sim.cluster.network import Network
from sim.cluster.topology import Cluster, Straggler
from sim.workload.config import IterationPlan, Layout
from sim.workload.costs import Costs
from sim.workload.schedule import FORWARD, Visit

Assignment = tuple[int, ...]
"""For each slot, the slot whose node does its work: itself where it has a node."""


def nodes_are_alike(cluster: Cluster) -> bool:
    """Whether the nodes of each stage are: in one region, and none slower than the others of its stage."""
    regions = cluster.regions_of_nodes
    return all(slow.replica is None for slow in cluster.config.stragglers) and all(
        len({regions[slot] for slot in cluster.slots_of(stage)}) == 1 for stage in cluster.stages
    )


def pipelines_are_equal(cluster: Cluster, network: Network) -> bool:
    """Whether all pipelines of a complete cluster take the same time, each as if alone but for gradient exchanges.

    That is: equal nodes in the same region, stage by stage, and no links shared by two pipelines.
    """
    share_no_links = not network.is_shared or (
        network.config.access is None and (network.config.sharing == "node_pair" or len(cluster.regions) == 1)
    )
    return share_no_links and nodes_are_alike(cluster)


def assign_slots(missing: Collection[int], cluster: Cluster, covers: Mapping[int, int] | None = None) -> Assignment:
    """Assign the work of slots without node to other replicas of the stage, in turn, so that loads are even.

    Where a stage has several nodes left, the assignment names the first; they alternate (`WorkPlacement.node`).

    covers: stages whose work the nodes of another stage do, each in its pipeline, and that stage; all slots of a
    covered stage are assigned to the covering one. AssertionError where a stage has neither nodes nor cover.
    """
    covers = covers or {}
    gone = frozenset(missing)
    assignment = list(range(cluster.num_slots))
    assert all(0 <= slot < len(assignment) for slot in gone), "slots have numbers from 0 up"
    for stage in cluster.stages_with_nodes:
        if stage in covers:
            continue
        slots = cluster.slots_of(stage)
        left = [slot for slot in slots if slot not in gone]
        assert left, f"stage {stage} has no node, and no other stage covers it"
        vacant = [slot for slot in slots if slot in gone]
        for turn, slot in enumerate(vacant, start=bisect(left, vacant[0]) if vacant else 0):
            assignment[slot] = left[turn % len(left)]
    for stage, covering in covers.items():
        assert covering not in covers, f"stage {covering} does not do its own work"
        for slot, substitute in zip(cluster.slots_of(stage), cluster.slots_of(covering), strict=True):
            assignment[slot] = assignment[substitute]
    return tuple(assignment)


def exchange_pipelines(assignment: Assignment, cluster: Cluster) -> tuple[Assignment, tuple[int, ...]]:
    """The same membership with its pipelines in a standard order, and the pipeline in each place of it.

    Memberships that differ only by an exchange of pipelines become equal, so that they take the same time. The order is
    that of the stages at which pipelines miss their own node. Where nodes differ, or those of other stages do a part of
    a stage's work, pipelines keep their numbers.
    """
    slots = [slot for slot, node in enumerate(assignment) if node != slot]
    if not slots or not nodes_are_alike(cluster):
        return assignment, cluster.replicas
    of_slots = ((cluster.stage_of(slot), cluster.stage_of(assignment[slot])) for slot in slots)
    covers = {stage: covering for stage, covering in of_slots if stage != covering}
    if any(cluster.stage_of(assignment[slot]) != covers[stage] for stage in covers for slot in cluster.slots_of(stage)):
        return assignment, cluster.replicas
    missing: dict[int, list[int]] = {replica: [] for replica in cluster.replicas}
    for slot in slots:
        if (stage := cluster.stage_of(slot)) not in covers:
            missing[slot - cluster.slot(stage, 0)].append(stage)
    order = tuple(sorted(cluster.replicas, key=missing.__getitem__))
    exchanged = [cluster.slot(stage, place) for place, replica in enumerate(order) for stage in missing[replica]]
    return assign_slots(exchanged, cluster, covers), order


@dataclass(frozen=True)
class WorkPlacement:
    """Work of each node in an iteration under an assignment. A node is identified by the number of its slot."""

    cluster: Cluster
    assignment: Assignment

    @cached_property
    def slots(self) -> dict[int, list[int]]:
        """Nodes that work, in order, and the slots whose work each does."""
        slots: dict[int, list[int]] = {node: [] for node in sorted(set(self.assignment))}
        for slot, node in enumerate(self.assignment):
            slots[node].append(slot)
        assert all(node in own for node, own in slots.items()), "a substitute also does its own work"
        return slots

    @cached_property
    def is_complete(self) -> bool:
        """Whether every slot has a node."""
        return len(self.slots) == len(self.assignment)

    def node(self, stage: int, replica: int, microbatch: int = 0) -> int:
        """Node that does the work of a stage for a microbatch of a pipeline.

        The pipeline's own node where there is one; else the nodes left in the stage, or in the one that covers it,
        take microbatches in turn.
        """
        node = self.assignment[self.cluster.slot(stage, replica)]
        working_stage = self.cluster.stage_of(node)
        if node == self.cluster.slot(working_stage, replica):
            return node
        left = self._left[working_stage]
        return left[(left.index(node) + microbatch) % len(left)]

    def nodes(self, num_microbatches: int) -> NDArray[np.int64]:
        """`node` of every stage, pipeline and microbatch."""
        replicas, microbatch = self.cluster.replicas, np.arange(num_microbatches)
        nodes = np.empty((len(self.cluster.stages), len(replicas), num_microbatches), np.int64)
        for slot, node in enumerate(self.assignment):
            stage, replica = self.cluster.place_of(slot)
            working_stage = self.cluster.stage_of(node)
            nodes[stage, replica] = node
            if node != self.cluster.slot(working_stage, replica):
                left = np.array(self._left[working_stage])
                nodes[stage, replica] = left[(np.searchsorted(left, node) + microbatch) % len(left)]
        nodes[: self.cluster.first_stage] = nodes[self.cluster.first_stage]
        return nodes

    def visits_by_node(self, orders: Mapping[int, Sequence[Visit]]) -> dict[int, list[tuple[int, Visit]]]:
        """Pipelines and visits of each node, by stage; in the order of the schedule where the cluster is complete."""
        visits: dict[int, list[tuple[int, Visit]]] = {node: [] for node in self.slots}
        for stage, order in orders.items():
            for visit in order:
                for replica in self.cluster.replicas:
                    visits[self.node(stage, replica, visit.microbatch)].append((replica, visit))
        return visits

    @cached_property
    def _left(self) -> dict[int, list[int]]:
        """Nodes of each stage that do their own work."""
        left: dict[int, list[int]] = {}
        for slot, node in enumerate(self.assignment):
            if slot == node:
                left.setdefault(self.cluster.stage_of(slot), []).append(slot)
        return left

    def nodes_of(self, stage: int) -> list[int]:
        """Nodes that do the work of a stage."""
        return list(dict.fromkeys(self.assignment[slot] for slot in self.cluster.slots_of(stage)))

    def num_stages_by_node(self) -> list[int]:
        """Number of stages whose work each node does."""
        return [len({self.cluster.stage_of(slot) for slot in slots}) for slots in self.slots.values()]

    def holds_shadow(self, stage: int, replica: int, microbatch: int = 0) -> bool:
        """Whether the node that does the work of a stage for a microbatch holds the shadow of the next stage for it.

        Not if it belongs to another stage, nor if it also does the work of the next stage.
        """
        node, following = self.node(stage, replica, microbatch), (stage + 1) % len(self.cluster.stages)
        return self.cluster.stage_of(node) == stage and node != self.node(following, replica, microbatch)


@dataclass(frozen=True)
class Deployment:
    """Costs of the workload, and the cluster and network it runs on."""

    costs: Costs
    cluster: Cluster
    network: Network
    num_represented: int = 1
    """Equal pipelines that each pipeline of the cluster represents."""
    whole: Deployment | None = None
    """The deployment on whose nodes pipelines are laid out; None: these are the cluster's own."""
    ends: tuple[int, ...] = ()
    """Slots there of the slots of the cluster."""

    def end(self, slot: int) -> int:
        """Slot of the network at which the messages of a slot begin and end."""
        return self.ends[slot] if self.whole else slot

    def place_of(self, slot: int) -> tuple[int, int]:
        """Stage and pipeline of the node of a slot in the whole cluster."""
        return (self.whole or self).cluster.place_of(self.end(slot))

    def laid_out(self, layout: Layout) -> Deployment:
        """The pipelines of a layout on the nodes and links of this deployment."""
        cluster, num_stages = self.cluster, len(layout.layers_per_stage)
        num_pipelines = len(layout.slots) // (num_stages + 1 - cluster.first_stage)
        stragglers: list[Straggler] = []
        for number, stage in enumerate(range(cluster.first_stage, num_stages + 1)):
            slots = layout.slots[number * num_pipelines : (number + 1) * num_pipelines]
            factors = [cluster.slowdown(*cluster.place_of(slot)) for slot in slots]
            if len(set(factors)) == 1:
                stragglers.append(Straggler(stage=stage, slowdown=factors[0]))
            else:
                stragglers += [Straggler(stage=stage, replica=r, slowdown=each) for r, each in enumerate(factors)]
        changed: dict[str, Any] = {"nodes_per_stage": num_pipelines, "placement": "by_hand"}
        changed["stragglers"] = tuple(slow for slow in stragglers if slow.slowdown != 1.0)
        regions = tuple(cluster.regions_of_nodes[slot] for slot in layout.slots)
        smaller = Cluster(cluster.config.model_copy(update=changed), num_stages, regions)
        return Deployment(self.costs.cut(layout.layers_per_stage), smaller, self.network, whole=self, ends=layout.slots)

    def standard(self, layout: Layout) -> Layout:
        """One layout for all that take the same time because their nodes are alike: one cache key.

        Of the slots of a stage it has the first ones. Where all nodes are alike, it has the first slots of the cluster;
        otherwise, if a stage of the layout has nodes of several stages, it is the layout itself.
        """
        cluster = self.cluster
        if len(cluster.regions) == 1 and not cluster.config.stragglers:
            return replace(layout, slots=tuple(range(len(layout.slots))))
        num_pipelines = len(layout.slots) // (len(layout.layers_per_stage) + 1 - cluster.first_stage)
        firsts = [cluster.slots_of(cluster.stage_of(slot))[0] for slot in layout.slots[::num_pipelines]]
        standard = tuple(first + replica for first in firsts for replica in range(num_pipelines))
        is_alike = all(map(eq, map(cluster.stage_of, layout.slots), map(cluster.stage_of, standard)))
        is_distinct = len(set(standard)) == len(standard)
        return replace(layout, slots=standard) if is_alike and is_distinct and nodes_are_alike(cluster) else layout

    @cached_property
    def representative(self) -> Deployment | None:
        """The same with one pipeline that represents all, which takes the same time; None unless all are equal."""
        cluster, num_pipelines = self.cluster, len(self.cluster.replicas)
        if num_pipelines == 1 or not pipelines_are_equal(cluster, self.network):
            return None
        changed: dict[str, Any] = {"nodes_per_stage": 1, "placement": "by_hand"}
        regions = tuple(cluster.regions_of_nodes[cluster.slot(stage, 0)] for stage in cluster.stages_with_nodes)
        one = Cluster(cluster.config.model_copy(update=changed), cluster.num_stages, regions)
        return Deployment(self.costs, one, Network(self.network.config, one.regions_of_nodes), num_pipelines)

    @cached_property
    def complete_assignment(self) -> Assignment:
        """Every slot to its own node."""
        return assign_slots((), self.cluster)

    def shadow_seconds(self, plan: IterationPlan, stage: int, kind: str = FORWARD) -> float:
        """Shadow forwards, or backwards, at a stage per microbatch: of the next stage, for the last of stage 0."""
        following, size = (stage + 1) % len(self.cluster.stages), plan.microbatch_size
        usual_seconds = self.costs.forward_seconds if kind == FORWARD else self.costs.backward_seconds
        seconds = usual_seconds(following, size) if following != EMBEDDING_STAGE else 0.0
        if following == self.costs.head_stage:
            seconds += usual_seconds(EMBEDDING_STAGE, size)
        return (plan.shadow_forwards if kind == FORWARD else plan.shadow_backwards) * seconds
