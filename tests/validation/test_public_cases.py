"""Figures and reports of real systems, reduced to the small scenarios of `tests/cases`, which name their sources."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sim.cluster.membership import node_seconds
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.bottlenecks import time_sentences
from sim.results.summary import flat, summarise
from sim.scenario.document import ScenarioError
from sim.scenario.loading import load_scenario
from sim.scenario.saves import unused_saves
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, simulate, time_only
from sim.strategies import STRATEGIES

CASES = Path(__file__).parents[1] / "cases"


def case(name: str, *changes: str) -> Scenario:
    return load_scenario(CASES / f"{name}.yaml", changes)


def runs_of(scenario: Scenario) -> list[Run]:
    """Every strategy under every failure seed."""
    return [
        simulate(scenario, config, seed, 0, time_only(scenario))
        for config in scenario.strategies
        for seed in scenario.seeds.failures
    ]


def table_of(scenario: Scenario) -> pd.DataFrame:
    return pd.DataFrame([flat(summarise(scenario, run)) for run in runs_of(scenario)])


def test_a_run_ends_when_no_node_can_come_any_more():
    """At the loss that leaves a stage without a node, not 131 hours later; and it names the stage."""
    runs = runs_of(case("enough_nodes_wrong_places"))
    stopped = [run for run in runs if run.stopped]
    assert 3 <= len(stopped) < len(runs)
    for run in stopped:
        assert run.wall_clock_seconds <= 3 * SECONDS_PER_HOUR + 60
        assert "no node and none can come any more" in run.stopped
        assert "enough for 4 stages, but nodes do not move between stages" in run.stopped
        assert run.ledger["waiting_for_nodes"] == 0.0


@pytest.mark.parametrize(
    "change",
    [
        "failures.loop=true",  # the trace begins again
        "failures={kind: exponential, mean_uptime_hours: 20, scope: node}",  # replacements are ordered
        "failures={kind: exponential, mean_uptime_hours: 20, scope: node, downtime: {mean_hours: 1}}",  # nodes return
    ],
)
def test_a_run_goes_on_while_nodes_may_come(change):
    assert not any("can come" in (run.stopped or "") for run in runs_of(case("enough_nodes_wrong_places", change)))


SWAPPING = ("checkfree_plus", "checkfree_hybrid", "stale_stage")  # they need four stages


@pytest.mark.parametrize("kind", [kind for kind in STRATEGIES if kind not in SWAPPING])
def test_under_every_strategy_it_goes_on_or_ends_at_once(kind):
    """At the loss that leaves a stage without a node, at 3 h at the latest."""
    for run in runs_of(
        case("enough_nodes_wrong_places", f"strategies=[{kind}]", "workload.sequences_per_microbatch=2")
    ):
        assert run.wall_clock_seconds <= 3 * SECONDS_PER_HOUR + 60 if run.stopped else run.num_iterations == 400


@pytest.mark.parametrize("min_pipelines", [1, 2])
def test_pipelines_cut_anew_go_on_with_four_of_eight_nodes(min_pipelines):
    """In every seed, where a stage without node ended the run. With two pipelines, no part of the state is lost."""
    strategy = f"strategies=[{{kind: repartition, interval_iterations: 10, min_pipelines: {min_pipelines}}}]"
    for run in runs_of(case("enough_nodes_wrong_places", strategy)):
        assert run.stopped is None
        assert run.num_iterations == 400
        cuts = [event.detail for event in run.events if event.kind == "recut"]
        assert cuts[0] == "2 pipelines of 2 stages on 6 of 6 nodes"
        assert "on 4 of " in cuts[-1]
        assert run.ledger["waiting_for_nodes"] == 0.0
        assert any(event.kind == "rolled_back" for event in run.events) is (min_pipelines == 1)


def test_too_few_nodes_for_any_cut_end_a_run():
    """At once, with the number of nodes that it takes: three stages of 16 layers do not fit, four do."""
    deeper = ("workload.model={preset: medium, num_layers: 16}", "workload.num_stages=4", "cluster.nodes_per_stage=1")
    others = ("training.model={num_stages: 4}", "cluster.device={preset: t4, memory_gib: 2.6}")
    for run in runs_of(case("enough_nodes_wrong_places", "strategies=[repartition]", *deeper, *others)):
        assert run.wall_clock_seconds <= 3 * SECONDS_PER_HOUR + 60
        assert run.stopped
        assert "after 3 h 4 nodes are active, and the model needs 5" in run.stopped


def test_too_few_pipelines_end_a_run_when_no_node_can_come():
    runs = runs_of(case("enough_nodes_wrong_places", "strategies=[{kind: elastic, min_replicas: 2}]"))
    assert {run.wall_clock_seconds // SECONDS_PER_HOUR for run in runs} == {1.0}
    for run in runs:
        assert "too few nodes are left for the strategy and none can come any more: after 1.01 h 6 nodes" in run.stopped


def test_nobody_waits_for_newcomers_that_fetch_beside_the_training():
    """A download takes 322 s, and one of 28 nodes is lost every 128 s: pipelines that are there train on."""
    beside, standstill = (
        runs_of(case("joins_slower_than_churn", f"cluster.joining={how}"))[0] for how in ("beside", "standstill")
    )
    assert beside.stopped is None
    assert standstill.stopped
    assert standstill.num_iterations < 10 < beside.num_iterations
    assert beside.ledger["state_transfer"] < 0.3 * beside.wall_clock_seconds


def test_a_bucket_that_dominates_has_a_sentence():
    """The published 90 % take spares, or everybody waits for each lost node: said with the field to change."""
    alone = table_of(case("llama3_without_spares"))
    share = (alone["waiting_for_nodes_seconds"] / alone["wall_clock_seconds"]).item()
    assert share > 0.5
    (said,) = time_sentences(alone)
    assert said.startswith("Bound by churn: waiting for nodes takes much of the time (checkpointing ")
    assert "add cluster.num_spares" in said
    assert time_sentences(table_of(case("llama3_without_spares", "cluster.num_spares=64"))) == []


def test_a_job_that_never_saves_is_named_beforehand():
    """It runs 83 iterations again from the start, or only those since the last save."""
    scenario = case("interval_longer_than_the_job")
    never, seconds, often = runs_of(scenario)
    assert (len(never.iterations), len(seconds.iterations)) == (90 + 83, 90 + 83)
    assert len(often.iterations) == 90 + 83 - 60
    told = unused_saves(scenario, never.ideal_iteration_seconds)
    assert [line.split(":")[0] for line in told] == ["checkpointing never saves", "seconds never saves"]
    assert "interval of 100 iterations is no shorter than the job of 90; lower interval_iterations" in told[0]
    assert len(unused_saves(scenario)) == 1  # without seconds, as `validate`


@pytest.mark.parametrize("additions", ["ignore", "replay"])
def test_nodes_follow_a_trace_of_one_node_by_themselves(additions):
    """A loss in an hour of presence, and no two nodes at once."""
    (run,) = runs_of(case("one_node_traces", f"failures.additions={additions}"))
    lost = [event for event in run.events if event.kind in ("node_lost", "failure")]
    presence_hours = node_seconds(run.nodes, run.wall_clock_seconds) / SECONDS_PER_HOUR
    assert len(lost) / presence_hours == pytest.approx(1.0, rel=0.05)
    assert len({event.time_seconds for event in lost}) == len(lost)


def test_a_trace_of_one_node_is_not_silently_that_of_all():
    with pytest.raises(
        ScenarioError, match="the trace has at most 1 node at a time, the cluster 8: choose each"
    ) as error:
        case("one_node_traces", "failures.nodes_follow=null")
    assert "together (a loss of the trace takes 8 nodes at once)" in str(error.value)


def test_plain_counts_over_time_are_replayed():
    for run in runs_of(case("plain_counts")):
        changes = [(count.time_seconds, count.num_nodes) for count in run.nodes]
        own_counts = [(0.0, 0), (600.0, 8), (5400.0, 6), (9000.0, 8)]
        assert changes == own_counts[: len(changes)]
        assert len(changes) >= 3
