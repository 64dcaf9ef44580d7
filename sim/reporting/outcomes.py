"""Hours and money by what a sweep varies, with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from sim.core.text import shortened, suggestion
from sim.reporting.series import (
    SeriesStyle,
    as_text,
    at_point,
    is_own,
    left_out,
    line_handles,
    looks_of,
    point_in_words,
    points_in,
    series_in,
    with_series,
)
from sim.reporting.style import PAPER, Form, add_legend, blank

APART_POINTS = 3.0
"""Marks of neighbouring series at the same value are drawn so many points apart."""

SPAN_FOR_LOG = 8.0
"""Values of a field that span such a factor are on a logarithmic axis."""

WIDE_SPAN = 3.0
"""Means that span such a factor are, beside checkpoint intervals, on a logarithmic axis."""

ROOM_FOR_INTERVALS = 0.75
"""Intervals may widen the axis by this share of the span of the means, to each side; what is longer is cut."""

MOST_PANELS = 6

CHARACTERS_OF_TICK = 18

COLUMNS_OF_PANELS = 2


def choose_field(table: pd.DataFrame, fields: Sequence[str], wanted: str | None) -> str | None:
    """The field on the x axis: the one wanted, else the numeric one with most values; None where nothing was swept.

    Fields that concern all strategies come before those of one. ValueError for a wanted field that was not swept.
    """
    if wanted is not None:
        if wanted not in fields:
            known = suggestion(wanted, fields) if fields else "; nothing was swept"
            raise ValueError(f"--x {shortened(wanted)}: no such swept field{known}")
        return wanted
    several = [name for name in fields if table[name].nunique() > 1]
    numeric = [name for name in several if pd.api.types.is_numeric_dtype(table[name])]
    return max(numeric or several, key=lambda name: (not is_own(name), table[name].nunique()), default=None)


def means_figure(
    table: pd.DataFrame,
    fields: Sequence[str],
    unit: str,
    label: str,
    notes: Sequence[str],
    wanted: str | None = None,
    form: Form = PAPER,
) -> Figure:
    """Means of a unit (columns mean_, low_ and high_ of it) with 95 % intervals, by strategy, against a swept field.

    A panel for each combination of the other fields that concern all strategies. Nothing swept: a row a strategy.
    """
    table = with_null(table, fields)
    field = choose_field(table, fields, wanted)
    others = [name for name in fields if name != field]
    table = with_series(table, others)
    if field is None:
        with blank(0.6 + 0.28 * table["series"].nunique(), notes, form) as figure:
            draw_rows(figure.subplots(), table, unit)
            figure.axes[0].set_xlabel(form.x_label(label))
        return figure
    points, looks = points_in(table, others), looks_of(table)
    shown, places = points[:MOST_PANELS], places_of(table[field])
    num_columns = min(COLUMNS_OF_PANELS, len(shown))
    num_rows = -(-len(shown) // num_columns)
    notes = [*notes, *left_out(points, shown)]
    with blank(0.9 + 2.2 * num_rows, notes, form) as figure:
        axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
        for axis, point in zip(axes.flat, shown, strict=False):
            axis.set_ylim(*value_limits(table, unit))
            draw_means(axis, at_point(table, point), field, unit, looks, places)
            axis.set_title(point_in_words(point), loc="left")
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel(form.x_label(field))
        for axis in axes[:, 0]:
            axis.set_ylabel(form.y_label(label, 2.2))
        add_legend(figure, line_handles(looks, with_markers=True), form)
    return figure


def with_null(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """The table with `null` where a field that concerns all strategies has no value: that is one of its values."""
    empty = [name for name in fields if not is_own(name) and table[name].isna().any()]
    return table.assign(**{name: table[name].astype(object).where(table[name].notna(), "null") for name in empty})


def draw_means(
    axis: Axes,
    table: pd.DataFrame,
    field: str,
    unit: str,
    looks: Mapping[str, SeriesStyle] | None = None,
    places: Mapping[Any, float] | None = None,
) -> None:
    """Means against a field, a line for each series, and their intervals; those that the axis cuts end in a caret.

    Values that are no numbers are not joined. A series that the field does not concern is a level line with its
    interval as a band. Beside means of fewer runs than were asked stands how many they are of. places: of the values on
    the axis, also of those in other panels.
    """
    looks = looks or looks_of(table)
    if axis.get_autoscaley_on():
        axis.set_ylim(*value_limits(table, unit))
    places, is_numeric = places or places_of(table[field]), pd.api.types.is_numeric_dtype(table[field])
    set_ticks(axis, places)
    present = [(name, rows) for name, rows in series_in(table) if rows[field].notna().any()]
    for name, rows in series_in(table):
        if rows[field].isna().all():
            draw_level(axis, rows, unit, name, looks[name])
    for number, (name, rows) in enumerate(present):
        rows = rows.assign(at=rows[field].map(places)).sort_values("at")
        moved = aside(axis, APART_POINTS * (number - (len(present) - 1) / 2))
        colour, line, marker = looks[name] if is_numeric else looks[name]._replace(line="")
        means = rows[f"mean_{unit}"]
        axis.plot(
            rows["at"], means, color=colour, linestyle=line, marker=marker, label=name, transform=moved, in_layout=False
        )
        draw_intervals(axis, rows, unit, colour, moved)
        high = axis.get_ylim()[1]
        for row in rows.to_dict("records"):
            if row["num_reached"] < row["num_runs"]:
                mean = row[f"mean_{unit}"]
                where = (row["at"], high if np.isnan(mean) else mean)
                axis.annotate(
                    f"{row['num_reached']}/{row['num_runs']}", where, (6, -9), textcoords="offset points", fontsize=6.5,
                    color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
                )  # fmt: skip


def draw_intervals(axis: Axes, rows: pd.DataFrame, unit: str, colour: str, moved: Transform) -> None:
    """Intervals as upright lines within the axis, a caret where one goes on beyond it."""
    bottom, top = axis.get_ylim()
    known = rows.dropna(subset=[f"low_{unit}"])
    low, high = known[f"low_{unit}"], known[f"high_{unit}"]
    segments = [
        [(at, max(start, bottom)), (at, min(end, top))] for at, start, end in zip(known["at"], low, high, strict=True)
    ]
    lines = LineCollection(segments, colors=colour, linewidths=0.9, transform=moved, in_layout=False)
    axis.add_collection(lines, autolim=False)
    for cut, edge, marker in ((low < bottom, bottom, "v"), (high > top, top, "^")):
        at = known["at"][cut]
        axis.plot(
            at, np.full(len(at), edge), linestyle="", marker=marker, markersize=3.5, color=colour, transform=moved,
            clip_on=False, in_layout=False,
        )  # fmt: skip


def draw_level(axis: Axes, rows: pd.DataFrame, unit: str, name: str, look: SeriesStyle) -> None:
    """A level line, and a band for its interval, within the axis."""
    bottom, top = axis.get_ylim()
    row = rows.iloc[0]
    if bottom <= row[f"mean_{unit}"] <= top:
        axis.axhline(row[f"mean_{unit}"], color=look.colour, linestyle=look.line, label=name)
    low, high = max(row[f"low_{unit}"], bottom), min(row[f"high_{unit}"], top)
    if high > low:
        axis.axhspan(low, high, color=look.colour, alpha=0.1, linewidth=0)


def draw_rows(axis: Axes, table: pd.DataFrame, unit: str) -> None:
    """Means as dots with their intervals, a row for each series, with the number beside; none: not reached."""
    looks = looks_of(table)
    for row, (name, rows) in enumerate(series_in(table)):
        first = rows.iloc[0]
        colour, _, marker = looks[name]
        mean, low, high = (first[f"{part}_{unit}"] for part in ("mean", "low", "high"))
        counts = "" if first["num_reached"] == first["num_runs"] else f" ({first['num_reached']}/{first['num_runs']})"
        if np.isnan(mean):
            axis.annotate(f"not reached{counts}", (0, row), (4, 0), textcoords="offset points", va="center", fontsize=7)
            continue
        if high > low:
            axis.plot([max(low, 0.0), high], [row, row], color=colour, linewidth=0.9)
        axis.plot([mean], [row], color=colour, marker=marker, linestyle="", label=name)
        axis.annotate(f"{mean:.3g}{counts}", (mean, row), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    names = [name for name, _ in series_in(table)]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.7)
    ends = table[[f"mean_{unit}", f"high_{unit}"]].to_numpy(float)
    axis.set_xlim(0, 1.05 * ends[np.isfinite(ends)].max(initial=0.0) or 1.0)
    axis.grid(axis="y", visible=False)


def value_limits(table: pd.DataFrame, *units: str) -> tuple[float, float]:
    """Limits of an axis that show all means, and of intervals what leaves the means apart; from 0 at least."""
    means, lows, highs = (table[[f"{of}_{unit}" for unit in units]].to_numpy(float) for of in ("mean", "low", "high"))
    means = means[np.isfinite(means)]
    if not means.size:
        return 0.0, 1.0
    span = max(np.ptp(means), 0.05 * means.max())
    low = max(min(means.min(), lows[np.isfinite(lows)].min(initial=np.inf)), means.min() - ROOM_FOR_INTERVALS * span)
    high = min(max(means.max(), highs[np.isfinite(highs)].max(initial=0.0)), means.max() + ROOM_FOR_INTERVALS * span)
    return max(low - 0.08 * span, 0.0), high + 0.08 * span


def set_hours(axis: Axes, table: pd.DataFrame, *units: str) -> None:
    """Limits of an axis of values; a logarithmic axis where the means span a wide range, to tell the low ones apart."""
    means = table[[f"mean_{unit}" for unit in units]].to_numpy(float)
    low, high = np.nanmin(means), np.nanmax(means)
    if not low * WIDE_SPAN <= high:
        axis.set_ylim(*value_limits(table, *units))
        return
    axis.set_yscale("log")
    axis.set_ylim(low / 1.15, high * 1.3)
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_locator(NullLocator())


def places_of(values: pd.Series[Any]) -> dict[Any, float]:
    """Where on the x axis each value of a field is: itself, or one after the other if they are no numbers."""
    known = values.dropna().unique()
    if pd.api.types.is_numeric_dtype(values):
        return {value: float(value) for value in sorted(known)}
    return {value: float(place) for place, value in enumerate(known)}


def set_ticks(axis: Axes, places: Mapping[Any, float]) -> None:
    """A tick at every value, on a logarithmic axis where they span a wide range of numbers."""
    at = sorted(places.values())
    is_wide = at[0] > 0 and at[-1] / at[0] >= SPAN_FOR_LOG
    if is_wide:
        axis.set_xscale("log")
        ratio = (at[-1] / at[0]) ** 0.08
        axis.set_xlim(at[0] / ratio, at[-1] * ratio)
    else:
        margin = 0.08 * (at[-1] - at[0]) or 0.5
        axis.set_xlim(at[0] - margin, at[-1] + margin)
    axis.set_xticks(list(places.values()), [tick_text(value) for value in places])
    axis.xaxis.set_minor_locator(NullLocator())


def tick_text(value: Any) -> str:
    """A value below a tick, on several lines if it is long."""
    return textwrap.fill(shortened(as_text(value)), CHARACTERS_OF_TICK)


def aside(axis: Axes, points: float) -> Transform:
    """The axis' data, moved aside by some points, so that marks at the same value do not hide each other."""
    assert axis.figure is not None
    return axis.transData + ScaledTranslation(points / 72, 0.0, axis.figure.dpi_scale_trans)


def intervals_figure(
    table: pd.DataFrame, fields: Sequence[str], target: float | None, notes: Sequence[str], form: Form = PAPER
) -> Figure:
    """Hours to the end (left) and to the target loss (right) against the interval of checkpoints; others as levels."""
    panels = {"end_hours": "hours to the end"}
    if "mean_target_hours" in table:
        panels["target_hours"] = f"hours to loss {target:g}" if target is not None else "hours to the target loss"
    others = [name for name in fields if not name.endswith("interval_iterations")]
    table = with_series(table, others)
    points, looks = points_in(table, others), looks_of(table)
    shown, places = points[:MOST_PANELS], places_of(table["interval_iterations"])
    notes = [*notes, *left_out(points, shown)]
    with blank(0.9 + 2.1 * len(shown), notes, form) as figure:
        rows = figure.subplots(len(shown), len(panels), sharex=True, sharey="row", squeeze=False)
        for axes, point in zip(rows, shown, strict=True):
            there = at_point(table, point)
            for axis, (unit, label) in zip(axes, panels.items(), strict=True):
                set_hours(axis, there, *panels)
                counted = there if unit == "target_hours" else there.assign(num_reached=there["num_runs"])
                draw_means(axis, counted, "interval_iterations", unit, looks, places)
                axis.set_title(", ".join(filter(None, (label, point_in_words(point)))), loc="left")
        for axis in rows[-1]:
            axis.set_xlabel(form.x_label("iterations between two checkpoints"))
        for axis in rows[:, 0]:
            axis.set_ylabel(form.y_label("simulated hours of the target model"))
        add_legend(figure, line_handles(looks, with_markers=True), form)
    return figure
