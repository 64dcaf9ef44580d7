"""With several nodes per stage, nodes fail one by one unless the scenario says otherwise; with one nothing changes."""

import pytest

from sim.results.storage import resolved_yaml
from sim.scenario.loading import parse_scenario

TEXT = "name: x\ncluster: {nodes_per_stage: NODES, device: a100}\nfailures: FAILURES\nstrategies: [none]"


def scope_of(failures, nodes=4, *changes):
    scenario = parse_scenario(TEXT.replace("NODES", str(nodes)).replace("FAILURES", failures), overrides=changes)
    return getattr(scenario.failures, "processes", (scenario.failures,))[-1].scope


@pytest.mark.parametrize("kind", ["exponential", "weibull", "lognormal", "diurnal"])
def test_nodes_fail_one_by_one_where_a_stage_has_several(kind):
    rated = f"{{kind: {kind}, rate_per_hour: 0.05}}"
    assert (scope_of(rated), scope_of(rated, 1)) == ("node", "stage")
    assert scope_of(rated, 1, "cluster.nodes_per_stage=2") == "node"
    composed = f"{{kind: compose, processes: [{{kind: never}}, {rated}]}}"
    assert (scope_of(composed), scope_of(composed, 1)) == ("node", "stage")


@pytest.mark.parametrize("scope", ["stage", "node", "region"])
def test_a_scope_that_is_given_stays(scope):
    assert scope_of(f"{{kind: exponential, scope: {scope}}}") == scope
    assert scope_of(f"{{kind: compose, processes: [{{kind: exponential, scope: {scope}}}]}}") == scope


def test_presets_keep_their_scope():
    assert parse_scenario(TEXT.replace("NODES", "2").replace("FAILURES", "paper_16")).failures.scope == "stage"


def test_the_default_process_follows_too_and_is_written_out():
    scenario = parse_scenario("name: x\ncluster: {nodes_per_stage: 2, device: a100}\nstrategies: [none]")
    assert scenario.failures.scope == "node"
    assert parse_scenario(resolved_yaml(scenario)) == scenario
