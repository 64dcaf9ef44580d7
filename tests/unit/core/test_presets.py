"""Failure processes by the name of a preset: alone, changed, composed, by --set, and what is said of wrong ones."""

import json
from typing import Any

import pytest

from sim.core.presets import merged, presets, text_of
from sim.failures import PROCESSES
from sim.results.storage import resolved_yaml
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.scenario.scenario import Scenario
from sim.scenario.schema import schema

OWN: dict[str, dict[str, Any]] = {
    "spotty": {
        "kind": "exponential",
        "mean_uptime_hours": 5.0,
        "scope": "node",
        "notice_seconds": 30.0,
        "downtime": {"mean_hours": 2.0, "distribution": "weibull", "spread": 0.7},
    },
    "flaky": {"kind": "exponential", "rate_per_hour": 0.2},
    "by_iteration": {"kind": "bernoulli", "per_iteration_probability": 0.01, "immune_stages": (0,)},
    "both": {"kind": "compose", "processes": ({"kind": "exponential", "rate_per_hour": 0.2}, {"kind": "never"})},
}
FOUR_HOURS = {"mean_hours": 4.0, "distribution": "weibull", "spread": 0.7}
KINDS = ", ".join(PROCESSES)
NAMES = ", ".join(OWN)


@pytest.fixture(autouse=True)
def own_presets(monkeypatch: pytest.MonkeyPatch):
    """Presets of these tests in place of the shipped ones."""
    entries = {name: {"description": "of a test", "source": "made up", **options} for name, options in OWN.items()}
    text = "\n".join(f"{name}: {json.dumps(entry)}" for name, entry in entries.items())
    shipped = text_of
    monkeypatch.setattr("sim.core.presets.text_of", lambda kind: text if kind == "failures" else shipped(kind))
    presets.cache_clear()
    schema.cache_clear()
    yield
    presets.cache_clear()
    schema.cache_clear()


def failures_of(text: str, *overrides: str) -> dict[str, Any]:
    """The options of a scenario's failure process; reading the resolved text gives them again."""
    scenario = parse_scenario(f"name: demo\nstrategies: [none]\n{text}\n", overrides=overrides)
    assert parse_scenario(resolved_yaml(scenario)) == scenario
    return scenario.failures.model_dump()


def problem_of(text: str, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"name: demo\nstrategies: [none]\n{text}\n", overrides=overrides)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("text", ["failures: {}", "failures: {{preset: {}}}"])
def test_a_preset_stands_for_a_process_and_its_options(name: str, text: str):
    found = failures_of(text.format(name))
    assert found["name"] == name
    assert found["source"] == "made up"
    if name != "both":
        assert {key: found[key] for key in OWN[name]} == OWN[name]
    else:
        assert [part["kind"] for part in found["processes"]] == ["exponential", "never"]


@pytest.mark.parametrize(
    ("text", "overrides", "changes"),
    [
        ("failures: {preset: spotty, notice_seconds: 120}", (), {"notice_seconds": 120.0}),
        ("failures: spotty", ("failures.notice_seconds=120",), {"notice_seconds": 120.0}),
        ("failures: {preset: spotty}", ("failures.immune_stages=[1]",), {"immune_stages": (1,)}),
        ("", ("failures=spotty", "failures.scope=region"), {"scope": "region"}),
        ("", ("failures.preset=spotty", "failures.scope=region"), {"scope": "region"}),
        ("failures: {kind: exponential, preset: spotty, scope: region}", (), {"scope": "region"}),
        ("failures: {preset: spotty, downtime: {mean_hours: 4}}", (), {"downtime": FOUR_HOURS}),
        ("failures: spotty", ("failures.downtime.mean_hours=4",), {"downtime": FOUR_HOURS}),
        (
            "failures: {preset: spotty, notice_seconds: 1}",
            ("failures.scope=stage",),
            {"scope": "stage", "notice_seconds": 1.0},
        ),
    ],
)
def test_a_changed_preset_keeps_its_other_options(text: str, overrides: tuple[str, ...], changes: dict[str, Any]):
    plain = failures_of("failures: spotty")
    assert failures_of(text, *overrides) == {**plain, **changes, "name": "spotty (changed)"}
    assert failures_of("failures: {preset: spotty, kind: exponential}") == plain


@pytest.mark.parametrize(
    ("text", "overrides", "rate_per_hour", "mean_uptime_hours"),
    [
        ("failures: {preset: spotty, rate_per_hour: 0.3}", (), 0.3, None),
        ("failures: {preset: flaky, mean_uptime_hours: 7}", (), None, 7.0),
        ("failures: {preset: spotty, rate_per_hour: null}", (), None, 5.0),
        ("failures: spotty", ("failures.rate_per_hour=0.3",), 0.3, None),
        ("failures: flaky", ("failures.mean_uptime_hours=7",), None, 7.0),
        ("failures: spotty", ("failures.rate_per_hour=0.3", "failures.mean_uptime_hours=7"), None, 7.0),
        ("failures: {preset: spotty, rate_per_hour: 0.3}", ("failures.notice_seconds=1",), 0.3, None),
        ("failures: {kind: exponential, mean_uptime_hours: 7}", ("failures.rate_per_hour=0.3",), 0.3, None),
        ("failures: {kind: exponential, rate_per_hour: 0.3}", ("failures.mean_uptime_hours=7",), None, 7.0),
    ],
)
def test_a_rate_replaces_a_presets_mean_and_the_other_way_round(
    text: str, overrides: tuple[str, ...], rate_per_hour: float | None, mean_uptime_hours: float | None
):
    found = failures_of(text, *overrides)
    assert (found["rate_per_hour"], found["mean_uptime_hours"]) == (rate_per_hour, mean_uptime_hours)


def test_only_what_says_the_same_is_replaced():
    figures = {"rate_per_hour": 0.1, "scope": "node"}
    assert merged(figures, {"scope": "stage"}) == {"rate_per_hour": 0.1, "scope": "stage"}
    assert merged(figures, {"mean_uptime_hours": 3.0}) == {"mean_uptime_hours": 3.0, "scope": "node"}
    both = {"rate_per_hour": 0.2, "mean_uptime_hours": 3.0}
    assert merged(figures, both) == {**both, "scope": "node"}


def test_presets_are_parts_of_a_composition_and_can_be_set():
    text = "failures: {kind: compose, processes: [spotty, {preset: by_iteration, immune_stages: [2]}, never]}"
    spotty, by_iteration, never = failures_of(text)["processes"]
    assert (spotty["name"], spotty["mean_uptime_hours"]) == ("spotty", 5.0)
    assert (by_iteration["name"], by_iteration["immune_stages"]) == ("by_iteration (changed)", (2,))
    assert never["name"] == ""
    overrides = "failures.processes.0.rate_per_hour=0.3", "failures.processes[by_iteration].instant=start"
    parts = failures_of(text, *overrides)["processes"]
    assert parts[0] == {**spotty, "rate_per_hour": 0.3, "mean_uptime_hours": None, "name": "spotty (changed)"}
    assert parts[1] == {**by_iteration, "instant": "start"}
    found = failures_of("failures: both", "failures.processes.0.mean_uptime_hours=3")
    assert found["name"] == "both (changed)"
    assert (found["processes"][0]["rate_per_hour"], found["processes"][0]["mean_uptime_hours"]) == (None, 3.0)
    assert found["processes"][1]["kind"] == "never"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("failures: spoty", f"failures: found 'spoty'; nearest: spotty; allowed: {KINDS}, {NAMES}"),
        ("failures: {preset: spoty}", f"failures.preset: found 'spoty'; nearest: spotty; allowed: {NAMES}"),
        ("failures: {preset: [spotty]}", f"failures.preset: found a list of 1 entry; allowed: {NAMES}"),
        (
            "failures: {kind: exponentail}",
            f"failures.kind: found 'exponentail'; nearest: exponential; allowed: {KINDS}",
        ),
        ("failures: {kind: spotty}", "failures.kind: found 'spotty', which is a preset: write 'preset: spotty'"),
        ("failures: {preset: never}", "failures.preset: found 'never', which is a kind: write 'kind: never'"),
        (
            "failures: {preset: spotty, kind: bernoulli}",
            "failures.kind: found 'bernoulli': preset 'spotty' is of kind 'exponential': leave out one of the two",
        ),
        ("failures: {scope: node}", f"failures: needs the key 'kind' or 'preset'; allowed: {KINDS}, {NAMES}"),
        ("failures: 3", f"failures: found 3; allowed: {KINDS}, {NAMES}, or a mapping with the key 'kind' or 'preset'"),
        (
            "failures: {preset: by_iteration, rate_per_hour: 0.1}",
            "failures.rate_per_hour: unknown key of 'by_iteration'; allowed: preset, immune_stages, notice_seconds, "
            "name, description, source, per_iteration_probability, instant",
        ),
        (
            "failures: {preset: spotty, notice_second: 3}",
            "failures.notice_second: unknown key of 'spotty'; nearest: notice_seconds; allowed: preset, ",
        ),
        (
            "failures: {preset: spotty, downtime: {mean_hours: x}}",
            "failures.downtime.mean_hours: found 'x'; allowed: a number, at least 1e-09, at most 1,000,000",
        ),
        (
            "failures: {preset: spotty, rate_per_hour: 0.1, mean_uptime_hours: 4}",
            "failures.mean_uptime_hours: give rate_per_hour or mean_uptime_hours, not both",
        ),
        ("failures: {kind: compose, processes: [never, both]}", "failures.processes.1: found 'both'; allowed: "),
        (
            "failures: {kind: compose, processes: [never, {preset: both}]}",
            "failures.processes.1.preset: found 'both'; allowed: spotty, flaky, by_iteration",
        ),
        (
            "failures: {kind: compose, processes: [never, {preset: spotty, notice_seconds: -1}]}",
            "failures.processes.1.notice_seconds: found -1; allowed: a number, at least 0",
        ),
    ],
)
def test_wrong_names_and_options_are_reported_with_those_allowed(text: str, expected: str):
    assert problem_of(text).startswith(f"line 3, {expected}")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("failures.kind=bernoulli", "failures.kind: found 'bernoulli': preset 'spotty' is of kind 'exponential'"),
        ("failures.preset=spoty", "failures.preset: found 'spoty'; nearest: spotty"),
        ("failures.notice_second=3", "failures.notice_second: unknown key of 'exponential'; nearest: notice_seconds"),
        ("failures.scope=nodes", "failures.scope: found 'nodes'; nearest: node"),
    ],
)
def test_wrong_overrides_of_a_preset_are_named_themselves(override: str, expected: str):
    assert problem_of("failures: spotty", override).startswith(f"--set {override}, {expected}")


def test_schema_and_python_have_presets_as_files_have():
    text = json.dumps(Scenario.model_json_schema())
    single = [name for name in OWN if name != "both"]
    assert f'"preset": {{"enum": {json.dumps(list(OWN))}}}' in text
    assert f'"preset": {{"enum": {json.dumps(single)}}}' in text
    made = Scenario.model_validate({"name": "demo", "strategies": ("none",), "failures": "spotty"})
    assert made == parse_scenario("name: demo\nstrategies: [none]\nfailures: spotty")
