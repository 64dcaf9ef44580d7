"""Pipeline schedules: the order in which the node of a stage runs its forwards and backwards.

gpipe: all forwards, then all backwards. 1f1b: the i-th of p compute positions runs p - i forwards ahead and then
alternates one forward and one backward, so it holds at most p - i + 1 microbatches; with `max_in_flight` K in place
of p, K - i + 1. interleaved_1f1b (Narayanan et al. 2021, arXiv 2104.04473): the layers of a stage form v chunks, so
that a microbatch passes all stages v times, and the pipeline fills and drains v times as fast. fifo: first come, first
served, with at most K microbatches in flight, as in volunteer test beds.

zero_bubble (ZB-H1 of Qi et al. 2023, arXiv 2401.10241): 1f1b in which a backward sends its gradient on as soon as it
has it. The gradients of weights are computed while the node waits; at the i-th position those of at most i - 1
microbatches are put off, so that no node holds more than the first one does.

With p equal stages, no transfer time and a head without cost gpipe and 1f1b take (m + p - 1)(t_f + t_b),
interleaved_1f1b (m + (p - 1)/v)(t_f + t_b), zero_bubble m (t_f + t_b) + (p - 1)(t_f + t_b - 2 t_w) for t_w = t_f of t_b
for weights and m >= p.

To add a schedule, subclass `Schedule` and list the class in `SCHEDULES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.spec import EMBEDDING_STAGE, Routes

FORWARD, BACKWARD = "forward", "backward"
WEIGHTS = "weights"
"""The gradients of weights, where the schedule puts them off."""


@dataclass(frozen=True, order=True)
class Visit:
    """A forward or backward of a microbatch at a position of the pipeline; the last position is the head."""

    kind: str
    position: int
    microbatch: int


Ints = NDArray[np.int64]


class Visits(NamedTuple):
    """Many visits: an array of each field; `forward` tells which are forwards."""

    forward: NDArray[np.bool_]
    position: Ints
    microbatch: Ints


class VisitTable(NamedTuple):
    """All visits of a schedule, as arrays of the axes microbatch and index in the order of `visits`.

    rank: priority among all that wait at a node, 0 first; orders: of each stage, its visits as indices into the
    flattened arrays, in the order of the schedule.
    """

    stage: Ints
    rank: Ints
    orders: dict[int, Ints]


@dataclass(frozen=True)
class Schedule(ABC):
    """Route of every microbatch through the stages, and the order of visits at each stage. Pure functions.

    Positions 0 … v·p - 1 are chunks of layers, position v·p is the head. Stages 1..p hold layers; `head_stage` is the
    stage whose node computes the head, `head_computes` whether that takes time.

    chosen_in_flight: limit on microbatches in flight that the user or a strategy sets; None: the schedule's own.
    """

    num_stages: int
    chunks_per_stage: int
    num_microbatches: int
    routes: Routes
    head_stage: int
    head_computes: bool
    chosen_in_flight: int | None = None

    name: ClassVar[str]
    """How scenarios name the schedule."""
    limits_in_flight: ClassVar[bool] = True
    """Whether `max_in_flight` applies."""
    is_interleaved: ClassVar[bool] = False
    """Whether the layers of a stage form several chunks, which do not follow each other in the model."""
    forwards_first: ClassVar[bool] = False
    """Whether the head runs all forwards before the first backward, whatever the order elsewhere."""
    is_first_come_first_served: ClassVar[bool] = False
    """Whether a node takes visits as they arrive, without an order of its own."""
    splits_backward: ClassVar[bool] = False
    """Whether gradients of weights are computed after a backward, while the node waits or when too many are due."""

    @classmethod
    def microbatch_multiple(cls, num_stages: int) -> int:
        """Divisor that the number of microbatches must have."""
        return num_stages if cls.is_interleaved else 1

    @abstractmethod
    def default_in_flight(self) -> int:
        """Microbatches in flight where nothing else is set; with fewer the schedule's order cannot be followed."""

    @abstractmethod
    def logical_time(self, visits: Visits) -> tuple[Ints, ...]:
        """Sort keys of visits, the first one first: their times if every operation took one unit; unique."""

    @cached_property
    def num_positions(self) -> int:
        """Positions that compute one after the other: the stages, and the head if it computes on a node of its own."""
        return self.num_stages + (1 if self.head_computes and self.head_stage == EMBEDDING_STAGE else 0)

    @cached_property
    def in_flight_limit(self) -> int:
        """Most microbatches in flight in one pipeline at a time."""
        chosen = self.chosen_in_flight if self.limits_in_flight else None
        return min(self.num_microbatches, chosen or self.default_in_flight())

    @property
    def has_textbook_order(self) -> bool:
        """Whether nodes can follow the order of `orders`: enough microbatches are in flight for it."""
        enough = self.in_flight_limit >= min(self.num_microbatches, self.default_in_flight())
        return enough and not self.is_first_come_first_served

    @property
    def head(self) -> int:
        """Position of the head."""
        return self.num_stages * self.chunks_per_stage

    def stage(self, visit: Visit) -> int:
        """Stage of a visit."""
        if visit.position == self.head:
            return self.head_stage
        return self.routes[visit.microbatch % len(self.routes)][visit.position % self.num_stages]

    def visits(self, microbatch: int) -> list[Visit]:
        """All visits of a microbatch: forwards up to the head, then backwards."""
        forwards = [Visit(FORWARD, position, microbatch) for position in range(self.head + 1)]
        return forwards + [replace(visit, kind=BACKWARD) for visit in reversed(forwards)]

    def orders(self) -> dict[int, list[Visit]]:
        """Visits of each stage in the order of the schedule; waiting arrivals are taken in the same order."""
        all_visits = [visit for microbatch in range(self.num_microbatches) for visit in self.visits(microbatch)]
        return {stage: [all_visits[index] for index in order] for stage, order in self.table.orders.items()}

    def ranks(self) -> dict[Visit, int]:
        """Priority of each visit among all that wait at a node, 0 first; also at a node that serves two stages."""
        rank = self.table.rank
        return {visit: int(rank[k, at]) for k in range(len(rank)) for at, visit in enumerate(self.visits(k))}

    @cached_property
    def table(self) -> VisitTable:
        """Stage, rank and order of all visits."""
        visits = self._all_visits()
        rank = np.empty(visits.position.size, np.int64)
        rank[np.lexsort([key.ravel() for key in reversed(self.logical_time(visits))])] = np.arange(rank.size)
        stage = self._stages(visits)
        by_rank = np.argsort(rank)
        orders = {of: by_rank[stage.ravel()[by_rank] == of] for of in range(self.num_stages + 1)}
        return VisitTable(stage, rank.reshape(stage.shape), orders)

    def _all_visits(self) -> Visits:
        """The visits of each microbatch, one row of each array after the other."""
        position = np.concatenate([np.arange(self.head + 1), np.arange(self.head, -1, -1)])
        forward = np.arange(position.size) <= self.head
        return Visits(*np.broadcast_arrays(forward, position, np.arange(self.num_microbatches)[:, None]))

    def _stages(self, visits: Visits) -> Ints:
        routes = np.array(self.routes)
        of_layers = routes[visits.microbatch % len(routes), visits.position % self.num_stages]
        return np.where(visits.position == self.head, self.head_stage, of_layers)

    def _unit(self, visits: Visits) -> Ints:
        """Numbers of the compute positions of visits, from 1."""
        return np.minimum(visits.position + 1, self.num_positions)


class GPipe(Schedule):
    """All forwards, then all backwards."""

    name = "gpipe"
    limits_in_flight = False
    forwards_first = True

    def default_in_flight(self) -> int:
        """All."""
        return self.num_microbatches

    def logical_time(self, visits: Visits) -> tuple[Ints, ...]:
        """Forwards in the first half, backwards in the second."""
        forward, position, k = visits
        i = self._unit(visits)
        return np.where(forward, 0, 1), np.where(forward, i + k, k - i), np.where(forward, position, -position)


class OneForwardOneBackward(Schedule):
    """A warm-up of forwards, then one forward and one backward in turn."""

    name = "1f1b"

    def default_in_flight(self) -> int:
        """One for each position that computes."""
        return self.num_positions

    def logical_time(self, visits: Visits) -> tuple[Ints, ...]:
        """Forward k at position i at i + 2 k; its backward after the turn at the last position."""
        forward, position, k = visits
        i, turn = self._unit(visits), 2 * max(self.num_positions, self.in_flight_limit) + 1
        return np.where(forward, i, turn - i) + 2 * k, k, np.where(forward, position, -position)


class FirstComeFirstServed(OneForwardOneBackward):
    """Visits in the order of their arrival; those of one instant in the order of 1f1b."""

    name = "fifo"
    is_first_come_first_served = True


class ZeroBubble(OneForwardOneBackward):
    """1f1b whose backwards send their gradient on first; gradients of weights fill the waits (ZB-H1)."""

    name = "zero_bubble"
    splits_backward = True


class InterleavedOneForwardOneBackward(OneForwardOneBackward):
    """1f1b over chunks: groups of p microbatches pass chunk after chunk (Narayanan et al. 2021, section 2.2)."""

    name = "interleaved_1f1b"
    is_interleaved = True

    def default_in_flight(self) -> int:
        """Two for each stage."""
        return 2 * self.num_stages

    @cached_property
    def table(self) -> VisitTable:
        """Ranks by the index in the order of the visit's stage: there is no logical time common to all stages."""
        visits = self._all_visits()
        stage = self._stages(visits)
        flat = Visits(visits.forward.ravel(), visits.position.ravel(), visits.microbatch.ravel())
        orders = {of: self._order(of, np.flatnonzero(stage == of), flat) for of in range(self.num_stages + 1)}
        index, of = np.empty((2, stage.size), np.int64)
        for one, order in orders.items():
            index[order], of[order] = np.arange(order.size), one
        rank = np.empty(stage.size, np.int64)
        rank[np.lexsort([of, index])] = np.arange(rank.size)
        return VisitTable(stage, rank.reshape(stage.shape), orders)

    def _order(self, stage: int, own: Ints, visits: Visits) -> Ints:
        """A warm-up of 2 (p - i) + (v - 1) p forwards, then forwards and backwards in turn; `own`: the stage's."""
        forward, position, microbatch = (field[own] for field in visits)
        if stage == EMBEDDING_STAGE:  # the head, if it is here: backward right after forward
            return own[np.lexsort([~forward, microbatch])]
        p, v = self.num_stages, self.chunks_per_stage
        chunk = np.where(forward, position // p, v - 1 - position // p)
        in_turn = np.lexsort([microbatch % p, chunk, microbatch // p])  # by group, chunk and place in the group
        in_turn = in_turn[position[in_turn] < self.head]
        forwards, backwards = own[in_turn[forward[in_turn]]], own[in_turn[~forward[in_turn]]]
        warm_up = min(len(forwards), 2 * (p - stage) + (v - 1) * p)
        num_pairs = len(forwards) - warm_up
        pairs = np.stack([forwards[warm_up:], backwards[:num_pairs]], axis=1).ravel()
        order = np.concatenate([forwards[:warm_up], pairs, backwards[num_pairs:]])
        return self._with_head(order, visits) if stage == self.head_stage else order

    def _with_head(self, order: Ints, visits: Visits) -> Ints:
        """The order of a stage's layers with the head's forward right after the last one, its backward right before."""
        is_last = visits.position[order] == self.head - 1
        first = np.where(is_last & ~visits.forward[order], order - 1, order)
        both = np.stack([first, np.where(is_last, first + 1, -1)], axis=1).ravel()
        return both[both >= 0]


SCHEDULES: dict[str, type[Schedule]] = {
    schedule.name: schedule
    for schedule in (GPipe, OneForwardOneBackward, ZeroBubble, InterleavedOneForwardOneBackward, FirstComeFirstServed)
}
"""Schedules by the name that a scenario gives them."""
