"""The commands `churnlab map` and `churnlab advise`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from sim.cli.machines import answer
from sim.cli.options import (
    CacheFolder,
    Jobs,
    NoCache,
    Overrides,
    ResultsFolder,
    ScenarioPath,
    cache_folder,
    console,
    one_of,
    say,
    say_next,
    whole_number,
    with_locations,
)
from sim.cli.progress import Display
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.study import (
    FEWEST_REPLICATES,
    FEWEST_TRAINING_SEEDS,
    MapOptions,
    MapRequest,
    advice_of,
    axes_of,
)
from sim.results.strategy_map import Objective
from sim.scenario.axes import ScenarioTemplate

app = typer.Typer()

ObjectiveOption = Annotated[
    Objective,
    typer.Option(
        parser=one_of(get_args(Objective)),
        metavar="[time|money]",
        help="Rank by time or by cost to the target loss.",
    ),
]

Replicates = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(1),
        metavar="N",
        help=f"Training seeds for the effect of single failures, by default at least {FEWEST_TRAINING_SEEDS}. With "
        f"--trained: pairs of seeds for whole runs, by default at least {FEWEST_REPLICATES}.",
    ),
]

TimeReplicates = Annotated[
    int, typer.Option(parser=whole_number(2), metavar="N", help="Failure seeds for simulations without training.")
]

Trained = Annotated[
    bool,
    typer.Option("--trained", help="Train whole runs under failures instead of predicting them from single failures."),
]

Check = Annotated[
    int,
    typer.Option(
        "--check",
        parser=whole_number(0),
        metavar="N",
        help="Whole runs to train for each strategy that may be first, to check the prediction; 0: none.",
    ),
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the training that would be done first, and exit.")]


@app.command("map")
@with_locations
def map_(
    scenario_path: ScenarioPath,
    x: Annotated[
        str, typer.Option("--x", metavar="FIELD[=VALUES]", help="First axis: FIELD, FIELD=1,2,3 or FIELD=1..9.")
    ],
    y: Annotated[
        str | None, typer.Option("--y", metavar="FIELD[=VALUES]", help="Second axis. Without it, the map is a line.")
    ] = None,
    overrides: Overrides = None,
    cells: Annotated[
        int,
        typer.Option(
            parser=whole_number(2, 60),
            metavar="N",
            help="Number of values on an axis given as a range or as a field alone.",
        ),
    ] = 20,
    objective: ObjectiveOption = "time",
    replicates: Replicates = None,
    time_replicates: TimeReplicates = 10,
    sample_points: Annotated[
        int,
        typer.Option(
            "--sample-points",
            "--knots",
            parser=whole_number(1, 20),
            metavar="N",
            help="With --trained: number of cells in which strategies that change weights are trained.",
        ),
    ] = 3,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    trained: Trained = False,
    check: Check = 1,
    dry_run: DryRun = False,
) -> None:
    """Map which strategy reaches the target loss first over two fields, by how much, and where it is too close to call.

    Times are simulated in each cell. The effect of failures on the loss is predicted from single failures, and whole
    runs check the prediction. With --trained, whole runs in a few cells replace it. After an interruption, the same
    command resumes.
    """
    template = template_of(scenario_path, overrides)
    options = MapOptions(objective, replicates, time_replicates, sample_points, cells, jobs, not trained, check)
    request = MapRequest(template, axes_of(template, x, y, cells, "--"), options, results)
    if (job := finished(request, cache, no_cache, dry_run)) is None:
        return
    from sim.reporting.strategy_map import check_line, map_notes, own_line, shares_table, write_map

    found = job.map
    paths = write_map(found, results / found.name)
    console.print()
    console.print(shares_table(found))
    for line in (own_line(found), check_line(found)):
        if line:
            say(line)
    for line in map_notes(found):
        say(line, style="dim")
    say("Written: " + ", ".join(map(str, paths)))


@app.command()
@with_locations
def advise(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    objective: ObjectiveOption = "time",
    replicates: Replicates = None,
    time_replicates: TimeReplicates = 10,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    trained: Trained = False,
    check: Check = 1,
    dry_run: DryRun = False,
) -> None:
    """Recommend a strategy for a scenario, with confidence and the failure rates at which the answer changes.

    The effect of failures on the loss is predicted from single failures, and whole runs check the prediction. With
    --trained, whole runs replace it. After an interruption, the same command resumes.
    """
    template = template_of(scenario_path, overrides)
    options = MapOptions(objective, replicates, time_replicates, jobs=jobs, predicts=not trained, num_checks=check)
    request = MapRequest(template, None, options, results)
    if job := finished(request, cache, no_cache, dry_run):
        from sim.reporting.strategy_map import advice_lines  # needs matplotlib, which takes seconds to import

        advice = advice_of(job)
        lines = advice_lines(advice)
        say("\n".join(["", *lines]))
        say_next("churnlab", "run", scenario_path)
        answer(
            {
                "scenario": template.scenario.name,
                "objective": objective,
                "best": advice.best,
                "contenders": advice.contenders,
                "lead": advice.lead,
                "is_certain": advice.is_certain,
                "lines": lines,
                "checks": [asdict(check) for check in advice.map.checks],
                "table": advice.table,
            }
        )


def template_of(path: Path, overrides: list[str] | None) -> ScenarioTemplate:
    """The scenario of a map, without its sweep; prints a line if one run takes long."""
    from sim.simulation.effort_estimate import foreseen_effort  # needs simpy

    template = ScenarioTemplate(path, overrides or ())
    for line in foreseen_effort(template.scenario):
        say(line, "yellow")
    if template.scenario.sweep is not None:
        say("The sweep: section is ignored; its fields have their values from outside that section.")
    return template


def finished(request: MapRequest, cache: Path | None, no_cache: bool, dry_run: bool) -> MapJob | None:
    """The finished computation of a map; None after a dry run, which prints the training that would be done first."""
    with cache_folder(cache, no_cache) as folder, Display(not dry_run) as display:
        request = replace(request, cache=folder)
        if not dry_run:
            return request.finished(display)
        say("\n".join(request.outline(display)))
    return None
