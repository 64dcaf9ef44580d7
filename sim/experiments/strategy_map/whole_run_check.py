"""Check of a prediction: a few whole runs, beside what single failures predict for the same seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from sim.core.text import format_count, format_list
from sim.experiments.branches.whole_runs import rebuilt_in
from sim.experiments.strategy_map.grid import with_steps
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.predicted import PredictedIterations
from sim.experiments.strategy_map.trained import most_factor
from sim.results.strategy_map import Cell, WholeRunCheck
from sim.scenario.scenario import SeedsConfig
from sim.scenario.sweep_points import Point
from sim.simulation.run import simulate, time_only
from sim.strategies import legend_label


def whole_run_checks(job: MapJob, num_runs: int) -> tuple[WholeRunCheck, ...]:
    """Train whole runs of strategies that decide the result at the scenario's own cell, and compare. After `evaluate`.

    num_runs: of each of these strategies, under independent pairs of seeds, at most a run for each training seed.
    """
    cell = job.grid.own_cell
    names = names_to_check(job, cell) if cell and num_runs else []
    if not cell or not names:
        return ()
    points = {name: whole_run_point(job, cell, name, num_runs) for name in names}
    number = format_count(sum(len(point.scenario.seeds.replicates) for point in points.values()), "whole run")
    job.training.observer.noted(f"{number} of {format_list(list(map(legend_label, names)))}, to check the prediction.")
    trained = dict(zip(names, job.training.do(list(points.values())), strict=True))
    found = []
    for name, point in points.items():
        predicted = dict(predicted_iterations(job, cell, name, point.scenario.seeds))
        real = trained[name].values()
        found.append(WholeRunCheck(name, tuple(real.values()), tuple(predicted[seeds] for seeds in real)))
    return tuple(found)


def names_to_check(job: MapJob, cell: Cell) -> list[str]:
    """Strategies that change weights and may be first in a cell; where none may, the nearest to the first.

    None where too few stages are lost to choose.
    """
    ranking = job.results[cell].ranking
    if not ranking.is_tested:
        return []
    names = [one.strategy for one in ranking.standings]
    edited = [name for name in names if not job.to_target[job.grid.group(cell, name)].is_flat]
    may_be_first = {one.strategy for one in (ranking.best, *ranking.contenders) if one}
    return [name for name in edited if name in may_be_first] or edited[:1]


def whole_run_point(job: MapJob, cell: Cell, name: str, num_runs: int) -> Point:
    """Whole runs of a strategy, each under a failure seed and a training seed that no other run has."""
    number = min(num_runs, len(job.grid.seeds.training), len(job.time_seeds))
    failures, training = tuple(job.time_seeds[:number]), job.grid.seeds.training[:number]
    seeds = SeedsConfig(failures=failures, training=training, design="pairs")
    point = job.grid.sample_point(cell, name)
    return replace(point, scenario=point.scenario.model_copy(update={"seeds": seeds}))


def predicted_iterations(
    job: MapJob, cell: Cell, name: str, seeds: SeedsConfig
) -> Iterator[tuple[tuple[int, int], float]]:
    """Iterations to the target that are predicted for the failures and the training seed of each whole run."""
    scenario, to_target = job.grid.equal_scenario(cell, name), job.to_target[job.grid.group(cell, name)]
    assert isinstance(to_target, PredictedIterations), "learning is predicted"
    scenario = with_steps(scenario, most_factor(scenario) * scenario.training.steps)
    config = scenario.strategies[job.grid.candidates[name]]
    for failure_seed, training_seed in seeds.replicates:
        run = simulate(scenario, config, failure_seed, training_seed, time_only(scenario))
        by_seed = dict(zip(to_target.prediction.seeds, to_target.of_run(math.nan, rebuilt_in(run)), strict=True))
        yield (failure_seed, training_seed), by_seed[training_seed]
