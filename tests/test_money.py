"""What a run costs: hours of nodes that are there, at the device's price."""

from itertools import pairwise

import pytest
from conftest import a_scenario, run, scripted
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster import ClusterConfig
from sim.money import node_hours, num_nodes, usd_per_node_hour
from sim.report import prices_in_words
from sim.results import summarise


def test_a_cluster_without_losses_is_paid_for_all_the_time():
    cluster = ClusterConfig(nodes_per_stage=2, num_spares=3, provisioning_seconds=600.0)
    assert num_nodes(cluster, 6) == 17
    assert node_hours(cluster, 6, 7200.0, ()) == 34.0


def test_a_lost_node_is_not_paid_until_the_one_ordered_is_there():
    cluster = ClusterConfig(nodes_per_stage=2, provisioning_seconds=600.0)
    assert node_hours(cluster, 6, 7200.0, [1000.0]) == 28.0 - 2 * 600 / 3600
    assert node_hours(cluster, 6, 7200.0, [7000.0]) == 28.0 - 2 * 200 / 3600
    assert node_hours(cluster, 6, 7200.0, [7200.0]) == 28.0


@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.floats(0.0, 1000.0),
    st.floats(1.0, 1e5),
    st.lists(st.floats(0.0, 1.0), max_size=20),
)
def test_node_hours_are_the_time_integral_of_the_nodes_there(replicas, spares, provisioning, wall_clock, shares):
    cluster = ClusterConfig(nodes_per_stage=replicas, num_spares=spares, provisioning_seconds=provisioning)
    losses = sorted(share * wall_clock for share in shares)
    instants = sorted({0.0, wall_clock, *losses, *(min(lost + provisioning, wall_clock) for lost in losses)})
    seconds = 0.0
    for start, end in pairwise(instants):
        middle = (start + end) / 2
        missing = replicas * sum(lost <= middle < lost + provisioning for lost in losses)
        seconds += (num_nodes(cluster, 4) - missing) * (end - start)
    assert node_hours(cluster, 4, wall_clock, losses) == pytest.approx(seconds / 3600, abs=1e-6)


@pytest.mark.parametrize(
    ("device", "price", "usd"), [("l4", "spot", 0.25), ("l4", "on_demand", 0.75), ("rtx5090", "spot", None)]
)
def test_the_price_is_the_chosen_one_of_the_device(device, price, usd):
    assert usd_per_node_hour(ClusterConfig(device=device, price=price)) == usd


CLUSTER = {"provisioning_seconds": 100.0, "detection_seconds": 10.0, "startup_seconds": 5.0, "num_spares": 1}


@pytest.mark.parametrize(("kind", "missing_seconds"), [("none", 0.0), ("restart", 100.0)])
def test_a_run_pays_for_the_nodes_it_has(kind, missing_seconds):
    scenario = scripted(a_scenario(({"kind": kind},), cluster=CLUSTER), {2: (50.0,)})
    summary = summarise(scenario, run(scenario))
    seconds = 6 * summary["wall_clock_seconds"] - missing_seconds
    assert summary["num_failures"] == 1
    assert summary["node_hours"] == pytest.approx(seconds / 3600)
    assert summary["cost_usd"] == pytest.approx(0.25 * seconds / 3600)


def test_a_device_without_price_costs_nobody_knows_what():
    scenario = a_scenario(cluster={"device": "h100_pcie"})
    summary = summarise(scenario, run(scenario))
    assert summary["cost_usd"] is None
    assert summary["node_hours"] > 0
    assert prices_in_words(scenario.cluster, 4) == "Money: no spot price of h100_pcie is known."


def test_the_price_is_told_with_its_month():
    scenario = a_scenario(cluster={"num_spares": 2, "price": "on_demand"})
    expected = "Money: 7 nodes × $0.75/h on-demand price of l4 (as of 2026-03); storage and traffic are not priced."
    assert prices_in_words(scenario.cluster, 4) == expected
