"""What a sweep will take, told before it begins."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.spec import TrainingSpec, plain_routes
from models.training_plan import Segment, longest_paths, num_steps, together
from sim.experiments.executors import Executor
from sim.experiments.folder import End, Purpose, SweepFolder
from sim.experiments.plan import SweepRun, plan_runs
from sim.experiments.runner import Texts
from sim.experiments.scheduler import Sweep, SweepProgress
from sim.scenario.sweep_points import Point

if TYPE_CHECKING:
    from models.shared_training import SharedTraining


@dataclass(frozen=True)
class Outline:
    """Runs and steps of a sweep, and how long it may take.

    num_steps_alone: if each run trained what it asks for by itself; num_steps_distinct: each once, for all runs,
    finished ones left out; num_steps_left: of those, what is not known yet or must be gone through again.
    """

    num_points: int
    num_runs: int
    num_finished: int
    num_steps_alone: int
    num_steps_distinct: int
    num_steps_left: int
    step_seconds: float | None
    left_seconds: float | None
    num_workers: int

    def in_words(self) -> list[str]:
        """A line for runs, one for training, one for time."""
        left = self.num_runs - self.num_finished
        points = "1 point" if self.num_points == 1 else f"{self.num_points} points"
        runs = "1 run" if self.num_runs == 1 else f"{self.num_runs:,} runs"
        lines = [f"{runs} at {points}: {self.num_finished:,} finished before, {left:,} to do."]
        if not left:
            return lines
        if self.num_steps_alone:
            known = self.num_steps_distinct - self.num_steps_left
            lines.append(
                f"Training: {self.num_steps_alone:,} steps if each run trained alone,"
                f" {self.num_steps_distinct:,} distinct ones; {max(0, known):,} of them known,"
                f" {self.num_steps_left:,} to train."
            )
        else:
            lines.append("Training: nothing is trained, time only.")
        workers = "1 worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        step = "" if self.step_seconds is None else f" ({1e3 * self.step_seconds:.3g} ms a step, measured just now)"
        known = self.left_seconds is not None and math.isfinite(self.left_seconds)
        return [
            *lines,
            f"About {duration(self.left_seconds or 0.0)} on {workers}{step}." if known else f"On {workers}.",
        ]


def outline(sweep: Sweep, runs: Sequence[SweepRun], to_do: Sequence[SweepRun]) -> Outline:
    """What a surveyed sweep will take. runs: those it is to bring; to_do: those of them that are not finished."""
    asked = [sweep.demands[run] for run in to_do if run in sweep.demands]
    pieces = sweep.workshop.plan(together(asked)) if sweep.workshop and asked else []
    left_seconds, step_seconds = seconds_of_plays(sweep, to_do), None
    if pieces:
        found = estimate(pieces, sweep.texts, sweep.executor)
        step_seconds, training_seconds = found or (None, math.inf)
        left_seconds = (left_seconds or 0.0) + training_seconds
    return Outline(
        num_points=len({run.point for run in runs}),
        num_runs=len(runs),
        num_finished=len(runs) - len(to_do),
        num_steps_alone=sum(map(num_steps, asked)),
        num_steps_distinct=num_steps(together(asked)),
        num_steps_left=sum(piece.num_steps for piece in pieces),
        step_seconds=step_seconds,
        left_seconds=left_seconds,
        num_workers=sweep.executor.num_workers,
    )


def seconds_of_plays(sweep: Sweep, to_do: Sequence[SweepRun]) -> float | None:
    """Seconds to play runs: those that learn as long again as their survey took; of others, one of a kind was timed.

    None where none was: of each kind there are but a few.
    """
    if any(run.learns for run in to_do):
        return sweep.survey_seconds
    if not sweep.play_seconds:
        return None
    usual = statistics.mean(sweep.play_seconds.values())
    return sum(sweep.play_seconds.get(run.kind, usual) for run in to_do) / sweep.executor.num_workers


def estimate(pieces: Sequence[Segment], texts: Mapping[str, Any], executor: Executor) -> tuple[float, float] | None:
    """Seconds of a step, on average, and of all pieces: work shared evenly, no less than the longest way through it.

    None where steps cannot be timed, since training diverges at once, say: whoever needs them will be told.
    """
    from models.segment import measure_step_seconds

    kinds = {piece: kind_of(piece.lineage.spec) for piece in pieces}
    timed: dict[TrainingSpec, float] = {}
    for kind in dict.fromkeys(kinds.values()):
        future = executor.submit(measure_step_seconds, kind, texts[kind.corpus])
        if future.exception() is None:
            timed[kind] = future.result()
    if not timed:
        return None
    usual = statistics.mean(timed.values())
    seconds = {piece: timed.get(kinds[piece], usual) for piece in pieces}
    total = sum(piece.num_steps * seconds[piece] for piece in pieces)
    longest = max(steps * seconds[piece] for piece, steps in longest_paths(pieces).items())
    return usual, max(total / executor.num_workers, longest)


def kind_of(spec: TrainingSpec) -> TrainingSpec:
    """A recipe with seeds and routes left out of account: steps of equal ones take equally long."""
    return spec.model_copy(update={"init_seed": 0, "data_seed": 0, "routes": plain_routes(spec.model.num_stages)})


def duration(seconds: float) -> str:
    """Real time for people."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# A sweep from its points to its results folder: what there is to do, doing it, and more replicates where asked for.

SECONDS_BETWEEN_NOTES = 1.0


class SweepJob:
    """The runs of some points, of one results folder and one executor.

    watch: is told how far it is, each time that something comes in. workshop: None where nothing is trained.
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
        self._folders = base_folder, results_folder, cache
        self.runs = self._plan(self.points)
        self.folder = SweepFolder(results_folder / self.points[0].scenario.name, made_for)
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
        """Whether any of its runs really trains a model."""
        return any(run.learns for run in self.runs)

    def begin(self, executor: Executor, workshop: SharedTraining | None) -> None:
        """From now on these do the work."""
        corpora = {run.runner.corpus.content_hash: run.runner.corpus for run in self.runs if run.runner.corpus}
        texts = {content_hash: executor.share(corpus) for content_hash, corpus in corpora.items()}
        self._sweep = Sweep(executor, workshop, texts, self)

    @property
    def sweep(self) -> Sweep:
        """Who does the work."""
        assert self._sweep is not None, "begin first"
        return self._sweep

    def outline(self, runs: Sequence[SweepRun], to_do: Sequence[SweepRun]) -> Outline:
        """What is to be done for some runs, and how long it may take."""
        self.sweep.survey(to_do)
        return outline(self.sweep, runs, to_do)

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
                with suppress(Exception):  # there is something worse to tell
                    self.folder.write_table(self.runs)

    def table(self) -> pd.DataFrame:
        """A row for each run that is finished or has failed, as the work that was done last has left it."""
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

    def progressed(self, progress: SweepProgress) -> None:
        """Something has come in, or some seconds have passed."""
        self._progress = progress
        self.watch(progress)
        if self._is_doing and time.monotonic() - self._noted_seconds > SECONDS_BETWEEN_NOTES:
            self._noted_seconds = time.monotonic()
            self.folder.progressed(progress)

    def failed(self, run: SweepRun, error: str, details: str) -> None:
        """A run could not be done; the others go on."""
        self.failures[run] = error, details
        if self._is_doing:
            self.folder.failed(run, error, details)


class Kind(StrEnum):
    """Who does the work."""

    pool = "pool"
    ray = "ray"
    serial = "serial"


@contextmanager
def opened(kind: Kind, jobs: int | None, address: str | None, learns: bool) -> Iterator[Executor]:
    """The executor that is asked for, closed in the end. learns: whether any model is trained in it."""
    from sim.experiments.executors import InProcess, ProcessPool

    if address is not None and kind is not Kind.ray:
        raise ValueError("--address names a Ray cluster: give it with --executor ray")
    executor: Executor
    if kind is Kind.ray:
        from sim.experiments.ray_cluster import RayCluster

        environment = None
        if learns:
            from models.trajectory import environment_key

            environment = environment_key()
        executor = RayCluster(address, jobs, environment)
    elif kind is Kind.serial:
        if jobs not in (None, 1):
            raise ValueError(f"--executor serial works in this process alone: leave out --jobs {jobs}")
        executor = InProcess()
    else:
        executor = ProcessPool(jobs or num_cores())
    try:
        yield executor
    finally:
        executor.close()


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def locked(job: SweepJob, dry_run: bool) -> Iterator[None]:
    """Alone in the results folder, unless nothing is to be written."""
    if dry_run:
        yield
    else:
        with job.folder.locked():
            yield


def opened_workshop(job: SweepJob, cache: Path, budget_bytes: int | None, dry_run: bool) -> SharedTraining | None:
    """Where training is kept; None where nothing is trained. A dry run makes no cache."""
    if not job.learns:
        return None
    from models.shared_training import SharedTraining
    from models.trajectory_store import DEFAULT_BUDGET_BYTES, TrajectoryStore

    if dry_run and not (cache / "trajectory.sqlite").is_file():
        return SharedTraining(None)
    return SharedTraining(TrajectoryStore(cache, DEFAULT_BUDGET_BYTES if budget_bytes is None else budget_bytes))
