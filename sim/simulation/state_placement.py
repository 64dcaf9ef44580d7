"""Who holds what: the nodes that hold their stage's training state, and the copies that some hold beside it.

A place's state goes with its node. A stage is lost with its last holder, and with it every copy that its nodes held.
Nothing can be taken from a node that lost it: recoveries ask here.
"""

from __future__ import annotations

from collections.abc import Iterable

from models.training_state import Position
from sim.cluster.membership import Node
from sim.cluster.topology import Cluster
from sim.workload.deployment import Hosts, stand_ins


class StatePlacement:
    """The holders of a cluster in which every place has the first state."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.lost_stages: set[int] = set()
        self.covers: dict[int, int] = {}
        """Stages whose work and state another stage's nodes have taken over, and which stage that is."""
        self.receiving: dict[int, Node] = {}
        """Nodes that take part in a recovery, or are about to join, by place."""
        self._missing: set[int] = set()
        """Places whose node does not hold its stage's state, or that have none."""
        self._num_holders = [cluster.config.nodes_per_stage] * len(cluster.stages)
        self._copies: dict[tuple[int, str], Position] = {}
        self._hosts: Hosts | None = None

    def holds(self, place: int) -> bool:
        """Whether a place's node holds its stage's state."""
        return place not in self._missing

    @property
    def is_incomplete(self) -> bool:
        """Whether any place is missing."""
        return bool(self._missing)

    @property
    def missing(self) -> list[int]:
        """Places whose node does not hold its stage's state, or that have none."""
        return sorted(self._missing)

    def of(self, stage: int) -> list[int]:
        """The places of a stage whose nodes hold its state."""
        return [place for place in self.cluster.nodes_of(stage) if place not in self._missing]

    @property
    def hosts(self) -> Hosts | None:
        """Whose node does the work of each place; None where all do their own. No stage may be lost."""
        if self._missing and self._hosts is None:
            self._hosts = stand_ins(self.missing, self.cluster, self.covers)
        return self._hosts if self._missing else None

    def lose(self, place: int) -> bool:
        """A place's node is gone. Whether a stage is lost thereby: its own, which it was the last to hold."""
        stage = self.cluster.stage_of(place)
        if stage in self.lost_stages:
            self._drop_copies(stage)
        if place in self._missing:
            return False
        self._missing.add(place)
        self._hosts = None
        self._num_holders[stage] -= 1
        if self._num_holders[stage] >= self.cluster.num_shares:
            return False
        self.lost_stages.add(stage)
        self._drop_copies(stage)
        for covered in [covered for covered, holder in self.covers.items() if holder == stage]:
            del self.covers[covered]
            self.lost_stages.add(covered)
        return True

    def _drop_copies(self, stage: int) -> None:
        for holder, what in list(self._copies):
            if holder == stage:
                del self._copies[holder, what]

    def gain(self, places: Iterable[int]) -> None:
        """These places' nodes hold their stage's state from now on."""
        for place in places:
            if place in self._missing:
                self._missing.remove(place)
                self._num_holders[self.cluster.stage_of(place)] += 1
            self._hosts = None
            self.covers.pop(self.cluster.stage_of(place), None)

    def cover(self, stage: int, holder: int) -> None:
        """A lost stage's state and work are another's, until it has nodes with its state again."""
        assert stage in self.lost_stages, "only a lost stage is covered"
        assert holder not in self.lost_stages | self.covers.keys(), "who covers has its own state"
        self.covers[stage], self._hosts = holder, None

    def rebuilt(self, places: Iterable[int], but_for: set[int]) -> None:
        """The lost stages have their state again, on these places, but for some of them."""
        self.gain(place for place in places if self.cluster.stage_of(place) not in but_for | self.covers.keys())
        self.lost_stages &= but_for

    def receivers(self, stage: int) -> list[int]:
        """Places that a transfer to a stage goes to: those that have its state or, where it is lost, will have it."""
        while stage in self.covers:
            stage = self.covers[stage]
        places = self.cluster.nodes_of(stage)
        if stage in self.lost_stages:
            return [place for place in places if not self.receiving or place in self.receiving]
        return [place for place in places if place not in self._missing]

    def keep(self, stage: int, what: str, position: Position) -> None:
        """A stage's nodes, if it has any, hold a copy of something beside their own state, as of a Position."""
        if stage in self.covers:
            return
        assert self._num_holders[stage] or self.receiving, "who is lost holds nothing"
        self._copies[stage, what] = position

    def copy(self, stage: int, what: str) -> Position | None:
        """The Position that a copy is of; None where the stage's nodes hold none."""
        return self._copies.get((stage, what))

    def source(self, stage: int, replica: int) -> int:
        """The place that sends a stage's state to a pipeline: its own, or another that holds it.

        A stage that nobody holds sends what is not there (the released CheckFree code does this).
        """
        while stage in self.covers:
            stage = self.covers[stage]
        places = self.of(stage) or [place for place in self.cluster.nodes_of(stage) if place in self.receiving]
        own = self.cluster.node(stage, replica)
        return own if own in places or not places else places[replica % len(places)]
