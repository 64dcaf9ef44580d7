"""What a sweep will take, told before it begins."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.lineage import TrainingSpec, plain_routes
from models.work import Piece, longest_ways, num_steps, together
from sim.executors import Executor
from sim.sweep import Sweep
from sim.sweep_plan import SweepRun


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


def estimate(pieces: Sequence[Piece], texts: Mapping[str, Any], executor: Executor) -> tuple[float, float] | None:
    """Seconds of a step, on average, and of all pieces: work shared evenly, no less than the longest way through it.

    None where steps cannot be timed, since training diverges at once, say: whoever needs them will be told.
    """
    from models.pieces import seconds_of_a_step

    kinds = {piece: kind_of(piece.lineage.spec) for piece in pieces}
    timed: dict[TrainingSpec, float] = {}
    for kind in dict.fromkeys(kinds.values()):
        future = executor.submit(seconds_of_a_step, kind, texts[kind.corpus])
        if future.exception() is None:
            timed[kind] = future.result()
    if not timed:
        return None
    usual = statistics.mean(timed.values())
    seconds = {piece: timed.get(kinds[piece], usual) for piece in pieces}
    total = sum(piece.num_steps * seconds[piece] for piece in pieces)
    longest = max(steps * seconds[piece] for piece, steps in longest_ways(pieces).items())
    return usual, max(total / executor.num_workers, longest)


def kind_of(spec: TrainingSpec) -> TrainingSpec:
    """A recipe with seeds and routes left out of account: steps of equal ones take equally long."""
    return spec.model_copy(update={"init_seed": 0, "data_seed": 0, "routes": plain_routes(spec.model.num_stages)})


def duration(seconds: float) -> str:
    """Real time for people."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
