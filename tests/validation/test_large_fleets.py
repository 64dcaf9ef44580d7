"""Fleets of thousands that checkpoint, against the closed form of a segment under failures at a constant rate."""

import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from sim.scenario.loading import load_scenario
from sim.simulation.run import Run, build_world
from support.builders import a_strategy, no_training, of_kind, run, times
from support.closed_forms import mean_and_error, segment_seconds

SCENARIO = Path(__file__).parents[2] / "scenarios" / "large_fleet.yaml"


@cache
def a_fleet(*overrides: str) -> Run:
    scenario = load_scenario(SCENARIO, overrides)
    return run(scenario, training=no_training(scenario))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("strategies.0.interval_iterations=60", "failures.mean_uptime_hours=1000"),
        ("cluster.nodes_per_stage=12500", "failures.mean_uptime_hours=24000"),
    ],
    ids=str,
)
def test_a_segment_takes_its_expected_time(overrides):
    """λ: all nodes' rates; W: the work between saves; C: a save; R: detection, start and fetching; nobody is away."""
    overrides = ("training.steps=300000", *overrides)
    scenario, result = load_scenario(SCENARIO, overrides), a_fleet(*overrides)
    world, cluster = build_world(scenario, 0), scenario.cluster
    num_nodes = 8 * cluster.nodes_per_stage
    rate = num_nodes / (3600.0 * scenario.failures.mean_uptime_hours)
    save = world.seconds_of(a_strategy(scenario.strategies[0], world.num_stages)._uploads(world, 1.0))
    work = scenario.strategies[0].interval_iterations * result.iteration_seconds
    restart = cluster.detection_seconds + cluster.startup_seconds + save
    durable = times(of_kind(result, "checkpoint_durable"))
    mean, error = mean_and_error([end - start for start, end in pairwise(durable)])
    expected = segment_seconds(rate, work, save, restart, away=0.0)
    assert rate * world.mtbf_seconds == pytest.approx(1.0)
    assert abs(mean - expected) < 1.96 * error
    assert error < 0.02 * expected
    assert math.isclose(sum(result.ledger.values()), result.wall_clock_seconds, rel_tol=1e-9)


def test_the_fleet_of_the_scenario_is_the_size_that_it_says():
    scenario = load_scenario(SCENARIO)
    world = build_world(scenario, 0)
    assert len(world.cluster.regions_of_nodes) == 4096
    days = scenario.training.steps * world.iteration_times.split(world.plain_plan()).seconds / 86400
    assert days == pytest.approx(256.0, rel=1e-4)
    assert scenario.failures.mean_uptime_hours == pytest.approx(24 / 0.01)
