"""The job of a sweep: its runs, their survey, their training and their results; and the outline of this work.

A run's seconds do not depend on losses. So all runs are first surveyed, which is a simulation without training
(`training_plan`); the training that they need together is cut into segments, each trained once; when the segments of a
run are done, it is simulated again with its losses and written. Workers only compute: this process alone writes, so
that the death of a worker, or of this process, loses no more than the tasks under way.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.training_plan import Demands, Segment, num_steps, together
from sim.experiments.executors import MOST_ATTEMPTS, Executor, Work, WorkerDiedError
from sim.experiments.folder import End, Purpose, RunProgress, SweepFolder, SweepProgress
from sim.experiments.plan import SweepRun, plan_runs
from sim.experiments.queue import Item, WorkQueue
from sim.experiments.segment_work import SegmentWork
from sim.experiments.state_training import MOST_IDLE_ROUNDS, VANISHING, shared_training
from sim.experiments.tasks import Outcomes, simulate_task, survey, time_simulation
from sim.experiments.training import Texts, keep_compiled_code
from sim.experiments.training_workers import TrainingWorkers
from sim.scenario.sweep_points import Point
from sim.simulation.run import Run

if TYPE_CHECKING:
    from models.shared_training import SharedTraining

MOST_SURVEYED, FEWEST_TIMED = 50, 4
"""Runs of one task of a survey, at most; runs of a kind without training, from which on one is timed."""

MOST_RUNS_REPORTED = 32
"""The progress of a sweep with more runs to do says nothing of single ones."""

SECONDS_BETWEEN_NOTES = 1.0


class SweepJob:
    """The runs of some points, of one results folder; from `begin` on with an executor and, if any trains, training.

    watch: called with the progress each time that results come in. made_for: see `SweepFolder`. failures: message and
    traceback by run. demands: on training, by surveyed run. table: of finished and failed runs, at the end of `do`.
    """

    executor: Executor
    training: SharedTraining | None
    trainers: TrainingWorkers
    table: pd.DataFrame

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
        self.plan_arguments = base_folder, results_folder, Texts(base_folder, cache)
        self.runs = plan_runs(self.points, *self.plan_arguments)
        for run in self.runs:
            keep_compiled_code(run.plan.scenario, cache)
        self.folder = SweepFolder(results_folder / self.points[0].scenario.name, made_for)
        self.failures: dict[SweepRun, tuple[str, str]] = {}
        self.demands: dict[SweepRun, Demands] = {}
        self.survey_seconds = 0.0
        self.simulation_seconds: dict[Hashable, float] = {}
        self.attempts = Counter[Item]()
        self._open: dict[SweepRun, None] = {}
        self._is_finished: dict[SweepRun, bool | None] = {}  # of runs to do; false: failed
        self._progress = SweepProgress()
        self._noted_seconds = 0.0
        self._is_doing = False

    @property
    def learns(self) -> bool:
        """Whether any of its runs trains a model."""
        return any(run.learns for run in self.runs)

    @property
    def num_trained_steps(self) -> int:
        """Steps trained so far."""
        return self.training.num_trained_steps if self.training else 0

    def begin(self, executor: Executor, training: SharedTraining | None) -> None:
        """Set the executor and the training that the runs are done with."""
        self.executor, self.training = executor, training
        self.trainers = TrainingWorkers(executor, [run.plan.corpus for run in self.runs if run.plan.corpus])

    def survey(self, runs: Sequence[SweepRun]) -> None:
        """Find the runs' demands on training; of many without training, one of each kind is timed. Faulty ones fail."""
        began_seconds = time.monotonic()
        SurveyWork(self, runs).run()
        self.survey_seconds += time.monotonic() - began_seconds

    def do(self, to_do: Sequence[SweepRun]) -> None:
        """Do runs to their end; those that fail are kept in `failures` and the folder. OSError if the disk refuses."""
        end: End = "stopped"
        reason = ""
        try:
            self.folder.begin(self.runs, to_do)
            self._is_doing = True
            for run in (run for run in to_do if run in self.failures):  # those that could not be surveyed
                self.folder.failed(run, *self.failures[run])
            self._do([run for run in to_do if run not in self.failures])
            self.table = self.folder.write_table(self.runs)
            end = "finished"
        except KeyboardInterrupt:
            end = "interrupted"
            raise
        except BaseException as error:
            reason = str(error)
            raise
        finally:
            self.folder.progressed(self._progress, end, reason)
            if end != "finished":
                with suppress(Exception):  # the first error matters more
                    self.folder.write_table(self.runs)

    def _do(self, runs: Sequence[SweepRun]) -> None:
        """Survey runs and, until each is written or has failed, plan and do the training that they need."""
        self._open = dict.fromkeys(runs)
        self._is_finished |= dict.fromkeys(runs)
        self.survey(runs)
        num_idle_rounds = 0
        while self._open:
            before = len(self._open), self.num_trained_steps
            asked = {run: self.demands.get(run, {}) for run in self._open}
            segments = self.training.plan(together(asked.values())) if self.training else []
            SweepWork(self, WorkQueue(segments, asked)).run()
            num_idle_rounds = num_idle_rounds + 1 if before == (len(self._open), self.num_trained_steps) else 0
            if num_idle_rounds == MOST_IDLE_ROUNDS:
                raise RuntimeError(VANISHING)

    def write(self, run: SweepRun, result: Run | Outcomes) -> None:
        """Write a run that is done."""
        run.write(result, self.demands.get(run))
        del self._open[run]
        self._is_finished[run] = True

    def fail(self, run: SweepRun, error: BaseException) -> None:
        """Give a run up."""
        self._open.pop(run, None)
        self._is_finished[run] = False
        message = str(error) or type(error).__name__
        if isinstance(error, WorkerDiedError):
            message = f"its worker died {MOST_ATTEMPTS} times, perhaps out of memory: {message}"
        self.failures[run] = message, "".join(traceback.format_exception(error))
        if self._is_doing:
            self.folder.failed(run, *self.failures[run])

    def report(self, queue: WorkQueue | None = None, under_way: tuple[str, ...] = ()) -> None:
        """Report the progress, and write it now and then."""
        ends = Counter(self._is_finished.values())
        runs = list(self._is_finished) if len(self._is_finished) <= MOST_RUNS_REPORTED else []
        self._progress = SweepProgress(
            num_runs=len(self._is_finished),
            num_finished=ends[True],
            num_failed=ends[False],
            num_surveyed=len(self.demands),
            num_steps_trained=self.num_trained_steps,
            num_steps_left=queue.num_steps_left if queue else 0,
            under_way=under_way,
            runs=tuple(self._progress_of(run, queue) for run in runs),
        )
        self.watch(self._progress)
        if self._is_doing and time.monotonic() - self._noted_seconds > SECONDS_BETWEEN_NOTES:
            self._noted_seconds = time.monotonic()
            self.folder.progressed(self._progress)

    def _progress_of(self, run: SweepRun, queue: WorkQueue | None) -> RunProgress:
        needed, is_finished = num_steps(self.demands.get(run, {})), self._is_finished[run]
        title = f"{run.strategy.name} f{run.failure_seed} t{run.training_seed}"
        if is_finished is not None:
            return RunProgress(title, needed, needed, "finished" if is_finished else "failed")
        left = queue.num_steps_left_of(run) if queue else 0
        return RunProgress(title, needed, needed - left, ("training" if left else "simulating") if needed else "")

    def add_replicates(self, wanted: Mapping[int, int], only_finished: bool = False) -> list[SweepRun]:
        """Add replicates to points, by number; return the new runs. only_finished: just those; points stay."""
        points = list(self.points)
        for number, num_replicates in wanted.items():
            points[number] = points[number].with_more_replicates(num_replicates)
        known = {run.key for run in self.runs}
        added = [run for run in plan_runs(points, *self.plan_arguments) if run.key not in known]
        if only_finished:
            added = [run for run in added if run.is_finished]
        else:
            self.points = points
        self.runs += added
        return added

    def keep_added(self) -> list[SweepRun]:
        """Keep finished runs of replicates that an earlier sweep of this folder has added; return them."""
        seeds = [point.scenario.seeds for point in self.points]
        return self.add_replicates(self.folder.added_replicates(seeds), only_finished=True)


@contextmanager
def begun(
    job: SweepJob, executor: Executor, cache: Path, cache_bytes: int | None = None, dry_run: bool = False
) -> Iterator[None]:
    """Begin a job, with its training in a cache and its folder locked. A dry run locks nothing and makes no cache."""
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(job.folder.locked())
        training = stack.enter_context(shared_training(cache, cache_bytes, dry_run)) if job.learns else None
        job.begin(executor, training)
        stack.enter_context(closing(job.trainers))
        yield


Runs = tuple[SweepRun, ...]


class SurveyWork(Work[Runs]):
    """The survey of runs of a sweep: a task is some runs of one kind, or a single one without training to time."""

    def __init__(self, job: SweepJob, runs: Sequence[SweepRun]) -> None:
        super().__init__(job.executor)
        self.job = job
        by_kind: dict[Hashable, list[SweepRun]] = {}
        for run in runs:
            by_kind.setdefault(run.kind, []).append(run)
        most = max(1, min(MOST_SURVEYED, math.ceil(len(runs) / (2 * self.executor.num_workers))))
        for kind, alike in by_kind.items():
            if alike[0].learns:
                new = [run for run in alike if run not in job.demands]
                self.waiting.extend(tuple(new[start : start + most]) for start in range(0, len(new), most))
            elif len(alike) >= FEWEST_TIMED and kind not in job.simulation_seconds:
                self.waiting.append((alike[0],))

    def submit(self, task: Runs) -> Future[Any]:
        """Simulate runs without training."""
        if task[0].learns:
            return self.executor.submit(survey, [run.task for run in task])
        return self.executor.submit(time_simulation, task[0].task)

    def done(self, task: Runs, result: Any) -> None:
        """Keep the runs' demands on training, or the time."""
        if task[0].learns:
            self.job.demands.update(zip(task, result, strict=True))
        else:
            self.job.simulation_seconds[task[0].kind] = result

    def failed(self, task: Runs, error: BaseException) -> None:
        """Give up a single run; several are tried one by one, so that each has its own error."""
        if len(task) > 1:
            self.waiting.extend((run,) for run in task)
        else:
            self.job.fail(task[0], error)

    def heartbeat(self, under_way: Sequence[Runs]) -> None:  # noqa: ARG002
        """Report the progress."""
        self.job.report()


class SweepWork(SegmentWork):
    """The segments and runs of a queue. Runs whose states were gone, or whose training diverged, stay open."""

    def __init__(self, job: SweepJob, queue: WorkQueue) -> None:
        super().__init__(job.executor, job.trainers, job.training, queue, job.attempts)
        self.job = job

    def submit(self, task: Item) -> Future[Any] | None:
        """Train segments, or simulate a run with its losses."""
        if isinstance(task, Segment):
            return super().submit(task)
        losses = self.trained.losses(self.job.demands[task]) if task.learns else None
        return self.executor.submit(simulate_task, task.task, losses)

    def done(self, task: Item, result: Any) -> None:
        """Let others start from the states of segments."""
        if isinstance(task, Segment):
            super().done(task, result)

    def keep(self, task: Item, result: Any) -> None:
        """Write a run, or commit the results of segments."""
        if isinstance(task, Segment):
            super().keep(task, result)
        else:
            self.job.write(task, result)

    def failed(self, task: Item, error: BaseException) -> None:
        """Give up a run or segments."""
        if isinstance(task, Segment):
            super().failed(task, error)
        else:
            self.job.fail(task, error)

    def gave_up(self, segment: Segment, error: BaseException) -> None:
        """Give up all runs that need a segment."""
        for run in self.queue.give_up(segment):
            self.job.fail(run, error)

    def heartbeat(self, under_way: Sequence[Item]) -> None:
        """Report the progress."""
        self.job.report(self.queue, self.names_of(under_way))
