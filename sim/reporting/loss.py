"""Losses: curves against time and iteration, excess after recoveries and its half-life, cost of swapped routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sim.reporting.registry import FigureKind, FigureRequest, Tables
from sim.reporting.series import Styles, at_point, line_handles, points_in, series_in, series_styles, with_series
from sim.reporting.style import REFERENCE_LINE, add_legend, finite, from_zero, label_rows, limits_from_zero, loss_limits
from sim.results.loss_curves import COLUMN, Against, failure_marks, loss_curves, run_curves
from sim.results.outcome_tables import target_of
from sim.results.recovery_tables import above_failure_free, half_lives, spikes, swapping_cost
from sim.results.selection import MissingError, swept_fields
from sim.results.storage import Results

HOURS_LABEL = "simulated wall-clock time of the target model (hours)"
LOSS_LABEL = "validation loss of the proxy model (nats/token)"
X_LABEL: Mapping[Against, str] = {"time": HOURS_LABEL, "iteration": "iteration"}
MOST_THIN_LINES = 12  # with more runs than this, only their range is drawn
MOST_TICKS = 6
OPACITY_OF_RANGE, WIDTH_OF_REFERENCE = 0.16, 2.2
VARIANTS = ("reinit", "checkfree")  # kinds of strategies that rebuild a lost stage
PAIRED = ("iteration", "difference_nats", "low_difference_nats", "high_difference_nats")
SPIKES = ("iterations_since_recovery", "mean_excess_nats", "low_excess_nats", "high_excess_nats")


def loss_tables(results: Results, against: Against, name: str) -> Tables:
    """Return mean curves under a name, and under `<name>_runs` and `<name>_failures` each run's curve and failures."""
    fields, runs = swept_fields(results), run_curves(results, against)
    tables = {name: loss_curves(results, against, runs), f"{name}_runs": runs}
    tables[f"{name}_failures"] = failure_marks(results, against, runs)
    return {key: with_series(table, fields) for key, table in tables.items()}


def loss_styles(tables: Tables, name: str) -> Styles:
    """The styles of the series of `loss_tables` of a name: also of those whose runs have no instant in common."""
    return series_styles(pd.concat([tables[name][["series", "kind"]], tables[f"{name}_runs"][["series", "kind"]]]))


def draw_loss_at(axis: Axes, tables: Tables, name: str, point: Mapping[str, Any], styles: Styles) -> None:
    """Draw `loss_tables` of a name at one point of a sweep."""
    curves, runs, failures = (at_point(tables[f"{name}{part}"], point) for part in ("", "_runs", "_failures"))
    draw_loss(axis, curves, runs, failures, styles)


def draw_loss(
    axis: Axes,
    curves: pd.DataFrame,
    runs: pd.DataFrame | None = None,
    failures: pd.DataFrame | None = None,
    styles: Styles | None = None,
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
        is_reference = curve["kind"].iloc[0] == "none"  # strategies without a cost to learning lie on it
        width = WIDTH_OF_REFERENCE if is_reference else None
        axis.plot(curve[column], curve["loss_nats"], color=colour, linestyle=line, label=name, linewidth=width)
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
    points, single = points_in(tables["time_runs"], request.fields), is_single(curves)
    styles = loss_styles(tables, "time")
    means = ": lines are means, over time as long as all runs train; shaded: from the lowest run to the highest; thin: "
    notes = [f"{request.seeds}." if single else f"{request.seeds}{means}runs."]
    with request.panels(points, (0.9, 2.1), notes, 2, sharex="col", sharey="row") as (figure, rows):
        for axes, point in rows:
            for axis, against in zip(axes, COLUMN, strict=True):
                draw_loss_at(axis, tables, against, point, styles)
            low, high = loss_limits(at_point(tables["iteration"], point))
            for axis in axes:
                axis.set_ylim(low, high)
                from_zero(axis)
                axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=[1, 2, 5, 10]))
                if target is not None and low <= target <= high:
                    axis.axhline(target, zorder=0, **REFERENCE_LINE)
            if target is not None and low <= target <= high:
                words, where = {"va": "bottom", "fontsize": 7}, ("axes fraction", "data")
                axes[1].annotate(f" target {target:g}", (0, target), xycoords=where, **words)
        for axis, against in zip(rows[-1][0], COLUMN, strict=True):
            axis.set_xlabel(form.x_label(X_LABEL[against]))
        if len(rows) == 1 and not form.is_narrow:
            rows[0][0][0].set_ylabel(form.y_label(LOSS_LABEL, 2.1))
        else:
            figure.supylabel(LOSS_LABEL, fontsize="medium")
        handles = line_handles(styles)
        if single and not tables["time_failures"].empty:
            handles.append(Line2D([], [], color="0.3", linestyle="", marker="x", label="stage failure"))
        add_legend(figure, handles, form)
    return figure


def draw_half_lives(axis: Axes, halvings: pd.DataFrame, styles: Styles | None = None) -> None:
    """Draw medians of `half_lives`, quartiles as a line (a caret: never reached), and the number of recoveries."""
    styles = styles or series_styles(halvings)
    if axis.get_autoscalex_on():
        axis.set_xlim(*_half_life_limits(halvings))
    edge = axis.get_xlim()[1]
    for row, (name, rows) in enumerate(series_in(halvings)):
        first = rows.iloc[0]
        colour, _, marker = styles[name]
        low, median, high = (first[f"{part}_iterations"] for part in ("low", "median", "high"))
        axis.plot([min(low, edge), min(high, edge)], [row, row], color=colour)
        if np.isinf(high):
            axis.plot([edge], [row], color=colour, marker=">", linestyle="", clip_on=False)
        if np.isfinite(median):
            axis.plot([median], [row], color=colour, marker=marker, linestyle="", label=name)
        counts = f"{first['num_recoveries']} recoveries"
        if first["num_never"]:
            counts += f", {first['num_never']} not halved"
        at = min(np.nan_to_num(low, posinf=0.0), edge)
        side = "right" if at > edge / 2 else "left"  # the text stays in the panel
        at = min(np.nan_to_num(high, posinf=edge), edge) if at > edge / 2 else at
        axis.annotate(counts, (at, row), (0, 5), textcoords="offset points", fontsize=6.5, color="0.3", ha=side)
    label_rows(axis, [name for name, _ in series_in(halvings)], above=0.75, below=0.5)


def _half_life_limits(halvings: pd.DataFrame) -> tuple[float, float]:
    ends = finite(halvings[["median_iterations", "low_iterations", "high_iterations"]])
    return limits_from_zero(float(ends.max(initial=1.0)))


def draw_differences(
    axis: Axes, table: pd.DataFrame, styles: Styles | None = None, columns: Sequence[str] = PAIRED
) -> None:
    """Draw a line for each series of `above_failure_free` or `swapping_cost` with a band, and a line at zero."""
    styles = styles or series_styles(table)
    axis.axhline(0.0, color="0.35", linewidth=0.8, zorder=0)
    for name, rows in series_in(table):
        colour, line, _ = styles[name]
        x, mean, low, high = (rows[column] for column in columns)
        axis.fill_between(x, low, high, color=colour, alpha=OPACITY_OF_RANGE, linewidth=0)
        axis.plot(x, mean, color=colour, linestyle=line, label=name)
    from_zero(axis)


draw_spikes = partial(draw_differences, columns=SPIKES)
"""Draw the mean excess of each series over its recoveries, and their quartiles (`spikes`)."""


def _spikes_figure(request: FigureRequest, tables: Tables) -> Figure:
    curves, halvings = (with_series(tables[name], request.fields) for name in ("", "half_lives"))
    points, styles, form = points_in(curves, request.fields), series_styles(curves), request.form
    is_clean = (curves["baseline"] == "failure-free run").all()
    compared = "minus that of the failure-free run at the same step" if is_clean else "with the noise of its batches"
    notes = [
        f"{request.seeds}. Excess: training loss {compared}, above its mean over the 10 steps before the failure. "
        "Left: means over recoveries that changed weights, up to the iteration that half of them reach before "
        "the next failure; shaded: their quartiles. Right: medians and quartiles."
    ]
    with request.panels(points, (0.8, 1.6), notes, 2, sharex="col", width_ratios=(3, 2)) as (figure, rows):
        for (curve_axis, _), _ in rows[1:]:
            curve_axis.sharey(rows[0][0][0])  # the y axes on the right name their own series
        for (curve_axis, halving_axis), point in rows:
            draw_spikes(curve_axis, at_point(curves, point), styles)
            halving_axis.set_xlim(*_half_life_limits(halvings))
            draw_half_lives(halving_axis, at_point(halvings, point), styles)
            curve_axis.set_ylabel(form.y_label("excess training loss (nats/token)"))
        curve_axis.set_xlabel("iterations since the recovery")
        halving_axis.set_xlabel(form.x_label("iterations until it has halved"))
        add_legend(figure, line_handles(styles), form)
    return figure


def _swapping_figure(request: FigureRequest, tables: Tables) -> Figure:
    fields = [name for name in request.fields if name in tables[""]]
    table, form, num_pairs = with_series(tables[""], fields), request.form, int(tables[""]["num_pairs"].max())
    several = f"means over {num_pairs} pairs of runs; shaded: from the lowest to the highest"
    note = (
        "Runs without failures, minus runs on plain routes with the same training seed: the difference is due to "
        f"swapped routes alone. Lines: {'one pair of runs' if num_pairs == 1 else several}."
    )
    points, styles = points_in(table, fields), series_styles(table)
    with request.panels(points, (0.8, 1.8), [note], sharex=True, sharey=True) as (figure, rows):
        for (axis,), point in rows:
            draw_differences(axis, at_point(table, point), styles)
            axis.set_ylabel(form.y_label("validation loss, swapped minus plain (nats/token)"))
        axis.set_xlabel("iteration")
        add_legend(figure, line_handles(styles), form)
    return figure


def _variant_tables(request: FigureRequest) -> Tables:
    results, runs = request.results, request.results.runs
    own = [name for name in request.fields if name.startswith("strategies")]
    if len(runs[runs["kind"].isin(VARIANTS)].drop_duplicates(["strategy", *own])) < 2:
        remedy = "scenarios/reinit.yaml, or several strategies of kind reinit or checkfree that differ in their options"
        raise MissingError(f"only one way to initialise a lost stage was run; run {remedy}")
    chosen = replace(results, runs=runs[runs["kind"].isin((*VARIANTS, "none"))])
    return {"": above_failure_free(chosen), **loss_tables(chosen, "iteration", "losses")}


def _variants_figure(request: FigureRequest, tables: Tables) -> Figure:
    table, losses, form = with_series(tables[""], request.fields), tables["losses"], request.form
    note = f"{request.seeds}. Without failures: of the same training seed."
    if not is_single(losses):
        note += " Lines are means; shaded: from the lowest run to the highest; thin: runs."
    points, styles = points_in(table, request.fields), series_styles(losses)
    with request.panels(points, (0.8, 2.0), [note], 2, sharex=True, sharey="col") as (figure, rows):
        for axes, point in rows:
            draw_loss_at(axes[0], tables, "losses", point, styles)
            axes[0].set_ylim(*loss_limits(losses))
            draw_differences(axes[1], at_point(table, point), styles)
            axes[0].set_ylabel(form.y_label(LOSS_LABEL))
            axes[1].set_ylabel(form.y_label("loss above that without failures (nats/token)"))
        for axis in axes:
            axis.set_xlabel("iteration")
        add_legend(figure, line_handles(styles), form)
    return figure


FIGURES = (
    FigureKind("loss", "validation loss against simulated time and iteration", _figure_tables, _loss_figure),
    FigureKind(
        "spikes",
        "loss after recoveries, and its half-life",
        lambda request: {"": spikes(request.results), "half_lives": half_lives(request.results)},
        _spikes_figure,
    ),
    FigureKind("reinit", "loss by initialisation of a lost stage", _variant_tables, _variants_figure),
    FigureKind(
        "swapping",
        "cost of swapped routes",
        lambda request: {"": swapping_cost(request.results)},
        _swapping_figure,
        unasked=lambda tables: "one pair of runs says little" if tables[""]["num_pairs"].max() < 2 else "",
    ),
)
