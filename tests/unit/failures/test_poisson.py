"""All nodes' failures drawn as one process: in law, those of as many exponential nodes. Seeds are fixed."""

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.rng import stream
from sim.failures import FailureProcess
from sim.simulation.failure_injection import mtbf_seconds
from support.builders import a_scenario, no_training, run
from support.processes import FLEET, SPARES, lost, process, uptimes

HOUR = 3600.0


def poisson(members=FLEET, **options: object) -> FailureProcess:
    return process("poisson", **(options or {"mean_uptime_hours": 10.0})).for_members(members)


def test_the_mean_is_that_of_a_node_over_their_number():
    assert poisson().mean_uptime_seconds == 10.0 * HOUR / 20
    assert poisson(FLEET + SPARES).mean_uptime_seconds == 10.0 * HOUR / 22
    assert poisson(rate_per_hour=0.1).mean_uptime_seconds == pytest.approx(HOUR / -math.log(0.9) / 20)
    assert poisson().describe() == "each node fails every 10 h on average"
    for some in (poisson(rate_per_hour=0.0, mean_uptime_hours=None), poisson([])):  # nothing fails
        assert list(islice(some.uptimes(np.random.default_rng(0), 1), 3)) == []
    cluster = Cluster(ClusterConfig(nodes_per_stage=4, num_spares=3), 4, ("A",))
    assert mtbf_seconds(cluster, process("poisson", mean_uptime_hours=10.0), 1.0) == pytest.approx(10.0 * HOUR / 20)
    spared = process("poisson", mean_uptime_hours=10.0, immune_stages=(0,))
    assert mtbf_seconds(cluster, spared, 1.0) == pytest.approx(10.0 * HOUR / 16)


def test_times_between_failures_are_exponential_at_any_rate():
    seconds = uptimes(poisson(), 20_000, domain="cluster")
    assert stats.kstest(seconds, stats.expon(scale=10.0 * HOUR / 20).cdf).pvalue > 0.01
    assert uptimes(poisson(), 1000) == pytest.approx(uptimes(poisson(mean_uptime_hours=2.0), 1000) * 5.0, rel=1e-12)


@pytest.mark.parametrize("num_there", [20, 12])
def test_present_nodes_fail_equally_often_whatever_is_away(num_there):
    some, rng, num_strikes = poisson(), stream(0, "victims", process="poisson", domain="cluster"), 20_000
    struck = Counter(number for _ in range(num_strikes) for number in some.lost_nodes(rng, FLEET[:num_there], 0))
    assert set(struck) == {member.number for member in FLEET[:num_there]}
    assert stats.chisquare([struck[member.number] for member in FLEET[:num_there]]).pvalue > 0.01
    assert stats.binomtest(struck.total(), num_strikes, num_there / 20).pvalue > 0.01


def test_one_node_fails_at_a_time_also_of_a_grown_cluster():
    assert len(lost(poisson(FLEET[:3]), FLEET)) == 1


def losses(kind: str, seed: int) -> int:
    """Nodes lost in two days by a fleet of 12 nodes and spares that are replaced at once."""
    options = {"scope": "node"} if kind == "exponential" else {}
    failures = {"kind": kind, "mean_uptime_hours": 20.0, "immune_stages": (0,), **options}
    cluster = {"nodes_per_stage": 2, "num_spares": 2}
    scenario = a_scenario(steps=8229, failures=failures, cluster=cluster)
    return run(scenario, seed=seed, training=no_training(scenario)).num_nodes_lost


def test_a_fleet_loses_as_many_as_with_a_process_for_each_node():
    """10 mortal nodes, 48 h, one loss in 20 node-hours: 24 on average; 60 fleets each."""
    one_by_one, pooled = ([losses(kind, seed) for seed in range(60)] for kind in ("exponential", "poisson"))
    assert stats.ttest_ind(one_by_one, pooled).pvalue > 0.01
    for counts in (one_by_one, pooled):
        assert np.mean(counts) == pytest.approx(24.0, abs=2.6 * math.sqrt(24.0 / 60))
        assert 0.6 < np.var(counts) / 24.0 < 1.7
