"""The commands that answer: `churnlab map` and `churnlab advise`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.terminal import CacheFolder, NoCache, Overrides, ResultsFolder, ScenarioPath, cache_folder, complain, say

if TYPE_CHECKING:
    from models.workshop import Workshop
    from sim.axes import Axis, Ground
    from sim.executors import Executor
    from sim.map_display import MapDisplay
    from sim.map_job import MapJob
    from sim.real_runs import RealRunsJob
    from sim.scenario import SeedsConfig
    from sim.sweep_job import SweepJob

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
    from sim.axes import Ground
    from sim.map_grid import NO_AXIS
    from sim.map_report import print_map, write_map
    from sim.map_table import map_table

    ground = Ground(scenario_path, tuple(overrides or ()))
    axes = ground.axis("--x", x, cells), ground.axis("--y", y, cells) if y is not None else NO_AXIS
    if axes[0].field == axes[1].field:
        raise ValueError(f"--y {axes[1].field}: the same field as --x; give another")
    asked = Asked(scenario_path, results, cache, no_cache, jobs, objective, replicates, time_replicates, dry_run)
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
    from sim.advice import FACTORS, advice, churn_knob
    from sim.axes import Ground
    from sim.map_grid import NO_AXIS
    from sim.run_report import prices_in_words

    ground = Ground(scenario_path, tuple(overrides or ()))
    knob = churn_knob(ground.scenario)
    axis = ground.around(knob, FACTORS) if knob else NO_AXIS
    asked = Asked(scenario_path, results, cache, no_cache, jobs, objective, replicates, time_replicates, dry_run)
    job = asked.looked(ground, (axis, NO_AXIS), f"{ground.scenario.name}-advice", 1, at_own_cell=True)
    if job is not None:
        say("")
        for line in advice(job, prices_in_words(ground.scenario.cluster)):
            say(line)


@dataclass(frozen=True)
class Asked:
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
        self, ground: Ground, axes: tuple[Axis, Axis], name: str, knots: int, at_own_cell: bool = False
    ) -> MapJob | None:
        """A map whose cells have been looked at; None where that was only to be outlined."""
        from sim.map_display import MapDisplay
        from sim.map_grid import Grid, require_prices
        from sim.map_job import MapJob
        from sim.sweep_command import Kind, opened

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

    def real_seeds(self, ground: Ground) -> SeedsConfig:
        """Seeds of the real runs: the scenario's, or so many failure seeds counted up from its first."""
        given = ground.scenario.seeds
        number = self.replicates or max(FEWEST_REPLICATES, len(given.failures))
        if number == len(given.failures):
            return given
        first = given.failures[0]
        return given.model_copy(update={"failures": tuple(range(first, first + number))})

    def _real(self, executor: Executor, cache: Path, display: MapDisplay) -> RealRunsJob:
        from sim.real_runs import RealRunsJob
        from sim.sweep_command import opened_workshop

        @contextmanager
        def at_work(job: SweepJob) -> Iterator[tuple[Executor, Workshop | None]]:
            yield executor, opened_workshop(job, cache, None, self.dry_run)

        return RealRunsJob(self.scenario_path.parent, self.results, cache, at_work, display, display.say)
