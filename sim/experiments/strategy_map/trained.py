"""Trained runs of a strategy map: done in one results folder, with shared training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sim.core.text import format_count
from sim.experiments.executors import Executor
from sim.experiments.job import SweepJob, begun
from sim.experiments.outline import outline
from sim.experiments.plan import plan_runs
from sim.experiments.strategy_map.grid import with_steps
from sim.experiments.strategy_map.interpolation import Seeds
from sim.experiments.sweep import Observer
from sim.results.storage import read_summary
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point

MOST_EXTENSION = 2
"""Runs that have not reached the target are extended up to so many times the scenario's steps."""


@dataclass(frozen=True)
class TrainedRuns:
    """Summaries of the trained runs of one strategy at one cell, by pair of seeds. most_iterations: of each run."""

    summaries: Mapping[Seeds, dict[str, Any]]
    most_iterations: int

    @property
    def all_reach(self) -> bool:
        """Whether every run reaches the target."""
        return all(summary["target_reached_iteration"] is not None for summary in self.summaries.values())

    @property
    def lack_steps(self) -> bool:
        """Whether any run ended without the target."""
        missed = (summary for summary in self.summaries.values() if summary["target_reached_iteration"] is None)
        return any(summary["outcome"] == "finished" for summary in missed)

    def values(self, name: str = "target_reached_iteration") -> dict[Seeds, float]:
        """One outcome by pair of seeds, NaN where there is none."""
        found = {seeds: summary.get(name) for seeds, summary in self.summaries.items()}
        return {seeds: float("nan") if value is None else float(value) for seeds, value in found.items()}


@dataclass
class TrainingJob:
    """Does trained runs in one results folder, with shared training."""

    base_folder: Path
    results_folder: Path
    cache: Path
    executor: Executor
    observer: Observer
    corpus_description: str = "no text"

    def outline(self, points: Sequence[Point]) -> list[str]:
        """The work ahead, in sentences; nothing is written."""
        job = self._job(points)
        with begun(job, self.executor, self.cache, dry_run=True):
            return outline(job, job.runs, [run for run in job.runs if not run.is_finished]).lines

    def do(self, points: Sequence[Point]) -> list[TrainedRuns]:
        """The runs of each point, extended if they miss the target and that may help. ValueError if a run fails."""
        points, factors = list(points), [1] * len(points)
        while True:
            found = self._done(points)
            short = [
                number
                for number, runs in enumerate(found)
                if factors[number] < most_factor(points[number].scenario) and runs.lack_steps
            ]
            if not short:
                return found
            for number in short:
                factors[number] *= 2
                scenario = points[number].scenario
                points[number] = replace(points[number], scenario=with_steps(scenario, 2 * scenario.training.steps))
            cells = format_count(len(short), "cell has", "cells have")
            self.observer.noted(
                f"{cells} runs that have not reached the target: they are extended to twice as many steps."
            )

    def _job(self, points: Sequence[Point]) -> SweepJob:
        folders = self.base_folder, self.results_folder, self.cache
        return SweepJob(points, *folders, self.observer.progressed, made_for="map")

    def _done(self, points: Sequence[Point]) -> list[TrainedRuns]:
        job = self._job(points)
        with begun(job, self.executor, self.cache):
            to_do = [run for run in job.runs if not run.is_finished]
            for line in outline(job, job.runs, to_do).lines if to_do else ():
                self.observer.noted(line)
            job.do(to_do)
        self.corpus_description = job.runs[0].plan.corpus_description
        for run, (error, _) in job.failures.items():
            raise ValueError(f"{run.name} could not be done: {error}")
        found = []
        for point in points:
            runs = plan_runs([point], *job.plan_arguments)  # some may be in the job as those of an earlier point
            summaries = {(run.failure_seed, run.training_seed): read_summary(run.folder) for run in runs}
            found.append(TrainedRuns(summaries, point.scenario.training.steps * point.scenario.iterations_per_step))
        return found


def most_factor(scenario: Scenario) -> int:
    """The largest multiple of the scenario's steps for a run; 1 where the learning rate decays over all steps."""
    optimizer = scenario.training.optimizer
    return MOST_EXTENSION if optimizer.decay != "cosine" or optimizer.decay_steps is not None else 1
