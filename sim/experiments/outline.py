"""Outline of the work of a sweep: runs, steps to train, and an estimate of the real time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.spec import TrainingSpec, plain_routes
from models.training_plan import Demands, Segment, longest_paths, num_steps, together
from sim.core.text import format_count, format_duration
from sim.experiments.executors import Executor
from sim.experiments.job import SweepJob
from sim.experiments.plan import SweepRun, device_of
from sim.experiments.training_workers import TrainingWorkers, on_gpu

if TYPE_CHECKING:
    from models.shared_training import SharedTraining


@dataclass(frozen=True)
class Outline:
    """Runs and steps of a sweep, and an estimate of its real time.

    num_steps_alone: if each run trained all its steps by itself; num_steps_distinct: each step once, for all runs that
    are not finished; num_steps_left: of those, steps not known yet or to be trained again from an older state.
    step_seconds: of a stack of replicates, if these are trained together. None, left_seconds: infinite where they were
    not estimated. device: as of `devices`.
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
    device: str = ""

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
            if self.device:
                lines.append(f"Trained on {self.device}.")
        elif self.learner == "curve":
            lines.append("Training: losses come from the parametric curve.")
        else:
            lines.append("Training: none, times only.")
        workers = format_count(self.num_workers, "worker")
        step = "" if self.step_seconds is None else f" ({1e3 * self.step_seconds:.3g} ms per step, measured just now)"
        if math.isinf(self.left_seconds):
            return [*lines, f"On {workers}."]
        return [*lines, f"About {format_duration(self.left_seconds)} on {workers}{step}."]


def outline(job: SweepJob, runs: Sequence[SweepRun], to_do: Sequence[SweepRun], with_time: bool = True) -> Outline:
    """The work of a sweep, after a survey. to_do: unfinished ones of its runs. with_time: train and time some steps."""
    job.survey(to_do)
    asked = [job.demands[run] for run in to_do if run in job.demands]
    segments = job.training.plan(together(asked)) if job.training and asked else []
    step_seconds, training_seconds = (
        estimate(job.executor, job.trainers, segments) if segments and with_time else (None, 0.0)
    )
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
        device=devices(to_do),
    )


def devices(runs: Sequence[SweepRun]) -> str:
    """What runs train on; empty for the default, the CPU, where no scenario leaves the choice to the machine."""
    plans = list(dict.fromkeys(run.plan for run in runs if run.learns))
    found = "; ".join(dict.fromkeys(device_of(plan.scenario) for plan in plans))
    return "" if found == "cpu" and all(plan.point.scenario.training.device == "cpu" for plan in plans) else found


def simulation_seconds(job: SweepJob, to_do: Sequence[SweepRun]) -> float:
    """Real seconds to simulate runs: as their survey took, else by one run of each kind; infinite if none was timed."""
    if any(run.learns for run in to_do):
        return job.survey_seconds
    if not job.simulation_seconds:
        return math.inf
    usual = statistics.mean(job.simulation_seconds.values())
    return sum(job.simulation_seconds.get(run.kind, usual) for run in to_do) / job.executor.num_workers


def outline_of_steps(
    demands: Demands, training: SharedTraining, trainers: TrainingWorkers, executor: Executor
) -> list[str]:
    """The training ahead for some losses, in sentences, with an estimate of its real time; some steps are measured."""
    segments = training.plan(demands)
    left = sum(segment.num_steps for segment in segments)
    known = max(0, num_steps(demands) - left)
    lines = [f"Training: {num_steps(demands):,} steps; {known:,} of them known, {left:,} to train."]
    step_seconds, seconds = estimate(executor, trainers, segments) if segments else (None, 0.0)
    if step_seconds is not None:
        step = f"{1e3 * step_seconds:.3g} ms per step, measured just now"
        lines.append(f"About {format_duration(seconds)} on {format_count(executor.num_workers, 'worker')} ({step}).")
    return lines


def estimate(executor: Executor, trainers: TrainingWorkers, segments: Sequence[Segment]) -> tuple[float | None, float]:
    """Real seconds of a step, and of all segments on all workers; None and infinity if steps cannot be timed."""
    from models.segment import measure_step_seconds

    kinds = {}
    for segment in segments:  # steps take equally long whatever the seeds and routes
        spec = segment.lineage.spec.without_seeds
        kinds[segment] = spec.model_copy(update={"routes": plain_routes(spec.model.num_stages)})
    timed: dict[TrainingSpec, float] = {}
    for kind in dict.fromkeys(kinds.values()):
        worker, text = trainers.of(kind)
        future = worker.submit(measure_step_seconds, kind, text)
        if future.exception() is None:
            timed[kind] = future.result()
    if not timed:
        return None, math.inf
    usual = statistics.mean(timed.values())
    seconds = {segment: timed.get(kinds[segment], usual) for segment in segments}
    total = sum(segment.num_steps * seconds[segment] / num_together(executor, kinds[segment]) for segment in segments)
    longest = max(steps * seconds[segment] for segment, steps in longest_paths(segments).items())
    return usual, max(total, longest)


def num_together(executor: Executor, spec: TrainingSpec) -> int:
    """Replicates that the workers train at a time, if stacks are full."""
    return spec.replicates_at_once * (1 if on_gpu(spec) else executor.num_workers)
