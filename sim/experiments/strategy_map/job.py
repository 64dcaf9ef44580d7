"""A map: over two fields of a scenario, which strategy comes to the target loss first, or cheapest.

Seconds come from the world: each cell that is looked at is played for every strategy, without training. Iterations to
the target come from real runs at a few cells (`interpolation`). Cells are looked at where neighbours differ
(`refinement`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Literal

from sim.experiments.executors import Executor, WorkerDiedError
from sim.experiments.strategy_map.first_passage import FirstPassages, passages
from sim.experiments.strategy_map.grid import ComparisonGroup, Grid
from sim.experiments.strategy_map.interpolation import IterationsToTarget, SamplePoint, mean, next_knot
from sim.experiments.strategy_map.real_runs import RealRuns, RealRunsJob, most_factor
from sim.experiments.strategy_map.refinement import Cell, Mesh, net, refined
from sim.results.comparison import Ranking, as_values, verdict
from sim.scenario.sweep_points import Point

Objective = Literal["time", "money"]

Play = tuple[Cell, str]
"""A strategy in a cell."""

MOST_FAMILIES = 6

MOST_PLAYS = 100
"""A task of a worker, at most."""


@dataclass(frozen=True)
class CellResult:
    """A cell that was looked at: what each strategy meets there, and which comes first."""

    passages: Mapping[str, FirstPassages]
    verdict: Ranking

    @property
    def label(self) -> tuple[str, bool]:
        """What tells cells apart: the best, and whether that can be told."""
        best = self.verdict.best
        return (best.strategy, bool(self.verdict.contenders)) if best else ("", False)


class MapJob:
    """Looks at the cells of a grid. Its life: survey → learn → look.

    world_seeds: failure seeds of the cells' times; those of the grid are for real runs. num_knots: cells at which a
    strategy that changes weights is really run; always: cells at which all of them are. tell: is told what begins;
    counted: how many strategies in cells have been played.
    """

    def __init__(
        self,
        grid: Grid,
        world_seeds: Sequence[int],
        objective: Objective,
        num_knots: int,
        tell: Callable[[str], None],
        counted: Callable[[int], None] = lambda _: None,
        always: Sequence[Cell] = (),
    ) -> None:
        self.grid, self.world_seeds, self.objective = grid, tuple(world_seeds), objective
        self.num_knots, self.always = num_knots, tuple(always)
        self._tell, self._counted = tell, counted
        self._knows_steps = False
        self.corpus_description = "no text"
        self.num_played = 0
        self.surveyed: dict[ComparisonGroup, dict[Cell, FirstPassages]] = {}
        self.penalties: dict[ComparisonGroup, IterationsToTarget] = {}
        self.knots: dict[Play, RealRuns] = {}
        self.looks: dict[Cell, CellResult] = {}
        self.meshes: list[Mesh] = []

    @property
    def num_replicates(self) -> int:
        """Real runs of each strategy at each knot: pairs of seeds."""
        return len(self.grid.seeds.failures) * len(self.grid.seeds.training)

    def survey(self, executor: Executor) -> None:
        """See what strategies meet in the cells of the first net, and which of them change weights.

        ValueError where a strategy would have to be learnt too often.
        """
        lines_x, lines_y = self._lines
        cells = list(dict.fromkeys([*((i, j) for i in lines_x for j in lines_y), *self.always]))
        self._tell(f"Churn in {len(cells)} of {len(self.grid.points)} cells, without training.")
        for (cell, name), passed in self._play(executor, [(c, n) for c in cells for n in self.grid.candidates]).items():
            self.surveyed.setdefault(self.grid.family(cell, name), {})[cell] = passed
        for name in self.grid.candidates:
            num = sum(family.strategy == name and is_edited(cells) for family, cells in self.surveyed.items())
            if num > MOST_FAMILIES:
                raise ValueError(
                    f"strategy {name} learns differently at {num} values of an axis, and would have to be really run "
                    f"at each: give at most {MOST_FAMILIES} values, or sweep them"
                )

    @property
    def _lines(self) -> tuple[Sequence[int], Sequence[int]]:
        """Lines of the first net: all where nothing lies between values, or strategies learn differently at each."""
        lines_x, lines_y = (
            net(num) if axis.is_numeric and not self.grid.splits_families(number) else range(num)
            for number, (num, axis) in enumerate(zip(self.grid.shape, self.grid.axes, strict=True))
        )
        return lines_x, lines_y

    def free(self) -> dict[str, Point]:
        """Real runs without failures: for each training, by its root."""
        points: dict[str, Point] = {}
        for family, cells in self.surveyed.items():
            first = next(iter(cells))
            points.setdefault(self.grid.root(first, family.strategy), self.grid.free(first, family.strategy))
        return points

    def next_knots(self) -> dict[Play, Point]:
        """Real runs under failures that tell most next, of each family of which anything is left to tell."""
        points: dict[Play, Point] = {}
        for family, cells in self.surveyed.items():
            if not is_edited(cells):
                continue
            name = family.strategy
            able = {cell: met.failures_per_iteration for cell, met in cells.items() if met.num_stopped == 0}
            done = {cell for cell, of in self.knots if of == name and cell in cells}
            wanted = [cell for cell in self.always if cell in able and cell not in done]
            if not wanted:
                tried = {cells[cell].failures_per_iteration: self.knots[cell, name].all_reach for cell in done}
                rate = next_knot(able.values(), tried, self.num_knots + len(done.intersection(self.always)))
                wanted = [next(cell for cell in able if able[cell] == rate)] if rate is not None else []
            points.update({(cell, name): self.grid.knot(cell, name) for cell in wanted})
        return points

    def learn(self, executor: Executor, real: RealRunsJob) -> None:
        """Do the real runs, and take from them how many iterations the target takes.

        ValueError where it is not reached even without failures.
        """
        free, points = self.free(), self.next_knots()
        while True:
            done = real.do([*free.values(), *points.values()])
            without = dict(zip(free, done[: len(free)], strict=True))
            if not any(runs.all_reach for runs in without.values()):
                raise ValueError(unreachable(self.grid, next(iter(without.values()))))
            self.knots = dict(zip(points, done[len(free) :], strict=True))
            more = self.next_knots()
            if not more:
                break
            points |= more
        self._knows_steps = True
        self.corpus_description = real.corpus_description
        met = self._play(executor, list(self.knots))
        for family, cells in self.surveyed.items():
            name = family.strategy
            peaceful = without[self.grid.root(next(iter(cells)), name)]
            of_every_seed = {
                (churn, training): iterations
                for (_, training), iterations in peaceful.iterations.items()
                for churn in self.grid.seeds.failures
            }
            found = {0.0: SamplePoint(0.0, of_every_seed, peaceful.most_iterations)}
            for cell in (cell for cell in cells if (cell, name) in self.knots):
                rate, runs = met[cell, name].failures_per_iteration, self.knots[cell, name]
                found.setdefault(rate, SamplePoint(rate, runs.iterations, runs.most_iterations))
            in_order = tuple(found[rate] for rate in sorted(found))
            most = max(self.grid.num_iterations(cell) * most_factor(self.grid.points[cell].scenario) for cell in cells)
            self.penalties[family] = IterationsToTarget(in_order, most, is_flat=not is_edited(cells))

    def look(self, executor: Executor) -> None:
        """Look at the first net, then where neighbours differ; along a single axis at all cells."""
        self._tell(f"Now the times to the target, in those of {len(self.grid.points)} cells that are needed.")

        def labels(cells: Sequence[Cell]) -> dict[Cell, tuple[str, bool]]:
            met = self._play(
                executor, [(cell, name) for cell in cells for name in self.grid.candidates], self.penalties
            )
            for cell in cells:
                self.looks[cell] = self._judged(cell, {name: met[cell, name] for name in self.grid.candidates})
            return {cell: self.looks[cell].label for cell in cells}

        _, self.meshes = refined(*self._lines, labels)
        if self.grid.shape[1] == 1:
            labels([cell for cell in self.grid.points if cell not in self.looks])

    def _judged(self, cell: Cell, met: dict[str, FirstPassages]) -> CellResult:
        taken = {
            name: as_values(passed.usd if self.objective == "money" else passed.seconds) for name, passed in met.items()
        }
        errors = {}
        for name, passed in met.items():
            penalty = self.penalties[self.grid.family(cell, name)]
            read = penalty.error_at(passed.failures_per_iteration)
            errors[name] = 0.0 if penalty.is_flat else math.hypot(read, self._resolution(cell, penalty))
        return CellResult(met, verdict(taken, errors))

    def _resolution(self, cell: Cell, penalty: IterationsToTarget) -> float:
        """Half of the iterations between validations, as a share of those to the target: no run tells more closely."""
        scenario = self.grid.points[cell].scenario
        between = scenario.training.evaluation.interval_steps * scenario.iterations_per_step
        free = mean(penalty.knots[0].iterations)
        return 0.0 if math.isnan(free) else between / 2 / free

    def _play(
        self,
        executor: Executor,
        plays: Sequence[Play],
        penalties: Mapping[ComparisonGroup, IterationsToTarget] | None = None,
    ) -> dict[Play, FirstPassages]:
        """Play strategies in cells; those of equal prices together, so that these are found once.

        penalties: None where they are not known yet.
        """
        groups: dict[str, list[Play]] = {}
        for play in plays:
            groups.setdefault(self.grid.price_key(play[0]), []).append(play)
        tasks = [group[n : n + MOST_PLAYS] for group in groups.values() for n in range(0, len(group), MOST_PLAYS)]
        futures = {}
        for task in tasks:
            known = [penalties[self.grid.family(*play)] if penalties else None for play in task]
            scenarios = [
                (self.grid.timed(cell, self._num_iterations(cell, penalty)), self.grid.candidates[name])
                for (cell, name), penalty in zip(task, known, strict=True)
            ]
            futures[executor.submit(passages, scenarios, self.world_seeds, known)] = task
        found: dict[Play, FirstPassages] = {}
        for future in as_completed(futures):
            try:
                found.update(zip(futures[future], future.result(), strict=True))
            except WorkerDiedError as error:
                raise ValueError(f"a worker died ({error}), out of memory perhaps: try fewer --jobs") from None
            self.num_played += len(futures[future])
            self._counted(self.num_played)
        return {play: found[play] for play in plays}  # in the order asked for, whoever was done first

    def _num_iterations(self, cell: Cell, penalty: IterationsToTarget | None) -> float:
        """As many as the target may take, where that is known; of a survey as many as the scenario gives."""
        iterations = list(penalty.knots[0].iterations.values()) if penalty and penalty.is_flat else [math.nan]
        if not any(map(math.isnan, iterations)):
            return max(iterations)
        factor = most_factor(self.grid.points[cell].scenario) if self._knows_steps else 1
        return factor * self.grid.num_iterations(cell)


def is_edited(cells: Mapping[Cell, FirstPassages]) -> bool:
    """Whether a recovery changes weights in any of some cells."""
    return any(passed.is_edited for passed in cells.values())


def unreachable(grid: Grid, runs: RealRuns) -> str:
    """What to say where the target is not reached even without failures."""
    last = min(runs.values("final_validation_loss").values())
    target = grid.scenario.training.target_validation_loss
    return (
        f"training.target_validation_loss {target:g} is not reached in {runs.most_iterations:,} iterations even "
        f"without failures, the loss then is {last:.3f}: give a higher target, or more training.steps"
    )
