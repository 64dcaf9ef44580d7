"""Strategy map: figure, shares of cells and basis of the map; advice in five sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sim.core.files import atomic_write
from sim.core.text import USD, format_count, format_list, format_number, time_unit, uncapitalized
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.binding import binding_sentences
from sim.reporting.bottlenecks import incomplete_saves, what_binds
from sim.reporting.map_axes import edges, name_regions, position, scale_axis
from sim.reporting.notes import describe_prices, notes
from sim.reporting.series import SeriesStyle, Styles, styles_by_kind
from sim.reporting.style import new_figure, save
from sim.reporting.table import Row, Table, columns_of
from sim.reporting.verdict import nothing_to_choose, use_smaller
from sim.results.ranking import FEWEST_FAILURES, Standing
from sim.results.storage import refusals_explained
from sim.results.strategy_map import Advice, CellResult, StrategyMap, num_missed
from sim.scenario.axes import Axis
from sim.scenario.saves import strategies_that_save_on_nodes, unused_saves
from sim.strategies import legend_label

LEADS, STRENGTHS = (0.05, 0.15), np.array([0.35, 0.6, 1.0])  # strength of the colour up to each lead, and above
CELL_COLUMNS = ("strategy", "is_best", "is_close", "is_tested", "behind", "num_reached", "num_runs")

NO_STRATEGY, TOO_FEW_FAILURES = "#FFFFFF", "#D9D9D9"

DOUBTFUL = 0.25
"""Share of the iterations of whole runs by which their prediction is off at most; single runs vary by a tenth."""

Colours = Mapping[str, str]


def strategy_map_figure(found: StrategyMap) -> Figure:
    """Draw a map: regions over two fields, or lines over one field."""
    x, y = found.axes
    if not y.field:
        bands = (
            "Bands: 95 % intervals of means. A line ends where a strategy misses the target under at least one seed."
        )
        with new_figure(3.0, [bands, *map_notes(found)]) as figure:
            draw_map_panel(figure.subplots(), found)
            figure.legend(loc="outside upper center", ncols=5, frameon=False)
        return figure
    marks = {
        "own": [(position(x, x.own), position(y, y.own))] if found.own_cell else [],
        "knots": [(position(x, x.values[i]), position(y, y.values[j])) for i, j in found.sampled_cells],
    }
    colours = {name: style.colour for name, style in _styles_of(found).items()}
    return map_figure(found.table, found.axes, colours, marks, map_notes(found))


def draw_map_panel(axis: Axes, found: StrategyMap) -> None:
    """Draw the map on an axis: regions over two fields, or lines over one."""
    styles, (x, y), is_money = _styles_of(found), found.axes, found.objective == "money"
    if y.field:
        draw_map(axis, found.table, x, y, {name: style.colour for name, style in styles.items()})
        return
    draw_lines(axis, found.table, x, styles, "usd" if is_money else "hours")
    axis.set_ylabel("money to the target loss ($)" if is_money else "simulated hours to the target loss")


def _styles_of(found: StrategyMap) -> dict[str, SeriesStyle]:
    kinds = {config.name: config.kind for config in found.scenario.strategies}
    return styles_by_kind({name: kinds[name] for name in found.strategies})


def write_map(found: StrategyMap, folder: Path) -> list[Path]:
    """Write map.csv, map.png and map.pdf into a folder, which is created. OSError where the disk refuses."""
    with refusals_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / "map.csv"
    atomic_write(path, found.table.to_csv(index=False))
    return [path, *save(strategy_map_figure(found), folder / "map")]


def shares_table(found: StrategyMap) -> Table:
    """Share of cells in which each strategy is best, and its lag in the others."""
    what = "cheapest" if found.objective == "money" else "first"
    first, may_be = f"{what} in\n% of cells", f"may be {what}\nin % of cells"
    headings = (first, "too close,\n% of these", may_be, "median lag\nin %")
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
    note = (
        f"Cells in which each strategy is {what}; of these, cells too close to call; cells in which it may be {what}; "
        "and its lag in the other cells."
    )
    return Table(title, columns_of(headings), tuple(table_rows), note)


def own_line(found: StrategyMap) -> str:
    """The best strategy for the scenario's own values, or in the cell nearest to it; empty where it has none."""
    if found.own is None or found.own_cell is None:
        return ""
    axes = [(axis, axis.values[place]) for axis, place in zip(found.axes, found.own_cell, strict=True) if axis.field]
    where = "At the scenario's own values"
    if any(value != axis.own for axis, value in axes):
        nearest = ", ".join(f"{axis.field} {value}, the scenario's {axis.own}" for axis, value in axes)
        where = f"In the cell nearest to the scenario ({nearest}; `churnlab advise` evaluates the scenario itself)"
    best = found.own.ranking.best
    if found.own.smaller:
        where = f"{use_smaller(found.own.smaller)} {where}"
    if not found.own.ranking.is_tested:
        return f"{where}: {_undecided(found)}"
    means = f", {format_means(found.own, best.strategy)}" if best else ""
    return f"{where}: {best_and_contenders(found.own)}{means}."


def _undecided(found: StrategyMap) -> str:
    assert found.own is not None
    return nothing_to_choose(found.own.ranking, f"{found.scenario.training.target_loss:g}")


def _is_curve(found: StrategyMap) -> bool:
    return found.scenario.training.learner == "curve"


def map_notes(found: StrategyMap) -> list[str]:
    """Sentences on the basis of the map."""
    scenario, results = found.scenario, found.cells.values()
    num_cells, target = math.prod(len(axis.values) for axis in found.axes), scenario.training.target_loss
    basis = f"{len(results)} of {num_cells} cells simulated without training under {found.num_time_seeds} failure seeds"
    basis += ", the others interpolated between cells that agree. " if len(results) < num_cells else ". "
    if found.num_branches:
        basis += (
            f"Iterations to loss {target:g} under failures: PREDICTED from {found.num_branches:,} single failures "
            f"under {format_count(found.num_replicates, 'training seed')}{checked(found)}."
        )
    elif found.sampled_cells:
        error = max((one.error for result in results for one in result.ranking.standings), default=0.0)
        what = "training seed" if _is_curve(found) else "real training"
        basis += (
            f"Iterations to loss {target:g} under failures: {format_count(found.num_replicates, what)} at "
            f"{'each of ' if len(found.sampled_cells) > 1 else ''}{format_count(len(found.sampled_cells), 'cell')}, "
            f"interpolated by failures per iteration, and between validations (error up to {100 * error:.0f} %)."
        )
    else:
        basis += f"Iterations to loss {target:g}: those of a run without failures; here no recovery changes weights."
    basis += " Too close: the 95 % interval of the difference contains 0, or the difference is below the possible "
    basis += "error."
    if num_smaller := sum(result.smaller is not None for result in results):
        basis += (
            f" In {100 * num_smaller / len(results):.0f} % of the simulated cells all strategies have the smaller "
            "microbatches that one strategy's options ask for, because a plain iteration is faster with these."
        )
    if num_few := sum(not result.ranking.is_tested for result in results):
        basis += (
            f" In {100 * num_few / len(results):.0f} % of the simulated cells no strategy is first, because fewer than "
            f"{FEWEST_FAILURES:g} stages are lost before the target in all replicates together: there, take the "
            "strategy with the least overhead."
        )
    described = notes(scenario, found.corpus_description, varied=[axis.field for axis in found.axes])
    lines = [basis, f"Except for the fields on the axes: {described[0]}", *described[1:]]
    return [*lines, describe_prices(scenario.cluster)] if found.objective == "money" else lines


def checked(found: StrategyMap) -> str:
    """The end of a sentence on predictions: the whole runs that check them, or that there are none."""
    if not found.checks:
        return "; no run under failures was trained"
    return f", and checked by {format_count(sum(len(one.real) for one in found.checks), 'whole run')}"


def check_line(found: StrategyMap) -> str:
    """Iterations of the whole runs beside those predicted for them; empty without such runs."""
    if not found.checks:
        return ""
    parts = [
        f"{legend_label(one.strategy)} {_mean_or_missed(one.real)} (predicted {_mean_or_missed(one.predicted)})"
        for one in found.checks
    ]
    number = len(found.checks[0].real)
    runs = "one whole run" if number == 1 else f"{number} whole runs"
    each = " of each strategy" if len(parts) > 1 else ""
    line = f"Check of the prediction, iterations to the target in {runs}{each}: {', '.join(parts)}."
    if not all(one.agrees(DOUBTFUL) for one in found.checks):
        line += " They differ by more than single runs vary: use --trained."
    return line


def _mean_or_missed(iterations: Sequence[float]) -> str:
    """Mean iterations, or in how many runs the target is missed."""
    if missed := num_missed(iterations):
        return f"missed in {missed} of {len(iterations)}" if len(iterations) > 1 else "missed"
    return f"{math.fsum(iterations) / len(iterations):,.0f}"


def draw_map(axis: Axes, table: pd.DataFrame, x: Axis, y: Axis, colours: Colours) -> None:
    """Draw a map's table (`StrategyMap.table`) over its two axes. colours: of each strategy."""
    cells = {name: table[name].to_numpy().reshape(len(y.values), len(x.values), -1) for name in CELL_COLUMNS}
    is_best, is_other = cells["is_best"], ~cells["is_best"] & (cells["num_reached"] == cells["num_runs"])
    best = np.full(is_best.shape[:2], None)
    best[is_best.any(axis=2)] = cells["strategy"][is_best]
    lead = np.fmin.reduce(np.where(is_other, cells["behind"], math.inf), axis=2)
    edges_x, edges_y = edges(x), edges(y)
    full = np.array([to_rgb(colours.get(name, NO_STRATEGY)) for name in best.flat]).reshape(*best.shape, 3)
    full[~cells["is_tested"][:, :, 0].astype(bool)] = to_rgb(TOO_FEW_FAILURES)
    lead = np.where(cells["is_tested"][:, :, 0], lead, math.inf)
    shades = 1.0 - STRENGTHS[np.searchsorted(LEADS, lead)][:, :, None] * (1.0 - full)
    axis.pcolormesh(edges_x, edges_y, shades, linewidth=0, rasterized=True)
    for j, i in np.argwhere(cells["is_close"][:, :, 0]):
        corner, width, height = (edges_x[i], edges_y[j]), edges_x[i + 1] - edges_x[i], edges_y[j + 1] - edges_y[j]
        look: dict[str, Any] = {"hatch": "////", "linewidth": 0, "edgecolor": "0.2", "alpha": 0.35}
        axis.add_patch(Rectangle(corner, width, height, fill=False, **look))
    border: dict[str, Any] = {"color": "black", "linewidth": 1.1, "solid_capstyle": "round"}
    for j, i in np.argwhere(best[:, 1:] != best[:, :-1]):
        axis.plot([edges_x[i + 1]] * 2, edges_y[j : j + 2], **border)
    for j, i in np.argwhere(best[1:] != best[:-1]):
        axis.plot(edges_x[i : i + 2], [edges_y[j + 1]] * 2, **border)
    name_regions(axis, best, edges_x, edges_y)
    axis.grid(visible=False)
    scale_axis(axis, "x", x, edges_x)
    scale_axis(axis, "y", y, edges_y)


def map_figure(
    table: pd.DataFrame,
    axes: tuple[Axis, Axis],
    colours: Colours,
    marks: Mapping[str, Sequence[Any]],
    notes: Sequence[str],
) -> Figure:
    """Draw a map with its legend and caption. marks: positions (x, y) of `own` and `knots` (real runs)."""
    legends = "Strong colours: ahead by more than 15 %; medium: 5 to 15 %; pale: less."
    with new_figure(3.8, [legends, *notes]) as figure:
        axis = figure.subplots()
        draw_map(axis, table, *axes, colours)
        is_best, strategy = table["is_best"], table["strategy"]
        present = [name for name in colours if (is_best & (strategy == name)).any()]
        handles: list[Artist] = [Patch(facecolor=colours[name], label=legend_label(name)) for name in present]
        if not table["is_tested"].all():
            handles.append(Patch(facecolor=TOO_FEW_FAILURES, label="too few failures to decide"))
        by_cell = table.groupby([one.field for one in axes], sort=False)
        if not (by_cell["is_best"].any() | ~by_cell["is_tested"].all()).all():
            handles.append(Patch(facecolor=NO_STRATEGY, edgecolor="0.6", label="none reaches the target"))
        if table["is_close"].any():
            handles.append(Patch(facecolor="white", edgecolor="0.25", hatch="////", label="too close to call"))
        look: dict[str, Any] = {"linestyle": "", "markerfacecolor": "white", "markeredgecolor": "black", "zorder": 5}
        kinds = (("own", "*", 10, "the scenario's own values"), ("knots", "o", 4, "real runs under failures"))
        for what, marker, size, label in kinds:
            if places := marks.get(what):
                xs, ys = zip(*places, strict=True)
                handles += axis.plot(xs, ys, marker=marker, markersize=size, markeredgewidth=0.9, label=label, **look)
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figure


def draw_lines(axis: Axes, table: pd.DataFrame, x: Axis, styles: Styles, what: str) -> None:
    """Draw a map's table over one axis: column `what` of each strategy with its interval."""
    for name, rows in table.groupby("strategy", sort=False):
        colour, line, marker = styles[str(name)]
        places = rows[x.field].to_numpy() if x.is_numeric else np.arange(len(rows))
        label = legend_label(str(name))
        axis.plot(places, rows[what], color=colour, linestyle=line, marker=marker, markersize=3, label=label)
        axis.fill_between(places, rows[f"{what}_low"], rows[f"{what}_high"], color=colour, alpha=0.15, linewidth=0)
    scale_axis(axis, "x", x, edges(x))
    axis.set_ylim(bottom=0)


def advice_lines(advice: Advice) -> list[str]:
    """Return five or six lines on the scenario itself, after lines that name a bottleneck other than compute."""
    smaller = advice.result.smaller
    first = _use(advice)
    if smaller:
        with_these = f"With these, {uncapitalized(first)}" if first.startswith("Use ") else first
        first = f"{use_smaller(smaller)} {with_these}"
    check = [line] if (line := check_line(advice.map)) else []
    sure = [_confidence(advice), *check]
    return [
        *_bounds(advice),
        first,
        _then(advice),
        *sure,
        _turns(advice),
        _assumptions(advice),
        *_unhelpful_saves(advice),
    ]


def _bounds(advice: Advice) -> list[str]:
    """Sentences on the binding resource of an iteration, unless it is compute, and on dominant buckets."""
    shares = {name: found.shares for name, found in advice.result.first_passages.items()}
    return what_binds(shares, binding_sentences(advice.map.scenario, only_limits=True))


def _unhelpful_saves(advice: Advice) -> list[str]:
    """Name saves that never complete, and intervals that are no shorter than the job."""
    lines, on_nodes = unused_saves(advice.map.scenario), strategies_that_save_on_nodes(advice.map.scenario)
    for name, found in advice.result.first_passages.items():
        lines += incomplete_saves(name, found.num_started, found.num_durable, name in on_nodes)
    return lines


def _use(advice: Advice) -> str:
    target, result = advice.map.scenario.training.target_loss, advice.result
    if not result.ranking.is_tested:
        return _undecided(advice.map)
    if advice.best is None:
        names = ", ".join(map(legend_label, result.first_passages))
        return f"None of these reaches loss {target:g} under every seed: {names}."
    first = "for the least money" if advice.map.objective == "money" else "first"
    reached = f"reaches loss {target:g} {first}, after {format_means(result, advice.best)}"
    if not advice.contenders:
        return f"Use {legend_label(advice.best)}: it {reached}."
    names = format_list([legend_label(name) for name in advice.contenders])
    return f"Use {legend_label(advice.best)}: on average it {reached}. Too close to call: {names}."


def format_means(result: CellResult, name: str) -> str:
    """Time and money of a strategy with their intervals."""
    found = result.first_passages[name].means()
    mean, low, high = (SECONDS_PER_HOUR * found[f"hours{end}"] for end in ("", "_low", "_high"))
    unit = time_unit(mean)
    time = unit.of(mean)
    if low < high:  # else all replicates are one run
        time += f" (95 % interval {format_number(low / unit.size)} to {format_number(high / unit.size)})"
    return time if math.isnan(found["usd"]) else f"{time} and {USD.of(found['usd'])}"


def _then(advice: Advice) -> str:
    more, equally = ("more money", "as cheap") if advice.map.objective == "money" else ("later", "as fast")
    ranking, described = advice.result.ranking, []
    for one in ranking.standings[1 if ranking.reaching else 0 :]:
        name, num_missed = legend_label(one.strategy), one.takes.num_runs - one.takes.num_reached
        if one.reaches:
            described.append(f"{name}, {describe_behind(one, more) or equally}")
        else:
            described.append(f"{name} misses it in {num_missed} of {one.takes.num_runs} pairs of seeds")
    if ranking.reaching and not ranking.is_tested:
        least = ranking.reaching[0].strategy
        described.insert(0, f"{legend_label(least)} {format_means(advice.result, least)}")
        return f"In these runs: {'; '.join(described)}."
    if not ranking.reaching:
        reached = [f"{legend_label(one.strategy)} in {one.takes.num_reached}" for one in ranking.standings]
        return f"Of {ranking.standings[0].takes.num_runs} pairs of seeds, these reach it: {', '.join(reached)}."
    return f"Then {'; '.join(described)}."


def describe_behind(one: Standing, more: str) -> str:
    """The share by which a strategy is behind the best, with its interval; empty if it is nothing."""
    low, behind, high = (100 * share for share in (one.behind_low, one.behind, one.behind_high))
    is_interval = math.isfinite(low + high) and round(low) != round(high)
    interval = f" ({round(low)} to {round(high)})" if is_interval else ""
    return f"{round(behind)} % {more}{interval}" if round(behind) or interval else ""


def _confidence(advice: Advice) -> str:
    result, map_ = advice.result, advice.map
    error = max((one.error for one in result.ranking.standings), default=0.0)
    trainings = "training seeds of the parametric curve" if _is_curve(map_) else "real trainings"
    basis = f"95 % intervals, {map_.num_time_seeds} failure seeds crossed with {map_.num_replicates} {trainings}"
    if map_.num_branches:
        seeds = f"{map_.num_time_seeds} failure seeds crossed with {map_.num_replicates} training seeds"
        basis = f"95 % intervals, {seeds}; learning predicted from {map_.num_branches:,} single failures"
    elif error >= 0.005:
        basis += f"; interpolated between real runs and between validations, up to {100 * error:.0f} % off"
    if not result.ranking.is_tested:
        more = "more --time-replicates, " if round(result.ranking.num_lost) else ""
        return (
            f"Confidence: high for overheads, none for recovery ({basis}); {more}a longer job (training.steps or "
            "iterations_per_step) or a higher failure rate would allow a comparison."
        )
    if advice.best is None:
        return f"Confidence: {basis}."
    if advice.contenders:
        is_learnt = any(name in advice.learning_costs for name in (advice.best, *advice.contenders))
        option = "--replicates" if is_learnt else "--time-replicates"
        return f"Confidence: low ({basis}); more {option} may separate them."
    return f"Confidence: high, all others are significantly behind ({basis})."


def _turns(advice: Advice) -> str:
    axis, cells = advice.map.axes[0], advice.map.cells
    if len(axis.values) < 2:
        why = "not evaluated, these failures have no single rate; churnlab map varies other fields"
        return f"Other failure rates: {why}."
    ranges = []
    for name, group in groupby(range(len(axis.values)), key=lambda i: _best_name(cells[i, 0])):
        same = list(group)
        values = [f"{axis.values[i]:g}" for i in same]
        close = [f"{axis.values[i]:g}" for i in same if cells[i, 0].ranking.contenders]
        where = "" if len(close) < len(same) else " throughout" if len(same) > 1 else " there"
        doubt = f", too close to call{where or ' at ' + ', '.join(close)}" if close else ""
        ranges.append(f"{' to '.join(dict.fromkeys((values[0], values[-1])))}: {name}{doubt}")
    if len(ranges) == 1:
        return f"The same holds at other failure rates: for {axis.field} {ranges[0]}."
    return f"The order changes with {axis.field}: {'; '.join(ranges)}."


def _best_name(result: CellResult) -> str:
    best = result.ranking.best
    if best:
        return legend_label(best.strategy)
    return "none reaches the target" if result.ranking.is_tested else "too few failures to decide"


def best_and_contenders(result: CellResult) -> str:
    """The best strategy's name, and in brackets others that may be first as well."""
    others = [legend_label(one.strategy) for one in result.ranking.contenders]
    return _best_name(result) + (f" (or {', '.join(others)})" if others else "")


def _assumptions(advice: Advice) -> str:
    scenario = advice.map.scenario
    factors = {
        name: "over twice" if math.isnan(cost) else f"{cost:.2f} ×" for name, cost in advice.learning_costs.items()
    }
    costs = [f"{legend_label(name)} {factor}" for name, factor in factors.items()]
    proxy, workload = scenario.training.model, scenario.workload
    learnt = f" (iterations under these failures relative to none: {', '.join(costs)})" if costs else ""
    money = f" {describe_prices(scenario.cluster)}" if advice.map.objective == "money" else ""
    return (
        f"Assumptions: a lost stage costs '{workload.model.name}' in {workload.num_stages} stages as many iterations "
        f"as it cost the proxy, {proxy.num_stages} × {proxy.layers_per_stage} layers of dim {proxy.dim}{learnt}; "
        f"links, devices and failures are those of the scenario.{money}"
    )
