"""The sliders of the page to explore: those a scenario has, and the scenario at their values."""

import math
from pathlib import Path

import pytest

from sim.exploring.controls import controls_of, scenario_at
from sim.scenario.axes import ScenarioTemplate
from support.sweeps import ALONE, write_scenario

QUICKSTART = Path(__file__).parents[3] / "scenarios" / "quickstart.yaml"
RATE, BANDWIDTH = "failures.rate_per_hour", "network.bandwidth_factor"
INTERVAL = "strategies[checkpoint].interval_iterations"


@pytest.fixture(scope="module")
def template():
    return ScenarioTemplate(QUICKSTART)


def fields(text, folder):
    return [one.field for one in controls_of(ScenarioTemplate(write_scenario(folder, text)))]


def test_every_slider_holds_the_own_value_and_allowed_ones(template):
    controls = controls_of(template)
    assert [one.field for one in controls] == [RATE, BANDWIDTH, INTERVAL]
    for one in controls:
        assert one.axis.own in one.axis.values
        assert sorted(set(one.axis.values)) == list(one.axis.values)
        for value in (one.axis.values[0], one.axis.values[-1]):
            scenario_at(template, controls, {one.field: value})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{kind: exponential, rate_per_hour: 0.3,", "{kind: exponential, mean_uptime_hours: 5,",
         ["failures.mean_uptime_hours", BANDWIDTH, INTERVAL]),
        ("kind: exponential, rate_per_hour: 0.3, immune_stages: [0]", "kind: never", [BANDWIDTH, INTERVAL]),
        ("interval_iterations: 40", "interval: young", [RATE, BANDWIDTH]),
        ("{device: a100}", "{device: a100, provisioning_seconds: 60}",
         [RATE, BANDWIDTH, INTERVAL, "cluster.num_spares"]),
        ("{device: a100}", "{device: a100, num_spares: 20}", [RATE, BANDWIDTH, INTERVAL, "cluster.num_spares"]),
    ],
)  # fmt: skip
def test_a_scenario_has_the_sliders_of_its_fields(old, new, expected, tmp_path):
    text = ALONE.replace(old, new)
    assert text != ALONE
    assert fields(text, tmp_path) == expected


def test_the_scenario_has_the_values_of_the_sliders(template):
    controls = controls_of(template)
    found = scenario_at(template, controls, {RATE: 0.02, BANDWIDTH: 2, INTERVAL: 7})
    assert (found.failures.rate_per_hour, found.network.bandwidth_factor) == (0.02, 2)
    assert found.strategies[1].interval_iterations == 7
    assert scenario_at(template, controls, {}) == template.scenario


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({RATE: 2}, "chance of a failure within an hour: found 2; allowed"),
        ({RATE: "x"}, "chance of a failure within an hour: give a number"),
        ({RATE: None}, "give a number"),
        ({RATE: True}, "give a number"),
        ({RATE: math.nan}, "give a number"),
        ({INTERVAL: 2.5}, "iterations between saves: found 2.5"),
        ({INTERVAL: -1, BANDWIDTH: 0}, "bandwidth, as a multiple of the scenario's: found 0"),
        ({"training.data.files": 1}, "training.data.files: not a slider of this page"),
    ],
)
def test_what_is_not_allowed_is_refused_in_words(values, message, template):
    with pytest.raises(ValueError, match=r"\w") as refused:
        scenario_at(template, controls_of(template), values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
