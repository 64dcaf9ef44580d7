"""Runs and sweeps as functions of a scenario: what commands, notebooks and studies call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from sim.core.text import suggestion
from sim.experiments.executors import Executor, InProcess, ProcessPool
from sim.experiments.folder import Purpose, SweepProgress
from sim.experiments.job import SweepJob, begun
from sim.experiments.outline import Outline, outline
from sim.experiments.plan import SweepRun, selected
from sim.experiments.precision import precision_lines
from sim.experiments.sequential import narrow_intervals
from sim.experiments.target import Targets
from sim.experiments.tasks import load_training
from sim.experiments.threads import num_cores, with_threads
from sim.experiments.training import Texts, open_training
from sim.experiments.training_workers import on_gpu
from sim.experiments.versions import components
from sim.results.in_memory import SimulatedRun
from sim.results.storage import Results, RunFiles, load, load_run
from sim.scenario.loading import ScenarioSource, document_of, scenario_of
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point, load_points
from sim.simulation.run import simulate, time_only
from sim.strategies import StrategyConfig


class Observer:
    """The receiver of what a sweep or a map reports while it runs; ignores all of it."""

    def planned(self, outline: Outline, finished: Sequence[SweepRun]) -> None:
        """The work ahead; finished: runs that were finished before and are not repeated."""

    def progressed(self, progress: SweepProgress) -> None:
        """Results have come in, or some seconds have passed."""

    def noted(self, line: str) -> None:
        """A decision that concerns the results, in a sentence."""

    def simulated(self, num_trials: int, num_all: int) -> None:
        """The number of strategies in cells of a map that were simulated, of those that are to be simulated now."""


@dataclass(frozen=True)
class SweepOptions:
    """Selection and number of the runs of a sweep.

    force: repeat finished runs. only: strategies, folders or field=value (see `selected`). until_ci: add replicates
    until the 95 % interval of each strategy's time is within this share of its mean, up to max_replicates. dry_run:
    outline the work, and write nothing. cache_bytes: disk space of training states; None: the default. made_for: "run"
    writes the runs' folders, without files that describe a sweep.
    """

    force: bool = False
    only: tuple[str, ...] = ()
    dry_run: bool = False
    until_ci: float | None = None
    max_replicates: int = 100
    cache_bytes: int | None = None
    made_for: Purpose = "sweep"

    def __post_init__(self) -> None:
        """ValueError for options that contradict each other."""
        if self.until_ci is not None and self.only:
            raise ValueError("--until-ci adds replicates of all strategies at a point: give it without --only")


@dataclass(frozen=True)
class SweepOutcome:
    """A finished or planned sweep: its runs, the errors of failed runs, and its table.

    table: a row for each run that is finished or has failed; None after a dry run.
    """

    folder: Path
    points: tuple[Point, ...]
    runs: tuple[SweepRun, ...]
    outline: Outline
    failures: Mapping[str, str]
    table: pd.DataFrame | None
    num_trained_steps: int

    def results(self) -> Results:
        """All results in the folder, as DataFrames."""
        return load(self.folder)

    def run_files(self) -> list[RunFiles]:
        """The finished runs whose records are kept, in the order planned."""
        return [load_run(run.folder) for run in self.runs if run.is_finished and run.keeps_records]


def run_sweep(
    points: Sequence[Point],
    results_folder: Path,
    base_folder: Path = Path(),
    cache: Path | None = None,
    executor: Executor | None = None,
    observer: Observer | None = None,
    options: SweepOptions | None = None,
) -> SweepOutcome:
    """Do all runs of some points and train no step twice; finished ones are not repeated.

    base_folder: of the scenario's file, for its texts. cache: of training states; None keeps none. executor: by default
    as needed, up to all cores. ValueError for what cannot be planned, OSError if the disk refuses; runs that fail are
    in the outcome.
    """
    observer, options = observer or Observer(), options or SweepOptions()
    with ExitStack() as stack:
        cache = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="churnlab-")))
        num_workers = executor.num_workers if executor else num_cores()
        points = with_threads(points, results_folder, num_workers, observer.noted, not options.dry_run)
        points = with_targets(points, base_folder, cache, executor, observer, not options.dry_run)
        job = SweepJob(points, base_folder, results_folder, cache, observer.progressed, options.made_for)
        runs = selected(job.runs, options.only)
        to_do = [run for run in runs if options.force or not run.is_finished]
        if options.until_ci is None and (kept := job.keep_added()):
            number = f"{len(kept):,} finished runs"
            observer.noted(f"{number} of replicates that --until-ci added remain in the results.")
        executor = executor or stack.enter_context(closing(default_executor(to_do)))
        trains_in_workers = any(run.learns and not on_gpu(run.spec) for run in to_do)
        if trains_in_workers and executor.num_workers > 1 and not options.dry_run:
            for _ in range(executor.num_workers):  # workers load torch while this process prepares the work
                executor.submit(load_training)
        stack.enter_context(begun(job, executor, cache, options.cache_bytes, options.dry_run))
        work = outline(job, runs, to_do, with_time=options.dry_run or options.made_for != "run")
        observer.planned(work, [run for run in runs if run not in set(to_do)])
        for line in precision_lines(job, runs) if options.dry_run else ():
            observer.noted(line)
        if not options.dry_run:
            job.do(to_do)
            if options.until_ci is not None:
                narrow_intervals(job, options.until_ci, options.max_replicates, options.force, observer.noted)
    failures = {run.name: error for run, (error, _) in job.failures.items()}
    if not options.dry_run:
        gone = "its results were deleted in the meantime"
        failures |= {run.name: gone for run in runs if not run.is_finished and run.name not in failures}
    points, table = tuple(job.points), None if options.dry_run else job.table
    return SweepOutcome(job.folder.folder, points, tuple(job.runs), work, failures, table, job.num_trained_steps)


def with_targets(
    points: Sequence[Point],
    base_folder: Path,
    cache: Path,
    executor: Executor | None,
    observer: Observer,
    trains: bool = True,
) -> Sequence[Point]:
    """Points with a number in place of `training.target_validation_loss: auto`; arguments as of `Targets`."""
    wanted = [point.scenario for point in points if point.scenario.training.target_validation_loss == "auto"]
    if not wanted:
        return points
    with ExitStack() as stack:
        if executor is None:
            is_parallel = wanted[0].training.learner == "torch" and len(wanted[0].seeds.training) > 1
            executor = stack.enter_context(closing(new_executor("pool" if is_parallel else "serial")))
        return Targets(base_folder, cache, executor, observer.progressed, observer.noted, trains).with_numbers(points)


def run_scenario(
    scenario: Scenario,
    results_folder: Path,
    base_folder: Path = Path(),
    cache: Path | None = None,
    executor: Executor | None = None,
    observer: Observer | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> SweepOutcome:
    """Do all runs of a scenario, without its `sweep:`; arguments as of `run_sweep`. Writes the runs' folders alone."""
    options = SweepOptions(force, dry_run=dry_run, made_for="run")
    return run_sweep([Point({}, scenario)], results_folder, base_folder, cache, executor, observer, options)


def sweep_scenario(
    source: ScenarioSource,
    results: str | Path,
    *,
    cache: str | Path | None = None,
    jobs: int | None = None,
    options: SweepOptions | None = None,
    observer: Observer | None = None,
) -> SweepOutcome:
    """Run all strategies and seeds at each point of a sweep, with shared training steps; finished runs are kept.

    results: folder below which the scenario's folder is written; `outcome.results()` loads it. cache: folder of
    training states, such as `default_cache()`; by default they are deleted. jobs: workers; by default as needed, up to
    every core. A run that fails is named in `outcome.failures`. ScenarioError for a faulty scenario; ValueError
    for one that cannot be run; OSError where the disk refuses.
    """
    points, (_, base_folder) = load_points(source), document_of(source)
    folders = Path(results), base_folder, Path(cache) if cache is not None else None
    if jobs is None:
        return run_sweep(points, *folders, observer=observer, options=options)
    with closing(new_executor("serial" if jobs == 1 else "pool", jobs)) as executor:
        return run_sweep(points, *folders, executor, observer, options)


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

    strategy: its label or kind, optional if the scenario has only one. Seeds: by default the scenario's first.
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
        scenario = with_target(scenario, base_folder, folder)
        training = open_training(scenario, Texts(base_folder, folder).of(scenario), training_seed, folder)
    else:
        training = time_only(scenario)
    return SimulatedRun(scenario, simulate(scenario, config, failure_seed, training_seed, training))


def with_target(scenario: Scenario, base_folder: Path, cache: Path | None) -> Scenario:
    """A scenario with a number in place of `training.target_validation_loss: auto`."""
    with tempfile.TemporaryDirectory(prefix="churnlab-") as temporary:
        (point,) = with_targets([Point({}, scenario)], base_folder, cache or Path(temporary), None, Observer())
    return point.scenario


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


ExecutorKind = Literal["pool", "ray", "serial"]


def new_executor(
    kind: ExecutorKind, jobs: int | None = None, address: str | None = None, learns: bool = False
) -> Executor:
    """An executor of a kind. jobs: workers; None: every core. learns: whether it trains any model."""
    if address is not None and kind != "ray":
        raise ValueError("--address names a Ray cluster: give it with --executor ray")
    if kind == "ray":
        from sim.experiments.ray_cluster import RayCluster

        return RayCluster(address, jobs, learns)
    if kind == "pool":
        return ProcessPool(jobs or num_cores())
    if jobs not in (None, 1):
        raise ValueError(f"--executor serial runs in this process only: leave out --jobs {jobs}")
    return InProcess()


STEP_SECONDS, ITERATION_SECONDS, MICROBATCHES_SECONDS, POOL_SECONDS = 5e-3, 2e-5, 2e-2, 2.0
"""Real seconds, about: of a small model's training step, an iteration at the two fidelities, the start of a pool."""


def default_executor(to_do: Sequence[SweepRun]) -> Executor:
    """All cores of this machine; this process alone for short work, and for plug-ins defined in a notebook."""
    used = {run.strategy_index: components(run.plan.scenario, run.strategy).values() for run in to_do}
    is_local = any(component.__module__ == "__main__" for classes in used.values() for component in classes)
    seconds = 0.0
    for run in to_do:
        scenario = run.plan.scenario
        iteration_seconds = ITERATION_SECONDS if scenario.fidelity == "iteration" else MICROBATCHES_SECONDS
        step_seconds = scenario.iterations_per_step * iteration_seconds + (STEP_SECONDS if run.learns else 0.0)
        seconds += scenario.training.steps * step_seconds
    return new_executor("serial" if is_local or seconds < POOL_SECONDS else "pool")
