"""Sweeps and scenarios, from their points to their results: the work ahead, the runs, added replicates."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sim.core.text import format_count
from sim.experiments.executors import Executor, InProcess, ProcessPool
from sim.experiments.folder import End, Purpose, RunsFolder, SweepFolder, fields_of
from sim.experiments.outline import Outline, outline
from sim.experiments.plan import SweepRun, plan_runs, selected
from sim.experiments.scheduler import Sweep, SweepProgress
from sim.experiments.sequential import metric_of, seeds_wanted, too_wide
from sim.experiments.tasks import load_training
from sim.experiments.training import Texts
from sim.experiments.versions import components
from sim.results.statistics import points_of
from sim.results.storage import Results, RunFiles, load, load_run
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point

if TYPE_CHECKING:
    from models.shared_training import SharedTraining


SECONDS_BETWEEN_NOTES = 1.0


class SweepJob:
    """The runs of some points, of one results folder and one executor.

    watch: called with the progress each time that results come in. made_for: "run" leaves the runs' folders alone,
    without the files that describe a sweep.
    """

    def __init__(
        self,
        points: Sequence[Point],
        base_folder: Path,
        results_folder: Path,
        cache: Path,
        watch: Callable[[SweepProgress], None] = lambda _: None,
        made_for: Purpose = "sweep",
    ) -> None:
        self.points, self.watch = list(points), watch
        self._texts = Texts(base_folder, cache)
        self._folders = base_folder, results_folder
        self.runs = self._plan(self.points)
        folder = results_folder / self.points[0].scenario.name
        self.folder = RunsFolder(folder) if made_for == "run" else SweepFolder(folder, made_for)
        self.failures: dict[SweepRun, tuple[str, str]] = {}
        self._progress: SweepProgress | None = None
        self._noted_seconds = 0.0
        self._is_doing = False
        self._table: pd.DataFrame | None = None
        self._sweep: Sweep | None = None

    def _plan(self, points: Sequence[Point]) -> list[SweepRun]:
        return plan_runs(points, *self._folders, self._texts)

    @property
    def learns(self) -> bool:
        """Whether any of its runs trains a model."""
        return any(run.learns for run in self.runs)

    def begin(self, executor: Executor, training: SharedTraining | None) -> None:
        """Set the executor and the training that the runs are done with."""
        corpora = {run.plan.corpus.content_hash: run.plan.corpus for run in self.runs if run.plan.corpus}
        texts = {content_hash: executor.share(corpus) for content_hash, corpus in corpora.items()}
        self._sweep = Sweep(executor, training, texts, self._on_progress, self._on_failure)

    @property
    def sweep(self) -> Sweep:
        """The runs with their executor and training."""
        assert self._sweep is not None, "begin first"
        return self._sweep

    def outline(self, runs: Sequence[SweepRun], to_do: Sequence[SweepRun], with_time: bool = True) -> Outline:
        """The work ahead for some runs."""
        self.sweep.survey(to_do)
        return outline(self.sweep, runs, to_do, with_time)

    def do(self, to_do: Sequence[SweepRun]) -> None:
        """Do runs to their end; those that fail are kept in `failures` and the folder. OSError if the disk refuses."""
        end: End = "stopped"
        reason = ""
        try:
            self.folder.begin(self.runs, to_do)
            self._is_doing = True
            for run in (run for run in to_do if run in self.failures):  # those that could not be surveyed
                self.folder.failed(run, *self.failures[run])
            self.sweep.do([run for run in to_do if run not in self.failures])
            self._table = self.folder.write_table(self.runs)
            end = "finished"
        except KeyboardInterrupt:
            end = "interrupted"
            raise
        except BaseException as error:
            reason = str(error)
            raise
        finally:
            self.folder.progressed(self._progress or SweepProgress(), end, reason)
            if end != "finished":
                with suppress(Exception):  # the first error matters more
                    self.folder.write_table(self.runs)

    def table(self) -> pd.DataFrame:
        """A row for each run that is finished or has failed, as of the end of `do`."""
        assert self._table is not None, "do something first"
        return self._table

    def add_replicates(self, wanted: dict[int, int]) -> list[SweepRun]:
        """Give points, by their number, more failure seeds, counted up from their last; the runs that this adds."""
        for number, num_seeds in wanted.items():
            self.points[number] = self.points[number].with_more_failure_seeds(num_seeds)
        known = {run.planned.key for run in self.runs}
        added = [run for run in self._plan(self.points) if run.planned.key not in known]
        self.runs += added
        return added

    def keep_added(self) -> list[SweepRun]:
        """Finished runs of failure seeds that an earlier sweep of this folder has added stay among its runs; these."""
        points = list(self.points)
        for number, num_seeds in self.folder.added_seeds([point.scenario.seeds.failures for point in points]).items():
            points[number] = points[number].with_more_failure_seeds(num_seeds)
        known = {run.planned.key for run in self.runs}
        kept = [run for run in self._plan(points) if run.planned.key not in known and run.is_finished]
        self.runs += kept
        return kept

    def _on_progress(self, progress: SweepProgress) -> None:
        self._progress = progress
        self.watch(progress)
        if self._is_doing and time.monotonic() - self._noted_seconds > SECONDS_BETWEEN_NOTES:
            self._noted_seconds = time.monotonic()
            self.folder.progressed(progress)

    def _on_failure(self, run: SweepRun, error: str, details: str) -> None:
        self.failures[run] = error, details
        if self._is_doing:
            self.folder.failed(run, error, details)


# What commands, notebooks and studies call.


class SweepObserver:
    """The receiver of what a sweep reports while it runs; ignores all of it."""

    def planned(self, outline: Outline, finished: Sequence[SweepRun]) -> None:
        """The work ahead; finished: runs that were finished before and are not repeated."""

    def progressed(self, progress: SweepProgress) -> None:
        """Results have come in, or some seconds have passed."""

    def noted(self, line: str) -> None:
        """A decision that concerns the results, in a sentence."""


@dataclass(frozen=True)
class SweepOptions:
    """Which runs of a sweep are done, and how many.

    only: `selected` says what it can name. until_ci: add failure seeds until the 95 % interval of each strategy's time
    is within this share of its mean, up to max_replicates. dry_run: only outline the work, and write nothing.
    cache_bytes: disk space of training states; None: the usual.
    """

    force: bool = False
    only: tuple[str, ...] = ()
    dry_run: bool = False
    until_ci: float | None = None
    max_replicates: int = 100
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        """Options that fit together."""
        if self.until_ci is not None and self.only:
            raise ValueError("--until-ci adds replicates of all strategies at a point: give it without --only")


@dataclass(frozen=True)
class SweepOutcome:
    """A sweep that is done, or was only outlined: its runs, those that failed with their errors, and its table.

    table: a row for each run that is finished or has failed; None after a dry run.
    """

    folder: Path
    points: tuple[Point, ...]
    runs: tuple[SweepRun, ...]
    outline: Outline
    failures: Mapping[str, str]
    table: pd.DataFrame | None
    num_trained_steps: int

    @property
    def fields(self) -> list[str]:
        """The swept fields."""
        return fields_of(self.runs)

    def results(self) -> Results:
        """All results in the folder, as DataFrames."""
        return load(self.folder)

    def run_files(self) -> list[RunFiles]:
        """The runs that are finished with their records, in the order planned."""
        return [load_run(run.planned.folder) for run in self.runs if run.is_finished and run.keeps_records]


def run_sweep(
    points: Sequence[Point],
    results_folder: Path,
    base_folder: Path = Path(),
    cache: Path | None = None,
    executor: Executor | None = None,
    observer: SweepObserver | None = None,
    options: SweepOptions | None = None,
) -> SweepOutcome:
    """Do all runs of some points and train no step twice; finished ones are not repeated.

    base_folder: that of the scenario's file, from which its texts are found. cache: of training states; None keeps
    none. executor: by default all cores of this machine. Raises ValueError for what cannot be planned, OSError if the
    disk refuses; a run that fails is kept in the outcome.
    """
    observer, options = observer or SweepObserver(), options or SweepOptions()
    with cache_or_temporary(cache) as folder:
        job = SweepJob(points, base_folder, results_folder, folder, observer.progressed)
        return do_job(job, folder, executor, observer, options)


def run_scenario(
    scenario: Scenario,
    results_folder: Path,
    base_folder: Path = Path(),
    cache: Path | None = None,
    executor: Executor | None = None,
    observer: SweepObserver | None = None,
    force: bool = False,
) -> SweepOutcome:
    """Do all runs of a scenario, without its `sweep:`; arguments as of `run_sweep`. Writes the runs' folders alone."""
    observer = observer or SweepObserver()
    with cache_or_temporary(cache) as folder:
        points = [Point({}, scenario)]
        job = SweepJob(points, base_folder, results_folder, folder, observer.progressed, made_for="run")
        return do_job(job, folder, executor, observer, SweepOptions(force))


def do_job(
    job: SweepJob, cache: Path, executor: Executor | None, observer: SweepObserver, options: SweepOptions
) -> SweepOutcome:
    """Outline the selected runs and, unless that is all that is asked for, do them."""
    runs = selected(job.runs, options.only)
    to_do = [run for run in runs if options.force or not run.is_finished]
    finished = [run for run in runs if run not in set(to_do)]
    if options.until_ci is None and (kept := job.keep_added()):
        observer.noted(
            f"{len(kept):,} finished runs of failure seeds that --until-ci has added stay among the results."
        )
    with ExitStack() as stack:
        executor = executor or stack.enter_context(default_executor(to_do))
        if not options.dry_run:
            stack.enter_context(job.folder.locked())
            if to_do and job.learns and executor.num_workers > 1:
                for _ in range(executor.num_workers):  # workers load torch while this process prepares the work
                    executor.submit(load_training)
        job.begin(executor, stack.enter_context(shared_training(job, cache, options.cache_bytes, options.dry_run)))
        found = job.outline(runs, to_do, with_time=isinstance(job.folder, SweepFolder))
        observer.planned(found, finished)
        if not options.dry_run:
            job.do(to_do)
        if options.until_ci is not None and not options.dry_run:
            narrow_intervals(job, options.until_ci, options.max_replicates, options.force, observer.noted)
    return SweepOutcome(
        folder=job.folder.folder,
        points=tuple(job.points),
        runs=tuple(job.runs),
        outline=found,
        failures={run.name: error for run, (error, _) in job.failures.items()},
        table=None if options.dry_run else job.table(),
        num_trained_steps=job.sweep.num_trained_steps,
    )


def narrow_intervals(job: SweepJob, share: float, most: int, force: bool, note: Callable[[str], None]) -> None:
    """Add failure seeds, the same for all strategies of a point, until each strategy's interval is within the share.

    It is the interval of the time to the target loss, or to the end where there is no target. No point gets more than
    `most` seeds. Notes what is added and, in the end, which intervals stay wider, and why.
    """
    metric = metric_of([point.scenario for point in job.points])
    while True:
        groups = points_of(job.table(), fields_of(job.runs))
        wanted = seeds_wanted(groups, metric, share, [point.scenario.seeds.failures for point in job.points], most)
        if not wanted:
            break
        added = job.add_replicates(wanted)
        to_do = [run for run in added if force or not run.is_finished]
        points = format_count(len(wanted), "point")
        note(f"Intervals wider than {100 * share:g} % at {points}: {len(added):,} runs more, {len(to_do):,} to do.")
        job.do(to_do)
    for line in too_wide(groups, metric, share):
        note(line)


class ExecutorKind(StrEnum):
    """Where the tasks of a sweep are done."""

    pool = "pool"
    ray = "ray"
    serial = "serial"


@contextmanager
def open_executor(kind: ExecutorKind, jobs: int | None, address: str | None, learns: bool) -> Iterator[Executor]:
    """Open an executor of a kind, and close it afterwards. learns: whether any model is trained in it."""
    if address is not None and kind is not ExecutorKind.ray:
        raise ValueError("--address names a Ray cluster: give it with --executor ray")
    executor: Executor
    if kind is ExecutorKind.ray:
        from sim.experiments.ray_cluster import RayCluster

        environment = None
        if learns:
            from models.trajectory import environment_key

            environment = environment_key()
        executor = RayCluster(address, jobs, environment)
    elif kind is ExecutorKind.serial:
        if jobs not in (None, 1):
            raise ValueError(f"--executor serial works in this process alone: leave out --jobs {jobs}")
        executor = InProcess()
    else:
        executor = ProcessPool(jobs or num_cores())
    try:
        yield executor
    finally:
        executor.close()


STEP_SECONDS, ITERATION_SECONDS, MICROBATCHES_SECONDS = 5e-3, 2e-5, 2e-2
"""Real seconds of a training step of a small model, and of a simulated iteration at the two fidelities, about."""

POOL_SECONDS = 2.0
"""Real seconds until the processes of a pool have started, about."""


def default_executor(to_do: Sequence[SweepRun]) -> AbstractContextManager[Executor]:
    """All cores of this machine; this process alone for short work, and for plug-ins defined in a notebook."""
    used = {run.planned.strategy_index: components(run.plan.scenario, run.strategy).values() for run in to_do}
    is_local = any(component.__module__ == "__main__" for classes in used.values() for component in classes)
    is_short = sum(map(least_seconds, to_do)) < POOL_SECONDS
    return open_executor(ExecutorKind.serial if is_local or is_short else ExecutorKind.pool, None, None, False)


def least_seconds(run: SweepRun) -> float:
    """A rough guess of the real seconds of a run."""
    scenario = run.plan.scenario
    step_seconds = STEP_SECONDS if run.learns else 0.0
    iteration_seconds = ITERATION_SECONDS if scenario.fidelity == "iteration" else MICROBATCHES_SECONDS
    return scenario.training.steps * (step_seconds + scenario.iterations_per_step * iteration_seconds)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def cache_or_temporary(cache: Path | None) -> Iterator[Path]:
    """A folder of training states: the one named, or one that is deleted in the end."""
    if cache is not None:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="churnlab-") as folder:
        yield Path(folder)


@contextmanager
def shared_training(
    job: SweepJob, cache: Path, budget_bytes: int | None, dry_run: bool
) -> Iterator[SharedTraining | None]:
    """The training of a job's runs, kept in a cache; None where nothing is trained. A dry run makes no cache."""
    if not job.learns:
        yield None
        return
    from models.shared_training import SharedTraining
    from models.trajectory_store import DEFAULT_BUDGET_BYTES, TrajectoryStore

    if dry_run and not (cache / "trajectory.sqlite").is_file():
        yield SharedTraining(None)
        return
    with closing(TrajectoryStore(cache, DEFAULT_BUDGET_BYTES if budget_bytes is None else budget_bytes)) as store:
        yield SharedTraining(store)
