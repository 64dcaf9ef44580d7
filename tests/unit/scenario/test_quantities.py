"""Values with a unit are the same as their number, wherever a field can be given."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.scenario.axes import ScenarioTemplate
from sim.scenario.document import ScenarioError
from sim.scenario.loading import parse_scenario
from sim.scenario.quantities import FIELDS, example_for, number_in_unit, with_plain_numbers, with_units_allowed
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import load_points

TEXT = "name: a\nstrategies: [none]\ntraining: {learner: none}\n"


@pytest.mark.parametrize(
    ("field", "text", "number"),
    [
        ("detection_seconds", "2 min", 120.0),
        ("detection_seconds", "2min", 120.0),
        ("detection_seconds", "0.5 h", 1800.0),
        ("detection_seconds", "20 ms", 0.02),
        ("mean_uptime_hours", "2 d", 48.0),
        ("mean_uptime_hours", "90 min", 1.5),
        ("latency_ms", "20 us", 0.02),
        ("latency_ms", "1.5 s", 1500.0),
        ("bandwidth_mbit_per_s", "1 Gbit/s", 1000.0),
        ("bandwidth_mbit_per_s", "1 GiB/s", 8589.934592),
        ("bandwidth_mbit_per_s", "10 MB/s", 80.0),
        ("local_gib_per_s", "1 GiB/s", 1.0),
        ("memory_gib", "24 GiB", 24.0),
        ("memory_gib", "2 TiB", 2048.0),
        ("rate_per_hour", "10 %", 0.1),
        ("rate_per_hour", "10 %/h", 0.1),
        ("rate_per_day", "10 %/day", 0.1),
        ("rate_per_day", "0.1 per day", 0.1),
        ("rate_per_hour", "10 %/day", -math.expm1(math.log(0.9) / 24)),
        ("rate_per_day", "10 %/h", 1 - 0.9**24),
    ],
)
def test_values_with_a_unit_are_numbers_in_the_unit_of_the_field(field, text, number):
    assert number_in_unit(text, field) == pytest.approx(number, rel=1e-15)


@given(st.floats(0, 1e6), st.sampled_from([(end, unit) for end, (units, _, _) in FIELDS.items() for unit in units]))
def test_a_value_in_the_own_unit_of_a_field_is_its_number(value, end_and_unit):
    end, unit = end_and_unit
    units, own, _ = FIELDS[end]
    assert number_in_unit(f"{value!r} {unit}", f"a{end}") == pytest.approx(value * float(units[unit] / own), rel=1e-12)
    if units[unit] == own:
        assert number_in_unit(f"{value!r} {unit}", f"a{end}") == value


@given(st.text(max_size=20))
def test_any_other_text_stays(text):
    for field in ("detection_seconds", "rate_per_hour", "name"):
        assert isinstance(number_in_unit(text, field), str | float)
    assert number_in_unit(text, "name") == text


def test_a_unit_can_be_written_wherever_a_field_is_given():
    given_seconds = {
        "cluster": {"detection_seconds": "2 min"},
        "failures": {"kind": "script", "losses": [{"at_hours": "1 d", "stages": [1]}]},
    }
    by_data = parse_scenario({"name": "a", "strategies": ["none"], **given_seconds})
    assert by_data.cluster.detection_seconds == 120.0
    assert by_data.failures.losses[0].at_hours == 24.0
    assert parse_scenario(TEXT, overrides=["cluster.detection_seconds=2 min"]).cluster.detection_seconds == 120.0
    network = "network={preset: home_us, links: [[here, there, 20 us, 1 Gbit/s]]}"
    (link,) = parse_scenario(TEXT, overrides=[network]).network.links
    assert link[2:] == pytest.approx((0.02, 125e6 / 2**30))


def test_units_in_a_sweep_and_on_an_axis():
    swept = parse_scenario(
        {"name": "a", "strategies": ["none"], "sweep": {"grid": {"cluster.detection_seconds": ["1 min", 90]}}}
    )
    points = load_points(swept)
    assert [point.parameters["cluster.detection_seconds"] for point in points] == [60.0, 90]
    axis = ScenarioTemplate(parse_scenario(TEXT)).axis("--x", "cluster.detection_seconds=2 min, 30 s", 20)
    assert axis.values == (30.0, 120.0)


@pytest.mark.parametrize("text", ["2 minn", "2 GiB", "2 kg", "1e999999 min", "9" * 5000 + " min", "min", "10 %/week"])
def test_an_unknown_unit_is_explained(text):
    with pytest.raises(ScenarioError, match="allowed: a number"):
        parse_scenario(TEXT, overrides=[f"cluster.detection_seconds={text}"])


def test_an_example_is_one_that_the_field_takes():
    for end in (*FIELDS, "rate_per_hour", "rate_per_day"):
        example = example_for(end)
        assert example
        assert isinstance(number_in_unit(example, end), float)


def test_texts_of_people_stay():
    data = {"description": "2 min", "label": "10 %/day", "source": "1 GiB/s", "strategies": ["2 s"]}
    assert with_plain_numbers(data) == data


def test_the_schema_for_editors_takes_values_with_a_unit():
    found = with_units_allowed(Scenario.model_json_schema())["$defs"]["ClusterConfig"]["properties"]
    assert {"type": "string", "pattern": r"^\s*[-+.\d]"} in found["detection_seconds"]["anyOf"]
    assert found["detection_seconds"]["description"]
    assert "anyOf" not in found["nodes_per_stage"]
