"""When a run comes to an iteration first, without being trained; and which lucks are whose."""

import math
from pathlib import Path

import pytest

from sim.experiments.strategy_map.first_passage import first_passage
from sim.experiments.strategy_map.grid import Grid
from sim.experiments.strategy_map.interpolation import IterationsToTarget, SamplePoint, replicates
from sim.scenario.axes import NO_AXIS, ScenarioTemplate
from sim.scenario.scenario import SeedsConfig
from sim.simulation.first_times import first_time, first_times
from sim.simulation.run import simulate, time_only
from support import maps

SEEDS = SeedsConfig(failures=(0, 1), training=(0, 1))


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    template = ScenarioTemplate(maps.write(tmp_path))
    return Grid(template, (template.axis("--x", maps.RATES, 5), NO_AXIS), SEEDS, "mapped-map")


def test_failure_seeds_replicate_unless_there_are_training_seeds():
    one = {(0, 7): 100.0, (1, 7): 120.0, (2, 7): 140.0}
    assert replicates(one) == (100.0, 120.0, 140.0)
    two = {(0, 7): 100.0, (1, 7): 120.0, (0, 8): 300.0, (1, 8): 340.0}
    assert replicates(two) == (110.0, 320.0)
    assert math.isnan(replicates({**two, (1, 8): math.nan})[1])


def test_an_iteration_is_reached_once_despite_rollbacks(grid):
    scenario = grid.points[3, 0].scenario
    run = simulate(scenario, scenario.strategies[1], 0, 0, time_only(scenario))
    first: dict[int, float] = {}
    for record in run.iterations:
        first.setdefault(record.iteration, record.ended_seconds)
    assert len(run.iterations) > len(first)  # some were run again
    assert list(first_times(run)) == [0.0, *first.values()]
    assert first_time(first_times(run), 10) == first[10]
    assert first_time(first_times(run), 10.5) == pytest.approx((first[10] + first[11]) / 2)
    assert math.isnan(first_time(first_times(run), max(first) + 1))
    assert math.isnan(first_time(first_times(run), math.nan))


def test_failures_per_iteration_are_those_of_the_runs(grid):
    scenario, seeds = grid.points[3, 0].scenario, (0, 1, 2)
    runs = [simulate(scenario, scenario.strategies[3], seed, 0, time_only(scenario)) for seed in seeds]
    free = IterationsToTarget((SamplePoint(0.0, {(0, 0): 500.0}, 600),), 600, is_flat=True)
    found = first_passage(scenario, 3, seeds, free)
    assert found.failures_per_iteration == pytest.approx(sum(run.num_failures / run.num_iterations for run in runs) / 3)
    assert found.is_edited
    assert found.seconds == {
        (seed, 0): first_time(first_times(run), 500.0) for seed, run in zip(seeds, runs, strict=True)
    }
    assert found.usd[0, 0] == pytest.approx(1.19 * runs[0].node_hours_until(found.seconds[0, 0]))
    assert not first_passage(scenario, 1, seeds, free).is_edited


@pytest.mark.parametrize(
    ("axis", "differs"),
    [
        ("failures.rate_per_hour=0.1,0.2", False),
        ("network.bandwidth_factor=1,2", False),
        ("training.optimizer.learning_rate=0.001,0.002", True),
        ("strategies[checkfree].learning_rate_factor=1.0,1.2", True),
        ("fallback.interval_iterations=10,25", True),
        ("failures.immune_stages=[0],[0,1]", True),
    ],
)
def test_a_family_is_of_all_that_decides_what_is_learnt(tmp_path, axis, differs):
    template = ScenarioTemplate(maps.write(tmp_path))
    grid = Grid(template, (template.axis("--x", axis, 5), NO_AXIS), SEEDS, "mapped-map")
    assert (grid.group((0, 0), "checkfree") != grid.group((1, 0), "checkfree")) == differs
    assert grid.groups_differ_along(0) == differs
