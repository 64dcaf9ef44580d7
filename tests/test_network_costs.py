"""Seconds of messages, against formulas and the figures of the CheckFree paper."""

import pytest
from conftest import INSTANT, a_scenario, a_strategy
from hypothesis import given
from hypothesis import strategies as st

from sim.costs import Costs, WorkloadConfig
from sim.network import BYTES_PER_GIB, LinkConfig, Network, NetworkConfig
from sim.presets import presets
from sim.scenario import Scenario
from sim.simulation import build_world

MIB = 2**20


def paper(**workload: object) -> Costs:
    """The paper's 500M model in 6 stages, microbatches of 8 × 1024 tokens."""
    scenario = Scenario.model_validate({"name": "paper", "workload": workload, "strategies": ("none",)})
    return Costs(scenario.workload, scenario.cluster.device)


@given(st.floats(0.0, 1e4), st.floats(1e-3, 1e6), st.floats(0.0, 1e12))
def test_a_message_takes_latency_plus_bytes_over_bandwidth(latency_ms, mbit_per_s, num_bytes):
    link = LinkConfig(latency_ms=latency_ms, bandwidth_mbit_per_s=mbit_per_s)
    expected = latency_ms / 1000 + num_bytes * 8 / (mbit_per_s * 1e6)
    network = Network(NetworkConfig(same_region=link, storage=link))
    assert network.seconds("here", "here", num_bytes) == pytest.approx(expected)
    assert network.storage_seconds(num_bytes) == pytest.approx(expected)


def test_links_go_both_ways_and_unknown_ones_are_errors():
    network = Network(NetworkConfig(same_region=INSTANT, storage=INSTANT, links=(("a", "b", 100.0, 0.5),)))
    assert network.seconds("a", "b", BYTES_PER_GIB) == network.seconds("b", "a", BYTES_PER_GIB) == 2.1
    with pytest.raises(KeyError):
        network.seconds("a", "c", 1.0)


@given(st.integers(2, 9), st.floats(0.0, 1e3), st.floats(1.0, 1e5), st.floats(1.0, 1e12))
def test_a_ring_all_reduce_meets_its_formula(n, latency_ms, mbit_per_s, num_bytes):
    link = LinkConfig(latency_ms=latency_ms, bandwidth_mbit_per_s=mbit_per_s)
    network = Network(NetworkConfig(same_region=link, storage=link))
    expected = 2 * (n - 1) / n * num_bytes * 8 / (mbit_per_s * 1e6) + 2 * (n - 1) * latency_ms / 1e3
    assert network.all_reduce_seconds(("here",) * n, num_bytes) == pytest.approx(expected)


def test_the_slowest_link_paces_the_ring_and_a_single_node_needs_none():
    links = (("a", "b", 10.0, 1.0), ("b", "c", 500.0, 2.0), ("a", "c", 20.0, 0.5))
    network = Network(NetworkConfig(same_region=INSTANT, storage=INSTANT, links=links))
    assert network.all_reduce_seconds(("a", "b", "c"), BYTES_PER_GIB) == pytest.approx(4 / 3 / 0.5 + 4 * 0.5)
    assert network.all_reduce_seconds(("a",), BYTES_PER_GIB) == 0.0


def test_the_papers_network_gives_the_papers_figures():
    network = Network(NetworkConfig.model_validate(presets("networks")["gcp_paper"]))
    assert network.seconds("NL", "NL", 0.5 * BYTES_PER_GIB) == pytest.approx(0.01 + 1.0)
    assert network.seconds("Australia", "Belgium", 256 * MIB) == pytest.approx(25.57, abs=0.01)
    assert network.seconds("Australia", "Belgium", paper().weight_bytes(0)) == pytest.approx(24.97, abs=0.01)
    regions = network.config.regions
    assert all(network.seconds(a, b, 1.0) > 0.0 for a in regions for b in regions)


def test_a_shadow_forward_costs_a_third_more_compute_at_twice_the_backward():
    for preset, share in (("paper_text", 1.0), ("paper_table2", 2.0)):
        scenario = a_scenario(({"kind": "redundant", "preset": preset, "microbatch_size_factor": share / 2},))
        world = build_world(scenario, 0)
        plain = world.pipeline.split(world.plain_plan())
        shadowed = world.pipeline.split(a_strategy(scenario.strategies[0]).price(world.plain_plan()))
        assert shadowed.productive_seconds == pytest.approx(share * plain.productive_seconds)
        compute = shadowed.productive_seconds + shadowed.redundant_seconds
        assert compute / shadowed.productive_seconds == pytest.approx(4 / 3)


def test_nodes_are_dealt_to_regions_in_turn():
    links = tuple((a, b, 1.0, 1.0) for a, b in ("ab", "bc", "ac"))
    network = {"same_region": INSTANT, "storage": INSTANT, "links": links}
    cluster = build_world(a_scenario(network=network, cluster={"nodes_per_stage": 2}), 0).cluster
    assert [cluster.regions_of(stage) for stage in range(5)] == [*zip("acbac", "bacba", strict=True)]


def test_a_workload_needs_two_stages():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        WorkloadConfig(num_stages=1)
