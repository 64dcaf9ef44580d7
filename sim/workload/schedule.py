"""The order in which a stage's node does its forwards and backwards.

gpipe: all forwards, then all backwards. 1f1b: the i-th of p compute positions runs ahead with p - i forwards and then
does one forward and one backward in turn, so it holds at most p - i + 1 microbatches; with `max_in_flight` K in place
of p, K - i + 1. interleaved_1f1b (Narayanan et al. 2021, arXiv 2104.04473): a stage's layers make v chunks, so that the
model runs through all stages v times, and fills and drains v times as fast. fifo: whatever has arrived first, with at
most K microbatches in flight: what volunteer test beds do.

With p equal stages, no transfer time and a free head gpipe and 1f1b take (m + p - 1)(t_f + t_b), interleaved_1f1b
(m + (p - 1)/v)(t_f + t_b).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.spec import EMBEDDING_STAGE, plain_routes
from sim.workload.config import IterationPlan, WorkloadConfig, num_positions

FORWARD, BACKWARD = "forward", "backward"


def plain_plan(workload: WorkloadConfig) -> IterationPlan:
    """An iteration as the workload says, before any strategy changes it."""
    return IterationPlan(workload.num_microbatches, plain_routes(workload.num_stages))


@dataclass(frozen=True, order=True)
class Visit:
    """A forward or backward of a microbatch at a position of its way; the last position is the head."""

    kind: str
    position: int
    microbatch: int


@dataclass(frozen=True)
class Schedule:
    """Where microbatches go and in which order each stage takes them: pure functions of a workload and a plan.

    Positions 0 … v·p - 1 are the chunks of layers, position v·p is the head. `num_positions` compute; a head that does
    nothing, or shares the last stage's node, is none of them.
    """

    workload: WorkloadConfig
    plan: IterationPlan
    head_computes: bool
    max_in_flight: int

    @property
    def num_positions(self) -> int:
        """Positions that compute one after the other."""
        return num_positions(self.workload, self.head_computes)

    @property
    def has_textbook_order(self) -> bool:
        """Not first come, first served; nor where fewer microbatches are in flight than the order asks for."""
        asked = {"1f1b": self.num_positions, "interleaved_1f1b": 2 * self.workload.num_stages}
        schedule = self.workload.schedule
        return schedule != "fifo" and self.max_in_flight >= min(self.plan.num_microbatches, asked.get(schedule, 0))

    @property
    def head(self) -> int:
        """Position of the head."""
        return self.workload.num_stages * self.workload.chunks_per_stage

    def stage(self, visit: Visit) -> int:
        """The stage that a visit is made to."""
        num_stages = self.workload.num_stages
        if visit.position == self.head:
            return EMBEDDING_STAGE if self.workload.loss_at == "embedding_stage" else num_stages
        route = self.plan.routes[visit.microbatch % len(self.plan.routes)]
        return route[visit.position % num_stages]

    def way(self, microbatch: int) -> list[Visit]:
        """All visits of a microbatch, there and back."""
        forwards = [Visit(FORWARD, position, microbatch) for position in range(self.head + 1)]
        return forwards + [replace(visit, kind=BACKWARD) for visit in reversed(forwards)]

    def orders(self) -> dict[int, list[Visit]]:
        """Every stage's visits in the textbook's order; arrivals, where several wait, are taken in the same."""
        orders: dict[int, list[Visit]] = {stage: [] for stage in range(self.workload.num_stages + 1)}
        for microbatch in range(self.plan.num_microbatches):
            for visit in self.way(microbatch):
                orders[self.stage(visit)].append(visit)
        for stage, visits in orders.items():
            if self.workload.schedule == "interleaved_1f1b":
                orders[stage] = self._interleaved(stage, visits)
            else:
                visits.sort(key=self.logical_time)
        return orders

    def ranks(self, orders: dict[int, list[Visit]]) -> dict[Visit, int]:
        """What a node takes first of what waits there, from 0 up: each stage's order, and who does two stages' both."""
        if self.workload.schedule == "interleaved_1f1b":  # which has no logical time: as far on in its stage's order
            turns = [(turn, stage, visit) for stage, visits in orders.items() for turn, visit in enumerate(visits)]
            return {visit: rank for rank, (_, _, visit) in enumerate(sorted(turns))}
        visits = [visit for visits in orders.values() for visit in visits]
        return {visit: rank for rank, visit in enumerate(sorted(visits, key=self.logical_time))}

    def logical_time(self, visit: Visit) -> tuple[int, int, int]:
        """When a visit would be made if every operation took one unit. On plain routes: the textbook's order."""
        i, k, along = min(visit.position + 1, self.num_positions), visit.microbatch, visit.position
        if visit.kind == FORWARD:
            return (0, i + k, along) if self.workload.schedule == "gpipe" else (i + 2 * k, k, along)
        if self.workload.schedule == "gpipe":
            return (1, k - i, -along)
        return (2 * max(self.num_positions, self.max_in_flight) - i + 1 + 2 * k, k, -along)

    def _interleaved(self, stage: int, visits: list[Visit]) -> list[Visit]:
        """Groups of p microbatches pass chunk after chunk; a warm-up of forwards, then one of each in turn."""
        if stage == EMBEDDING_STAGE:  # the head, if it is here: backward right after forward
            return sorted(visits, key=lambda visit: (visit.microbatch, visit.kind == BACKWARD))
        p, v, m = self.workload.num_stages, self.workload.chunks_per_stage, self.plan.num_microbatches

        def turn(visit: Visit) -> tuple[int, int, int]:
            chunk = visit.position // p
            group, within = divmod(visit.microbatch, p)
            return group, chunk if visit.kind == FORWARD else v - 1 - chunk, within

        layers = sorted((visit for visit in visits if visit.position < self.head), key=turn)
        forwards, backwards = ([visit for visit in layers if visit.kind == kind] for kind in (FORWARD, BACKWARD))
        lead = min(m * v, 2 * (p - stage) + (v - 1) * p)
        order = forwards[:lead]
        for ahead, forward in enumerate(forwards[lead:]):
            order += [forward, backwards[ahead]]
        order += backwards[len(forwards) - lead :]
        return [visit for one in order for visit in self._with_head(one, stage)]

    def _with_head(self, visit: Visit, stage: int) -> list[Visit]:
        """The visit, and the head's where it is made on the same node right after or before it."""
        head = replace(visit, position=self.head)
        if visit.position != self.head - 1 or self.stage(head) != stage:
            return [visit]
        return [visit, head] if visit.kind == FORWARD else [head, visit]
