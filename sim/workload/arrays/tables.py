"""Tables of one iteration for `loop.py`: which node does what in which order, what is sent where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from models.spec import EMBEDDING_STAGE
from sim.cluster.flows import FlowState
from sim.cluster.network import Link, Path
from sim.core.units import TICKS_PER_SECOND, to_ticks
from sim.workload.arrays.loop import BY_ARRIVAL, BY_RANK, DEFERRED, FIXED, Messages, Tables
from sim.workload.arrays.messages import LINKS, NO, Paths
from sim.workload.config import Shadow
from sim.workload.iteration_work import IterationWork, TimeFactor
from sim.workload.schedule import BACKWARD, FORWARD, Ints, Visit

Floats = NDArray[np.float64]

# Arrays take the place of the sequences of these.
TABLES: Callable[..., Tables] = Tables
MESSAGES: Callable[..., Messages] = Messages
PATHS: Callable[..., Paths] = Paths

SHADOWS = get_args(Shadow)
"""By the number that `loop.py` has for each."""


class PathNumbers:
    """Numbers of paths in the order in which they are first asked for, and of the links that they share."""

    def __init__(self) -> None:
        self._paths: dict[Path, int] = {}

    def of(self, path: Path) -> int:
        """Number of a path."""
        return self._paths.setdefault(path, len(self._paths))

    def tables(self) -> Paths:
        """Tables of all paths asked for."""
        numbers: dict[Link, int] = {}
        links = np.full((len(self._paths), LINKS), NO)
        for path, row in self._paths.items():
            links[row, : len(path.links)] = [numbers.setdefault(link, len(numbers)) for link in path.links]
        return PATHS(
            np.array([to_ticks(path.latency_seconds) for path in self._paths]),
            np.array([path.bytes_per_second for path in self._paths]),
            np.array([path.alone_bytes_per_second for path in self._paths]),
            links.ravel(),
            np.array([link.bytes_per_second for link in numbers]),
        )


class TableBuilder:
    """Builds the tables of an iteration, beside other messages, with jitter if there are factors; perhaps cut.

    Arrays of visits have the axes replica, microbatch, visit; `nodes` has stage, replica, microbatch.
    """

    def __init__(
        self,
        work: IterationWork,
        others: Sequence[FlowState] = (),
        time_factor: TimeFactor | None = None,
        cut_seconds: float = NO,
    ) -> None:
        self._work, self._others, self._time_factor, self._cut_seconds = work, others, time_factor, float(cut_seconds)
        self._num_replicas = len(work.cluster.replicas)
        self._schedule = work.schedule.table
        self._num_microbatches, self._num_visits = self._schedule.stage.shape
        self._nodes = work.placement.nodes(self._num_microbatches)
        self._replica = np.arange(self._num_replicas)[:, None, None]
        self._node = self._nodes[self._schedule.stage, self._replica, np.arange(self._num_microbatches)[:, None]]
        self._num_of_pipeline = np.array([work.num_microbatches(replica) for replica in work.cluster.replicas])
        self._counts = np.arange(self._num_microbatches) < self._num_of_pipeline[:, None]  # by pipeline, microbatch
        self._slots = range(work.cluster.num_slots)
        self._slowdown = np.array([work.cluster.slowdown(*work.cluster.place_of(slot)) for slot in self._slots])
        self._paths = PathNumbers()
        self._ends = [work.end(slot) for slot in self._slots]

    def _path(self, source: int, target: int) -> Path:
        """Path between two nodes of the placement."""
        return self._work.deployment.network.path(self._ends[source], self._ends[target])

    def build(self) -> tuple[Tables, Messages, Paths]:
        """All tables. Their sequences are arrays."""
        work, shadow_seconds = self._work, self._shadow_seconds()
        hop_path, hop_takes_time = self._hops()
        tables = TABLES(
            num_microbatches=self._num_microbatches,
            num_visits=self._num_visits,
            in_flight_limit=work.schedule.in_flight_limit,
            num_shadow_rounds=work.plan.shadow_transfers,
            shadow=DEFERRED if work.schedule.splits_backward else SHADOWS.index(work.plan.shadow),
            has_jitter=self._time_factor is not None,
            has_channels=work.deployment.network.is_shared,
            overlaps_exchange=work.workload.overlap_gradient_exchange,
            pause_seconds=to_ticks(work.workload.pause_seconds),
            cut_seconds=self._cut_seconds,
            software_seconds=to_ticks(work.deployment.network.config.software_seconds_per_hop),
            optimizer_seconds=work.optimizer_seconds * max(work.placement.num_stages_by_node()),
            hop_bytes=work.hop_bytes,
            num_of_pipeline=self._num_of_pipeline,
            node=self._node.ravel(),
            rank=(self._schedule.rank * self._num_replicas + self._replica).ravel(),
            seconds=self._actual(self._visit_seconds() * self._slowdown[self._node]).ravel(),
            shadow_seconds=np.where(shadow_seconds > 0.0, self._actual(shadow_seconds), float(NO)).ravel(),
            hop_path=hop_path,
            hop_takes_time=hop_takes_time,
            **self._order_tables(),
            **self._stage_tables(),
            **self._operation_tables(shadow_seconds > 0.0),
        )
        messages = self._messages()
        return tables, messages, self._paths.tables()

    def _actual(self, seconds: Floats) -> Floats:
        """Seconds in whole ticks, unless a factor is still to come."""
        return seconds if self._time_factor else np.rint(seconds * TICKS_PER_SECOND) / TICKS_PER_SECOND

    def _by_visit(self, seconds: Callable[[str, int], float], at_head: Callable[[str], float]) -> Floats:
        """Seconds of each visit of a microbatch by kind and stage, except those of the head by kind."""
        values, stage = np.zeros(self._schedule.stage.shape), self._schedule.stage
        for kind, visits in (
            (FORWARD, slice(0, self._num_visits // 2)),
            (BACKWARD, slice(self._num_visits // 2, None)),
        ):
            by_stage = np.zeros(len(self._work.cluster.stages))
            for of in np.flatnonzero(np.bincount(stage.ravel())).tolist():
                by_stage[of] = seconds(kind, of)
            values[:, visits] = by_stage[stage[:, visits]]
            values[:, self._num_visits // 2 - (kind == FORWARD)] = at_head(kind)
        return values

    def _visit_seconds(self) -> Floats:
        work, head = self._work, self._work.schedule.head
        return self._scaled(
            self._by_visit(
                lambda kind, stage: work.nominal_seconds(Visit(kind, 0, 0), stage),
                lambda kind: work.nominal_seconds(Visit(kind, head, 0), work.costs.head_stage),
            )
        )

    def _deferred_seconds(self) -> Floats:
        work, head = self._work, self._work.schedule.head
        return self._scaled(
            self._by_visit(
                lambda kind, stage: work.nominal_deferred_seconds(Visit(kind, 0, 0), stage),
                lambda kind: work.nominal_deferred_seconds(Visit(kind, head, 0), work.costs.head_stage),
            )
        )

    def _scaled(self, seconds: Floats) -> Floats:
        """Seconds of each visit with the plan's factors."""
        half = self._num_visits // 2
        for factor in self._work.plan.factors:
            of_stage = self._schedule.stage == factor.stage
            of_stage[:, half - 1 : half + 1] = False  # at the head
            if factor.microbatches is not None:
                of_stage &= np.isin(np.arange(self._num_microbatches), factor.microbatches)[:, None]
            by_kind = np.where(np.arange(self._num_visits) < half, factor.forward, factor.backward)
            if factor.pipelines is not None:
                of_stage = of_stage & np.isin(self._work.pipelines, factor.pipelines)[:, None, None]
            seconds = seconds * np.where(of_stage, by_kind, 1.0)
        return seconds

    def _shadow_seconds(self) -> Floats:
        """Seconds of the shadow work after each visit, or of what it defers, before rounding and jitter; 0: none."""
        if self._work.schedule.splits_backward:
            deferred: Floats = self._deferred_seconds() * self._slowdown[self._node]
            return deferred
        work, stages = self._work, np.arange(len(self._work.cluster.stages))[:, None, None]
        seconds = self._by_visit(work.shadow_seconds, lambda kind: work.shadow_seconds(kind, work.costs.head_stage))
        following = np.roll(self._nodes, -1, axis=0)
        own_stage = self._nodes // self._num_replicas + work.cluster.first_stage
        holds = (own_stage == stages) & (self._nodes != following)
        microbatch = np.arange(self._num_microbatches)[:, None]
        found: Floats = seconds * self._slowdown[self._node] * holds[self._schedule.stage, self._replica, microbatch]
        return found

    def _hops(self) -> tuple[Ints, NDArray[np.bool_]]:
        """Path before each visit and back to the embedding, and which paths take time for a hop."""
        num_nodes = len(self._slots)
        home = self._nodes[EMBEDDING_STAGE][..., None]
        passed = np.concatenate([home, self._node, home], axis=-1)
        pairs, index = np.unique(passed[..., :-1] * num_nodes + passed[..., 1:], return_inverse=True)
        ends = [divmod(pair, num_nodes) for pair in pairs.tolist()]
        paths = [None if a == b else self._path(a, b) for a, b in ends]
        numbers = [NO if path is None else self._paths.of(path) for path in paths]
        network, hop_bytes = self._work.deployment.network, self._work.hop_bytes
        takes_time = [network.seconds_of_hop(path, hop_bytes) > 0.0 for path in paths if path]
        hops = np.array(numbers)[index].reshape(passed[..., :-1].shape)
        return np.where(self._counts[..., None], hops, NO).ravel(), np.array(takes_time, bool)

    def _order_tables(self) -> dict[str, Any]:
        """How each node chooses among visits, and its visits where it follows an order."""
        work, num_nodes = self._work, len(self._slots)
        is_fixed = [work.is_order_fixed(work.cluster.stage_of(slot)) for slot in self._slots]
        other = BY_ARRIVAL if work.schedule.is_first_come_first_served else BY_RANK
        start = np.concatenate([[0], np.cumsum(np.bincount(self._node[self._counts].ravel(), minlength=num_nodes))])
        visits = np.zeros(start[-1], np.int64) if work.service is None else work.service
        for slot in self._slots:
            if is_fixed[slot] and work.service is None:
                stage, replica = work.cluster.place_of(slot)
                first = replica * self._num_microbatches * self._num_visits
                order = self._schedule.orders[stage]
                order = order[order < self._num_of_pipeline[replica] * self._num_visits]
                visits[start[slot] : start[slot + 1]] = first + order
        at_head = self._node[self._counts][..., self._num_visits // 2 - 1].ravel()
        return {
            "choice": np.where(is_fixed, FIXED, other),
            "visits_start": start,
            "visits": visits,
            "head_forwards": np.bincount(at_head, minlength=num_nodes) * work.has_barriers,
        }

    def _stage_tables(self) -> dict[str, Any]:
        """Nodes that work, the stages whose work they do, and what each stage's gradient exchange waits for."""
        placement, cluster = self._work.placement, self._work.cluster
        nodes_of = [placement.nodes_of(stage) for stage in cluster.stages]
        pairs = np.array([(node, stage) for stage, nodes in enumerate(nodes_of) for node in nodes])
        pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
        num_microbatches = int(self._num_of_pipeline.sum())
        num_awaited = [
            len(nodes) + num_microbatches * (stage == EMBEDDING_STAGE) for stage, nodes in enumerate(nodes_of)
        ]
        if not self._work.workload.overlap_gradient_exchange:
            num_awaited = [len(placement.slots) + num_microbatches] * len(nodes_of)
        return {
            "works": np.isin(self._slots, list(placement.slots)),
            "most_deferred_seconds": np.array([self._work.most_deferred_seconds(slot) for slot in self._slots]),
            "stages_start": np.searchsorted(pairs[:, 0], np.arange(len(self._slots) + 1)),
            "stages": pairs[:, 1],
            "num_awaited": np.array(num_awaited),
        }

    def _operation_tables(self, has_shadow: NDArray[np.bool_]) -> dict[str, Any]:
        """Shadow work of nodes that nothing visits, and jitter of the successive operations of each node."""
        idle: list[list[float]] = []
        for slot in self._slots:
            own = self._work.idle_shadow_seconds(slot) if slot in self._work.placement.slots else []
            idle.append([seconds * self._slowdown[slot] for _, _, seconds in own])
        num_factors = [0] * len(self._slots)
        if self._time_factor:
            shadowed = self._node[has_shadow & self._counts[..., None]]
            visits, shadows = (
                np.bincount(at.ravel(), minlength=len(idle)) for at in (self._node[self._counts], shadowed)
            )
            num_factors = [len(own) + int(num) for own, num in zip(idle, visits + shadows, strict=True)]
        factors = [
            self._time_factor(*self._work.deployment.place_of(self._work.slot(slot))) if self._time_factor else 1.0
            for slot in self._slots
            for _ in range(num_factors[slot])
        ]
        return {
            "idle_shadow_start": np.cumsum([0, *map(len, idle)]),
            "idle_shadow_seconds": self._actual(np.array([seconds for own in idle for seconds in own])),
            "factors_start": np.cumsum([0, *num_factors]),
            "factors": np.array(factors, float),
        }

    def _messages(self) -> Messages:
        """Messages other than hops."""
        work = self._work
        groups = [work.gradient_exchange(stage) for stage in work.cluster.stages]
        groups += [work.shadow_transfers() if work.plan.shadow_transfers else [], work.embedding_copies()]
        states = []
        for one in (one for group in groups for one in group):
            path = self._path(one.source, one.target)
            states.append(FlowState(path, to_ticks(one.num_latencies * path.latency_seconds), one.num_bytes))
        states += self._others
        sizes = [*map(len, groups), len(self._others)]
        return MESSAGES(
            np.cumsum([0, *sizes]),
            np.repeat(np.arange(len(sizes)), sizes),
            np.array([self._paths.of(state.path) for state in states], np.int64),
            np.array([state.num_bytes for state in states], float),
            np.array([state.latency_seconds for state in states], float),
        )
