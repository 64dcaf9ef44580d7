"""A strategy map for people: its figure, the share of cells of each strategy, and what the map rests on."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.core.files import atomic_write
from sim.core.text import format_count
from sim.reporting.advice import best_and_contenders, format_means
from sim.reporting.notes import describe_prices, notes
from sim.reporting.series import SeriesStyle, styles_by_kind
from sim.reporting.strategy_map import draw_lines, draw_map, hours_or_usd, line_figure, map_figure, position
from sim.reporting.style import save
from sim.reporting.tables import Row, Table, columns_of
from sim.results.comparison import FEWEST_LOST
from sim.results.strategy_map import StrategyMap
from sim.strategies import legend_label


def strategy_map_figure(found: StrategyMap) -> Figure:
    """The map as a figure: regions over two fields, or lines over one."""
    styles, (x, y) = styles_of(found), found.axes
    if not y.field:
        bands = "Bands: 95 % intervals of means. A line ends where a strategy misses the target under some seed."
        return line_figure(found.table, x, styles, *hours_or_usd(found.objective), [bands, *map_notes(found)])
    marks = {
        "own": [(position(x, x.own), position(y, y.own))] if found.own_cell else [],
        "knots": [(position(x, x.values[i]), position(y, y.values[j])) for i, j in found.sampled_cells],
    }
    colours = {name: style.colour for name, style in styles.items()}
    return map_figure(found.table, found.axes, colours, marks, map_notes(found))


def draw_map_panel(axis: Axes, found: StrategyMap) -> None:
    """Draw the map on an axis: regions over two fields, or lines over one."""
    styles, (x, y) = styles_of(found), found.axes
    if y.field:
        draw_map(axis, found.table, x, y, {name: style.colour for name, style in styles.items()})
        return
    what, label = hours_or_usd(found.objective)
    draw_lines(axis, found.table, x, styles, what)
    axis.set_ylabel(label)


def styles_of(found: StrategyMap) -> dict[str, SeriesStyle]:
    """The style of each strategy by its kind."""
    kinds = {config.name: config.kind for config in found.scenario.strategies}
    return styles_by_kind({name: kinds[name] for name in found.strategies})


def write_map(found: StrategyMap, folder: Path) -> list[Path]:
    """Write map.csv, map.png and map.pdf into a folder."""
    path = folder / "map.csv"
    atomic_write(path, found.table.to_csv(index=False))
    return [path, *save(strategy_map_figure(found), folder / "map")]


def shares_table(found: StrategyMap) -> Table:
    """For each strategy the share of cells in which it is best, and how far it is ahead or behind."""
    what = "cheapest" if found.objective == "money" else "first"
    headings = (
        f"{what} in\n% of cells",
        "of these\ntoo close",
        f"may be {what}\nin % of cells",
        "behind by\n% (median)",
    )
    table_rows = []
    for name, rows in found.table.groupby("strategy", sort=False):
        best = rows[rows["is_best"]]
        others = rows.loc[~rows["is_best"] & (rows["num_reached"] == rows["num_runs"]), "behind"]
        shares = (
            f"{100 * rows['is_best'].mean():.0f}",
            f"{100 * best['is_close'].mean():.0f}" if len(best) else "-",
            f"{100 * rows['may_be_first'].astype(float).mean():.0f}",
            f"{100 * others.median():.0f}" if len(others) and not others.isna().all() else "-",
        )
        table_rows.append(Row((legend_label(str(name)), *shares)))
    title = f"{found.scenario.name}: strategies that reach the target {what}"
    return Table(title, columns_of(headings), tuple(table_rows))


def own_line(found: StrategyMap) -> str:
    """The best strategy for the scenario as it stands, or in the cell nearest to it; empty where it has none."""
    if found.own is None or found.own_cell is None:
        return ""
    axes = [(axis, axis.values[place]) for axis, place in zip(found.axes, found.own_cell, strict=True) if axis.field]
    where = "At the scenario's own values"
    if any(value != axis.own for axis, value in axes):
        nearest = ", ".join(f"{axis.field} {value}, the scenario's {axis.own}" for axis, value in axes)
        where = f"In the cell nearest to the scenario ({nearest}; `churnlab advise` evaluates the scenario itself)"
    best = found.own.ranking.best
    means = f", {format_means(found.own, best.strategy)}" if best else ""
    return f"{where}: {best_and_contenders(found.own)}{means}."


def map_notes(found: StrategyMap) -> list[str]:
    """What the map rests on, a sentence each."""
    scenario, num_cells = found.scenario, len(found.every_cell)
    looked = f"{len(found.cells)} of {num_cells} cells simulated"
    between = ", the others interpolated between cells that agree" if len(found.cells) < num_cells else ""
    described = notes(scenario, found.corpus_description)
    lines = [
        f"{looked} without training under {found.num_time_seeds} failure seeds{between}. {note_of_learning(found)} Too "
        "close: the 95 % interval of the difference contains 0, or the difference is below the interpolation error."
        f"{note_of_few_losses(found)}",
        f"Except for the fields on the axes: {described[0]}",
        *described[1:],
    ]
    return [*lines, describe_prices(scenario.cluster)] if found.objective == "money" else lines


def note_of_learning(found: StrategyMap) -> str:
    """Where the iterations to the target come from."""
    target = f"loss {found.scenario.training.target_validation_loss:g}"
    if not found.sampled_cells:
        return f"Iterations to {target}: those of a run without failures, no strategy here changes weights."
    error = max((one.error for result in found.cells.values() for one in result.ranking.standings), default=0.0)
    return (
        f"Iterations to {target} under failures: {format_count(found.num_replicates, 'real training')} at "
        f"{'each of ' if len(found.sampled_cells) > 1 else ''}{format_count(len(found.sampled_cells), 'cell')}, "
        f"interpolated by failures per iteration, and between validations (error up to {100 * error:.0f} %)."
    )


def note_of_few_losses(found: StrategyMap) -> str:
    """A sentence where too few stages are lost in some cells; empty where in none."""
    num_few = sum(result.num_lost < FEWEST_LOST for result in found.cells.values())
    if not num_few:
        return ""
    return (
        f" In {100 * num_few / len(found.cells):.0f} % of the simulated cells the best loses fewer than "
        f"{FEWEST_LOST:g} stages before the target: plain speed is compared there."
    )
