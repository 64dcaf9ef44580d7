"""Strategy maps and advice: from a scenario and two axes to the result."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from sim.core.memo import MAX_BYTES, MAX_CACHED
from sim.core.text import format_count, format_list
from sim.experiments.strategy_map.first_passage import first_passages
from sim.experiments.strategy_map.grid import Grid, require_prices
from sim.experiments.strategy_map.interpolation import mean
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.trained import TrainingJob
from sim.experiments.strategy_map.whole_run_check import whole_run_checks
from sim.experiments.sweep import Observer, new_executor
from sim.experiments.target import Targets
from sim.experiments.training import on_this_machine
from sim.results.strategy_map import Advice, Objective, StrategyMap
from sim.scenario.axes import NO_AXIS, Axis, ScenarioTemplate
from sim.scenario.loading import ScenarioSource
from sim.scenario.scenario import SeedsConfig
from sim.strategies import trains_otherwise

FEWEST_REPLICATES = FEWEST_TRAINING_SEEDS = 4
"""Pairs of seeds of trained runs; training seeds of single failures."""

DRY_RUN_SEEDS = 1
"""Failure seeds of the survey in a dry run."""

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Multiples of the scenario's failure rate that an advice evaluates."""


@dataclass(frozen=True)
class MapOptions:
    """How strategies are compared.

    objective: reach the target loss first, or at the lowest cost. predicts: whether the learning of whole runs is
    predicted from single failures, under so many training seeds as `replicates` says (4). Else runs are trained at
    `num_samples` cells, under so many pairs of seeds (failure seeds if these are crossed); by default the scenario's,
    at least 4. num_checks: whole runs that are trained to check predictions, of each strategy that may be first; at
    most a run for each training seed. time_replicates: failure seeds of simulations without training. num_values: of
    an axis given as a range or by its field. jobs: workers; by default every core.
    """

    objective: Objective = "time"
    replicates: int | None = None
    time_replicates: int = 10
    num_samples: int = 3
    num_values: int = 20
    jobs: int | None = None
    predicts: bool = True
    num_checks: int = 1


@dataclass(frozen=True)
class MapRequest:
    """A map to be made, or without axes an advice, with trained runs at the own cell. Folders: by default temporary."""

    template: ScenarioTemplate
    axes: tuple[Axis, Axis] | None
    options: MapOptions = field(default_factory=MapOptions)
    results: str | Path | None = None
    cache: str | Path | None = None

    @property
    def name(self) -> str:
        """The name of the results folder."""
        return f"{self.template.scenario.name}-{'map' if self.axes else 'advice'}"

    @property
    def seeds(self) -> SeedsConfig:
        """Seeds of the trained runs: the scenario's, or so many pairs (failure seeds if crossed) from its first on."""
        given = self.template.scenario.seeds
        if self.predicts:
            number = self.options.replicates or max(FEWEST_TRAINING_SEEDS, len(given.training))
            training = given.training if number == len(given.training) else given.counted(None, number).training
            return SeedsConfig(failures=given.failures[:1], training=training, design="crossed")
        number = self.options.replicates or max(FEWEST_REPLICATES, len(given.failures))
        return given if number == len(given.failures) else given.counted(number)

    @property
    def predicts(self) -> bool:
        """Whether learning is predicted: the runs of a learner that trains nothing cost nothing.

        What a strategy learns that trains otherwise while nodes are missing does not follow from single failures.
        """
        is_trained = self.template.scenario.training.learner == "torch"
        return self.options.predicts and is_trained and not self.strategies_with_recipes

    @property
    def strategies_with_recipes(self) -> list[str]:
        """Names of the strategies that may train with other recipes than without failures."""
        configs = self.template.scenario.strategies
        return [config.name for config in configs if trains_otherwise(config.kind)]

    @property
    def num_time_seeds(self) -> int:
        """Failure seeds of simulations without training."""
        return max(self.options.time_replicates, 2)

    @contextmanager
    def surveyed(self, observer: Observer, is_dry_run: bool = False) -> Iterator[MapJob]:
        """Context with the computation after its survey. ValueError where it cannot be done.

        is_dry_run: with few failure seeds, and without training for a target that is `auto`.
        """
        options, first = self.options, self.seeds.failures[0]
        grid = self._grid(self.template)
        on_this_machine(self.template.scenario)  # a device that is missing is reported before the survey
        with ExitStack() as stack:
            results, cache = (
                Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="churnlab-")))
                for folder in (self.results, self.cache)
            )
            executor = stack.enter_context(
                closing(new_executor("serial" if options.jobs == 1 else "pool", options.jobs))
            )
            for _ in range(executor.num_workers):  # the workers start while this process loads torch
                executor.submit(import_module, first_passages.__module__)
            scenario = self.template.scenario
            if scenario.training.target_validation_loss == "auto":
                places = self.template.base_folder, cache, executor
                targets = Targets(*places, observer.progressed, observer.noted, trains=not is_dry_run)
                grid = self._grid(self.template.with_target(targets.with_number(scenario).training.target_loss))
            job = MapJob(
                grid,
                TrainingJob(self.template.base_folder, results, cache, executor, observer),
                range(first, first + (DRY_RUN_SEEDS if is_dry_run else self.num_time_seeds)),
                options.objective,
                options.num_samples if self.axes else 1,
                [grid.own_cell] if grid.own_cell and not self.axes else [],
                self.predicts,
            )
            job.survey()
            yield job

    def _grid(self, template: ScenarioTemplate) -> Grid:
        """The cells. ValueError for what cannot be compared."""
        grid = Grid(template, self.axes or (template.failure_rates(FACTORS), NO_AXIS), self.seeds, self.name)
        if self.options.objective == "money":
            require_prices(grid)
        return grid

    def finished(self, observer: Observer | None = None) -> MapJob:
        """The computation, done to its end. ValueError where that is not possible, OSError where the disk refuses."""
        with self.surveyed(observer or Observer()) as job:
            if self.results:
                for stale in (Path(self.results) / self.name).glob("map.[cp]*"):
                    stale.unlink()  # of another map, with other trained runs
            job.predict() if self.predicts else job.train()
            job.evaluate()
            if self.predicts:
                job.checks = whole_run_checks(job, self.options.num_checks)
        return job

    def _outline_of_checks(self) -> list[str]:
        """The whole runs that check the predictions, in a sentence."""
        number, steps = self.options.num_checks, self.template.scenario.training.steps
        if not number:
            return []
        runs = format_count(min(number, len(self.seeds.training)), "whole run")
        return [
            f"Then {runs} of each strategy that changes weights and may be first, of {steps:,} steps or more, to check "
            "the prediction (--check 0: none)."
        ]

    def outline(self, observer: Observer | None = None) -> list[str]:
        """The trained runs that a map or an advice begins with, in sentences; nothing is written."""
        with self.surveyed(observer or Observer(), is_dry_run=True) as job:
            if self.predicts:
                return [timed(job), *job.single_failures().outline(), *self._outline_of_checks()]
            lines = [timed(job)]
            if (names := self.strategies_with_recipes) and self.options.predicts:
                does = "trains" if len(names) == 1 else "train"
                lines.append(f"Whole runs, since {format_list(names)} {does} otherwise while nodes are missing.")
            lines += job.training.outline(job.points_to_train())
        lines.append(
            f"This survey had {format_count(DRY_RUN_SEEDS, 'failure seed')}; the real one has {self.num_time_seeds}, "
            "and may begin with other runs."
        )
        return lines


def timed(job: MapJob) -> str:
    """How many iterations were timed, and what is kept of them."""
    return (
        f"{format_count(job.num_timed, 'iteration')} timed. In a worker, memberships that differ by an exchange of "
        f"equal pipelines are timed once; it keeps the {MAX_CACHED:,} times used last on a cluster, in at most "
        f"{MAX_BYTES / 2**20:.0f} MiB for those without uploads and as much for those beside some."
    )


def axes_of(template: ScenarioTemplate, x: str, y: str | None, num_values: int, prefix: str = "") -> tuple[Axis, Axis]:
    """The axes of a map: FIELD=1,2,3, FIELD=1..9 or FIELD. prefix: of the names of x and y in messages."""
    axes = template.axis(f"{prefix}x", x, num_values), NO_AXIS
    if y is not None:
        axes = axes[0], template.axis(f"{prefix}y", y, num_values)
    if axes[0].field == axes[1].field:
        raise ValueError(f"{prefix}y {axes[1].field}: the same field as {prefix}x; give another")
    return axes


def advice_of(job: MapJob) -> Advice:
    """The advice of a finished computation."""
    own, costs = job.grid.own_cell, {}
    for group, to_target in job.to_target.items():
        if own and not to_target.is_flat:
            here = job.results[own].first_passages[group.strategy].iterations
            costs[group.strategy] = math.fsum(here) / len(here) / mean(to_target.without)
    return Advice(job.map, costs)


def strategy_map(
    source: ScenarioSource,
    x: str,
    y: str | None = None,
    *,
    options: MapOptions | None = None,
    results: str | Path | None = None,
    cache: str | Path | None = None,
    observer: Observer | None = None,
) -> StrategyMap:
    """Compare strategies over one or two fields of a scenario: which reaches the target loss first, by how much.

    source: a scenario or its file. x, y: FIELD=1,2,3 for values, FIELD=1..9 for a range, or FIELD for values around the
    scenario's own. results, cache: folders of trained runs and training states, for a later call to continue from; by
    default they are deleted. ScenarioError or ValueError for a scenario that cannot be compared.
    """
    template, options = ScenarioTemplate(source), options or MapOptions()
    axes = axes_of(template, x, y, options.num_values)
    return MapRequest(template, axes, options, results, cache).finished(observer).map


def advise(
    source: ScenarioSource,
    *,
    options: MapOptions | None = None,
    results: str | Path | None = None,
    cache: str | Path | None = None,
    observer: Observer | None = None,
) -> Advice:
    """Compare strategies for a scenario's own values, and at half to twice its failure rate.

    Arguments and errors are those of `strategy_map`. `churnlab.advice_lines` gives the answer as text.
    """
    request = MapRequest(ScenarioTemplate(source), None, options or MapOptions(), results, cache)
    return advice_of(request.finished(observer))
