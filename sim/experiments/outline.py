"""The work ahead of a sweep: its runs and training steps, and an estimate of its real time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.spec import TrainingSpec, plain_routes
from models.training_plan import Segment, longest_paths, num_steps, together
from sim.core.text import format_count
from sim.experiments.executors import Executor
from sim.experiments.plan import SweepRun
from sim.experiments.scheduler import Sweep


@dataclass(frozen=True)
class Outline:
    """Runs and steps of a sweep, and an estimate of its real time.

    num_steps_alone: if each run trained what it asks for by itself; num_steps_distinct: each once, for all runs,
    finished ones left out; num_steps_left: of those, what is not known yet or must be trained again from an older
    state. step_seconds, left_seconds: None where they were not estimated.
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
    corpus: str = "no text"
    learner: str = "none"

    def in_words(self) -> list[str]:
        """A line for runs, one for training, one for time."""
        left = self.num_runs - self.num_finished
        runs, points = format_count(self.num_runs, "run"), format_count(self.num_points, "point")
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
        elif self.learner == "curve":
            lines.append("Training: losses come from the parametric curve.")
        else:
            lines.append("Training: nothing is trained, time only.")
        workers = format_count(self.num_workers, "worker")
        step = "" if self.step_seconds is None else f" ({1e3 * self.step_seconds:.3g} ms a step, measured just now)"
        known = self.left_seconds is not None and math.isfinite(self.left_seconds)
        return [
            *lines,
            f"About {format_duration(self.left_seconds or 0.0)} on {workers}{step}." if known else f"On {workers}.",
        ]


def outline(sweep: Sweep, runs: Sequence[SweepRun], to_do: Sequence[SweepRun], with_time: bool = True) -> Outline:
    """The work of a surveyed sweep. runs: those asked for; to_do: those of them that are not finished.

    with_time: estimate the real time too, for which some steps are trained.
    """
    asked = [sweep.demands[run] for run in to_do if run in sweep.demands]
    segments = sweep.training.plan(together(asked)) if sweep.training and asked else []
    left_seconds, step_seconds = simulation_seconds(sweep, to_do) if with_time else None, None
    if segments and with_time:
        found = estimate(segments, sweep.texts, sweep.executor)
        step_seconds, training_seconds = found or (None, math.inf)
        left_seconds = (left_seconds or 0.0) + training_seconds
    return Outline(
        num_points=len({run.point for run in runs}),
        num_runs=len(runs),
        num_finished=len(runs) - len(to_do),
        num_steps_alone=sum(map(num_steps, asked)),
        num_steps_distinct=num_steps(together(asked)),
        num_steps_left=sum(segment.num_steps for segment in segments),
        step_seconds=step_seconds,
        left_seconds=left_seconds,
        num_workers=sweep.executor.num_workers,
        corpus=runs[0].plan.corpus_description if runs else "no text",
        learner=runs[0].plan.scenario.training.learner if runs else "none",
    )


def simulation_seconds(sweep: Sweep, to_do: Sequence[SweepRun]) -> float | None:
    """Real seconds to simulate runs: of those that learn as long as their survey took; of others by one of each kind.

    None where none was timed: of each kind there are but a few.
    """
    if any(run.learns for run in to_do):
        return sweep.survey_seconds
    if not sweep.simulation_seconds:
        return None
    usual = statistics.mean(sweep.simulation_seconds.values())
    return sum(sweep.simulation_seconds.get(run.kind, usual) for run in to_do) / sweep.executor.num_workers


def estimate(segments: Sequence[Segment], texts: Mapping[str, Any], executor: Executor) -> tuple[float, float] | None:
    """Real seconds of a step, on average, and of all segments: shared evenly, no less than the critical path.

    None if steps cannot be timed, for example because training diverges at once; the runs then report that.
    """
    from models.segment import measure_step_seconds

    kinds = {segment: kind_of(segment.lineage.spec) for segment in segments}
    timed: dict[TrainingSpec, float] = {}
    for kind in dict.fromkeys(kinds.values()):
        future = executor.submit(measure_step_seconds, kind, texts[kind.corpus])
        if future.exception() is None:
            timed[kind] = future.result()
    if not timed:
        return None
    usual = statistics.mean(timed.values())
    seconds = {segment: timed.get(kinds[segment], usual) for segment in segments}
    total = sum(segment.num_steps * seconds[segment] for segment in segments)
    longest = max(steps * seconds[segment] for segment, steps in longest_paths(segments).items())
    return usual, max(total / executor.num_workers, longest)


def kind_of(spec: TrainingSpec) -> TrainingSpec:
    """A recipe without seeds and routes: steps of equal ones take equally long."""
    return spec.model_copy(update={"init_seed": 0, "data_seed": 0, "routes": plain_routes(spec.model.num_stages)})


def format_duration(seconds: float) -> str:
    """Real time for people."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
