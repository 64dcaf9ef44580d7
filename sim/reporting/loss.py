"""Loss curves: against simulated time and against iteration, failures marked, in a range over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.reporting.series import (
    SeriesStyle,
    at_point,
    left_out,
    line_handles,
    looks_of,
    point_in_words,
    points_in,
    series_in,
    with_series,
)
from sim.reporting.style import PAPER, Form, add_legend, blank, from_zero
from sim.results.loss_curves import COLUMN, Against, marks_on, mean_curves, run_curves
from sim.results.selection import swept_fields
from sim.results.storage import Results

HOURS_LABEL = "simulated wall-clock time of the target model (hours)"

LOSS_LABEL = "validation loss of the proxy model (nats/token)"

X_LABEL: Mapping[Against, str] = {"time": HOURS_LABEL, "iteration": "iteration"}

AGAINST: tuple[Against, ...] = ("time", "iteration")

SHARE_AT_START = 0.04
"""The loss axis begins at the loss after this share of the iterations: the first steps would fill the panel."""

MOST_ROWS = 6

MOST_THIN_LINES = 12
"""Of more runs than these, only the range is shown."""

OPACITY_OF_RANGE = 0.16


class LossTables(NamedTuple):
    """What a figure of loss curves draws, of one way to look at it."""

    curves: pd.DataFrame
    runs: pd.DataFrame
    marks: pd.DataFrame

    @classmethod
    def of(cls, results: Results, against: Against) -> LossTables:
        """The tables of some results, with their series named."""
        fields = swept_fields(results)
        runs = run_curves(results, against)
        tables = (mean_curves(results, runs, against), runs, marks_on(results, runs, against))
        return cls(*(with_series(table, fields) for table in tables))

    def at(self, point: Mapping[str, Any]) -> LossTables:
        """The same at one point of a sweep."""
        return LossTables(*(at_point(table, point) for table in self))


def loss_figure(
    over_time: LossTables,
    over_iterations: LossTables,
    fields: Sequence[str],
    target: float | None,
    notes: Sequence[str],
    form: Form = PAPER,
) -> Figure:
    """Validation loss against simulated time (left) and against iteration (right); a row for each point of a sweep.

    Failures are marked where each curve is that of a single run. `notes` stand below the panels.
    """
    points = points_in(over_time.curves, fields)
    shown, looks = points[:MOST_ROWS], looks_of(over_time.curves)
    notes = [*notes, *left_out(points, shown)]
    with blank(1.0 + 2.1 * len(shown), notes, form) as figure:
        rows = figure.subplots(len(shown), 2, sharex="col", sharey="row", squeeze=False)
        for axes, point in zip(rows, shown, strict=True):
            at_iterations = over_iterations.at(point)
            draw_loss(axes[0], over_time.at(point), "time", looks)
            draw_loss(axes[1], at_iterations, "iteration", looks)
            axes[0].set_ylim(*loss_limits(at_iterations))
            axes[0].set_title(point_in_words(point), loc="left")
            for axis in axes:
                from_zero(axis)
                draw_target(axis, target, named=axis is axes[1])
        for axis, against in zip(rows[-1], AGAINST, strict=True):
            axis.set_xlabel(form.x_label(X_LABEL[against]))
        if len(rows) == 1:
            rows[0][0].set_ylabel(form.y_label(LOSS_LABEL, 2.1))
        else:
            figure.supylabel(LOSS_LABEL, fontsize="medium")
        handles = line_handles(looks)
        if is_single(over_time.curves) and not over_time.marks.empty:
            handles.append(Line2D([], [], color="0.3", linestyle="", marker="x", label="stage failure"))
        add_legend(figure, handles, form)
    return figure


def draw_loss(axis: Axes, tables: LossTables, against: Against, looks: Mapping[str, SeriesStyle] | None = None) -> None:
    """Draw the mean loss of each series, the range of its runs and a thin line for each; of single runs, failures too.

    Against time, a rollback breaks a single run's curve and takes it up at the loss that it goes back to.
    """
    looks, column = looks or looks_of(tables.curves), COLUMN[against]
    for name, curve in series_in(tables.curves):
        colour, line, _ = looks[name]
        if not is_single(curve):
            low, high = curve["low_loss_nats"], curve["high_loss_nats"]
            axis.fill_between(curve[column], low, high, color=colour, alpha=OPACITY_OF_RANGE, linewidth=0)
        axis.plot(curve[column], curve["loss_nats"], color=colour, linestyle=line, label=name)
    for name, runs in series_in(tables.runs):
        if 1 < runs["run"].nunique() <= MOST_THIN_LINES:
            for _, run in runs.groupby("run", sort=False):
                axis.plot(run[column], run["loss_nats"], color=looks[name].colour, linewidth=0.4, alpha=0.5, zorder=1.5)
    if is_single(tables.curves):
        for name, marks in series_in(tables.marks):
            axis.plot(marks[column], marks["loss_nats"], linestyle="", marker="x", color=looks[name].colour, zorder=3)


def is_single(curves: pd.DataFrame) -> bool:
    """Whether each curve is that of one run."""
    return bool((curves["num_runs"] == 1).all())


def draw_target(axis: Axes, target: float | None, named: bool) -> None:
    """A dotted line at the target loss, if there is one in sight."""
    low, high = axis.get_ylim()
    if target is None or not low <= target <= high:
        return
    axis.axhline(target, color="0.35", linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=0)
    if named:
        axis.annotate(f" target {target:g}", (0, target), xycoords=("axes fraction", "data"), va="bottom", fontsize=7)


def loss_limits(tables: LossTables) -> tuple[float, float]:
    """Limits of the loss axis: from below the best loss up to the loss soon after the start; of tables by iteration."""
    curves, runs = tables.curves, tables.runs
    known = runs.dropna(subset=["loss_nats"])
    if known.empty:
        return 0.0, 1.0
    start = SHARE_AT_START * known["iteration"].max()
    later = known[known["iteration"] >= start]
    highest = (known if later.empty else later).groupby("run")["loss_nats"].max().max()
    lowest = min(known["loss_nats"].min(), curves["loss_nats"].min())
    span = max(highest - lowest, 1e-3)
    return lowest - 0.05 * span, highest + 0.02 * span
