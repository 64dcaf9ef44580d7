"""Hours and money against a swept field: means with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Transform, offset_copy

from sim.core.text import shortened
from sim.reporting import series
from sim.reporting.notes import describe_prices, describe_target
from sim.reporting.registry import FigureKind, FigureRequest, Tables
from sim.reporting.style import PAPER, Form, add_legend, label_rows, new_figure, value_limits
from sim.reporting.words import FieldWords, point_in_words, words_of
from sim.results.outcome_tables import checkpoint_intervals, money_to_loss, time_to_loss
from sim.results.selection import MissingError
from sim.results.storage import Results

SHIFT_POINTS = 3.0  # distance between the marks of neighbouring series at the same value
SPAN_FOR_LOG = 8.0  # field values whose ratio is at least this are on a logarithmic axis
WIDE_SPAN = 3.0  # means whose ratio is at least this are, against checkpoint intervals, on a logarithmic axis
MOST_PANELS = 6
CHARACTERS_OF_TICK = 18
COLUMNS_OF_PANELS = 2


def draw_means(
    axis: Axes,
    table: pd.DataFrame,
    field: str,
    unit: str,
    styles: series.Styles | None = None,
    places: Mapping[Any, float] | None = None,
) -> None:
    """Draw means of `time_to_loss` or `money_to_loss` against a field, a line for each series, and their intervals.

    Values that are not numbers are not joined. A series to which the field does not apply is a level line with a band.
    Means over fewer runs than were made have counts. places: positions of the field's values, also of other panels.
    """
    styles = styles or series.series_styles(table)
    if axis.get_autoscaley_on():
        axis.set_ylim(*value_limits(table, unit))
    if axis.get_yscale() == "linear":
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    places, is_numeric = places or places_of(table[field]), series.are_numbers(table[field])
    _set_ticks(axis, places, words_of(field))
    present = [(name, rows) for name, rows in series.series_in(table) if rows[field].notna().any()]
    for name, rows in series.series_in(table):
        if rows[field].isna().all():
            _draw_level(axis, rows.iloc[0], unit, name, styles[name])
    for number, (name, rows) in enumerate(present):
        rows = rows.assign(at=rows[field].map(places)).sort_values("at")
        points = SHIFT_POINTS * (number - (len(present) - 1) / 2)  # so that equal values do not hide each other
        moved = offset_copy(axis.transData, axis.get_figure(root=True), points, units="points")
        colour, line, marker = styles[name]
        look: dict[str, Any] = {"color": colour, "linestyle": line if is_numeric else "", "marker": marker}
        axis.plot(rows["at"], rows[f"mean_{unit}"], transform=moved, in_layout=False, label=name, **look)
        draw_intervals(axis, rows, unit, colour, moved)
        look = {"fontsize": 6.5, "color": colour, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.4}}
        means = rows[f"mean_{unit}"].fillna(axis.get_ylim()[1])
        for at, mean, reached, runs in zip(rows["at"], means, rows["num_reached"], rows["num_runs"], strict=True):
            if reached < runs:
                axis.annotate(f"{reached}/{runs}", (at, mean), (6, -9), textcoords="offset points", **look)


def draw_intervals(
    axis: Axes, rows: pd.DataFrame, unit: str, colour: str, transform: Transform, upright: bool = True
) -> None:
    """Draw the intervals of rows at their column `at` as lines within the axis; a caret marks an end that is cut."""
    bottom, top = axis.get_ylim() if upright else axis.get_xlim()
    known = rows.dropna(subset=[f"low_{unit}"])
    low, high = known[f"low_{unit}"], known[f"high_{unit}"]
    inside = zip(known["at"], low.clip(lower=bottom), high.clip(upper=top), strict=True)
    segments = [[(at, start), (at, end)] if upright else [(start, at), (end, at)] for at, start, end in inside]
    lines = LineCollection(segments, colors=colour, linewidths=0.9, transform=transform, in_layout=False)
    axis.add_collection(lines, autolim=False)
    look: dict[str, Any] = {"linestyle": "", "markersize": 3.5, "color": colour, "clip_on": False, "in_layout": False}
    for is_cut, edge, marker in ((low < bottom, bottom, "v<"), (high > top, top, "^>")):
        at = known["at"][is_cut]
        ends = (at, np.full(len(at), edge))
        axis.plot(*(ends if upright else ends[::-1]), marker=marker[not upright], transform=transform, **look)


def _draw_level(axis: Axes, row: pd.Series[Any], unit: str, name: str, style: series.SeriesStyle) -> None:
    bottom, top = axis.get_ylim()
    mean, low, high = (row[f"{part}_{unit}"] for part in ("mean", "low", "high"))
    if bottom <= mean <= top:
        axis.axhline(mean, color=style.colour, linestyle=style.line, label=name)
    low, high = max(low, bottom), min(high, top)
    if high > low:
        axis.axhspan(low, high, color=style.colour, alpha=0.1, linewidth=0)


def draw_rows(axis: Axes, table: pd.DataFrame, unit: str) -> None:
    """Draw means with their intervals, a row for each series, with the number above; columns as for `draw_means`."""
    axis.set_xlim(*value_limits(table, unit))
    styles, text = series.series_styles(table), dict[str, Any](textcoords="offset points", fontsize=7)
    for row, (name, rows) in enumerate(series.series_in(table)):
        first, (colour, _, marker) = rows.iloc[0], styles[name]
        mean, reached, runs = (first[column] for column in (f"mean_{unit}", "num_reached", "num_runs"))
        counts = f" ({reached}/{runs})" if reached < runs else ""
        if np.isnan(mean):
            where = (0, row), (4, 0), ("axes fraction", "data")
            axis.annotate(f"not reached{counts}", *where, va="center", **text)
            continue
        draw_intervals(axis, rows.assign(at=row), unit, colour, axis.transData, upright=False)
        axis.plot([mean], [row], color=colour, marker=marker, linestyle="", label=name)
        axis.annotate(f"{mean:.3g}{counts}", (mean, row), (0, 4), ha="center", **text)
    label_rows(axis, styles, above=0.7, below=0.6)


def set_hours(axis: Axes, table: pd.DataFrame, *units: str) -> None:
    """Set limits and scale of an axis of values: logarithmic if the means span a wide range, to separate low ones."""
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
    """Return the position of each field value on the x axis: itself, or its number if the values are not numbers."""
    known = values.dropna().unique()
    at = known if series.are_numbers(values) else range(len(known))
    return dict(sorted(zip(known, map(float, at), strict=True), key=lambda pair: pair[1]))


def _set_ticks(axis: Axes, places: Mapping[Any, float], words: FieldWords) -> None:
    at = sorted(places.values())
    is_wide = at[0] > 0 and at[-1] / at[0] >= SPAN_FOR_LOG
    if is_wide:
        axis.set_xscale("log")
        ratio = (at[-1] / at[0]) ** 0.08
        axis.set_xlim(at[0] / ratio, at[-1] * ratio)
    else:
        margin = 0.08 * (at[-1] - at[0]) or 0.5
        axis.set_xlim(at[0] - margin, at[-1] + margin)
    texts = [textwrap.fill(shortened(words.value(value)), CHARACTERS_OF_TICK) for value in places]
    axis.set_xticks(list(places.values()), texts)
    axis.xaxis.set_minor_locator(NullLocator())


def means_figure(
    table: pd.DataFrame,
    fields: Sequence[str],
    unit: str,
    label: str,
    notes: Sequence[str],
    wanted: str | None = None,
    form: Form = PAPER,
) -> Figure:
    """Draw means of a unit with 95 % intervals by strategy against a swept field; without a sweep, a row per strategy.

    A panel for each combination of other fields that apply to all strategies. wanted: the field on the x axis.
    """
    empty = [name for name in fields if not series.is_strategy_field(name) and table[name].isna().any()]
    table = table.assign(**{name: table[name].astype(object).where(table[name].notna(), "null") for name in empty})
    field = series.choose_field(table, fields, wanted)
    others = [name for name in fields if name != field]
    table = series.with_series(table, others)
    if field is None:
        with new_figure(0.6 + 0.28 * table["series"].nunique(), notes, form) as figure:
            draw_rows(figure.subplots(), table, unit)
            figure.axes[0].set_xlabel(form.x_label(label))
        return figure
    points, styles, places = series.points_in(table, others), series.series_styles(table), places_of(table[field])
    drawn, num_columns = points[:MOST_PANELS], min(1 if form.is_narrow else COLUMNS_OF_PANELS, len(points))
    num_rows = -(-len(drawn) // num_columns)
    with new_figure(0.9 + 2.2 * num_rows, [*notes, *series.omitted_points(points, drawn)], form) as figure:
        axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
        for axis, point in zip(axes.flat, drawn, strict=False):
            axis.set_ylim(*value_limits(table, unit))
            draw_means(axis, series.at_point(table, point), field, unit, styles, places)
            axis.set_title(point_in_words(point), loc="left")
        for axis in axes.flat[len(drawn) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel(form.x_label(words_of(field).label))
        for axis in axes[:, 0]:
            axis.set_ylabel(form.y_label(label, 2.2))
        add_legend(figure, series.line_handles(styles, with_markers=True), form)
    return figure


def _intervals_figure(request: FigureRequest, tables: Tables) -> Figure:
    form, fields = request.form, [name for name in request.fields if not name.endswith("interval_iterations")]
    table, panels = series.with_series(tables[""], fields), {"end_hours": "hours to the end"}
    if "mean_target_hours" in table:
        panels["target_hours"] = f"hours to {describe_target(request.results.runs)}"
    points, styles = series.points_in(table, fields), series.series_styles(table)
    places, notes = places_of(table["interval_iterations"]), [_interval_note(request, table)]
    with request.panels(points, (0.9, 2.1), notes, len(panels), sharex=True, sharey="row") as (figure, rows):
        for axes, point in rows:
            there = series.at_point(table, point)
            for axis, (unit, label) in zip(axes, panels.items(), strict=True):
                set_hours(axis, there, *panels)
                counted = there if unit == "target_hours" else there.assign(num_reached=there["num_runs"])
                draw_means(axis, counted, "interval_iterations", unit, styles, places)
                axis.set_title(", ".join(filter(None, (label, point_in_words(point)))), loc="left")
            axes[0].set_ylabel(form.y_label("simulated hours of the target model"))
        for axis in axes:
            axis.set_xlabel(form.x_label("iterations between two checkpoints"))
        add_legend(figure, series.line_handles(styles, with_markers=True), form)
    return figure


def _interval_note(request: FigureRequest, means: pd.DataFrame) -> str:
    if (means["num_runs"] <= 1).all():
        return f"{request.seeds}: one run each, no interval."
    note = f"{request.seeds}: marks are means, lines and bands their 95 % intervals, with a caret where they continue"
    for reached, runs in means[["num_reached", "num_runs"]].to_numpy() if "num_reached" in means else ():
        if reached < runs:
            return f"{note}; {reached}/{runs}: number of runs that reached the target; the mean is over these."
    return f"{note}."


def _target_tables(table_of: Callable[[Results], pd.DataFrame], request: FigureRequest) -> Tables:
    found = table_of(request.results)
    if not found["num_reached"].any():
        needed = "a learner (training.learner: torch), more steps, or a higher training.target_validation_loss"
        raise MissingError(f"no run reaches its target loss: it needs {needed}")
    return {"": found}


def _target_figure(unit: str, label: str, request: FigureRequest, tables: Tables) -> Figure:
    lines = [*request.notes, _interval_note(request, tables[""])]
    if unit == "usd":
        lines.append(describe_prices(request.scenario.cluster))
    label = f"{label} to {describe_target(request.results.runs)}"
    return means_figure(tables[""], request.fields, unit, label, lines, request.field, request.form)


to_hours, to_dollars = partial(_target_figure, "hours", "simulated hours"), partial(_target_figure, "usd", "US dollars")

FIGURES = (
    FigureKind("time_to_loss", "hours to the target loss", partial(_target_tables, time_to_loss), to_hours, False),
    FigureKind("money_to_loss", "dollars to a loss", partial(_target_tables, money_to_loss), to_dollars, False),
    FigureKind(
        "checkpoint_interval",
        "hours by checkpoint interval",
        lambda request: {"": checkpoint_intervals(request.results)},
        _intervals_figure,
    ),
)
