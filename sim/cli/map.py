"""What a map leaves: a figure and its table as files, and a summary on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer
from rich.table import Table

from sim.cli.options import (
    CacheFolder,
    NoCache,
    Overrides,
    ResultsFolder,
    ScenarioPath,
    cache_folder,
    complain,
    console,
    say,
)
from sim.core.files import atomic_write
from sim.core.text import format_count
from sim.experiments.strategy_map.advice import num_lost, taken, who
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.refinement import Cell
from sim.reporting.notes import describe_prices, notes
from sim.reporting.series import styles_by_kind
from sim.reporting.strategy_map import hours_or_usd, line_figure, map_figure, position
from sim.reporting.style import save
from sim.reporting.tables import strategy_table
from sim.results.comparison import FEWEST_LOST
from sim.strategies import legend_label

if TYPE_CHECKING:
    from models.shared_training import SharedTraining
    from sim.cli.progress import MapDisplay
    from sim.experiments.executors import Executor
    from sim.experiments.strategy_map.real_runs import RealRunsJob
    from sim.experiments.sweep import SweepJob
    from sim.scenario.axes import Axis, ScenarioTemplate
    from sim.scenario.scenario import SeedsConfig


def write_map(job: MapJob, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write map.csv, map.png and map.pdf into a folder."""
    path = folder / "map.csv"
    atomic_write(path, table.to_csv(index=False))
    kinds = {config.name: config.kind for config in job.grid.scenario.strategies}
    styles = styles_by_kind({name: kinds[name] for name in job.grid.candidates})
    if job.grid.axes[1].field:
        marks = {
            "own": [own_place(job)] if job.grid.own_cell else [],
            "knots": [place(job, cell) for cell in dict.fromkeys(cell for cell, _ in job.knots)],
        }
        colours = {name: style.colour for name, style in styles.items()}
        figure = map_figure(table, job.grid.axes, colours, marks, captions(job))
    else:
        what, label = hours_or_usd(job.objective)
        shown = "Bands: 95 % intervals of means. A line ends where a strategy misses the target under some seed."
        figure = line_figure(table, job.grid.axes[0], styles, what, label, [shown, *captions(job)])
    return [path, *save(figure, folder / "map")]


def print_map(job: MapJob, table: pd.DataFrame) -> None:
    """Print how much of the map each strategy has, and what holds where the scenario stands."""
    console.print()
    console.print(shares_table(job, table))
    if job.grid.own_cell in job.looks:
        look = job.looks[job.grid.own_cell]
        best = look.verdict.best
        told = f"{who(look)}, {taken(look, best.strategy)}" if best else who(look)
        say(f"{whose(job, job.grid.own_cell)}: {told}.")
    for line in captions(job):
        say(line, style="dim")


def whose(job: MapJob, cell: Cell) -> str:
    """Whether a cell is the scenario's own, or but the nearest to it."""
    axes = [(axis, axis.values[place]) for axis, place in zip(job.grid.axes, cell, strict=True) if axis.field]
    if all(value == axis.own for axis, value in axes):
        return "At the scenario's own values"
    nearest = ", ".join(f"{axis.field} {value}, the scenario's {axis.own}" for axis, value in axes)
    return f"In the cell nearest to the scenario ({nearest}; `churnlab advise` plays the scenario itself)"


def shares_table(job: MapJob, table: pd.DataFrame) -> Table:
    """For each strategy the share of cells in which it is first, and how far it is ahead or behind."""
    what = "cheapest" if job.objective == "money" else "first"
    headings = (
        f"{what} in\n% of cells",
        "of these\ntoo close",
        f"may be {what}\nin % of cells",
        "behind by\n% (median)",
    )
    found = strategy_table(f"{job.grid.scenario.name}: who comes to the target {what}", headings)
    for name, rows in table.groupby("strategy", sort=False):
        best = rows[rows["is_best"]]
        others = rows.loc[~rows["is_best"] & (rows["num_reached"] == rows["num_runs"]), "behind"]
        found.add_row(
            legend_label(str(name)),
            f"{100 * rows['is_best'].mean():.0f}",
            f"{100 * best['is_close'].mean():.0f}" if len(best) else "-",
            f"{100 * rows['may_be_first'].astype(float).mean():.0f}",
            f"{100 * others.median():.0f}" if len(others) and not others.isna().all() else "-",
        )
    return found


def captions(job: MapJob) -> list[str]:
    """What the map rests on, a sentence each."""
    scenario, num_looked, num_cells = job.grid.scenario, len(job.looks), len(job.grid.points)
    looked = f"{num_looked} of {num_cells} cells played"
    between = ", the others lie between cells that agree" if num_looked < num_cells else ""
    described = notes(scenario, job.corpus_description)
    errors = [one.error for look in job.looks.values() for one in look.verdict.standings]
    target = f"loss {scenario.training.target_validation_loss:g}"
    learnt = f"Iterations to {target}: those of a run without failures, no strategy here changes weights."
    if num_knots := len({cell for cell, _ in job.knots}):
        learnt = (
            f"Iterations to {target} under failures: {format_count(job.num_replicates, 'real training')} at "
            f"{'each of ' if num_knots > 1 else ''}{format_count(num_knots, 'cell')}, "
            "read between them by failures per iteration, and between validations "
            f"(off by up to {100 * max(errors, default=0.0):.0f} %)."
        )
    num_calm = sum(num_lost(look) < FEWEST_LOST for look in job.looks.values())
    calm = ""
    if num_calm:
        calm = (
            f" In {100 * num_calm / num_looked:.0f} % of the cells played the best loses fewer than {FEWEST_LOST:g} "
            "stages on the way: what is compared there is plain speed."
        )
    lines = [
        f"{looked} without training under {len(job.world_seeds)} failure seeds{between}. {learnt} Too close: the 95 % "
        f"interval of the difference holds 0, or it is below what reading is off.{calm}",
        f"But for what the axes vary: {described[0]}",
        *described[1:],
    ]
    return [*lines, describe_prices(scenario.cluster)] if job.objective == "money" else lines


def own_place(job: MapJob) -> tuple[float, float]:
    """Where the scenario as it stands is in the figure."""
    x, y = job.grid.axes
    return position(x, x.own), position(y, y.own)


def place(job: MapJob, cell: Cell) -> tuple[float, float]:
    """Where a cell stands in the figure."""
    x, y = job.grid.axes
    return position(x, x.values[cell[0]]), position(y, y.values[cell[1]])


# The commands that answer: `churnlab map` and `churnlab advise`.

FEWEST_REPLICATES = 4


class Objective(StrEnum):
    """What is to be little."""

    time = "time"
    money = "money"


ObjectiveOption = Annotated[Objective, typer.Option(help="Come to the target loss first, or for the least money.")]

Replicates = Annotated[
    int | None,
    typer.Option(min=1, help=f"Failure seeds of real runs; default: the scenario's, but {FEWEST_REPLICATES} at least."),
]

TimeReplicates = Annotated[int, typer.Option(min=2, help="Failure seeds of times, which train nothing.")]

Jobs = Annotated[int | None, typer.Option(min=1, help="Workers; default: every core of this machine.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which real runs it begins with, and stop.")]


def map_(
    scenario_path: ScenarioPath,
    x: Annotated[
        str, typer.Option("--x", metavar="FIELD[=VALUES]", help="First axis: FIELD, FIELD=1,2,3 or FIELD=1..9.")
    ],
    y: Annotated[
        str | None, typer.Option("--y", metavar="FIELD[=VALUES]", help="Second axis; without it a line.")
    ] = None,
    overrides: Overrides = None,
    cells: Annotated[int, typer.Option(min=2, max=60, help="Values of an axis given as a range or by its field.")] = 20,
    objective: ObjectiveOption = Objective.time,
    replicates: Replicates = None,
    time_replicates: TimeReplicates = 10,
    knots: Annotated[
        int, typer.Option(min=1, max=20, help="Cells at which strategies that change weights really run.")
    ] = 3,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    dry_run: DryRun = False,
) -> None:
    """Draw which strategy comes to the target loss first over two fields, by how much, and where that is too close.

    Seconds are simulated in each cell; how much failures cost in learning comes from real runs at a few. Interrupted,
    the same command goes on.
    """
    from sim.experiments.strategy_map.grid import NO_AXIS
    from sim.scenario.axes import ScenarioTemplate

    pass
    from sim.experiments.strategy_map.table import map_table

    ground = ScenarioTemplate(scenario_path, tuple(overrides or ()))
    axes = ground.axis("--x", x, cells), ground.axis("--y", y, cells) if y is not None else NO_AXIS
    if axes[0].field == axes[1].field:
        raise ValueError(f"--y {axes[1].field}: the same field as --x; give another")
    asked = MapRequest(scenario_path, results, cache, no_cache, jobs, objective, replicates, time_replicates, dry_run)
    job = asked.looked(ground, axes, f"{ground.scenario.name}-map", knots)
    if job is not None:
        folder = results / job.grid.name
        table = map_table(job)
        paths = write_map(job, table, folder)
        print_map(job, table)
        say("Written: " + ", ".join(map(str, paths)))


def advise(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    objective: ObjectiveOption = Objective.time,
    replicates: Replicates = None,
    time_replicates: TimeReplicates = 10,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    dry_run: DryRun = False,
) -> None:
    """Say which strategy to use for a scenario, how sure that is, and where it turns, in five lines.

    Strategies that change weights are really run at its failure rate and at twice of it, or as far as is allowed.
    Interrupted, the same command goes on.
    """
    from sim.experiments.strategy_map.advice import FACTORS, advice, churn_knob
    from sim.experiments.strategy_map.grid import NO_AXIS
    from sim.reporting.notes import describe_prices
    from sim.scenario.axes import ScenarioTemplate

    ground = ScenarioTemplate(scenario_path, tuple(overrides or ()))
    knob = churn_knob(ground.scenario)
    axis = ground.around(knob, FACTORS) if knob else NO_AXIS
    asked = MapRequest(scenario_path, results, cache, no_cache, jobs, objective, replicates, time_replicates, dry_run)
    job = asked.looked(ground, (axis, NO_AXIS), f"{ground.scenario.name}-advice", 1, at_own_cell=True)
    if job is not None:
        say("")
        for line in advice(job, describe_prices(ground.scenario.cluster)):
            say(line)


@dataclass(frozen=True)
class MapRequest:
    """What both commands are asked."""

    scenario_path: Path
    results: Path
    cache: Path | None
    no_cache: bool
    jobs: int | None
    objective: Objective
    replicates: int | None
    time_replicates: int
    dry_run: bool

    def looked(
        self, ground: ScenarioTemplate, axes: tuple[Axis, Axis], name: str, knots: int, at_own_cell: bool = False
    ) -> MapJob | None:
        """A map whose cells have been looked at; None where that was only to be outlined."""
        from sim.cli.progress import MapDisplay
        from sim.experiments.strategy_map.grid import Grid, require_prices
        from sim.experiments.strategy_map.job import MapJob
        from sim.experiments.sweep import Kind, opened

        if ground.scenario.sweep is not None:
            say("The scenario's sweep is left aside: its fields have the values that stand in the scenario itself.")
        learns = ground.scenario.training.learner == "torch"
        seeds = self.real_seeds(ground)
        world_seeds = range(seeds.failures[0], seeds.failures[0] + max(self.time_replicates, 2))
        grid = Grid(ground, axes, seeds, name)
        if self.objective is Objective.money:
            require_prices(grid)
        always = [grid.own_cell] if at_own_cell and grid.own_cell else []
        with cache_folder(self.cache, self.no_cache) as cache, MapDisplay() as display:
            job = MapJob(grid, world_seeds, self.objective.value, knots, display.say, display.counted, always)
            try:
                kind = Kind.serial if self.jobs == 1 else Kind.pool
                with opened(kind, self.jobs, None, learns) as executor:
                    job.survey(executor)
                    real = self._real(executor, cache, display)
                    if self.dry_run:
                        display.stop()
                        for line in real.outline([*job.free().values(), *job.next_knots().values()]):
                            say(line)
                        return None
                    for stale in (self.results / name).glob("map.[cp]*"):
                        stale.unlink()  # of another map, which had other runs beside it
                    job.learn(executor, real)
                    job.look(executor)
            except KeyboardInterrupt:
                display.stop()
                complain("Interrupted. Finished runs and all but the last steps of training are kept: run it again.")
                raise typer.Exit(130) from None
        return job

    def real_seeds(self, ground: ScenarioTemplate) -> SeedsConfig:
        """Seeds of the real runs: the scenario's, or so many failure seeds counted up from its first."""
        given = ground.scenario.seeds
        number = self.replicates or max(FEWEST_REPLICATES, len(given.failures))
        if number == len(given.failures):
            return given
        first = given.failures[0]
        return given.model_copy(update={"failures": tuple(range(first, first + number))})

    def _real(self, executor: Executor, cache: Path, display: MapDisplay) -> RealRunsJob:
        from sim.experiments.strategy_map.real_runs import RealRunsJob
        from sim.experiments.sweep import opened_workshop

        @contextmanager
        def at_work(job: SweepJob) -> Iterator[tuple[Executor, SharedTraining | None]]:
            yield executor, opened_workshop(job, cache, None, self.dry_run)

        return RealRunsJob(self.scenario_path.parent, self.results, cache, at_work, display, display.say)
