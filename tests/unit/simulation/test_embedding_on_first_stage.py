"""The embedding on the nodes of S1: no nodes of its own, and lost with them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.topology import num_nodes
from sim.scenario.loading import parse_scenario
from sim.simulation.run import build_site, simulate, time_only
from sim.workload.iteration_time import fastest_time
from sim.workload.window import plain_plan_on
from support.examples import examples
from support.failure_processes import Loss, LossesConfig

TEXT = """
name: first
workload: {model: small, num_stages: 4, num_microbatches: 8, loss_at: last_stage}
cluster: {device: a100, embedding_on: first_stage, provisioning_seconds: 30}
network: spot_cluster
training: {learner: none, steps: 40, model: {num_stages: 4}}
failures: never
strategies:
  [none, restart, peer, {kind: checkpoint, interval_iterations: 3}, checkfree, {kind: reinit, rule: uniform_average}]
"""


def a_run(index, *losses, fallback="stop", **cluster):
    scenario = parse_scenario(TEXT + f"fallback: {fallback}\n")
    changed = {"cluster": scenario.cluster.model_copy(update=cluster), "failures": LossesConfig(losses=losses)}
    scenario = scenario.model_copy(update=changed)
    return simulate(scenario, scenario.strategies[index], 0, 0, time_only(scenario))


def test_it_has_no_nodes_and_no_hops():
    own, first = (
        build_site(parse_scenario(TEXT.replace("first_stage", where))) for where in ("own_node", "first_stage")
    )
    assert [num_nodes(site.cluster.config, 4) for site in (own, first)] == [5, 4]
    assert [site.cluster.num_slots for site in (own, first)] == [5, 4]
    assert first.cluster.slot(0, 0) == first.cluster.slot(1, 0) == 0
    assert first.cluster.place_of(3) == (4, 0)
    assert fastest_time(first, plain_plan_on(first)).seconds < fastest_time(own, plain_plan_on(own)).seconds


@pytest.mark.parametrize(("index", "recovers"), [(1, True), (2, False), (3, True), (4, False), (5, False)])
def test_it_is_lost_with_s1_and_only_then(index, recovers):
    """A fresh or averaged S1 has no embedding; a checkpoint brings back both."""
    with_s1, with_s2 = (a_run(index, Loss(40.0, ((stage, None),))) for stage in (1, 2))
    assert (with_s1.stopped is None) == recovers
    if not recovers:
        assert "stage 0" in with_s1.stopped or "stages 0" in with_s1.stopped
    assert [event.stage for event in with_s1.events if event.kind == "failure"] == [1]
    assert with_s2.stopped is None or index == 2


def test_a_checkpoint_is_of_both_and_downloads_both():
    fallback = "{kind: checkpoint, interval_iterations: 3}"
    run = a_run(4, Loss(60.0, ((1, None),)), fallback=fallback)
    assert run.stopped is None
    assert [event.kind for event in run.events if event.kind in ("fallback", "rolled_back")] == [
        "fallback",
        "rolled_back",
    ]


def test_a_node_that_joins_s1_is_sent_both_states():
    costs = build_site(parse_scenario(TEXT)).costs
    joined = [a_run(2, Loss(40.0, ((stage, 0),)), nodes_per_stage=2).sent_bytes for stage in (1, 2)]
    assert joined == [costs.checkpoint_bytes(0) + costs.checkpoint_bytes(1), costs.checkpoint_bytes(2)]


places = st.tuples(st.integers(1, 4), st.one_of(st.none(), st.integers(0, 1)))
losses = st.builds(
    Loss, st.floats(0.0, 90.0), st.lists(places, min_size=1, max_size=3, unique=True).map(tuple), st.none()
)


@settings(max_examples=examples(20, 60))
@given(st.integers(0, 5), st.lists(losses, max_size=4), st.integers(1, 2), st.integers(0, 1), st.booleans())
def test_any_losses_keep_the_ledger(index, lost, nodes_per_stage, num_spares, falls_back):
    fallback = "{kind: checkpoint, interval_iterations: 2}" if falls_back else "stop"
    options = {"nodes_per_stage": nodes_per_stage, "num_spares": num_spares}
    run = a_run(index, *lost, fallback=fallback, **options)
    assert run.num_iterations == 40 if run.stopped is None else len(run.stopped) > 10
    assert sum(run.ledger.values()) == pytest.approx(run.wall_clock_seconds, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({}, "first_stage"),
        ({", loss_at: last_stage": ""}, "own_node"),
        ({"failures: never": "failures: {kind: exponential, rate_per_hour: 0.1, immune_stages: [0]}"}, "own_node"),
        ({"[none, restart": "[none, redundant, restart"}, "own_node"),
        ({"device: a100": "device: a100, embedding_on: own_node"}, "own_node"),
    ],
)
def test_the_default_is_as_in_published_systems(changes, where):
    text = TEXT.replace("embedding_on: first_stage, ", "")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    assert parse_scenario(text).cluster.embedding_on == where
