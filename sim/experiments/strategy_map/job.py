"""The computation of a strategy map.

Seconds are simulated: each evaluated cell for every strategy, without training. Iterations to the target come from
trained runs at a few cells (`interpolation`). Cells are evaluated where neighbours differ (`refinement`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from sim.experiments.executors import Executor, WorkerDiedError
from sim.experiments.scheduler import Scheduler, Work
from sim.experiments.strategy_map.first_passage import first_passages
from sim.experiments.strategy_map.grid import ComparisonGroup, Grid
from sim.experiments.strategy_map.interpolation import IterationsToTarget, SamplePoint, mean, next_rate
from sim.experiments.strategy_map.real_runs import RealRuns, RealRunsJob, most_factor
from sim.experiments.strategy_map.refinement import coarse_lines, refined
from sim.results.comparison import as_values, rank
from sim.results.strategy_map import Cell, CellResult, FirstPassages, Mesh, Objective, StrategyMap
from sim.scenario.sweep_points import Point

Trial = tuple[Cell, str]
"""A strategy in a cell."""

Trials = tuple[Trial, ...]

MOST_GROUPS = 6

MOST_TRIALS = 100
"""In a task of a worker."""


class MapJob:
    """Evaluates the cells of a grid, in three stages: survey, train, evaluate.

    time_seeds: failure seeds of the cells' times; those of the grid are for trained runs. num_samples: cells at which a
    strategy that changes weights is trained; required_cells: cells at which all such strategies are. note: receives
    what begins; count: the number of trials simulated so far.
    """

    def __init__(
        self,
        grid: Grid,
        time_seeds: Sequence[int],
        objective: Objective,
        num_samples: int,
        note: Callable[[str], None] = lambda _: None,
        count: Callable[[int], None] = lambda _: None,
        required_cells: Sequence[Cell] = (),
    ) -> None:
        self.grid, self.time_seeds, self.objective = grid, tuple(time_seeds), objective
        self.num_samples, self.required_cells = num_samples, tuple(required_cells)
        self._note, self._count = note, count
        self._knows_steps = False
        self.corpus_description = "no text"
        self.num_simulated = 0
        self.surveyed: dict[ComparisonGroup, dict[Cell, FirstPassages]] = {}
        self.to_target: dict[ComparisonGroup, IterationsToTarget] = {}
        self.trained: dict[Trial, RealRuns] = {}
        self.results: dict[Cell, CellResult] = {}
        self.meshes: list[Mesh] = []

    @property
    def num_replicates(self) -> int:
        """Trained runs of each strategy at each sample point: pairs of seeds."""
        return len(self.grid.seeds.failures) * len(self.grid.seeds.training)

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
            num_replicates=self.num_replicates,
            corpus_description=self.corpus_description,
        )

    def survey(self, executor: Executor) -> None:
        """Simulate the cells of the coarse mesh, to find failure rates and the strategies that change weights.

        ValueError where a strategy would have to be trained at too many values of an axis.
        """
        lines_x, lines_y = self._lines
        cells = list(dict.fromkeys([*((i, j) for i in lines_x for j in lines_y), *self.required_cells]))
        self._note(f"Churn in {len(cells)} of {len(self.grid.points)} cells, without training.")
        trials = [(cell, name) for cell in cells for name in self.grid.candidates]
        for (cell, name), passed in self._simulate(executor, trials).items():
            self.surveyed.setdefault(self.grid.group(cell, name), {})[cell] = passed
        for name in self.grid.candidates:
            num = sum(group.strategy == name and changes_weights(cells) for group, cells in self.surveyed.items())
            if num > MOST_GROUPS:
                raise ValueError(
                    f"strategy {name} learns differently at {num} values of an axis, and would have to be really run "
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

    def train(self, executor: Executor, real: RealRunsJob) -> None:
        """Do the trained runs, and find from them how many iterations the target takes.

        ValueError where it is not reached even without failures.
        """
        free, points = self._failure_free_points(), self._next_samples()
        while True:
            done = real.do([*free.values(), *points.values()])
            failure_free = dict(zip(free, done[: len(free)], strict=True))
            if not any(runs.all_reach for runs in failure_free.values()):
                raise ValueError(unreachable(self.grid, next(iter(failure_free.values()))))
            self.trained = dict(zip(points, done[len(free) :], strict=True))
            more = self._next_samples()
            if not more:
                break
            points |= more
        self._knows_steps = True
        self.corpus_description = real.corpus_description
        simulated = self._simulate(executor, list(self.trained))
        for group, cells in self.surveyed.items():
            without = failure_free[self.grid.root(next(iter(cells)), group.strategy)]
            self.to_target[group] = self._iterations_to_target(group, cells, without, simulated)

    def _iterations_to_target(
        self,
        group: ComparisonGroup,
        cells: Mapping[Cell, FirstPassages],
        without: RealRuns,
        simulated: Mapping[Trial, FirstPassages],
    ) -> IterationsToTarget:
        """Iterations to the target of a group, through its sample points. without: trained runs without failures."""
        name = group.strategy
        of_every_seed = {
            (failure_seed, training): iterations
            for (_, training), iterations in without.iterations.items()
            for failure_seed in self.grid.seeds.failures
        }
        found = {0.0: SamplePoint(0.0, of_every_seed, without.most_iterations)}
        for cell in (cell for cell in cells if (cell, name) in self.trained):
            rate, runs = simulated[cell, name].failures_per_iteration, self.trained[cell, name]
            found.setdefault(rate, SamplePoint(rate, runs.iterations, runs.most_iterations))
        in_order = tuple(found[rate] for rate in sorted(found))
        most = max(self.grid.num_iterations(cell) * most_factor(self.grid.points[cell].scenario) for cell in cells)
        return IterationsToTarget(in_order, most, is_flat=not changes_weights(cells))

    def evaluate(self, executor: Executor) -> None:
        """Evaluate the coarse mesh, then cells where neighbours differ; along a single axis all cells."""
        self._note(f"Now the times to the target, in those of {len(self.grid.points)} cells that are needed.")

        def labels(cells: Sequence[Cell]) -> dict[Cell, tuple[str, bool]]:
            trials = [(cell, name) for cell in cells for name in self.grid.candidates]
            passed = self._simulate(executor, trials, self.to_target)
            for cell in cells:
                self.results[cell] = self._ranked(cell, {name: passed[cell, name] for name in self.grid.candidates})
            return {cell: self.results[cell].label for cell in cells}

        _, self.meshes = refined(*self._lines, labels)
        if self.grid.shape[1] == 1:
            labels([cell for cell in self.grid.points if cell not in self.results])

    def _ranked(self, cell: Cell, passages: dict[str, FirstPassages]) -> CellResult:
        taken = {
            name: as_values(passed.usd if self.objective == "money" else passed.seconds)
            for name, passed in passages.items()
        }
        errors = {}
        for name, passed in passages.items():
            to_target = self.to_target[self.grid.group(cell, name)]
            error = to_target.error_at(passed.failures_per_iteration)
            errors[name] = 0.0 if to_target.is_flat else math.hypot(error, self._resolution(cell, to_target))
        return CellResult(passages, rank(taken, errors))

    def _resolution(self, cell: Cell, to_target: IterationsToTarget) -> float:
        """Half of the iterations between validations, as a share of those to the target."""
        scenario = self.grid.points[cell].scenario
        between = scenario.training.evaluation.interval_steps * scenario.iterations_per_step
        without = mean(to_target.samples[0].iterations)
        return 0.0 if math.isnan(without) else between / 2 / without

    def _simulate(
        self,
        executor: Executor,
        trials: Sequence[Trial],
        to_target: Mapping[ComparisonGroup, IterationsToTarget] | None = None,
    ) -> dict[Trial, FirstPassages]:
        """Simulate strategies in cells; those of equal iteration times together, which are computed once.

        to_target: None where the iterations to the target are not known yet.
        """
        batches: dict[str, list[Trial]] = {}
        for trial in trials:
            batches.setdefault(self.grid.iteration_time_key(trial[0]), []).append(trial)
        tasks = [batch[n : n + MOST_TRIALS] for batch in batches.values() for n in range(0, len(batch), MOST_TRIALS)]
        work = TrialWork(self, executor, tasks, to_target)
        Scheduler(executor, work).run()
        return {trial: work.found[trial] for trial in trials}  # in the order given, whichever task ends first

    def count(self, num_trials: int) -> None:
        """Report simulated trials."""
        self.num_simulated += num_trials
        self._count(self.num_simulated)

    def num_iterations(self, cell: Cell, to_target: IterationsToTarget | None) -> float:
        """As many as the target may take, where that is known; in the survey as many as the scenario gives."""
        iterations = list(to_target.samples[0].iterations.values()) if to_target and to_target.is_flat else [math.nan]
        if not any(map(math.isnan, iterations)):
            return max(iterations)
        factor = most_factor(self.grid.points[cell].scenario) if self._knows_steps else 1
        return factor * self.grid.num_iterations(cell)


class TrialWork(Work[Trials]):
    """The simulation of strategies in cells, some of equal iteration times in a task."""

    def __init__(
        self,
        job: MapJob,
        executor: Executor,
        tasks: Iterable[Sequence[Trial]],
        to_target: Mapping[ComparisonGroup, IterationsToTarget] | None,
    ) -> None:
        super().__init__(map(tuple, tasks))
        self._job, self._executor, self._to_target = job, executor, to_target
        self.found: dict[Trial, FirstPassages] = {}

    def submit(self, task: Trials) -> Future[Any]:
        """Simulate them under all failure seeds."""
        grid = self._job.grid
        known = [self._to_target[grid.group(*trial)] if self._to_target else None for trial in task]
        scenarios = [
            (grid.timed(cell, self._job.num_iterations(cell, iterations)), grid.candidates[name])
            for (cell, name), iterations in zip(task, known, strict=True)
        ]
        return self._executor.submit(first_passages, scenarios, self._job.time_seeds, known)

    def done(self, task: Trials, result: Sequence[FirstPassages]) -> None:
        """Take the results in."""
        self.found.update(zip(task, result, strict=True))
        self._job.count(len(task))

    def failed(self, task: Trials, error: BaseException) -> None:  # noqa: ARG002
        """No map without them."""
        if isinstance(error, WorkerDiedError):
            raise ValueError(f"a worker died ({error}), out of memory perhaps: try fewer --jobs") from None
        raise error


def changes_weights(cells: Mapping[Cell, FirstPassages]) -> bool:
    """Whether a recovery changes weights in any of some cells."""
    return any(passed.is_edited for passed in cells.values())


def unreachable(grid: Grid, runs: RealRuns) -> str:
    """The message where the target is not reached even without failures."""
    last = min(runs.values("final_validation_loss").values())
    target = grid.scenario.training.target_validation_loss
    return (
        f"training.target_validation_loss {target:g} is not reached in {runs.most_iterations:,} iterations even "
        f"without failures, the loss then is {last:.3f}: give a higher target, or more training.steps"
    )
