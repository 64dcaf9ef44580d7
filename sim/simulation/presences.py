"""The churn of a scenario as a table: when which node was there, as a trace has it. Nothing is trained or executed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import simpy

from sim.cluster.membership import Membership, Node
from sim.core.rng import stream
from sim.core.units import SECONDS_PER_HOUR
from sim.failures import process_class
from sim.scenario.scenario import Scenario
from sim.simulation.failure_injection import FailureInjector, MembershipObserver
from sim.simulation.run import build_site


class RecordedMembership(Membership):
    """A membership that keeps when each node was there."""

    def __init__(self, *parts: object) -> None:
        self.since: dict[int, float] = {}
        self.presences: list[tuple[int, str, float, float | None]] = []
        super().__init__(*parts)  # type: ignore[arg-type]
        self.since.update(dict.fromkeys(self.nodes, 0.0))

    def arrive(self, now_seconds: float, region: str | None = None, number: int | None = None) -> Node:
        """Add a node."""
        node = super().arrive(now_seconds, region, number)
        self.since[node.number] = now_seconds
        return node

    def lose(self, numbers: Iterable[int], now_seconds: float) -> list[Node]:
        """Remove nodes."""
        lost = super().lose(numbers, now_seconds)
        self.presences += [(node.number, node.region, self.since.pop(node.number), now_seconds) for node in lost]
        return lost


def presences(scenario: Scenario, hours: float, failure_seed: int = 0) -> pd.DataFrame:
    """A table node, region, start, end of the nodes of a scenario, in simulated seconds; no end: still there.

    Written with `to_csv(path, index=False)`, it is a trace that `kind: trace` replays and `churnlab fit` reads. The
    churn is that of runs under the same failure seed with any strategy. ValueError for processes that count
    training iterations.
    """
    failures = process_class(scenario.failures.kind)(scenario.failures)
    if any(part.unit == "iterations" for _, part in failures.parts):
        raise ValueError(f"failures of kind '{scenario.failures.kind}' come by iterations of the training, not by time")
    env, cluster = simpy.Environment(), build_site(scenario).cluster
    places = stream(failure_seed, "places")
    membership = RecordedMembership(cluster, failures.num_initial_nodes, places, failures.initial_regions)
    FailureInjector(env, membership, failures, failure_seed, MembershipObserver())
    env.run(until=hours * SECONDS_PER_HOUR)
    still = [(number, membership.nodes[number].region, since, None) for number, since in membership.since.items()]
    rows: Sequence[tuple[int, str, float, float | None]] = sorted(
        [*membership.presences, *still], key=lambda row: row[2]
    )
    return pd.DataFrame(rows, columns=["node", "region", "start", "end"])
