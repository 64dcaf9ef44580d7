"""Pipeline schedules: the order in which the node of a stage runs its forwards and backwards.

gpipe: all forwards, then all backwards. 1f1b: the i-th of p compute positions runs p - i forwards ahead and then
alternates one forward and one backward, so it holds at most p - i + 1 microbatches; with `max_in_flight` K in place
of p, K - i + 1. interleaved_1f1b (Narayanan et al. 2021, arXiv 2104.04473): the layers of a stage form v chunks, so
that a microbatch passes all stages v times, and the pipeline fills and drains v times as fast. fifo: first come, first
served, with at most K microbatches in flight, as in volunteer test beds.

With p equal stages, no transfer time and a head without cost gpipe and 1f1b take (m + p - 1)(t_f + t_b),
interleaved_1f1b (m + (p - 1)/v)(t_f + t_b).

To add a schedule, subclass `Schedule` and list the class in `SCHEDULES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from models.spec import EMBEDDING_STAGE, Routes

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True, order=True)
class Visit:
    """A forward or backward of a microbatch at a position of the pipeline; the last position is the head."""

    kind: str
    position: int
    microbatch: int


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

    @classmethod
    def microbatch_multiple(cls, num_stages: int) -> int:
        """Divisor that the number of microbatches must have."""
        return num_stages if cls.is_interleaved else 1

    @abstractmethod
    def default_in_flight(self) -> int:
        """Microbatches in flight where nothing else is set; with fewer the schedule's order cannot be followed."""

    @abstractmethod
    def logical_time(self, visit: Visit) -> tuple[int, int, int]:
        """Sort key of a visit: its time if every operation took one unit. Unique for each visit."""

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
        return {stage: self._ordered(stage, visits) for stage, visits in self._visits_by_stage().items()}

    def ranks(self, orders: Mapping[int, list[Visit]]) -> dict[Visit, int]:
        """Priority of each visit among all that wait at a node, 0 first; also at a node that serves two stages."""
        visits = [visit for visits in orders.values() for visit in visits]
        return {visit: rank for rank, visit in enumerate(sorted(visits, key=self.logical_time))}

    def _visits_by_stage(self) -> dict[int, list[Visit]]:
        by_stage: dict[int, list[Visit]] = {stage: [] for stage in range(self.num_stages + 1)}
        for microbatch in range(self.num_microbatches):
            for visit in self.visits(microbatch):
                by_stage[self.stage(visit)].append(visit)
        return by_stage

    def _ordered(self, stage: int, visits: list[Visit]) -> list[Visit]:  # noqa: ARG002
        return sorted(visits, key=self.logical_time)

    def _unit(self, visit: Visit) -> int:
        """Number of the compute position of a visit, from 1."""
        return min(visit.position + 1, self.num_positions)


class GPipe(Schedule):
    """All forwards, then all backwards."""

    name = "gpipe"
    limits_in_flight = False
    forwards_first = True

    def default_in_flight(self) -> int:
        """All."""
        return self.num_microbatches

    def logical_time(self, visit: Visit) -> tuple[int, int, int]:
        """Forwards in the first half, backwards in the second."""
        i, k = self._unit(visit), visit.microbatch
        return (0, i + k, visit.position) if visit.kind == FORWARD else (1, k - i, -visit.position)


class OneForwardOneBackward(Schedule):
    """A warm-up of forwards, then one forward and one backward in turn."""

    name = "1f1b"

    def default_in_flight(self) -> int:
        """One for each position that computes."""
        return self.num_positions

    def logical_time(self, visit: Visit) -> tuple[int, int, int]:
        """Forward k at position i at i + 2 k; its backward after the turn at the last position."""
        i, k = self._unit(visit), visit.microbatch
        if visit.kind == FORWARD:
            return (i + 2 * k, k, visit.position)
        return (2 * max(self.num_positions, self.in_flight_limit) - i + 1 + 2 * k, k, -visit.position)


class FirstComeFirstServed(OneForwardOneBackward):
    """Visits in the order of their arrival; those of one instant in the order of 1f1b."""

    name = "fifo"
    is_first_come_first_served = True


class InterleavedOneForwardOneBackward(OneForwardOneBackward):
    """1f1b over chunks: groups of p microbatches pass chunk after chunk (Narayanan et al. 2021, section 2.2)."""

    name = "interleaved_1f1b"
    is_interleaved = True

    def default_in_flight(self) -> int:
        """Two for each stage."""
        return 2 * self.num_stages

    def ranks(self, orders: Mapping[int, list[Visit]]) -> dict[Visit, int]:
        """Priority by the index in the order of the visit's stage: there is no logical time common to all stages."""
        indexed = [(index, stage, visit) for stage, visits in orders.items() for index, visit in enumerate(visits)]
        return {visit: rank for rank, (_, _, visit) in enumerate(sorted(indexed))}

    def _ordered(self, stage: int, visits: list[Visit]) -> list[Visit]:
        """A warm-up of 2 (p - i) + (v - 1) p forwards, then one forward and one backward in turn."""
        if stage == EMBEDDING_STAGE:  # the head, if it is here: backward right after forward
            return sorted(visits, key=lambda visit: (visit.microbatch, visit.kind == BACKWARD))
        p, v, m = self.num_stages, self.chunks_per_stage, self.num_microbatches

        def group_chunk_microbatch(visit: Visit) -> tuple[int, int, int]:
            chunk = visit.position // p
            group, within = divmod(visit.microbatch, p)
            return group, chunk if visit.kind == FORWARD else v - 1 - chunk, within

        layers = sorted((visit for visit in visits if visit.position < self.head), key=group_chunk_microbatch)
        forwards, backwards = ([visit for visit in layers if visit.kind == kind] for kind in (FORWARD, BACKWARD))
        warm_up = min(m * v, 2 * (p - stage) + (v - 1) * p)
        order = forwards[:warm_up]
        for index, forward in enumerate(forwards[warm_up:]):
            order += [forward, backwards[index]]
        order += backwards[len(forwards) - warm_up :]
        return [visit for one in order for visit in self._with_head(one, stage)]

    def _with_head(self, visit: Visit, stage: int) -> list[Visit]:
        """The visit, and the head's visit right after or before it if both are on the same node."""
        head = replace(visit, position=self.head)
        if visit.position != self.head - 1 or self.stage(head) != stage:
            return [visit]
        return [visit, head] if visit.kind == FORWARD else [head, visit]


SCHEDULES: dict[str, type[Schedule]] = {
    schedule.name: schedule
    for schedule in (GPipe, OneForwardOneBackward, InterleavedOneForwardOneBackward, FirstComeFirstServed)
}
"""Schedules by the name that a scenario gives them."""
