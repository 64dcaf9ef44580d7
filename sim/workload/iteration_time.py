"""Iteration times, alone and beside other messages, and their cache.

Iteration and transfer times depend on the workload, the slots of the cluster and the network, and on no seed: they are
the same in every run of a scenario. A process therefore caches them from run to run (`cache_of`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import simpy

from sim.cluster.flows import Flows, FlowState, arrivals_alone, sharing_of
from sim.cluster.network import STORAGE, Network, NetworkConfig, Path
from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.distributions import unit_lognormal
from sim.core.effort import Effort
from sim.core.ledger import IterationSplit
from sim.core.memo import Memo
from sim.core.rng import stream
from sim.workload.arrays.run import left_at, run_alone_in_order, run_fast, service_order
from sim.workload.config import IterationPlan, Layout, WorkloadConfig
from sim.workload.deployment import Assignment, Deployment, exchange_pipelines
from sim.workload.iteration import IterationRun
from sim.workload.iteration_work import IterationWork, Order, TimeFactor
from sim.workload.schedule import Ints

WITHOUT_EFFECT: Final = {
    "price": "spot",
    "num_spares": 0,
    "detection_seconds": 0.0,
    "provisioning_seconds": 0.0,
    "provisioning_sigma": 0.0,
    "startup_seconds": 0.0,
    "regroup_seconds": 0.0,
    "jitter": 0.0,
    "joining": "standstill",
}
"""Fields of a cluster that no cached time depends on. Every other field, new ones too, is part of the cache key."""

MAX_CACHES, MAX_LAYOUTS = 32, 64
"""Caches of a process; layouts of pipelines kept in a run."""

BYTES_PER_NODE, BYTES_PER_MESSAGE = 40, 300
"""In a key: of a node of an assignment, of the state of a message."""


@dataclass(frozen=True)
class IterationTime:
    """Seconds of an iteration, how they divide, and the order in which its nodes work."""

    seconds: float
    split: IterationSplit
    order: Order


@dataclass(frozen=True)
class AmongOthers:
    """An iteration beside other messages: when each of these arrived, and the state of those still in flight."""

    seconds: float
    split: IterationSplit
    arrivals_seconds: tuple[float | None, ...]
    left: tuple[FlowState, ...]


Messages = tuple[tuple[int, int, float, str], ...]
"""Source, target, bytes and description of each message."""


BesideKey = tuple[IterationPlan, Assignment | None, tuple[FlowState, ...]]
"""An iteration beside other messages."""


def bytes_beside(key: BesideKey, _: AmongOthers) -> int:
    """Bytes of an iteration beside other messages in a cache, about."""
    return BYTES_PER_NODE * len(key[1] or ()) + 2 * BYTES_PER_MESSAGE * len(key[2])


TIMED: Final = Counter[str]()
"""Iterations that this process has timed, alone and beside other messages; those found in a cache are not counted."""


class IterationTimeCache:
    """Iteration and transfer times on one network. Assignments in keys are None where every slot has its node."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.iterations: Memo[tuple[IterationPlan, Assignment | None], IterationTime] = Memo(
            size=lambda key, _: BYTES_PER_NODE * len(key[1] or ())
        )
        self.among: Memo[BesideKey, AmongOthers] = Memo(size=bytes_beside)
        self.service_orders: Memo[tuple[bool, IterationPlan, Assignment | None], Ints] = Memo(
            size=lambda key, order: BYTES_PER_NODE * len(key[2] or ()) + order.nbytes
        )
        self.transfer_seconds: Memo[Messages, float] = Memo()
        self._arrivals: Memo[Hashable, tuple[float, ...]] = Memo()

    def arrivals(self, states: Sequence[FlowState]) -> tuple[float, ...]:
        """Seconds until each of some messages arrives if there are no others."""
        return self._arrivals.get(sharing_of(states), lambda: arrivals_alone(states))


_CACHES: Memo[tuple[WorkloadConfig, ClusterConfig, NetworkConfig], IterationTimeCache] = Memo(MAX_CACHES)


def cache_of(workload: WorkloadConfig, cluster: Cluster, network: NetworkConfig) -> IterationTimeCache:
    """This process's cache for a workload on a cluster and a network."""
    key = workload, cluster.config.model_copy(update=WITHOUT_EFFECT), network
    return _CACHES.get(key, lambda: IterationTimeCache(Network(network, cluster.regions_of_nodes)))


def time_of(work: IterationWork, time_factor: TimeFactor | None = None) -> IterationTime:
    """Time of one iteration in the order of `work`, without other messages."""
    run = run_fast(work, (), time_factor)
    return IterationTime(run.seconds, work.split(run.seconds, run.visit_seconds, run.shadow_seconds), work.order)


def fastest_time(deployment: Deployment, plan: IterationPlan, assignment: Assignment | None = None) -> IterationTime:
    """Time of an iteration in the faster of two orders, the schedule's and that of arrival; equal: the schedule's.

    So no strategy gains by its order. Arrival is faster over slow links and where routes differ (CheckFree+), and the
    only order where slots have no node; `assignment` says which nodes do their work.
    """
    is_complete = assignment is None or assignment == deployment.complete_assignment
    arrival = time_of(IterationWork(deployment, plan, "arrival", assignment))
    if not is_complete or not deployment.costs.schedule(plan).has_textbook_order:
        return arrival
    textbook = time_of(IterationWork(deployment, plan, "textbook"))
    return arrival if arrival.seconds < textbook.seconds else textbook


def time_among(work: IterationWork, others: tuple[FlowState, ...]) -> AmongOthers:
    """Time of one iteration beside messages that are already in flight."""
    run = run_fast(work, others)
    split = work.split(run.seconds, run.visit_seconds, run.shadow_seconds)
    return AmongOthers(run.seconds, split, run.arrivals_seconds, run.left)


def representative_of(deployment: Deployment, plan: IterationPlan) -> Deployment | None:
    """The deployment with one pipeline that represents all in an iteration of a plan; None where they differ."""
    return None if plan.shares else deployment.representative


OPERATIONS_PER_MESSAGE = 3
"""Operations that take as long to simulate as a message that has no hop's place."""


def num_operations(deployment: Deployment, plan: IterationPlan) -> int:
    """Forwards and backwards of an iteration and messages that exchange gradients, as far as computed one by one."""
    cluster = deployment.cluster
    num_pipelines = 1 if representative_of(deployment, plan) else len(cluster.replicas)
    num_microbatches = sum(plan.shares) if plan.shares else plan.num_microbatches * num_pipelines
    num_visits = 2 * num_microbatches * len(cluster.stages)
    is_ring = deployment.costs.workload.gradient_exchange == "ring"
    num_messages = len(cluster.stages) * num_pipelines * (1 if is_ring else num_pipelines - 1)
    return num_visits + OPERATIONS_PER_MESSAGE * (num_messages if num_pipelines > 1 else 0)


class IterationTimes:
    """Times of iterations in one run; each plan, on the same nodes, is run once and then cached.

    With jitter every executed iteration draws its own factors: `NUM_SAMPLES` iterations are run, and later ones take
    the time of one of these at random.
    """

    NUM_SAMPLES = 64

    def __init__(
        self, deployment: Deployment, seed: int, cache: IterationTimeCache | None = None, effort: Effort | None = None
    ) -> None:
        self.deployment, self.effort = deployment, effort or Effort()
        self._computed: set[Hashable] = set()
        self._seed = seed
        self._jitter = deployment.cluster.config.jitter
        self._cache = cache or IterationTimeCache(deployment.network)
        self._last: tuple[IterationPlan, Assignment | None, IterationTime] | None = None
        self._samples: dict[tuple[IterationPlan, Assignment | None, int], IterationTime] = {}
        self._among: Memo[BesideKey, AmongOthers] = Memo(size=bytes_beside)
        self._laid_out: Memo[Layout, Deployment] = Memo(most=MAX_LAYOUTS)

    def site(self, plan: IterationPlan) -> Deployment:
        """The pipelines that run a plan: those of its layout, else those of the cluster."""
        if plan.layout is None:
            return self.deployment
        layout = plan.layout
        return self._laid_out.get(layout, lambda: self.deployment.laid_out(layout))

    def alone(self, plan: IterationPlan, assignment: Assignment | None = None) -> IterationTime:
        """Time of an iteration without jitter and without other messages; assignment: None with a layout."""
        if (last := self._last) and last[0] is plan and last[1] is assignment:  # as in most iterations
            return last[2]
        given, changed = plan, self._if_incomplete(assignment)
        alike = self._exchanged(plan, changed)
        if plan.layout:
            plan = replace(plan, layout=self.deployment.standard(plan.layout))
        site = self.site(plan)
        self._count((plan, alike), plan)

        def find() -> IterationTime:
            TIMED["alone"] += 1
            return (
                self._time_incomplete(plan, alike)
                if alike
                else fastest_time(representative_of(site, plan) or site, plan)
            )

        found = self._cache.iterations.get((plan, alike), find)
        self._last = given, assignment, found
        return found

    def _count(self, key: Hashable, plan: IterationPlan) -> None:
        """Count the operations of an iteration, once in this run, whether its time is cached or not."""
        if key not in self._computed:
            self._computed.add(key)
            self.effort.num_events += num_operations(self.site(plan), plan)

    def _time_incomplete(self, plan: IterationPlan, alike: Assignment) -> IterationTime:
        """Time of an iteration where nodes are missing; the order of its visits is kept for disturbed iterations."""
        work = IterationWork(self.deployment, plan, "arrival", alike)
        run, order = run_alone_in_order(work)
        self._cache.service_orders.get((True, plan, alike), lambda: order)
        return IterationTime(run.seconds, work.split(run.seconds, run.visit_seconds, run.shadow_seconds), work.order)

    def split(self, plan: IterationPlan, assignment: Assignment | None = None) -> IterationSplit:
        """Productive, waiting and redundant seconds of `alone`."""
        return self.alone(plan, assignment).split

    def executed(self, plan: IterationPlan, execution: int, assignment: Assignment | None = None) -> IterationTime:
        """Time of the execution-th iteration of a run, with its jitter, without other messages."""
        if not self._jitter:
            return self.alone(plan, assignment)
        changed, sample = self._if_incomplete(assignment), self.sample_of(execution)
        key = plan, changed, sample
        if key not in self._samples:
            self._count(key, plan)
            work = self._as_alone(self.site(plan), plan, changed)
            self._samples[key] = time_of(work, self.time_factor(sample))
        return self._samples[key]

    def sample_of(self, execution: int) -> int:
        """The execution whose jitter the execution-th iteration has: itself, or a random one of the first."""
        if execution <= self.NUM_SAMPLES or not self._jitter:
            return execution
        return int(stream(self._seed, "jitter_sample", execution=execution).integers(1, self.NUM_SAMPLES + 1))

    def among(
        self, plan: IterationPlan, others: tuple[FlowState, ...], assignment: Assignment | None = None
    ) -> AmongOthers:
        """Time of an iteration beside other messages. Checkpoints begin in equal states, so most are cached."""
        changed = self._if_incomplete(assignment)
        return self._among.get((plan, changed, others), lambda: self._found_among(plan, others, changed))

    def _found_among(
        self, plan: IterationPlan, others: tuple[FlowState, ...], changed: Assignment | None
    ) -> AmongOthers:
        """The cached time of a membership and messages that differ by an exchange of pipelines, or their own."""
        deployment = self.site(plan)
        alike, moved = changed, others
        if changed and plan.shares is None:
            alike, pipelines = exchange_pipelines(changed, deployment.cluster)
            moved = tuple(replace(state, path=self._moved(state.path, pipelines)) for state in others)
        elif (one := representative_of(deployment, plan)) and all(
            deployment.network.is_apart(state.path) for state in others
        ):
            deployment = one

        self._count((plan, alike, moved), plan)

        def find() -> AmongOthers:
            TIMED["beside messages"] += 1
            return time_among(self._as_alone(deployment, plan, alike), moved)

        found = self._cache.among.get((plan, alike, moved), find)
        in_flight = (state for state, at in zip(others, found.arrivals_seconds, strict=True) if at is None)
        left = (replace(state, path=of.path) for state, of in zip(found.left, in_flight, strict=True))
        return replace(found, left=tuple(left))

    def left_at(
        self, plan: IterationPlan, others: tuple[FlowState, ...], assignment: Assignment | None, cut_seconds: float
    ) -> tuple[FlowState, ...]:
        """States of other messages that are in flight when a failure ends an iteration beside them."""
        work = self._as_alone(self.site(plan), plan, self._if_incomplete(assignment))
        return left_at(work, others, cut_seconds)

    def _moved(self, path: Path, pipelines: Sequence[int]) -> Path:
        """A path with its pipelines exchanged: between the places of its ends, if `pipelines` are in these places."""
        assert path.ends, "paths come from a network"
        source, target, num_nodes = path.ends
        cluster = self.deployment.cluster

        def place(slot: int) -> int:
            if slot == STORAGE:
                return slot
            stage, replica = cluster.place_of(slot)
            return cluster.slot(stage, pipelines.index(replica))

        return self.deployment.network.path(place(source), place(target), num_nodes)

    def begin(
        self, plan: IterationPlan, env: simpy.Environment, flows: Flows, sample: int, assignment: Assignment | None
    ) -> IterationRun:
        """Begin an iteration on an event loop with other messages, with the jitter of a sample."""
        changed = self._if_incomplete(assignment)
        work = self._as_alone(self.site(plan), plan, changed)
        return IterationRun(work, env, flows, self.time_factor(sample))

    def _exchanged(self, plan: IterationPlan, changed: Assignment | None) -> Assignment | None:
        """One assignment for all memberships that differ by an exchange of equal pipelines: one cache key."""
        return changed and (changed if plan.shares else exchange_pipelines(changed, self.deployment.cluster)[0])

    def _if_incomplete(self, assignment: Assignment | None) -> Assignment | None:
        """The assignment, None where every slot has its node: one cache key for both."""
        return None if not assignment or assignment == self.deployment.complete_assignment else assignment

    def _as_alone(self, deployment: Deployment, plan: IterationPlan, changed: Assignment | None) -> IterationWork:
        """An iteration whose nodes serve visits in the order in which they do alone, so that a delay only delays.

        Except first come, first served: its order is that of arrival, whatever disturbs it.
        """
        order = self.alone(plan).order if changed is None else "arrival"
        work = IterationWork(deployment, plan, order, changed)
        if work.order == "textbook" or work.schedule.is_first_come_first_served:
            return work
        key = deployment is self.site(plan), plan, changed
        service = self._cache.service_orders.get(key, lambda: service_order(work))
        return IterationWork(deployment, plan, order, changed, service)

    def time_factor(self, execution: int) -> TimeFactor | None:
        """Lognormal factors of mean 1, from a stream for each executed iteration and node; None without jitter."""
        if not self._jitter:
            return None
        streams: dict[int, np.random.Generator] = {}

        def draw(stage: int, replica: int) -> float:
            node = self.deployment.cluster.slot(stage, replica)
            if node not in streams:
                streams[node] = stream(self._seed, "jitter", execution=execution, node=node)
            return unit_lognormal(streams[node], self._jitter)

        return draw
