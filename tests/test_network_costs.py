"""Seconds of messages and of compute, against formulas and the figures of the CheckFree paper."""

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
    """The paper's 500M model in 6 stages, microbatches of 8 × 1024 tokens, on a T4."""
    scenario = Scenario.model_validate({"name": "paper", "workload": workload, "strategies": ("none",)})
    return Costs(scenario.workload, scenario.cluster.device)


def test_a_stage_has_the_papers_parameters():
    costs = paper()
    assert [costs.stage_parameters(stage) for stage in range(7)] == [65_537_024, *[67_117_056] * 6]
    assert sum(costs.stage_parameters(stage) for stage in range(7)) == pytest.approx(468e6, rel=0.001)
    assert costs.weight_bytes(1) == pytest.approx(256 * MIB, rel=0.001)


def test_a_microbatch_costs_the_papers_flops():
    costs = paper()
    assert costs.forward_flops(1) == pytest.approx(1.237e12, rel=5e-4)
    assert costs.forward_flops(0) == pytest.approx(0.537e12, rel=5e-4)
    whole_model = sum(3 * costs.forward_flops(stage) for stage in range(7)) / costs.tokens_per_microbatch
    assert whole_model == pytest.approx(2.9145e9, rel=2e-5)


def test_an_activation_has_the_papers_bytes():
    assert paper().activation_bytes == 33_554_432
    assert paper(precision="bf16").activation_bytes == 33_554_432 / 2


def test_flops_agree_with_megatrons_formula():
    costs = paper()
    model, s = costs.workload.model, costs.workload.sequence_length
    h, f, layers, vocabulary = model.dim, model.hidden_dim, model.num_layers, model.vocabulary_size
    megatron = 12 * layers * h**2 * (1 + 1 + s / h + 1.5 * f / h + vocabulary / (2 * layers * h))
    ours = sum(3 * costs.forward_flops(stage) for stage in range(7)) / costs.tokens_per_microbatch
    assert ours == pytest.approx(megatron, rel=1e-12)


@pytest.mark.parametrize(("precision", "bytes_per_parameter"), [("fp32", 12), ("bf16", 14)])
def test_a_checkpoint_holds_weights_and_both_moments(precision, bytes_per_parameter):
    costs = paper(precision=precision)
    assert costs.checkpoint_bytes(1) == bytes_per_parameter * 67_117_056


def test_seconds_are_flops_over_reached_speed_unless_measured():
    t4 = presets("devices")["t4"]
    reached = t4["fp32_tflops"] * 1e12 * t4["utilisation"]
    assert paper().forward_seconds(1) == pytest.approx(1.237e12 / reached, rel=5e-4)
    assert paper().backward_seconds(1) == 2 * paper().forward_seconds(1)
    measured = paper(measured={"forward_seconds": 0.2, "backward_seconds": 0.5, "head_seconds": 0.3})
    assert (measured.forward_seconds(3), measured.backward_seconds(3)) == (0.2, 0.5)
    assert measured.forward_seconds(0) + measured.backward_seconds(0) == pytest.approx(0.3)


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
