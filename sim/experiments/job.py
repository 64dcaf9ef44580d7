"""The job of a sweep: its runs, their survey, their training and their results; and the outline of this work.

A run's seconds do not depend on losses. So all runs are first surveyed, which is a simulation without training
(`training_plan`); the training that they need together is cut into segments, each trained once; when the segments of a
run are done, it is simulated again with its losses and written. Workers only compute: this process alone writes, so
that the death of a worker, or of this process, loses no more than the tasks under way.
"""

from __future__ import annotations

import math
import statistics
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.spec import TrainingSpec, plain_routes
from models.training_plan import Demands, Segment, longest_paths, num_steps, together
from sim.core.text import format_count
from sim.experiments.executors import MOST_ATTEMPTS, Executor, Work, WorkerDiedError
from sim.experiments.folder import End, Purpose, RunProgress, SweepFolder, SweepProgress
from sim.experiments.plan import SweepRun, plan_runs
from sim.experiments.queue import Item, WorkQueue
from sim.experiments.tasks import Outcomes, simulate_task, survey, time_simulation
from sim.experiments.training import Texts
from sim.scenario.sweep_points import Point
from sim.simulation.run import Run

if TYPE_CHECKING:
    from models.shared_training import SharedTraining

MOST_IDLE_ROUNDS = 100

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
    texts: dict[str, Any]
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
    def trained(self) -> SharedTraining:
        """The training of a job in which there is some."""
        assert self.training is not None
        return self.training

    @property
    def num_trained_steps(self) -> int:
        """Steps trained so far."""
        return self.training.num_trained_steps if self.training else 0

    def begin(self, executor: Executor, training: SharedTraining | None) -> None:
        """Set the executor and the training that the runs are done with."""
        self.executor, self.training = executor, training
        corpora = {run.plan.corpus.content_hash: run.plan.corpus for run in self.runs if run.plan.corpus}
        self.texts = {content_hash: executor.share(corpus) for content_hash, corpus in corpora.items()}

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
                raise RuntimeError("training states vanish from the cache as fast as they come: is it being pruned?")

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
            message = f"its worker died {MOST_ATTEMPTS} times, out of memory perhaps: {message}"
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
        """Add failure seeds to points, by number; return the new runs. only_finished: just those; points stay."""
        points = list(self.points)
        for number, num_seeds in wanted.items():
            points[number] = points[number].with_more_failure_seeds(num_seeds)
        known = {run.key for run in self.runs}
        added = [run for run in plan_runs(points, *self.plan_arguments) if run.key not in known]
        if only_finished:
            added = [run for run in added if run.is_finished]
        else:
            self.points = points
        self.runs += added
        return added

    def keep_added(self) -> list[SweepRun]:
        """Keep finished runs of failure seeds that an earlier sweep of this folder has added; return them."""
        seeds = [point.scenario.seeds.failures for point in self.points]
        return self.add_replicates(self.folder.added_seeds(seeds), only_finished=True)


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


class SweepWork(Work[Item]):
    """The segments and runs of a queue. Runs whose states were gone, or whose training diverged, stay open."""

    def __init__(self, job: SweepJob, queue: WorkQueue) -> None:
        super().__init__(job.executor, attempts=job.attempts)
        self.job, self.queue = job, queue

    def next(self) -> Item | None:
        """The next segment or run."""
        return self.queue.next()

    def again(self, task: Item) -> None:
        """Submit a segment or run once more."""
        self.queue.again(task)

    def submit(self, task: Item) -> Future[Any] | None:
        """Train a segment, or simulate a run with its losses; None where a state that a segment needs is gone."""
        job = self.job
        if not isinstance(task, Segment):
            losses = job.trained.losses(job.demands[task]) if task.learns else None
            return self.executor.submit(simulate_task, task.task, losses)
        from models.segment import train_segment
        from models.trajectory import environment_of

        states = {state: job.trained.state(state) for state in task.needs}
        if None in states.values():
            self.queue.give_up(task)  # the next round plans anew
            return None
        older = {state: states[state] for state in task.older}
        start = states[task.start] if task.start else None
        text = job.texts[task.lineage.spec.corpus]
        return self.executor.submit(train_segment, task, text, start, older, environment_of(task.lineage.spec))

    def done(self, task: Item, result: Any) -> None:
        """Let others start from the state of a segment."""
        if isinstance(task, Segment):
            self.job.trained.add_state(task, result)
            if result.divergence is None:
                self.queue.done(task)
            else:
                self.queue.give_up(task)

    def keep(self, task: Item, result: Any) -> None:
        """Write a run; or a segment's results, so that runs that wait for them can be simulated."""
        if not isinstance(task, Segment):
            self.job.write(task, result)
            return
        self.job.trained.commit(task, result, lambda: self.queue.needed_states)
        self.job.trained.discard_states(self.queue.needs)
        self.queue.kept(task)

    def failed(self, task: Item, error: BaseException) -> None:
        """Give up the run, or all runs that need the segment."""
        for run in self.queue.give_up(task) if isinstance(task, Segment) else [task]:
            self.job.fail(run, error)

    def heartbeat(self, under_way: Sequence[Item]) -> None:
        """Report the progress."""
        names = (
            f"training {task.lineage.key[:8]} steps {task.first_step} to {task.last_step}"
            if isinstance(task, Segment)
            else task.name
            for task in under_way
        )
        self.job.report(self.queue, tuple(names))


@dataclass(frozen=True)
class Outline:
    """Runs and steps of a sweep, and an estimate of its real time.

    num_steps_alone: if each run trained all its steps by itself; num_steps_distinct: each step once, for all runs that
    are not finished; num_steps_left: of those, steps not known yet or to be trained again from an older state.
    step_seconds: None, left_seconds: infinite where they were not estimated.
    """

    num_points: int
    num_runs: int
    num_finished: int
    num_steps_alone: int
    num_steps_distinct: int
    num_steps_left: int
    step_seconds: float | None
    left_seconds: float
    num_workers: int
    corpus: str = "no text"
    learner: str = "none"

    @property
    def lines(self) -> list[str]:
        """A line for runs, one for training, one for time."""
        left = self.num_runs - self.num_finished
        runs, points = format_count(self.num_runs, "run"), format_count(self.num_points, "point")
        lines = [f"{runs} at {points}: {self.num_finished:,} finished before, {left:,} to do."]
        if not left:
            return lines
        if self.num_steps_alone:
            known = max(0, self.num_steps_distinct - self.num_steps_left)
            steps = (
                f"{self.num_steps_alone:,} steps if each run trained alone, {self.num_steps_distinct:,} distinct ones"
            )
            lines.append(f"Training: {steps}; {known:,} of them known, {self.num_steps_left:,} to train.")
        elif self.learner == "curve":
            lines.append("Training: losses come from the parametric curve.")
        else:
            lines.append("Training: nothing is trained, time only.")
        workers = format_count(self.num_workers, "worker")
        step = "" if self.step_seconds is None else f" ({1e3 * self.step_seconds:.3g} ms a step, measured just now)"
        if math.isinf(self.left_seconds):
            return [*lines, f"On {workers}."]
        return [*lines, f"About {format_duration(self.left_seconds)} on {workers}{step}."]


def outline(job: SweepJob, runs: Sequence[SweepRun], to_do: Sequence[SweepRun], with_time: bool = True) -> Outline:
    """The work of a sweep, after a survey. to_do: unfinished ones of its runs. with_time: train and time some steps."""
    job.survey(to_do)
    asked = [job.demands[run] for run in to_do if run in job.demands]
    segments = job.training.plan(together(asked)) if job.training and asked else []
    step_seconds, training_seconds = estimate(job, segments) if segments and with_time else (None, 0.0)
    return Outline(
        num_points=len({run.point for run in runs}),
        num_runs=len(runs),
        num_finished=len(runs) - len(to_do),
        num_steps_alone=sum(map(num_steps, asked)),
        num_steps_distinct=num_steps(together(asked)),
        num_steps_left=sum(segment.num_steps for segment in segments),
        step_seconds=step_seconds,
        left_seconds=simulation_seconds(job, to_do) + training_seconds if with_time else math.inf,
        num_workers=job.executor.num_workers,
        corpus=runs[0].plan.corpus_description if runs else "no text",
        learner=runs[0].plan.scenario.training.learner if runs else "none",
    )


def simulation_seconds(job: SweepJob, to_do: Sequence[SweepRun]) -> float:
    """Real seconds to simulate runs: as their survey took, else by one run of each kind; infinite if none was timed."""
    if any(run.learns for run in to_do):
        return job.survey_seconds
    if not job.simulation_seconds:
        return math.inf
    usual = statistics.mean(job.simulation_seconds.values())
    return sum(job.simulation_seconds.get(run.kind, usual) for run in to_do) / job.executor.num_workers


def estimate(job: SweepJob, segments: Sequence[Segment]) -> tuple[float | None, float]:
    """Real seconds of a step, and of all segments on all workers; None and infinity if steps cannot be timed."""
    from models.segment import measure_step_seconds

    kinds = {}
    for segment in segments:  # steps take equally long whatever the seeds and routes
        spec = segment.lineage.spec
        same = {"init_seed": 0, "data_seed": 0, "routes": plain_routes(spec.model.num_stages)}
        kinds[segment] = spec.model_copy(update=same)
    timed: dict[TrainingSpec, float] = {}
    for kind in dict.fromkeys(kinds.values()):
        future = job.executor.submit(measure_step_seconds, kind, job.texts[kind.corpus])
        if future.exception() is None:
            timed[kind] = future.result()
    if not timed:
        return None, math.inf
    usual = statistics.mean(timed.values())
    seconds = {segment: timed.get(kinds[segment], usual) for segment in segments}
    total = sum(segment.num_steps * seconds[segment] for segment in segments)
    longest = max(steps * seconds[segment] for segment, steps in longest_paths(segments).items())
    return usual, max(total / job.executor.num_workers, longest)


def format_duration(seconds: float) -> str:
    """Format real time."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
