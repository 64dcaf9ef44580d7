"""Strategies are compared at equal microbatch size, and a lead by size alone is called that."""

import pandas as pd
import pytest

from sim.experiments.microbatches import at_equal_size, smaller_microbatches
from sim.reporting.verdict import verdict_on
from sim.results.summary import flat, summarise
from sim.scenario.loading import parse_scenario
from sim.simulation.run import simulate, time_only

SLOW_LINKS = """
name: slow_links
workload: {model: small, num_stages: 4, num_microbatches: 8, WORKLOAD}
training: {learner: none, steps: 300}
cluster: {device: rtx4090, detection_seconds: 10}
network: spot_cluster
failures: {kind: exponential, rate_per_hour: RATE, immune_stages: [0]}
strategies: [none, {kind: checkpoint, interval_iterations: 50}, redundant]
"""
MEASURED = "measured: {forward_seconds: 2, backward_seconds: 4}"


def scenario_of(rate=0.1, workload="schedule: 1f1b"):
    return parse_scenario(SLOW_LINKS.replace("RATE", str(rate)).replace("WORKLOAD", workload))


@pytest.mark.parametrize("workload", ["schedule: 1f1b", MEASURED])
def test_equal_size_is_the_time_that_was_promised(workload):
    """A workload of twice as many halves takes what the plan of half the size takes."""
    scenario = scenario_of(workload=workload)
    smaller = smaller_microbatches(scenario)
    assert (smaller.factor, smaller.seconds < smaller.given_seconds) == (2, True)
    none, checkpoint, redundant = scenario.strategies
    equal = at_equal_size(scenario, checkpoint, smaller)
    assert equal.workload.sequences_per_microbatch * 2 == scenario.workload.sequences_per_microbatch
    assert simulate(equal, none, 0, 0, time_only(equal)).iteration_seconds == pytest.approx(smaller.seconds)
    assert at_equal_size(scenario, redundant, smaller) is scenario


def test_there_is_nothing_to_say_without_a_gain():
    without = scenario_of().model_copy(update={"strategies": scenario_of().strategies[:2]})
    assert smaller_microbatches(without) is None
    workload = "{num_microbatches: 192, max_in_flight: 14}"
    fast = parse_scenario(f"name: x\nworkload: {workload}\nnetwork: single_cluster\nstrategies: [redundant]")
    assert smaller_microbatches(fast) is None


@pytest.mark.parametrize(("rate", "then"), [(1e-6, " Nothing to choose: no stage was lost"), (0.9, " ")])
def test_a_lead_by_size_alone_is_no_lead(rate, then):
    scenario = scenario_of(rate)
    runs = [simulate(scenario, config, 0, 0, time_only(scenario)) for config in scenario.strategies]
    table = pd.DataFrame([{"run": run.strategy, **flat(summarise(scenario, run))} for run in runs])
    said = verdict_on(table)
    assert said.startswith("Halve your microbatches (workload.sequences_per_microbatch / 2")
    assert then in said
