"""Placement of training state: which nodes hold their stage's state, and which copies they hold besides.

A stage is lost with its last node that holds the state, together with every copy that the stage's nodes held. Where
pipelines have been recut, a place holds a stage of the cut; if that is lost, the stage of the place counts as lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from models.spec import EMBEDDING_STAGE
from models.training_state import Position
from sim.cluster.membership import Node
from sim.cluster.topology import Cluster
from sim.workload.deployment import Assignment, assign_slots


class StatePlacement:
    """Placement of state; at the start every slot holds its stage's. version: changes when transfers may."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.lost_stages: set[int] = set()
        self.left_out: set[int] = set()  # stages without their state, around which training continues
        self.covers: dict[int, int] = {}  # stages that others have taken over, and that other stage
        self.receiving: dict[int, Node] = {}  # nodes that receive state in a recovery, or as they join, by slot
        self.set_aside: dict[int, Node] = {}  # nodes that a strategy has left out, by slot, until it recuts pipelines
        self.version = 0
        self._missing: set[int] = set()  # slots without a node that holds the stage's state
        self._held = {slot: cluster.stage_of(slot) for slot in range(cluster.num_slots)}  # stage that a slot holds
        self._num_holders = dict.fromkeys(cluster.stages, cluster.config.nodes_per_stage)
        self._copies: dict[tuple[int, str], Position] = {}
        self._assignment: Assignment | None = None
        self._vacancies: frozenset[tuple[int, int]] | None = frozenset()

    def holds(self, slot: int) -> bool:
        """Whether the node of a slot holds its stage's state."""
        return slot not in self._missing

    @property
    def missing(self) -> list[int]:
        """Slots without a node that holds the stage's state, in order."""
        return sorted(self._missing)

    @property
    def vacancies(self) -> frozenset[tuple[int, int]]:
        """Stage and pipeline of the slots without a node that holds the stage's state."""
        if self._vacancies is None:
            self._vacancies = frozenset(map(self.cluster.place_of, self._missing))
        return self._vacancies

    def of(self, stage: int) -> list[int]:
        """The slots of a stage whose nodes hold its state."""
        return [slot for slot in self.cluster.slots_of(stage) if slot not in self._missing]

    @property
    def assignment(self) -> Assignment | None:
        """The slot whose node does the work of each slot; None if all do their own. No stage is lost or left out."""
        if self._missing and self._assignment is None:
            self._assignment = assign_slots(self.missing, self.cluster, self.covers)
        return self._assignment if self._missing else None

    def lose(self, slot: int) -> bool:
        """Note the loss of a slot's node; return whether its stage is lost with it."""
        stage = self.cluster.stage_of(slot)
        if stage in self.lost_stages:
            self._drop_copies(stage)
        if slot in self._missing:
            return False
        self._missing.add(slot)
        self._changed()
        self._num_holders[self._held[slot]] -= 1
        if self._num_holders[self._held[slot]] >= self.cluster.num_shares:
            return False
        self.lost_stages.update(self.cluster.stages_on(stage))
        self._drop_copies(stage)
        for covered in [covered for covered, holder in self.covers.items() if holder == stage]:
            del self.covers[covered]
            self.lost_stages.add(covered)
        return True

    def _drop_copies(self, stage: int) -> None:
        """Forget the copies that the nodes of a stage held."""
        for holder, what in list(self._copies):
            if self.cluster.host_of(holder) == stage:
                del self._copies[holder, what]

    def gain(self, slots: Iterable[int]) -> None:
        """Note that the nodes of some slots hold their stage's state from now on."""
        self._changed()
        for slot in slots:
            if slot in self._missing:
                self._missing.remove(slot)
                self._num_holders[self._held[slot]] += 1
            self.covers.pop(self.cluster.stage_of(slot), None)
            self.left_out.discard(self.cluster.stage_of(slot))

    def cut_anew(self, stage_at: Mapping[int, int]) -> None:
        """Note that the nodes of some slots hold a stage of new pipelines each, and all others nothing."""
        self._held = dict(stage_at)
        self._num_holders = dict(Counter(stage_at.values()))
        self._missing = set(range(self.cluster.num_slots)).difference(stage_at)
        self.set_aside, self.lost_stages = {}, set()
        self._changed()

    def cover(self, stage: int, holder: int) -> None:
        """Let another stage hold a lost stage's state and do its work until it has nodes with its state again."""
        assert stage in self.lost_stages, "only a lost stage is covered"
        assert holder not in self.lost_stages | self.covers.keys(), "the covering stage has its own state"
        self.covers[stage] = holder
        self._changed()

    def leave_out(self, stage: int) -> None:
        """Let training continue without a lost stage until it has nodes with a state again."""
        assert stage in self.lost_stages, "only a lost stage is left out"
        assert stage != EMBEDDING_STAGE, "no microbatch goes around stage 0"
        self.lost_stages.remove(stage)
        self.left_out.add(stage)
        self._changed()

    def lose_left_out(self) -> None:
        """Let training wait for the stages that were left out, which are lost stages again."""
        if self.left_out:
            self.lost_stages |= self.left_out
            self.left_out.clear()
            self._changed()

    def receive(self, nodes: dict[int, Node]) -> None:
        """Name the nodes, by slot, that receive state from now on."""
        self.receiving = nodes
        self._changed()

    def _changed(self) -> None:
        self.version += not self.cluster.is_sharded  # shards go between their stage and the store, whatever happens
        self._assignment = self._vacancies = None

    def rebuilt(self, slots: Iterable[int], but_for: set[int]) -> None:
        """Note that the lost stages, except `but_for`, have their state again on some slots."""
        self.gain(slot for slot in slots if self.cluster.stage_of(slot) not in but_for | self.covers.keys())
        self.lost_stages &= but_for

    def receivers(self, stage: int) -> list[int]:
        """Slots that a transfer to a stage goes to: those that hold its state or, if it is lost, will hold it."""
        while stage in self.covers:
            stage = self.covers[stage]
        slots = self.cluster.slots_of(stage)
        if stage in self.left_out:
            return [slot for slot in slots if slot in self.receiving]
        if stage in self.lost_stages:
            return [slot for slot in slots if not self.receiving or slot in self.receiving]
        return [slot for slot in slots if slot not in self._missing]

    def hold(self, stage: int, what: str, position: Position) -> None:
        """Note that the nodes of a stage hold a copy of something beside their own state, as of a Position."""
        if stage in self.covers:
            return
        assert self._num_holders[self.cluster.host_of(stage)] or self.receiving, "a lost stage holds nothing"
        self._copies[stage, what] = position

    def held(self, stage: int, what: str) -> Position | None:
        """The Position of a copy; None if the stage's nodes hold none."""
        return self._copies.get((stage, what))

    def source(self, stage: int, replica: int) -> int:
        """The slot that sends a stage's state to a pipeline: the pipeline's own, or another that holds the state."""
        while stage in self.covers:
            stage = self.covers[stage]
        slots = self.of(stage) or [slot for slot in self.cluster.slots_of(stage) if slot in self.receiving]
        own = self.cluster.slot(stage, replica)
        return own if own in slots or not slots else slots[replica % len(slots)]
