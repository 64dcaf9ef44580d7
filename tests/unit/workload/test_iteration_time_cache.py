"""Prices once for each process: the same runs cold and warm, never another scenario's."""

from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.topology import ClusterConfig
from sim.core.memo import Memo
from sim.simulation import failure_injection
from sim.simulation.run import build_site, build_world
from sim.strategies import STRATEGIES
from sim.workload import iteration_time
from sim.workload.iteration_time import MAX_CACHES, WITHOUT_EFFECT, cache_of
from support.builders import a_link, a_scenario, run
from support.examples import examples

STRATEGIES_TO_RUN = (
    {"kind": "checkpoint", "interval_iterations": 3, "blocking_share": 0.2},
    {"kind": "checkpoint", "interval": "young", "label": "young"},
    {"kind": "redundant"},
    {"kind": "checkfree_plus"},
)
CHURN = {"kind": "exponential", "scope": "node", "mean_uptime_hours": 0.5}


def a_network(hop_seconds: float = 0.2, upload_bytes_per_second: float = 200.0) -> dict:
    """Over which activations take a while, and checkpoints travel beside several iterations."""
    return {"same_region": a_link(hop_seconds), "storage": a_link(0.5, upload_bytes_per_second)}


def a_churning_scenario(**options):
    cluster = {"detection_seconds": 10.0, "startup_seconds": 5.0, "nodes_per_stage": 2, **options.pop("cluster", {})}
    workload = {"sequences_per_microbatch": 2, "num_microbatches": 2, "steps": 30, **options}
    failures = workload.pop("failures", CHURN)
    network = workload.pop("network", a_network())
    return a_scenario(
        STRATEGIES_TO_RUN, cluster=cluster, network=network, failures=failures, fallback="restart", **workload
    )


@contextmanager
def empty_caches():
    with (
        patch.object(iteration_time, "_CACHES", Memo(MAX_CACHES)),
        patch.object(failure_injection, "_MEANS_SECONDS", Memo()),
    ):
        yield


@pytest.fixture(autouse=True)
def _fresh_process():
    with empty_caches():
        yield


def as_in_a_fresh_process(ask):
    with empty_caches():
        return ask()


@pytest.mark.parametrize("index", range(len(STRATEGIES_TO_RUN)))
@pytest.mark.parametrize("failures", [CHURN, {"kind": "bulk", "mean_uptime_hours": 0.5}])
def test_runs_are_equal_cold_and_warm(index, failures):
    scenario = a_churning_scenario(failures=failures)
    cold = [as_in_a_fresh_process(lambda seed=seed: run(scenario, index, seed)) for seed in range(3)]
    assert [run(scenario, index, seed) for seed in range(3)] == cold  # the later ones warm
    assert [run(scenario, index, seed) for seed in range(3)] == cold
    assert sum(one.num_nodes_lost for one in cold)


def test_later_runs_compute_no_times_with_messages_or_without():
    scenario = a_churning_scenario()
    cold = [run(scenario, index) for index in range(len(STRATEGIES_TO_RUN))]
    refuses = AssertionError("computed again")
    with (
        patch.object(iteration_time, "fastest_time", side_effect=refuses),
        patch.object(iteration_time, "time_among", side_effect=refuses),
    ):
        assert [run(scenario, index) for index in range(len(STRATEGIES_TO_RUN))] == cold


CHANGED = {
    "device": "a100",
    "price": "on_demand",
    "nodes_per_stage": 3,
    "embedding_on": "own_node",
    "stage_state": "sharded",
    "regions": ("a",),
    "placement": "stage_per_region",
    "stragglers": ({"stage": 2, "slowdown": 2.0},),
    "jitter": 0.1,
    "joining": "beside",
    "num_spares": 2,
    "detection_seconds": 1.0,
    "provisioning_seconds": 1.0,
    "provisioning_sigma": 1.0,
    "startup_seconds": 1.0,
    "regroup_seconds": 1.0,
}


def the_list(scenario):
    return cache_of(scenario.workload, build_site(scenario).cluster, scenario.network)


def plain_price(scenario):
    world = build_world(scenario, 0)
    return world.iteration_times.alone(world.plain_plan())


@pytest.mark.parametrize("field", CHANGED)
def test_clusters_alike_for_iterations_share_times(field):
    network = {**a_network(), "links": (("a", "b", 300.0, 1.0),)}
    both = {"network": network, "loss_at": "last_stage"}
    first = a_scenario(cluster={"nodes_per_stage": 2}, **both)
    second = a_scenario(cluster={"nodes_per_stage": 2, field: CHANGED[field]}, **both)
    assert set(CHANGED) == set(ClusterConfig.model_fields)
    assert first.cluster != second.cluster
    price = plain_price(first)
    assert (the_list(first) is the_list(second)) == (field in WITHOUT_EFFECT)
    assert plain_price(second) == as_in_a_fresh_process(lambda: plain_price(second))
    assert plain_price(second) == price or field not in WITHOUT_EFFECT


@pytest.mark.parametrize(
    "changed",
    [
        {"num_microbatches": 3},
        {"num_stages": 5},
        {"schedule": "gpipe"},
        {"max_in_flight": 2},
        {"pause_seconds": 1.0},
        {"optimizer_seconds": 1.0},
        {"loss_at": "last_stage"},
        {"gradient_exchange": "all_to_all"},
        {"overlap_gradient_exchange": False},
        {"network": a_network(hop_seconds=0.3)},
        {"network": a_network(upload_bytes_per_second=100.0)},
        {"network": {**a_network(), "sharing": "none"}},
        {"network": {**a_network(), "software_seconds_per_hop": 0.1}},
    ],
    ids=str,
)
def test_a_changed_workload_or_network_has_its_own_times(changed):
    first, second = a_churning_scenario(), a_churning_scenario(**changed)
    runs = [as_in_a_fresh_process(lambda index=index: run(second, index)) for index in (0, 2)]
    run(first, 0)
    run(first, 2)
    assert the_list(first) is not the_list(second)
    assert [run(second, 0), run(second, 2)] == runs


options = st.fixed_dictionaries(
    {
        "num_microbatches": st.integers(1, 4).map(lambda half: 2 * half),
        "schedule": st.sampled_from(["gpipe", "1f1b", "fifo"]),
        "pause_seconds": st.sampled_from([0.0, 1.5]),
        "network": st.builds(a_network, st.sampled_from([0.0, 0.2, 2.0])),
        "cluster": st.fixed_dictionaries({"nodes_per_stage": st.integers(1, 3)}),
    }
)


@settings(max_examples=examples(6, 15))
@given(st.lists(options, min_size=2, max_size=3), st.sampled_from(["none", "redundant", "checkfree_plus"]))
def test_cached_times_equal_those_of_a_fresh_process(history, kind):
    strategy = STRATEGIES[kind](STRATEGIES[kind].Config(), 4)

    def price(scenario):
        world = build_world(scenario, 0)
        return world.iteration_times.alone(strategy.adapt_plan(world.plain_plan()))

    for scenario in [a_scenario(({"kind": "none"},), **options) for options in history]:
        assert price(scenario) == as_in_a_fresh_process(lambda scenario=scenario: price(scenario))
