"""Strategy map: each cell in the colour of its best strategy, strong for a large lead, hatched if too close to call."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator
from scipy import ndimage

from sim.reporting.series import SeriesStyle
from sim.reporting.style import new_figure
from sim.scenario.axes import Axis
from sim.strategies import legend_label

LEADS = ((0.05, 0.35), (0.15, 0.6), (math.inf, 1.0))
"""Maximum lead and strength of the colour."""

NO_STRATEGY = "#FFFFFF"

SMALLEST_NAMED = 0.04
"""Regions of a smaller share of the map are not named."""

THINNEST_NAMED = 2.0
"""Distance in cells from a region's middle to its border below which it is not named: less than three cells wide."""

Colours = Mapping[str, str]

Edges = npt.NDArray[np.float64]


def draw_map(axis: Axes, table: pd.DataFrame, x: Axis, y: Axis, colours: Colours) -> None:
    """Draw a map's table (`sim.experiments.strategy_map.table`) over its two axes. colours: of each strategy."""
    shape = len(y.values), len(x.values)
    best, lead, close = grids(table, shape)
    edges_x, edges_y = edges(x), edges(y)
    axis.pcolormesh(edges_x, edges_y, shades(best, lead, colours), linewidth=0, rasterized=True)
    for j, i in zip(*np.nonzero(close), strict=True):
        corner, width, height = (edges_x[i], edges_y[j]), edges_x[i + 1] - edges_x[i], edges_y[j + 1] - edges_y[j]
        axis.add_patch(
            Rectangle(corner, width, height, fill=False, hatch="////", linewidth=0, edgecolor="0.2", alpha=0.35)
        )
    for xs, ys in borders(best, edges_x, edges_y):
        axis.plot(xs, ys, color="black", linewidth=1.1, solid_capstyle="round")
    name_regions(axis, best, edges_x, edges_y)
    axis.grid(visible=False)
    for which, of, ends in (("x", x, edges_x), ("y", y, edges_y)):
        scale(axis, which, of, ends)


def map_figure(
    table: pd.DataFrame,
    axes: tuple[Axis, Axis],
    colours: Colours,
    marks: Mapping[str, Sequence[Any]],
    notes: Sequence[str],
) -> Figure:
    """Draw a map with its legend and caption. marks: positions (x, y) of `own` and `knots` (real runs)."""
    legends = "Strong colours: ahead by more than 15 %; middle: 5 to 15 %; pale: less."
    with new_figure(3.8, [legends, *notes]) as figure:
        axis = figure.subplots()
        draw_map(axis, table, *axes, colours)
        is_best, strategy = table["is_best"], table["strategy"]
        handles: list[Artist] = [
            Patch(facecolor=colours[name], label=legend_label(name))
            for name in colours
            if (is_best & (strategy == name)).any()
        ]
        if not table.groupby([one.field for one in axes], sort=False)["is_best"].any().all():
            handles.append(Patch(facecolor=NO_STRATEGY, edgecolor="0.6", label="none comes to the target"))
        if table["is_close"].any():
            handles.append(Patch(facecolor="white", edgecolor="0.25", hatch="////", label="too close to call"))
        figure.legend(handles=[*handles, *draw_marks(axis, marks)], loc="outside upper center", ncols=4, frameon=False)
    return figure


def draw_marks(axis: Axes, marks: Mapping[str, Sequence[Any]]) -> list[Line2D]:
    """Draw marks at positions and return their legend handles."""
    handles = []
    for what, marker, size, label in (
        ("own", "*", 10, "the scenario as it stands"),
        ("knots", "o", 4, "real runs under failures"),
    ):
        if places := marks.get(what):
            xs, ys = zip(*places, strict=True)
            handles += axis.plot(
                xs, ys, linestyle="", marker=marker, markersize=size, markerfacecolor="white", markeredgecolor="black",
                markeredgewidth=0.9, zorder=5, label=label,
            )  # fmt: skip
    return handles


def line_figure(
    table: pd.DataFrame, x: Axis, styles: Mapping[str, SeriesStyle], what: str, label: str, notes: Sequence[str]
) -> Figure:
    """Draw a map over one axis: column `what` of each strategy with its interval."""
    with new_figure(3.0, notes) as figure:
        axis = figure.subplots()
        draw_lines(axis, table, x, styles, what)
        axis.set_ylabel(label)
        figure.legend(loc="outside upper center", ncols=5, frameon=False)
    return figure


def draw_lines(axis: Axes, table: pd.DataFrame, x: Axis, styles: Mapping[str, SeriesStyle], what: str) -> None:
    """Draw a map's table over one axis: column `what` of each strategy with its interval."""
    for name, rows in table.groupby("strategy", sort=False):
        colour, line, marker = styles[str(name)]
        places = rows[x.field].to_numpy() if x.is_numeric else np.arange(len(rows))
        label = legend_label(str(name))
        axis.plot(places, rows[what], color=colour, linestyle=line, marker=marker, markersize=3, label=label)
        axis.fill_between(places, rows[f"{what}_low"], rows[f"{what}_high"], color=colour, alpha=0.15, linewidth=0)
    scale(axis, "x", x, edges(x))
    axis.set_ylim(bottom=0)


def grids(table: pd.DataFrame, shape: tuple[int, int]) -> tuple[Any, Edges, npt.NDArray[np.bool_]]:
    """Return (y, x) arrays: the best strategy or None, its lead as a share, and whether it is too close to call."""
    num_strategies = table["strategy"].nunique()
    cells = [table.iloc[n : n + num_strategies] for n in range(0, len(table), num_strategies)]
    best = [next(iter(rows.loc[rows["is_best"], "strategy"]), None) for rows in cells]
    others = [rows.loc[~rows["is_best"] & (rows["num_reached"] == rows["num_runs"]), "behind"] for rows in cells]
    leads = [found.min() if len(found) else math.inf for found in others]
    close = [bool(rows["is_close"].iloc[0]) for rows in cells]
    return (
        np.array(best, dtype=object).reshape(shape),
        np.array(leads, dtype=np.float64).reshape(shape),
        np.array(close, dtype=np.bool_).reshape(shape),
    )


def shades(best: Any, lead: Edges, colours: Colours) -> Edges:
    """Return (y, x, 3) colours: the best strategy's, paler with a smaller lead."""
    found = np.ones((*best.shape, 3))
    for place in np.ndindex(best.shape):
        if best[place] is not None:
            strength = next(strength for most, strength in LEADS if lead[place] <= most)
            found[place] = 1.0 - strength * (1.0 - np.array(to_rgb(colours[best[place]])))
    return found


def edges(axis: Axis) -> Edges:
    """Return (values + 1,) edges of cells: halfway between values, by ratio on a logarithmic axis."""
    if not axis.is_numeric:
        numbers: Edges = np.arange(len(axis.values) + 1, dtype=np.float64)
        return numbers - 0.5
    values = np.array(axis.values, dtype=np.float64)
    if axis.is_log:
        values = np.log(values)
    if len(values) == 1:
        found: Edges = np.array([values[0] - 0.5, values[0] + 0.5])
    else:
        middles = (values[1:] + values[:-1]) / 2
        found = np.concatenate([[2 * values[0] - middles[0]], middles, [2 * values[-1] - middles[-1]]])
    ends: Edges = np.exp(found) if axis.is_log else found
    return ends


def borders(best: Any, edges_x: Edges, edges_y: Edges) -> list[tuple[list[float], list[float]]]:
    """Return lines between neighbouring cells whose best strategies differ."""
    lines = []
    num_y, num_x = best.shape
    for j in range(num_y):
        for i in range(num_x):
            if i + 1 < num_x and best[j, i] != best[j, i + 1]:
                lines.append(([edges_x[i + 1]] * 2, [edges_y[j], edges_y[j + 1]]))
            if j + 1 < num_y and best[j, i] != best[j + 1, i]:
                lines.append(([edges_x[i], edges_x[i + 1]], [edges_y[j + 1]] * 2))
    return lines


def name_regions(axis: Axes, best: Any, edges_x: Edges, edges_y: Edges) -> None:
    """Write the best strategy's name into each region that is large enough, at its widest place."""
    for name in dict.fromkeys(name for name in best.flat if name is not None):
        regions, num = ndimage.label(best == name)
        for number in range(1, num + 1):
            inside = regions == number
            if inside.mean() < SMALLEST_NAMED:
                continue
            depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
            if depth.max() < THINNEST_NAMED and min(best.shape) > 2:
                continue
            deepest = np.argwhere(depth == depth.max())
            centre = deepest[np.abs(deepest - deepest.mean(axis=0)).sum(axis=1).argmin()]
            x, y = (middle(ends, place) for ends, place in ((edges_x, centre[1]), (edges_y, centre[0])))
            text = axis.annotate(
                textwrap.fill(legend_label(name), 14), (x, y), ha="center", va="center", fontsize=8, weight="bold"
            )
            text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])


def middle(ends: Edges, place: int) -> float:
    """Return the middle of a cell."""
    return float(math.sqrt(ends[place] * ends[place + 1]) if ends[0] > 0 else (ends[place] + ends[place + 1]) / 2)


def position(axis: Axis, value: Any) -> float:
    """Return the position of a value on an axis."""
    return float(value) if axis.is_numeric else float(axis.values.index(value))


def scale(axis: Axes, which: str, of: Axis, ends: Edges) -> None:
    """Set label, limits, scale and ticks of an axis."""
    set_scale, set_label, set_limits = (getattr(axis, f"set_{which}{what}") for what in ("scale", "label", "lim"))
    set_label(of.field.replace("_", " "))
    set_limits(ends[0], ends[-1])
    one = axis.xaxis if which == "x" else axis.yaxis
    if of.is_log:
        set_scale("log")
        set_limits(ends[0], ends[-1])
        step = max(1, -(-len(of.values) // 7))
        ticks = of.values[::step]
        one.set_minor_locator(NullLocator())
        one.set_ticks(ticks, [f"{value:g}" for value in ticks])
    elif not of.is_numeric:
        one.set_ticks(range(len(of.values)), [str(value) for value in of.values])


def hours_or_usd(objective: str) -> tuple[str, str]:
    """Return the column of an objective (time, money), and its label with unit."""
    if objective == "money":
        return "usd", "money to the target loss ($)"
    return "hours", "simulated hours to the target loss"
