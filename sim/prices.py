"""What pricing has found, once for each process: iterations and transfers cost the same in every run of a scenario.

Prices are pure: they depend on the workload, the cluster's places and the network, on nothing else, and on no seed. So
a process keeps them from run to run (`price_list`), and one process can send what it found to others (`Prices`, which
can be pickled). Who learns prices computes the same bits as who finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sim.cluster import Cluster, ClusterConfig
from sim.costs import IterationPlan, WorkloadConfig
from sim.flows import FlowState
from sim.iteration import Order
from sim.ledger import IterationSplit
from sim.network import Network, NetworkConfig
from sim.site import Hosts

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
class Price:
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
States = tuple[tuple[int, int, int, float, float], ...]
"""How far messages have come: source, target, nodes side by side, and what is left: seconds of the latency, bytes."""


@dataclass(frozen=True)
class Prices:
    """Prices of one scenario as one process tells them to another: values that can be pickled."""

    iterations: Mapping[tuple[IterationPlan, Where], Price]
    among: Mapping[tuple[IterationPlan, Where, States], tuple[float, IterationSplit, tuple[float | None, ...], States]]
    transfer_seconds: Mapping[Messages, float]


class Memo(Generic[Key, Found]):
    """What has been found so far; of more than `most`, those that were asked for last."""

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

    def known(self) -> dict[Key, Found]:
        """All that is known."""
        return dict(self._known)

    def learn(self, found: Mapping[Key, Found]) -> None:
        """What was found elsewhere; what is known already stays."""
        for key, value in found.items():
            self.get(key, lambda value=value: value)  # type: ignore[misc]


class PriceList:
    """Prices on one network: each plan, and each set of messages, is worked out once and then remembered."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.iterations: Memo[tuple[IterationPlan, Where], Price] = Memo()
        self.among: Memo[tuple[IterationPlan, Where, tuple[FlowState, ...]], AmongOthers] = Memo()
        self.transfer_seconds: Memo[Messages, float] = Memo()

    def told(self) -> Prices:
        """All that is known, as values."""
        among = {
            (plan, hosts, self._as_values(others)): (
                found.seconds,
                found.split,
                found.arrivals_seconds,
                self._as_values(found.left),
            )
            for (plan, hosts, others), found in self.among.known().items()
        }
        return Prices(self.iterations.known(), among, self.transfer_seconds.known())

    def learn(self, prices: Prices) -> None:
        """Take over what was found elsewhere for an equal workload, cluster and network."""
        among = {
            (plan, hosts, self._as_states(others)): AmongOthers(seconds, split, arrivals, self._as_states(left))
            for (plan, hosts, others), (seconds, split, arrivals, left) in prices.among.items()
        }
        self.iterations.learn(prices.iterations)
        self.among.learn(among)
        self.transfer_seconds.learn(prices.transfer_seconds)

    def _as_values(self, states: tuple[FlowState, ...]) -> States:
        return tuple((*self.network.ends(state.path), state.latency_seconds, state.num_bytes) for state in states)

    def _as_states(self, values: States) -> tuple[FlowState, ...]:
        return tuple(FlowState(self.network.path(*ends), seconds, num_bytes) for *ends, seconds, num_bytes in values)


_LISTS: Memo[tuple[WorkloadConfig, ClusterConfig, NetworkConfig], PriceList] = Memo(MOST_LISTS)


def price_list(workload: WorkloadConfig, cluster: Cluster, network: NetworkConfig) -> PriceList:
    """This process's prices for a workload on a cluster and a network."""
    where = cluster.config.model_copy(update=WITHOUT_EFFECT)
    return _LISTS.get((workload, where, network), lambda: PriceList(Network(network, cluster.regions_of_nodes)))
