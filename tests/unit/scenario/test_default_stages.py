"""The proxy has as many stages as the target unless its number is given, which then must be equal."""

import pytest

from sim.results.storage import resolved_yaml
from sim.scenario.document import ScenarioError
from sim.scenario.loading import build_scenario, parse_scenario

TEXT = "name: x\nworkload: {num_stages: 4}\nstrategies: [none]\n"


@pytest.mark.parametrize(
    "change",
    [
        "training.steps=3",
        "training.model.dim=32",
        "training={model: {layers_per_stage: 2}}",
        "training.learner=none",
        "cluster.num_spares=1",
        "workload.num_stages=12",
    ],
)
def test_the_proxy_follows_the_target_whatever_else_is_set(change):
    scenario = parse_scenario(TEXT, overrides=[change])
    assert scenario.training.model.num_stages == scenario.workload.num_stages != 6
    assert parse_scenario(resolved_yaml(scenario)) == scenario


def test_a_number_that_is_given_stays_and_must_be_equal():
    same = parse_scenario(TEXT + "training: {model: {num_stages: 4}}")
    assert same == parse_scenario(TEXT) == build_scenario(name="x", workload={"num_stages": 4}, strategies=["none"])
    with pytest.raises(ScenarioError, match="the proxy has 6 stages, the workload 4: make them equal"):
        parse_scenario(TEXT + "training: {model: {num_stages: 6}}")
    with pytest.raises(ScenarioError, match=r"line 4, .* the proxy has 4 stages, the workload 6"):
        parse_scenario(TEXT + "training: {model: {num_stages: 4}}", overrides=["workload.num_stages=6"])
