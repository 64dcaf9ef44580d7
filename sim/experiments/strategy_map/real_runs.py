"""Trained runs for a map: strategies at some cells, until they reach the target or their last step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.experiments.executors import Executor
from sim.experiments.plan import SweepRun
from sim.experiments.scheduler import SweepProgress
from sim.experiments.strategy_map.interpolation import Seeds
from sim.experiments.sweep import SweepJob
from sim.results import storage as results
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point

if TYPE_CHECKING:
    from models.shared_training import SharedTraining

MOST_EXTENSION = 2
"""Runs that have not reached the target are extended up to so many times the scenario's steps."""

Open = Callable[[SweepJob], AbstractContextManager[tuple[Executor, "SharedTraining | None"]]]


@dataclass(frozen=True)
class RealRuns:
    """Summaries of the trained runs of one strategy at one cell, by pair of seeds.

    most_iterations: of each run.
    """

    summaries: Mapping[Seeds, dict[str, Any]]
    most_iterations: int

    @property
    def all_reach(self) -> bool:
        """Whether every run reaches the target."""
        return all(summary["target_reached_iteration"] is not None for summary in self.summaries.values())

    @property
    def iterations(self) -> dict[Seeds, float]:
        """Iterations to the target; NaN where it was not reached."""
        return self.values("target_reached_iteration")

    def values(self, name: str) -> dict[Seeds, float]:
        """One outcome by pair of seeds, NaN where there is none."""
        found = {seeds: summary.get(name) for seeds, summary in self.summaries.items()}
        return {seeds: float("nan") if value is None else float(value) for seeds, value in found.items()}


class RealRunsJob:
    """Does trained runs in one results folder, with shared training."""

    def __init__(
        self,
        base_folder: Path,
        results_folder: Path,
        cache: Path,
        opened: Open,
        watch: Callable[[SweepProgress], None],
        tell: Callable[[str], None],
    ) -> None:
        self._folders = base_folder, results_folder, cache
        self._opened, self._watch, self._tell = opened, watch, tell
        self.corpus_description = "no text"

    def outline(self, points: Sequence[Point]) -> list[str]:
        """The work ahead, in words; nothing is written."""
        job = self._job(points)
        with self._opened(job) as (executor, workshop):
            job.begin(executor, workshop)
            return job.outline(job.runs, [run for run in job.runs if not run.is_finished]).in_words()

    def do(self, points: Sequence[Point]) -> list[RealRuns]:
        """The runs of each point, all of one strategy; those that miss the target are extended where that may help.

        ValueError where a run fails.
        """
        factors = [1] * len(points)
        while True:
            found = self._done([with_steps(point, factor) for point, factor in zip(points, factors, strict=True)])
            short = [
                number
                for number, (point, runs) in enumerate(zip(points, found, strict=True))
                if factors[number] < most_factor(point.scenario) and any(map(lacks_steps, runs.summaries.values()))
            ]
            if not short:
                return found
            for number in short:
                factors[number] *= 2
            cells = "1 cell has" if len(short) == 1 else f"{len(short)} cells have"
            self._tell(f"{cells} runs that have not come to the target: they go on, for twice as many steps.")

    def _job(self, points: Sequence[Point]) -> SweepJob:
        return SweepJob(points, *self._folders, self._watch, made_for="map")

    def _done(self, points: Sequence[Point]) -> list[RealRuns]:
        job = self._job(points)
        with self._opened(job) as (executor, workshop), job.folder.locked():
            job.begin(executor, workshop)
            to_do = [run for run in job.runs if not run.is_finished]
            for line in job.outline(job.runs, to_do).in_words() if to_do else ():
                self._tell(line)
            job.do(to_do)
            self.corpus_description = job.runs[0].plan.corpus_description
        for run, (error, _) in job.failures.items():
            raise ValueError(f"{run.name} could not be done: {error}")
        by_point: list[list[SweepRun]] = [[] for _ in points]
        for run in job.runs:
            by_point[run.point].append(run)
        return [
            RealRuns(
                summaries_of(own or self._job([point]).runs),  # none of its own: those of an earlier point, done once
                point.scenario.training.steps * point.scenario.iterations_per_step,
            )
            for point, own in zip(points, by_point, strict=True)
        ]


def summaries_of(runs: Sequence[SweepRun]) -> dict[Seeds, dict[str, Any]]:
    """Summaries of finished runs by pair of seeds."""
    return {
        (run.planned.failure_seed, run.planned.training_seed): results.read_json(run.planned.folder / "summary.json")
        for run in runs
    }


def lacks_steps(summary: Mapping[str, Any]) -> bool:
    """Whether a run ended without the target."""
    return summary["target_reached_iteration"] is None and summary["outcome"] == "finished"


def is_extendable(scenario: Scenario) -> bool:
    """Whether more steps leave the first ones unchanged: not where the learning rate decays over all steps."""
    optimizer = scenario.training.optimizer
    return optimizer.decay != "cosine" or optimizer.decay_steps is not None


def most_factor(scenario: Scenario) -> int:
    """The largest multiple of the scenario's steps that a run may have."""
    return MOST_EXTENSION if is_extendable(scenario) else 1


def with_steps(point: Point, factor: int) -> Point:
    """The point with a multiple of its steps."""
    training = point.scenario.training
    longer = training.model_copy(update={"steps": training.steps * factor})
    return replace(point, scenario=point.scenario.model_copy(update={"training": longer}))
