"""The computation of a strategy map.

Seconds are simulated: each evaluated cell for every strategy, without training. Iterations to the target are predicted
from single failures (`predicted`), or come from trained runs at a few cells (`interpolation`). Cells are evaluated
where neighbours differ (`refinement`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sim.core.text import format_count
from sim.experiments.executors import Work, WorkerDiedError
from sim.experiments.strategy_map.first_passage import ToTarget, first_passages
from sim.experiments.strategy_map.grid import ComparisonGroup, Grid, with_steps
from sim.experiments.strategy_map.interpolation import IterationsToTarget, SamplePoint, mean, next_rate
from sim.experiments.strategy_map.predicted import SingleFailures
from sim.experiments.strategy_map.refinement import coarse_lines, refined
from sim.experiments.strategy_map.trained import TrainedRuns, TrainingJob, most_factor
from sim.results.prediction import Prediction
from sim.results.ranking import Outcomes, rank
from sim.results.statistics import Values
from sim.results.strategy_map import Cell, CellResult, FirstPassages, Mesh, Objective, StrategyMap, WholeRunCheck
from sim.scenario.sweep_points import Point

Trial = tuple[Cell, str]
"""A strategy in a cell."""

Trials = tuple[Trial, ...]

MOST_GROUPS, MOST_TRIALS, TASKS_PER_WORKER = 6, 100, 4
"""Values of an axis at which a strategy is trained; trials in a task of a worker; its tasks, where trials are few."""


@dataclass(eq=False, repr=False)
class MapJob:
    """The evaluation of the cells of a grid, in three stages: survey, train, evaluate.

    training: does the trained runs; its executor and observer are those of all stages. time_seeds: failure seeds of the
    cells' times; those of the grid are for what is trained. predicts: whether learning is predicted from single
    failures. Else num_samples: cells at which a strategy that changes weights is trained. required_cells: cells at
    which all such strategies are.
    """

    grid: Grid
    training: TrainingJob
    time_seeds: Sequence[int]
    objective: Objective
    num_samples: int
    required_cells: Sequence[Cell] = ()
    predicts: bool = False
    num_branches: int = 0
    num_timed: int = 0
    surveyed: dict[ComparisonGroup, dict[Cell, FirstPassages]] = field(default_factory=dict)
    to_target: dict[ComparisonGroup, ToTarget] = field(default_factory=dict)
    trained: dict[Trial, TrainedRuns] = field(default_factory=dict)
    results: dict[Cell, CellResult] = field(default_factory=dict)
    checks: Sequence[WholeRunCheck] = ()
    meshes: list[Mesh] = field(default_factory=list)

    @property
    def map(self) -> StrategyMap:
        """The map of the cells evaluated so far."""
        return StrategyMap(
            name=self.grid.name,
            scenario=self.grid.scenario,
            axes=self.grid.axes,
            objective=self.objective,
            strategies=tuple(self.grid.candidates),
            cells=self.results,
            meshes=self.meshes,
            own_cell=self.grid.own_cell,
            sampled_cells=tuple(dict.fromkeys(cell for cell, _ in self.trained)),
            num_time_seeds=len(self.time_seeds),
            num_replicates=len(self.grid.seeds.training) if self.predicts else len(self.grid.seeds.replicates),
            num_branches=self.num_branches,
            checks=tuple(self.checks),
            corpus_description=self.training.corpus_description,
        )

    def survey(self) -> None:
        """Simulate the coarse mesh, to find failure rates and what changes weights. ValueError for too many groups."""
        lines_x, lines_y = self._lines
        cells = list(dict.fromkeys([*((i, j) for i in lines_x for j in lines_y), *self.required_cells]))
        self.training.observer.noted(
            f"Failures are simulated in {len(cells)} of {len(self.grid.points)} cells under "
            f"{format_count(len(self.time_seeds), 'failure seed')}, without training."
        )
        trials = [(cell, name) for cell in cells for name in self.grid.candidates]
        for (cell, name), passed in self._simulate(trials).items():
            self.surveyed.setdefault(self.grid.group(cell, name), {})[cell] = passed
        for name in self.grid.candidates:
            num = sum(group.strategy == name and changes_weights(cells) for group, cells in self.surveyed.items())
            if num > MOST_GROUPS:
                raise ValueError(
                    f"strategy {name} learns differently at {num} values of an axis, and would have to be trained "
                    f"at each: give at most {MOST_GROUPS} values, or sweep them"
                )

    @property
    def _lines(self) -> tuple[Sequence[int], Sequence[int]]:
        """Lines of the coarse mesh: all where values are no numbers or strategies learn differently at each."""
        lines_x, lines_y = (
            coarse_lines(num) if axis.is_numeric and not self.grid.groups_differ_along(number) else range(num)
            for number, (num, axis) in enumerate(zip(self.grid.shape, self.grid.axes, strict=True))
        )
        return lines_x, lines_y

    def single_failures(self) -> SingleFailures:
        """The single failures that predictions rest on."""
        cells = {group: next(iter(cells)) for group, cells in self.surveyed.items()}
        edited = [group for group, cells in self.surveyed.items() if changes_weights(cells)]
        return SingleFailures(self.grid, cells, edited, self.training)

    def predict(self) -> None:
        """Measure single failures, and predict learning. ValueError if the target is missed without failures."""
        failures = self.single_failures()
        for line in failures.outline():
            self.training.observer.noted(line)
        self.num_branches = failures.num_branches
        predicted = failures.measured()
        self.to_target.update(predicted)
        if not any(math.isfinite(found) for one in predicted.values() for found in one.without.values()):
            raise ValueError(self._missed([one.prediction for one in predicted.values()]))

    def _missed(self, predictions: Sequence[Prediction]) -> str:
        """Say that the target is missed, and by how much."""
        losses = [losses.min() for prediction in predictions for losses in prediction.trunks.values()]
        steps = max(prediction.steps[-1] for prediction in predictions)
        return (
            f"training.target_validation_loss {self.grid.scenario.training.target_loss:g} is not reached in "
            f"{steps * self.grid.scenario.iterations_per_step:,} iterations even without failures, the lowest loss is "
            f"{min(losses):.3f}: give a higher target, or more training.steps"
        )

    def points_to_train(self) -> list[Point]:
        """The trained runs that the map begins with, as far as the survey knows."""
        return [*self._failure_free_points().values(), *self._next_samples().values()]

    def _failure_free_points(self) -> dict[str, Point]:
        """Trained runs without failures by the hash of their training."""
        points: dict[str, Point] = {}
        for group, cells in self.surveyed.items():
            first = next(iter(cells))
            points.setdefault(
                self.grid.root(first, group.strategy), self.grid.failure_free_point(first, group.strategy)
            )
        return points

    def _next_samples(self) -> dict[Trial, Point]:
        """The most informative trained runs under failures of each group that needs more."""
        points: dict[Trial, Point] = {}
        for group, cells in self.surveyed.items():
            if not changes_weights(cells):
                continue
            name = group.strategy
            able = {cell: passed.failures_per_iteration for cell, passed in cells.items() if passed.num_stopped == 0}
            done = {cell for cell, of in self.trained if of == name and cell in cells}
            wanted = [cell for cell in self.required_cells if cell in able and cell not in done]
            if not wanted:
                tried = {cells[cell].failures_per_iteration: self.trained[cell, name].all_reach for cell in done}
                num_samples = self.num_samples + len(done.intersection(self.required_cells))
                rate = next_rate(able.values(), tried, num_samples)
                wanted = [next(cell for cell in able if able[cell] == rate)] if rate is not None else []
            points.update({(cell, name): self.grid.sample_point(cell, name) for cell in wanted})
        return points

    def train(self) -> None:
        """Do the trained runs, and find the iterations to the target. ValueError if it is missed without failures."""
        free, points = self._failure_free_points(), self._next_samples()
        while True:
            done = self.training.do([*free.values(), *points.values()])
            failure_free = dict(zip(free, done[: len(free)], strict=True))
            if not any(runs.all_reach for runs in failure_free.values()):
                runs = next(iter(failure_free.values()))
                raise ValueError(
                    f"training.target_validation_loss {self.grid.scenario.training.target_loss:g} is not "
                    f"reached in {runs.most_iterations:,} iterations even without failures, the loss then is "
                    f"{min(runs.values('final_validation_loss').values()):.3f}: give a higher target, or more "
                    "training.steps"
                )
            self.trained = dict(zip(points, done[len(free) :], strict=True))
            if not (more := self._next_samples()):
                break
            points |= more
        simulated = self._simulate(list(self.trained))
        for group, cells in self.surveyed.items():
            without = failure_free[self.grid.root(next(iter(cells)), group.strategy)]
            self.to_target[group] = self._iterations_to_target(group, without, simulated)

    def _iterations_to_target(
        self, group: ComparisonGroup, without: TrainedRuns, simulated: Mapping[Trial, FirstPassages]
    ) -> IterationsToTarget:
        """Iterations to the target of a group, through its sample points. without: trained runs without failures."""
        name, cells = group.strategy, self.surveyed[group]
        by_training = {training: iterations for (_, training), iterations in without.values().items()}
        of_every_seed = {seeds: by_training[seeds[1]] for seeds in self.grid.seeds.replicates}
        found = {0.0: SamplePoint(0.0, of_every_seed, without.most_iterations)}
        for cell in (cell for cell in cells if (cell, name) in self.trained):
            rate, runs = simulated[cell, name].failures_per_iteration, self.trained[cell, name]
            found.setdefault(rate, SamplePoint(rate, runs.values(), runs.most_iterations))
        in_order = tuple(found[rate] for rate in sorted(found))
        most = max(self.grid.num_iterations(cell) * most_factor(self.grid.points[cell].scenario) for cell in cells)
        return IterationsToTarget(in_order, most, is_flat=not changes_weights(cells))

    def evaluate(self) -> None:
        """Evaluate the coarse mesh, cells where neighbours differ, and the scenario's own; along one axis all cells."""
        num_cells = len(self.grid.points)
        self.training.observer.noted(f"Times to the target are simulated in the cells needed, of {num_cells}.")

        def labels(cells: Sequence[Cell]) -> dict[Cell, tuple[str, bool]]:
            trials = [(cell, name) for cell in cells for name in self.grid.candidates]
            passed = self._simulate(trials, self.to_target)
            for cell in cells:
                self.results[cell] = self._ranked(cell, {name: passed[cell, name] for name in self.grid.candidates})
            return {cell: self.results[cell].label for cell in cells}

        _, self.meshes = refined(*self._lines, labels)
        wanted = self.grid.points if self.grid.shape[1] == 1 else filter(None, [self.grid.own_cell])
        labels([cell for cell in wanted if cell not in self.results])

    def _ranked(self, cell: Cell, passages: dict[str, FirstPassages]) -> CellResult:
        """The ranking of strategies in a cell. Errors are shares: of interpolation, and half a validation interval."""
        scenario, outcomes = self.grid.points[cell].scenario, {}
        interval = scenario.training.evaluation.interval_steps * scenario.iterations_per_step
        for name, passed in passages.items():
            to_target = self.to_target[self.grid.group(cell, name)]
            iterations = math.fsum(passed.iterations) / len(passed.iterations)
            without, error = mean(to_target.without), to_target.error(passed.failures_per_iteration, iterations)
            resolution = 0.0 if math.isnan(without) else interval / 2 / without
            outcomes[name] = Outcomes(
                Values.by_seeds(passed.usd if self.objective == "money" else passed.seconds),
                Values.by_seeds(passed.lost),
                passed.steady_seconds,
                passed.plain_seconds,
                0.0 if to_target.is_flat else math.hypot(error, resolution),
            )
        return CellResult(passages, rank(outcomes), self.grid.smaller(cell))

    def _simulate(
        self, trials: Sequence[Trial], to_target: Mapping[ComparisonGroup, ToTarget] | None = None
    ) -> dict[Trial, FirstPassages]:
        """Simulate strategies in cells, those of equal iteration times together. to_target: None while unknown."""
        batches: dict[str, list[Trial]] = {}
        for trial in trials:
            batches.setdefault(self.grid.iteration_time_key(trial[0]), []).append(trial)
        fair_share = len(trials) // (TASKS_PER_WORKER * self.training.executor.num_workers)
        size = min(MOST_TRIALS, max(1, fair_share))
        tasks = [batch[n : n + size] for batch in batches.values() for n in range(0, len(batch), size)]
        work = TrialWork(self, map(tuple, tasks), to_target)
        work.run()
        return {trial: work.found[trial] for trial in trials}  # in the order given, whichever task ends first

    def num_iterations(self, cell: Cell, to_target: ToTarget | None) -> float:
        """As many as the target may take, where that is known; in the survey as many as the scenario gives."""
        iterations = list(to_target.without.values()) if to_target and to_target.is_flat else [math.nan]
        if not any(map(math.isnan, iterations)):
            return max(iterations)
        factor = most_factor(self.grid.points[cell].scenario) if self.trained or to_target else 1
        return factor * self.grid.num_iterations(cell)


class TrialWork(Work[Trials]):
    """The simulation of strategies in cells, some of equal iteration times in a task."""

    def __init__(
        self, job: MapJob, tasks: Iterable[Trials], to_target: Mapping[ComparisonGroup, ToTarget] | None
    ) -> None:
        super().__init__(job.training.executor, tasks)
        self.job, self.to_target, self.num_all = job, to_target, sum(map(len, self.waiting))
        self.found: dict[Trial, FirstPassages] = {}

    def submit(self, task: Trials) -> Future[Any]:
        """Simulate strategies under all failure seeds."""
        grid, trials = self.job.grid, []
        for cell, name in task:
            to_target = self.to_target[grid.group(cell, name)] if self.to_target else None
            scenario = grid.equal_scenario(cell, name)
            steps = math.ceil(self.job.num_iterations(cell, to_target) / scenario.iterations_per_step)
            trials.append((with_steps(scenario, steps), grid.candidates[name], to_target))
        return self.executor.submit(first_passages, trials, self.job.time_seeds)

    def done(self, task: Trials, result: tuple[Sequence[FirstPassages], int]) -> None:
        """Collect the results."""
        passages, num_timed = result
        self.found.update(zip(task, passages, strict=True))
        self.job.num_timed += num_timed

    def heartbeat(self, under_way: Sequence[Trials]) -> None:  # noqa: ARG002
        """Report the number of results."""
        self.job.training.observer.simulated(len(self.found), self.num_all)

    def failed(self, task: Trials, error: BaseException) -> None:  # noqa: ARG002
        """Stop: a map needs all results."""
        if isinstance(error, WorkerDiedError):
            raise ValueError(f"a worker died ({error}), perhaps out of memory: try fewer --jobs") from None
        raise error


def changes_weights(cells: Mapping[Cell, FirstPassages]) -> bool:
    """Whether a recovery changes weights in any of some cells."""
    return any(passed.is_edited for passed in cells.values())
