"""What a map leaves: a figure and its table as files, and a summary on the screen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.table import Table

from sim.advice import num_lost, taken, who
from sim.durable import write_whole
from sim.figures import legend_label, looks_for, save
from sim.map_figure import hours_or_usd, line_figure, map_figure, position
from sim.map_job import MapJob
from sim.refinement import Cell
from sim.run_report import notes, prices_in_words
from sim.tables import strategy_table
from sim.terminal import console, say
from sim.wording import FEWEST_LOST, counted


def write_map(job: MapJob, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write map.csv, map.png and map.pdf into a folder."""
    path = folder / "map.csv"
    write_whole(path, table.to_csv(index=False))
    kinds = {config.name: config.kind for config in job.grid.scenario.strategies}
    looks = looks_for({name: kinds[name] for name in job.grid.candidates})
    if job.grid.axes[1].field:
        marks = {
            "own": [own_place(job)] if job.grid.own_cell else [],
            "knots": [place(job, cell) for cell in dict.fromkeys(cell for cell, _ in job.knots)],
        }
        colours = {name: look.colour for name, look in looks.items()}
        figure = map_figure(table, job.grid.axes, colours, marks, captions(job))
    else:
        what, label = hours_or_usd(job.objective)
        shown = "Bands: 95 % intervals of means. A line ends where a strategy misses the target under some seed."
        figure = line_figure(table, job.grid.axes[0], looks, what, label, [shown, *captions(job)])
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
            f"Iterations to {target} under failures: {counted(job.num_replicates, 'real training')} at "
            f"{'each of ' if num_knots > 1 else ''}{counted(num_knots, 'cell')}, "
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
    return [*lines, prices_in_words(scenario.cluster)] if job.objective == "money" else lines


def own_place(job: MapJob) -> tuple[float, float]:
    """Where the scenario as it stands is in the figure."""
    x, y = job.grid.axes
    return position(x, x.own), position(y, y.own)


def place(job: MapJob, cell: Cell) -> tuple[float, float]:
    """Where a cell stands in the figure."""
    x, y = job.grid.axes
    return position(x, x.values[cell[0]]), position(y, y.values[cell[1]])
