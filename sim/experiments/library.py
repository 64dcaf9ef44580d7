"""Runs and sweeps as functions of a scenario or its file."""

from __future__ import annotations

from pathlib import Path

from sim.core.text import suggestion
from sim.experiments.sweep import (
    ExecutorKind,
    SweepObserver,
    SweepOptions,
    SweepOutcome,
    open_executor,
    run_sweep,
)
from sim.experiments.training import Texts, open_training
from sim.results.in_memory import SimulatedRun
from sim.scenario.loading import ScenarioSource, document_of, scenario_of
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import load_points
from sim.simulation.run import simulate, time_only
from sim.strategies import StrategyConfig


def simulate_run(
    source: ScenarioSource,
    strategy: str | None = None,
    *,
    failure_seed: int | None = None,
    training_seed: int | None = None,
    train: bool = True,
    cache: str | Path | None = None,
) -> SimulatedRun:
    """Simulate one strategy of a scenario under one pair of seeds; nothing is written.

    strategy: its label or kind, not needed where the scenario has one alone. Seeds: by default the scenario's first.
    train: whether the learner of the scenario is used, or only times are simulated. cache: folder in which training
    states are kept; by default they are kept in memory, for this run. ScenarioError for a faulty scenario; ValueError
    for an unknown strategy or text that cannot be read.
    """
    document, base_folder = document_of(source)
    scenario = scenario_of(document, base_folder, [])
    config = chosen_strategy(scenario, strategy)
    failure_seed = scenario.seeds.failures[0] if failure_seed is None else failure_seed
    training_seed = scenario.seeds.training[0] if training_seed is None else training_seed
    if train:
        folder = Path(cache) if cache is not None else None
        training = open_training(scenario, Texts(base_folder, folder).of(scenario), training_seed, folder)
    else:
        training = time_only(scenario)
    return SimulatedRun(scenario, simulate(scenario, config, failure_seed, training_seed, training))


def sweep_scenario(
    source: ScenarioSource,
    results: str | Path,
    *,
    cache: str | Path | None = None,
    jobs: int | None = None,
    options: SweepOptions | None = None,
    observer: SweepObserver | None = None,
) -> SweepOutcome:
    """Do all runs of a scenario, at each point of its sweep, and train no step twice; finished runs are not repeated.

    results: folder below which the scenario's folder is written; `outcome.results()` loads it. cache: folder of
    training states, such as `default_cache()`; by default they are deleted. jobs: workers; by default as needed, up to
    every core. A run that fails is named in `outcome.failures`. ScenarioError for a faulty scenario; ValueError
    for one that cannot be run; OSError where the disk refuses.
    """
    points, (_, base_folder) = load_points(source), document_of(source)
    folders = Path(results), base_folder, Path(cache) if cache is not None else None
    if jobs is None:
        return run_sweep(points, *folders, observer=observer, options=options)
    learns = any(point.scenario.training.learner == "torch" for point in points)
    with open_executor(ExecutorKind.serial if jobs == 1 else ExecutorKind.pool, jobs, None, learns) as executor:
        return run_sweep(points, *folders, executor, observer, options)


def chosen_strategy(scenario: Scenario, name: str | None) -> StrategyConfig:
    """The strategy of a name; of a scenario with one strategy alone, that one. ValueError where there is none."""
    names = {config.name: config for config in scenario.strategies}
    if name is None:
        if len(names) > 1:
            raise ValueError(f"the scenario has {len(names)} strategies: name one of {', '.join(names)}")
        return scenario.strategies[0]
    if name not in names:
        raise ValueError(f"strategy '{name}': not in the scenario{suggestion(name, names)}")
    return names[name]
