"""Iteration times, computed once in each process: they are the same in every run of a scenario.

Iteration and transfer times depend on the workload, the cluster's places and the network, on nothing else, and on no
seed. So a process keeps them from run to run (`price_list`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import numpy as np
import simpy

from sim.cluster.flows import Flows, FlowState
from sim.cluster.network import Network, NetworkConfig
from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.ledger import IterationSplit
from sim.core.rng import stream
from sim.workload.config import IterationPlan, WorkloadConfig
from sim.workload.deployment import Deployment, Hosts
from sim.workload.iteration import IterationRun, Order, Slowness, even_pace

Key = TypeVar("Key")

Found = TypeVar("Found")

WITHOUT_EFFECT: Final = {
    "price": "spot",
    "num_spares": 0,
    "detection_seconds": 0.0,
    "provisioning_seconds": 0.0,
    "provisioning_sigma": 0.0,
    "startup_seconds": 0.0,
    "regroup_seconds": 0.0,
    "jitter": 0.0,
}
"""Fields of a cluster that no price depends on. What is not named here makes other prices, new fields too."""

MOST_LISTS, MOST_FOUND = 32, 2048


@dataclass(frozen=True)
class IterationTime:
    """What an iteration by itself takes, where its time goes, and the order in which its nodes work."""

    seconds: float
    split: IterationSplit
    order: Order


@dataclass(frozen=True)
class AmongOthers:
    """An iteration that ran beside other messages: when each of these arrived in it, and how far the rest came."""

    seconds: float
    split: IterationSplit
    arrivals_seconds: tuple[float | None, ...]
    left: tuple[FlowState, ...]


Where = Hosts | None
"""Whose nodes do the work; None where all do their own."""

Messages = tuple[tuple[int, int, float, str], ...]
"""Source, target, bytes and what they are."""


class Memo(Generic[Key, Found]):
    """A cache of the `most` values that were used last."""

    def __init__(self, most: int = MOST_FOUND) -> None:
        self._known: dict[Key, Found] = {}
        self._most = most

    def get(self, key: Key, find: Callable[[], Found]) -> Found:
        """What is known, or is found now."""
        found = self._known.pop(key) if key in self._known else find()
        self._known[key] = found  # behind all others
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        return found


class IterationTimeCache:
    """Prices on one network: each plan, and each set of messages, is worked out once and then remembered."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.iterations: Memo[tuple[IterationPlan, Where], IterationTime] = Memo()
        self.among: Memo[tuple[IterationPlan, Where, tuple[FlowState, ...]], AmongOthers] = Memo()
        self.transfer_seconds: Memo[Messages, float] = Memo()


_LISTS: Memo[tuple[WorkloadConfig, ClusterConfig, NetworkConfig], IterationTimeCache] = Memo(MOST_LISTS)


def price_list(workload: WorkloadConfig, cluster: Cluster, network: NetworkConfig) -> IterationTimeCache:
    """This process's prices for a workload on a cluster and a network."""
    where = cluster.config.model_copy(update=WITHOUT_EFFECT)
    return _LISTS.get(
        (workload, where, network), lambda: IterationTimeCache(Network(network, cluster.regions_of_nodes))
    )


# Prices iterations: what one takes by itself, and the same iteration begun on an event loop with others.
#
# An iteration is priced by the faster of two orders, the textbook's and that of arrival, whatever the plan, so that no
# strategy gains by its order. Over slow links, and where routes differ (CheckFree+), arrival does better. Where places
# have no node there is no textbook's order, and `hosts` says whose nodes do their work; without it all do their own.


@dataclass(frozen=True)
class FinishedIteration(IterationTime):
    """An iteration that has run by itself, from time zero."""

    run: IterationRun

    @property
    def price(self) -> IterationTime:
        """What it took, without its records: thousands of these are kept."""
        return IterationTime(self.seconds, self.split, self.order)


def run_alone(
    site: Deployment, plan: IterationPlan, order: Order, slowness: Slowness = even_pace, hosts: Hosts | None = None
) -> FinishedIteration:
    """One iteration by itself, on an event loop of its own."""
    env = simpy.Environment()
    run = IterationRun(site, env, Flows(env), plan, order, slowness, hosts)
    env.run(until=run.done)  # raises on a deadlock, where run() would end early
    return FinishedIteration(float(env.now), run.split(float(env.now)), run.order, run)


def run_among(
    site: Deployment, plan: IterationPlan, order: Order, others: tuple[FlowState, ...], hosts: Hosts | None = None
) -> AmongOthers:
    """One iteration on an event loop with nothing but some messages that are under way already."""
    env = simpy.Environment()
    flows = Flows(env)
    arrivals_seconds: list[float | None] = [None] * len(others)
    for index, state in enumerate(others):
        flows.resume(state).when_ended.append(partial(list.__setitem__, arrivals_seconds, index))
    run = IterationRun(site, env, flows, plan, order, even_pace, hosts)
    env.run(until=run.done)
    seconds = float(env.now)
    return AmongOthers(seconds, run.split(seconds), tuple(arrivals_seconds), flows.states())


def fastest_run(site: Deployment, plan: IterationPlan, hosts: Hosts | None = None) -> FinishedIteration:
    """The iteration in the order that suits it best; the textbook's where both are equal."""
    is_complete = hosts is None or hosts == site.complete_hosts
    if not is_complete or not site.costs.schedule(plan).has_textbook_order:
        return run_alone(site, plan, "arrival", hosts=hosts)
    textbook, arrival = run_alone(site, plan, "textbook"), run_alone(site, plan, "arrival")
    return arrival if arrival.seconds < textbook.seconds else textbook


class IterationTimes:
    """Prices iterations: each plan, on the same nodes, is run once by itself and then remembered.

    With jitter every executed iteration draws its own factors. Priced ahead, the first `NUM_SAMPLES` are, and later
    ones take the price of one of these by lot.
    """

    NUM_SAMPLES = 64

    def __init__(self, site: Deployment, seed: int, prices: IterationTimeCache | None = None) -> None:
        self.site = site
        self._seed = seed
        self._prices = prices or IterationTimeCache(site.network)
        self._last: tuple[IterationPlan, Hosts | None, IterationTime] | None = None
        self._samples: dict[tuple[IterationPlan, Where, int], IterationTime] = {}

    def price(self, plan: IterationPlan, hosts: Hosts | None = None) -> IterationTime:
        """The iteration that a plan makes when every operation takes its usual time."""
        if (last := self._last) and last[0] is plan and last[1] is hosts:  # as in most iterations
            return last[2]
        price = self._price(plan, hosts)
        self._last = plan, hosts, price
        return price

    def _price(self, plan: IterationPlan, hosts: Hosts | None) -> IterationTime:
        where = self._where(hosts)
        site = self.site if where else self.site.one_of_all or self.site
        return self._prices.iterations.get((plan, where), lambda: fastest_run(site, plan, where).price)

    def split(self, plan: IterationPlan, hosts: Hosts | None = None) -> IterationSplit:
        """How long such an iteration takes and where its time goes."""
        return self.price(plan, hosts).split

    def executed(self, plan: IterationPlan, execution: int, hosts: Hosts | None = None) -> IterationTime:
        """The iteration that is executed as the so-manieth of a run, by itself."""
        if not self.site.cluster.config.jitter:
            return self.price(plan, hosts)
        key = plan, self._where(hosts), self.sample_of(execution)
        if key not in self._samples:
            _, where, sample = key
            run = run_alone(self.site, plan, self._order(plan, where), self.slowness(sample), where)
            self._samples[key] = run.price
        return self._samples[key]

    def sample_of(self, execution: int) -> int:
        """Whose draws the so-manieth executed iteration has: its own, later on those of an early one, by lot."""
        if execution <= self.NUM_SAMPLES or not self.site.cluster.config.jitter:
            return execution
        return int(stream(self._seed, "jitter_sample", execution=execution).integers(1, self.NUM_SAMPLES + 1))

    def among(self, plan: IterationPlan, others: tuple[FlowState, ...], hosts: Hosts | None = None) -> AmongOthers:
        """The iteration beside other messages on the network. Checkpoints begin alike, so most are remembered."""
        where, one_of_all = self._where(hosts), self.site.one_of_all
        meets_none = one_of_all and not where and all(self.site.network.is_apart(state.path) for state in others)
        site = one_of_all if one_of_all and meets_none else self.site
        return self._prices.among.get(
            (plan, where, others), lambda: run_among(site, plan, self._order(plan, where), others, where)
        )

    def begin(
        self, plan: IterationPlan, env: simpy.Environment, flows: Flows, sample: int, hosts: Hosts | None = None
    ) -> IterationRun:
        """Begin the same iteration on an event loop with others, with the draws of the so-manieth."""
        where = self._where(hosts)
        return IterationRun(self.site, env, flows, plan, self._order(plan, where), self.slowness(sample), where)

    def _where(self, hosts: Hosts | None) -> Where:
        """The same nodes under one name."""
        return None if not hosts or hosts == self.site.complete_hosts else hosts

    def _order(self, plan: IterationPlan, where: Where) -> Order:
        """The order that an iteration is priced in; where the cluster is incomplete this needs no price."""
        return self.price(plan).order if where is None else "arrival"

    def slowness(self, execution: int) -> Slowness:
        """Lognormal factors of mean 1, a stream for each executed iteration and node."""
        sigma, cluster = self.site.cluster.config.jitter, self.site.cluster
        if not sigma:
            return even_pace
        streams: dict[int, np.random.Generator] = {}

        def draw(stage: int, replica: int) -> float:
            node = cluster.node(stage, replica)
            if node not in streams:
                streams[node] = stream(self._seed, "jitter", execution=execution, node=node)
            return math.exp(sigma * streams[node].standard_normal() - sigma**2 / 2)

        return draw
