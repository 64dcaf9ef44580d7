"""What a run costs: hours of active nodes at the device's price."""

import pytest

from sim.cluster.topology import ClusterConfig, num_nodes, usd_per_node_hour
from sim.reporting.notes import describe_prices
from sim.results.summary import summarise
from support.builders import a_scenario, run, scripted


@pytest.mark.parametrize(
    ("device", "price", "usd"), [("l4", "spot", 0.25), ("l4", "on_demand", 0.75), ("rtx5090", "spot", None)]
)
def test_the_price_is_the_chosen_one_of_the_device(device, price, usd):
    assert usd_per_node_hour(ClusterConfig(device=device, price=price)) == usd


CLUSTER = {"provisioning_seconds": 100.0, "detection_seconds": 10.0, "startup_seconds": 5.0, "num_spares": 1}


@pytest.mark.parametrize(("kind", "missing_seconds"), [("none", 0.0), ("restart", 100.0)])
def test_a_run_pays_for_the_nodes_it_has_to_its_target_and_end(kind, missing_seconds):
    scenario = scripted(a_scenario(({"kind": kind},), cluster=CLUSTER), {2: (50.0,)})
    training = scenario.training.model_copy(update={"target_validation_loss": 4.8})
    scenario = scenario.model_copy(update={"training": training})
    found = run(scenario)
    summary = summarise(scenario, found)
    seconds = 6 * summary["wall_clock_seconds"] - missing_seconds
    assert summary["num_failures"] == 1
    assert summary["node_hours"] == pytest.approx(seconds / 3600)
    assert summary["cost_usd"] == pytest.approx(0.25 * seconds / 3600)
    reached_seconds = summary["target_reached_seconds"]
    assert 150.0 < reached_seconds < found.wall_clock_seconds
    assert summary["target_reached_usd"] == pytest.approx(0.25 * (6 * reached_seconds - missing_seconds) / 3600)
    assert found.node_hours_until(60.0) * 3600 == pytest.approx(6 * 60.0 - min(missing_seconds, 10.0))
    out_of_reach = training.model_copy(update={"target_validation_loss": 0.1})
    missed = scenario.model_copy(update={"training": out_of_reach})
    assert summarise(missed, run(missed))["target_reached_usd"] is None
    unpriced = scenario.cluster.device.model_copy(update={"spot_usd_per_hour": None})
    free = scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update={"device": unpriced})})
    assert summarise(free, found)["target_reached_usd"] is None


def test_prices_are_described_with_their_month_where_known():
    scenario = a_scenario(cluster={"device": "h100_pcie"})
    summary = summarise(scenario, run(scenario))
    assert summary["cost_usd"] is None
    assert summary["node_hours"] > 0
    assert describe_prices(scenario.cluster) == "Money: no spot price of h100_pcie is known."
    scenario = a_scenario(cluster={"num_spares": 2, "price": "on_demand"})
    assert num_nodes(scenario.cluster, 4) == 7
    expected = (
        "Money: $0.75 for each hour of an active node, idle spares included, the on-demand price of l4 (as of "
        "2026-03); storage and traffic are not priced."
    )
    assert describe_prices(scenario.cluster) == expected
