"""Whole runs, predicted: their failures and times are simulated, their losses follow from trunks and branches.

Each training seed has failure seeds of its own, so that its mean is independent of the others'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from models.training_state import edits_of_weights
from sim.core.units import SECONDS_PER_HOUR
from sim.experiments.executors import Executor
from sim.results.branches import Branches
from sim.results.healing import Floats, Rebuilt
from sim.results.prediction import Prediction, WholeRuns
from sim.scenario.axes import ScenarioTemplate
from sim.scenario.scenario import Scenario
from sim.simulation.first_times import first_time, first_times
from sim.simulation.run import Run, simulate, time_only

RUNS_PER_SEED = 4
"""Failure seeds of each training seed."""

FACTORS = (0.25, 0.5, 1.0, 2.0)
"""Multiples of the scenario's failure rate."""


@dataclass(frozen=True)
class SimulatedRun:
    """A run without training. times: (iterations + 1,) seconds of their ends."""

    rebuilt: tuple[Rebuilt, ...]
    times: Floats
    stopped: str | None


def simulated_runs(scenario: Scenario, strategy_index: int, failure_seeds: Sequence[int]) -> list[SimulatedRun]:
    """Runs of a strategy, without training. A task."""
    found = []
    for seed in failure_seeds:
        run = simulate(scenario, scenario.strategies[strategy_index], seed, 0, time_only(scenario))
        found.append(SimulatedRun(rebuilt_in(run), first_times(run), run.stopped))
    return found


def rebuilt_in(run: Run) -> tuple[Rebuilt, ...]:
    """The stages that recoveries of a run have rebuilt, in order of steps."""
    return tuple(
        Rebuilt(edit.stage, step, edit.sources[0] if edit.rule == "copy" else None)
        for step, edit in edits_of_weights(run.edits)
    )


def predicted_runs(template: ScenarioTemplate, branches: Branches, executor: Executor) -> WholeRuns:
    """Whole runs of every strategy at multiples of the scenario's failure rate, under each training seed."""
    axis = template.failure_rates(FACTORS)
    predictions = branches.predictions()
    seeds = next(iter(predictions.values())).seeds
    first = template.scenario.seeds.failures[0]
    failure_seeds = {
        seed: range(first + n * RUNS_PER_SEED, first + (n + 1) * RUNS_PER_SEED) for n, seed in enumerate(seeds)
    }
    every = [seed for own in failure_seeds.values() for seed in own]
    asked = {}
    for value in axis.values:
        scenario = template.point([(axis, value)] if axis.field else []).scenario
        for index, config in enumerate(scenario.strategies):
            if config.name in predictions:
                asked[value, config.name] = executor.submit(simulated_runs, scenario, index, every), scenario
    rows = []
    for (value, name), (future, scenario) in asked.items():
        runs = dict(zip(every, future.result(), strict=True))
        for seed, own in failure_seeds.items():
            for failure_seed in own:
                about = {"value": value, "strategy": name, "training_seed": seed, "failure_seed": failure_seed}
                rows.append(about | outcome(runs[failure_seed], predictions[name], seed, scenario))
    return WholeRuns(axis.field, pd.DataFrame(rows), template.scenario.training.target_loss)


def outcome(run: SimulatedRun, prediction: Prediction, seed: int, scenario: Scenario) -> dict[str, float]:
    """The predicted outcome of a run under a training seed; NaN where it misses the target, or stops."""
    target, iterations = scenario.training.target_loss, scenario.iterations_per_step
    steps = math.nan if target is None else prediction.step_of(target, seed, run.rebuilt)
    hours = first_time(run.times, steps * iterations) / SECONDS_PER_HOUR
    losses = prediction.losses(seed, run.rebuilt)
    return {
        "num_rebuilt": len(run.rebuilt),
        "steps_to_target": math.nan if math.isnan(hours) else steps,
        "hours_to_target": hours,
        "final_validation_loss": math.nan if run.stopped else float(losses[-1]),
    }
