"""A chance of failure within a day is the same process as its chance within an hour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.results.storage import resolved_yaml
from sim.scenario.document import ScenarioError
from sim.scenario.loading import parse_scenario

TEXT = "name: x\nstrategies: [none]\nfailures: {kind: exponential, rate_per_day: 0.1}\n"


@given(st.floats(0.0, 0.999))
def test_a_day_has_24_independent_hours(per_day):
    scenario = parse_scenario(TEXT, overrides=[f"failures.rate_per_day={per_day!r}"])
    assert 1 - (1 - scenario.failures.rate_per_hour) ** 24 == pytest.approx(per_day, abs=1e-12)


def test_it_is_written_out_per_hour():
    scenario = parse_scenario(TEXT)
    assert "rate_per_day" not in resolved_yaml(scenario)
    assert parse_scenario(resolved_yaml(scenario)) == scenario


@pytest.mark.parametrize("other", ["rate_per_hour: 0.1", "mean_uptime_hours: 3"])
def test_two_rates_are_one_message(other):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(TEXT.replace("rate_per_day", f"{other}, rate_per_day"))
    (problem,) = map(str, caught.value.problems)
    assert problem == f"line 3, failures: give {other.partition(':')[0]} or rate_per_day, not both"


@pytest.mark.parametrize("change", ["rate_per_hour=0.2", "mean_uptime_hours=5"])
def test_a_changed_rate_replaces_it(change):
    name, _, value = change.partition("=")
    assert getattr(parse_scenario(TEXT, overrides=[f"failures.{change}"]).failures, name) == float(value)
