"""What binds an iteration, and saves that do not help: said first, by how much, and with the field to change."""

import pandas as pd
import pytest

from sim.reporting.binding import binding_sentences, describe_binding, narrow_window
from sim.reporting.bottlenecks import REMEDIES, incomplete_saves, slow_saves, smaller_batches, what_binds
from sim.scenario.loading import parse_scenario
from sim.scenario.memory_check import too_little_memory
from sim.scenario.saves import strategies_that_save_on_nodes
from sim.simulation.run import build_site
from sim.workload.binding import binding

LINKS = "{same_region: {latency_ms: 0, bandwidth_mbit_per_s: 1e9}, storage: {latency_ms: 1, bandwidth_mbit_per_s: 1e6}}"
FAST = f"network: {LINKS}"
FAR = FAST.replace("latency_ms: 0", "latency_ms: 3000")
MEASURED = "measured: {forward_seconds: 1, backward_seconds: 2}"


def scenario_of(workload="num_microbatches: 64, max_in_flight: 14", network=FAST, cluster="device: a100"):
    sections = (f"workload: {{{workload}}}", network, f"cluster: {{{cluster}}}", "training: {learner: none}")
    return parse_scenario("\n".join(["name: x", *sections, "strategies: [none]"]))


CASES = {
    "compute": (scenario_of(), "only a faster cluster.device or workload.precision: bf16 would"),
    "bandwidth": (scenario_of(network="network: home_us"), "Change network.access.up_mbit_per_s (2"),
    "latency": (
        scenario_of("num_microbatches: 14, max_in_flight: 14", FAR),
        "Change network.same_region.latency_ms (3000 ms)",
    ),
    "bubble": (scenario_of("num_microbatches: 2"), "raise workload.num_microbatches (2) for 6 stages"),
    "window": (scenario_of(f"num_microbatches: 64, max_in_flight: 2, {MEASURED}"), "set workload.max_in_flight: "),
    "memory": (
        scenario_of(f"num_microbatches: 64, max_in_flight: 5, {MEASURED}", cluster="device: t4"),  # no more fit
        "recompute_activations: true",
    ),
}


@pytest.mark.parametrize("resource", CASES)
def test_each_limit_is_named_with_its_field(resource):
    scenario, remedy = CASES[resource]
    found = binding(build_site(scenario))
    assert found.resource == resource
    assert 0.0 < found.share <= 1.0
    assert found.without_seconds <= found.seconds
    (said,) = binding_sentences(scenario)
    assert said == describe_binding(found, scenario)
    assert said.startswith("Bound by ")
    assert remedy in said
    assert binding_sentences(scenario, only_limits=True) == ([] if resource == "compute" else [said])
    assert narrow_window(scenario) == ([said] if resource == "window" else [])


ROWS = "links: [[a, b, 1, 0.01], [b, c, 5000, 9], [a, c, 1, 10]], storage: {latency_ms: 1, bandwidth_mbit_per_s: 1e6}"
SLOW = "same_region: {latency_ms: 1, bandwidth_mbit_per_s: 20}"
QUICK = "same_region: {latency_ms: 1, bandwidth_mbit_per_s: 1e6}"


@pytest.mark.parametrize(
    ("network", "cluster", "field"),
    [
        (f"{QUICK}, {ROWS}", "device: a100", "network.links, or cluster.regions (a-b has 85.9 Mbit/s)"),
        (f"{QUICK}, {ROWS}", "device: a100, regions: [b, c]", "(b-c takes 5000 ms)"),
        (f"{SLOW}, {ROWS}", "device: a100, regions: [a, a, c, c]", "network.same_region.bandwidth_mbit_per_s"),
        (f"{SLOW}, {ROWS}", "device: a100, regions: [a]", "network.same_region.bandwidth_mbit_per_s"),
        (
            f"{QUICK}, {ROWS}, access: {{up_mbit_per_s: 1e4, down_mbit_per_s: 30}}",
            "device: a100, regions: [a, b]",
            "network.access.down_mbit_per_s (30 Mbit/s)",
        ),
        (
            f"{QUICK}, {ROWS}, access: {{up_mbit_per_s: 1e4, down_mbit_per_s: 1e4}}",
            "device: a100, regions: [a, b]",
            "network.links, or cluster.regions (a-b",
        ),
        (f"{QUICK}, {ROWS}, software_seconds_per_hop: 3", "device: a100, regions: [a]", "software_seconds_per_hop"),
    ],
)
def test_the_link_that_is_named_is_the_one_that_binds(network, cluster, field):
    """Of those that messages cross: neither the fastest kind, nor a row between regions without neighbours."""
    (said,) = binding_sentences(scenario_of(network=f"network: {{{network}}}", cluster=cluster))
    assert field in said


@pytest.mark.parametrize(("other", "first"), [(0.1, "Bound by the links."), (0.5, "Bound by churn")])
def test_what_binds_every_strategy_comes_first(other, first):
    """A bucket that is much of one strategy's time only says nothing of the others."""
    shares = {name: {**dict.fromkeys(REMEDIES, 0.0), "lost_work": share} for name, share in (("a", 0.7), ("b", other))}
    lines = what_binds(shares, ["Bound by the links."])
    assert len(lines) == 2
    assert lines[0].startswith(first)


def test_saves_are_made_faster_where_they_go():
    scenario = parse_scenario(
        "name: x\ncluster: {nodes_per_stage: 2}\n"
        "strategies: [none, checkpoint, neighbour_checkpoint, checkfree_hybrid, checkfree, two_tier_checkpoint, "
        "{kind: diloco, lost_stage: checkpoint}, {kind: diloco, lost_stage: neighbour_checkpoint, label: inside}]"
    )
    assert strategies_that_save_on_nodes(scenario) == {"neighbour_checkpoint", "inside"}
    for on_nodes, remedy in ((False, "network.storage"), (True, "faster links between nodes")):
        assert remedy in slow_saves("checkpoint", 311.0, 194.3, on_nodes)[0]
        assert remedy in incomplete_saves("checkpoint", 14, 0, on_nodes)[0]


@pytest.mark.parametrize("device", ["a100", "t4"])
def test_the_window_that_is_proposed_keeps_its_promise(device):
    """On a T4 it is the largest that fits."""
    scenario = scenario_of(f"num_microbatches: 64, max_in_flight: 2, {MEASURED}", cluster=f"device: {device}")
    found = binding(build_site(scenario))
    assert found.resource == "window"
    workload = scenario.workload.model_copy(update={"max_in_flight": found.window})
    wider = scenario.model_copy(update={"workload": workload})
    assert too_little_memory(wider) is None
    assert binding(build_site(wider)).seconds == found.without_seconds


def test_saves_that_slow_training_or_never_complete_are_named():
    assert slow_saves("checkpoint", 311.0, 194.3)[0].startswith(
        "checkpointing: saving makes an iteration 60 % longer (311"
    )
    assert slow_saves("checkpoint", 200.0, 194.3) == []
    assert "none of 14 uploads completed" in incomplete_saves("checkpoint", 14, 0)[0]
    assert "3 of 14 uploads completed" in incomplete_saves("checkpoint", 14, 3)[0]
    assert incomplete_saves("checkpoint", 14, 12) == incomplete_saves("checkpoint", 1, 0) == []


def test_smaller_batches_are_named_with_their_shares():
    runs = pd.DataFrame({"strategy": ["elastic", "elastic", "peer"], "batch_share": [0.7, 0.8, 1.0]})
    (said,) = smaller_batches(runs)
    assert "on average 75 % with elastic batch. As many iterations then learn from fewer tokens" in said
    assert smaller_batches(runs[2:]) == smaller_batches(runs[["strategy"]]) == []
