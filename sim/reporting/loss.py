"""Loss curves against simulated time and against iteration: means, ranges over runs, failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.reporting.registry import FigureKind, FigureRequest, Tables
from sim.reporting.series import SeriesStyle, at_point, line_handles, points_in, series_in, series_styles, with_series
from sim.reporting.style import REFERENCE_LINE, add_legend, from_zero, loss_limits
from sim.results.loss_curves import COLUMN, Against, failure_marks, loss_curves, run_curves
from sim.results.outcome_tables import target_of
from sim.results.selection import swept_fields
from sim.results.storage import Results

HOURS_LABEL = "simulated wall-clock time of the target model (hours)"
LOSS_LABEL = "validation loss of the proxy model (nats/token)"
X_LABEL: Mapping[Against, str] = {"time": HOURS_LABEL, "iteration": "iteration"}

MOST_THIN_LINES = 12
"""With more runs than this, only their range is drawn."""

OPACITY_OF_RANGE = 0.16


def loss_tables(results: Results, against: Against, name: str) -> Tables:
    """Return mean curves under a name, and under `<name>_runs` and `<name>_failures` each run's curve and failures."""
    fields, runs = swept_fields(results), run_curves(results, against)
    tables = {name: loss_curves(results, against, runs), f"{name}_runs": runs}
    tables[f"{name}_failures"] = failure_marks(results, against, runs)
    return {key: with_series(table, fields) for key, table in tables.items()}


def draw_loss_at(
    axis: Axes, tables: Tables, name: str, point: Mapping[str, Any], styles: Mapping[str, SeriesStyle]
) -> None:
    """Draw `loss_tables` of a name at one point of a sweep."""
    curves, runs, failures = (at_point(tables[f"{name}{part}"], point) for part in ("", "_runs", "_failures"))
    draw_loss(axis, curves, runs, failures, styles)


def draw_loss(
    axis: Axes,
    curves: pd.DataFrame,
    runs: pd.DataFrame | None = None,
    failures: pd.DataFrame | None = None,
    styles: Mapping[str, SeriesStyle] | None = None,
) -> None:
    """Draw the mean loss of each series (`loss_curves`) and its range over runs, against hours or iteration.

    runs: `run_curves`, drawn as thin lines if few. failures: `failure_marks`, crosses if each curve is of one run.
    """
    styles, column = styles or series_styles(curves), next(name for name in COLUMN.values() if name in curves)
    for name, curve in series_in(curves):
        colour, line, _ = styles[name]
        if not is_single(curve):
            low, high = curve["low_loss_nats"], curve["high_loss_nats"]
            axis.fill_between(curve[column], low, high, color=colour, alpha=OPACITY_OF_RANGE, linewidth=0)
        axis.plot(curve[column], curve["loss_nats"], color=colour, linestyle=line, label=name)
    for name, own in series_in(runs) if runs is not None else ():
        if 1 < own["run"].nunique() <= MOST_THIN_LINES:
            for _, run in own.groupby("run", sort=False):
                colour = styles[name].colour
                axis.plot(run[column], run["loss_nats"], color=colour, linewidth=0.4, alpha=0.5, zorder=1.5)
    if failures is not None and is_single(curves):
        for name, marks in series_in(failures):
            axis.plot(marks[column], marks["loss_nats"], linestyle="", marker="x", color=styles[name].colour, zorder=3)


def is_single(curves: pd.DataFrame) -> bool:
    """Whether each curve is that of one run."""
    return bool((curves["num_runs"] == 1).all())


def _figure_tables(request: FigureRequest) -> Tables:
    return {key: table for one in COLUMN for key, table in loss_tables(request.results, one, one).items()}


def _loss_figure(request: FigureRequest, tables: Tables) -> Figure:
    curves, target, form = tables["time"], target_of(request.results.runs), request.form
    points, styles, single = points_in(curves, request.fields), series_styles(curves), is_single(curves)
    means = ": lines are means, over time as long as all runs train; shaded: from the lowest run to the highest; thin: "
    notes = [f"{request.seeds}." if single else f"{request.seeds}{means}runs."]
    with request.panels(points, (1.0, 2.1), notes, 2, sharex="col", sharey="row") as (figure, rows):
        for axes, point in rows:
            for axis, against in zip(axes, COLUMN, strict=True):
                draw_loss_at(axis, tables, against, point, styles)
            low, high = loss_limits(at_point(tables["iteration"], point))
            axes[0].set_ylim(low, high)
            for axis in axes:
                from_zero(axis)
                if target is not None and low <= target <= high:
                    axis.axhline(target, zorder=0, **REFERENCE_LINE)
            if target is not None and low <= target <= high:
                words, where = {"va": "bottom", "fontsize": 7}, ("axes fraction", "data")
                axes[1].annotate(f" target {target:g}", (0, target), xycoords=where, **words)
        for axis, against in zip(rows[-1][0], COLUMN, strict=True):
            axis.set_xlabel(form.x_label(X_LABEL[against]))
        if len(rows) == 1:
            rows[0][0][0].set_ylabel(form.y_label(LOSS_LABEL, 2.1))
        else:
            figure.supylabel(LOSS_LABEL, fontsize="medium")
        handles = line_handles(styles)
        if single and not tables["time_failures"].empty:
            handles.append(Line2D([], [], color="0.3", linestyle="", marker="x", label="stage failure"))
        add_legend(figure, handles, form)
    return figure


FIGURES = (FigureKind("loss", "validation loss against simulated time and iteration", _figure_tables, _loss_figure),)
