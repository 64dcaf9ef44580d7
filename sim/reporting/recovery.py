"""What recoveries do to the loss: the spike after them and how long it takes to heal; what swapped routes cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.reporting.loss import LOSS_LABEL, MOST_ROWS, OPACITY_OF_RANGE, LossTables, draw_loss, loss_limits
from sim.reporting.series import (
    SeriesStyle,
    at_point,
    line_handles,
    looks_of,
    point_in_words,
    points_in,
    series_in,
    with_series,
)
from sim.reporting.style import PAPER, Form, add_legend, blank, from_zero


def spikes_figure(
    curves: pd.DataFrame, halvings: pd.DataFrame, fields: Sequence[str], notes: Sequence[str], form: Form = PAPER
) -> Figure:
    """Excess of the training loss after recoveries (left), and iterations until it has halved (right)."""
    curves, halvings = with_series(curves, fields), with_series(halvings, fields)
    points, looks = points_in(curves, fields)[:MOST_ROWS], looks_of(curves)
    right = half_life_limit(halvings)
    with blank(0.8 + 1.6 * len(points), notes, form) as figure:
        rows = figure.subplots(len(points), 2, sharex="col", squeeze=False, width_ratios=(3, 2))
        for axis in rows[1:, 0]:
            axis.sharey(rows[0, 0])  # the right ones have names of their own
        for (curve_axis, halving_axis), point in zip(rows, points, strict=True):
            draw_spikes(curve_axis, at_point(curves, point), looks)
            halving_axis.set_xlim(0, right)
            draw_half_lives(halving_axis, at_point(halvings, point), looks)
            curve_axis.set_title(point_in_words(point), loc="left")
        rows[-1][0].set_xlabel("iterations since the recovery")
        rows[-1][1].set_xlabel(form.x_label("iterations until it has halved"))
        for axis in rows[:, 0]:
            axis.set_ylabel(form.y_label("excess training loss (nats/token)"))
        add_legend(figure, line_handles(looks), form)
    return figure


def draw_spikes(axis: Axes, curves: pd.DataFrame, looks: Mapping[str, SeriesStyle] | None = None) -> None:
    """The mean excess of each series over its recoveries, and the quartiles of them."""
    columns = ("iterations_since_recovery", "mean_excess_nats", "low_excess_nats", "high_excess_nats")
    draw_above_zero(axis, curves, columns, looks)


def draw_half_lives(axis: Axes, halvings: pd.DataFrame, looks: Mapping[str, SeriesStyle] | None = None) -> None:
    """The median of each series as a mark, the quartiles as a line, and of how many recoveries they are.

    A quartile that is never reached goes to the edge, as a caret.
    """
    looks = looks or looks_of(halvings)
    if axis.get_autoscalex_on():
        axis.set_xlim(0, half_life_limit(halvings))
    edge = axis.get_xlim()[1]
    for row, (name, rows) in enumerate(series_in(halvings)):
        first = rows.iloc[0]
        colour, _, marker = looks[name]
        low, median, high = (first[f"{part}_iterations"] for part in ("low", "median", "high"))
        axis.plot([min(low, edge), min(high, edge)], [row, row], color=colour)
        if np.isinf(high):
            axis.plot([edge], [row], color=colour, marker=">", linestyle="", clip_on=False)
        if np.isfinite(median):
            axis.plot([median], [row], color=colour, marker=marker, linestyle="", label=name)
        words = f"{first['num_recoveries']} recoveries"
        if first["num_never"]:
            words += f", {first['num_never']} not halved"
        where = (min(np.nan_to_num(low, posinf=0.0), edge), row)
        axis.annotate(words, where, (0, 5), textcoords="offset points", fontsize=6.5, color="0.3")
    names = [name for name, _ in series_in(halvings)]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.75)
    axis.grid(axis="y", visible=False)


def half_life_limit(halvings: pd.DataFrame) -> float:
    """Iterations that show all medians and quartiles that there are."""
    ends = halvings[["median_iterations", "low_iterations", "high_iterations"]].to_numpy(float)
    return 1.1 * float(ends[np.isfinite(ends)].max(initial=1.0))


def swapping_figure(table: pd.DataFrame, fields: Sequence[str], notes: Sequence[str], form: Form = PAPER) -> Figure:
    """Validation loss with swapped routes minus that without, by iteration; a panel for each point."""
    table = with_series(table, fields)
    points, looks = points_in(table, fields)[:MOST_ROWS], looks_of(table)
    with blank(0.8 + 1.8 * len(points), notes, form) as figure:
        rows = figure.subplots(len(points), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, point in zip(rows, points, strict=True):
            draw_differences(axis, at_point(table, point), looks)
            axis.set_title(point_in_words(point), loc="left")
            axis.set_ylabel(form.y_label("validation loss, swapped minus plain (nats/token)"))
        rows[-1].set_xlabel("iteration")
        add_legend(figure, line_handles(looks), form)
    return figure


def variants_figure(
    losses: LossTables, table: pd.DataFrame, fields: Sequence[str], notes: Sequence[str], form: Form = PAPER
) -> Figure:
    """Validation loss by iteration (left), and by how much it is above that of the failure-free run (right)."""
    table = with_series(table, fields)
    points, looks = points_in(table, fields)[:MOST_ROWS], looks_of(losses.curves)
    with blank(0.8 + 2.0 * len(points), notes, form) as figure:
        rows = figure.subplots(len(points), 2, sharex=True, sharey="col", squeeze=False)
        for axes, point in zip(rows, points, strict=True):
            draw_loss(axes[0], losses.at(point), "iteration", looks)
            axes[0].set_ylim(*loss_limits(losses))
            draw_differences(axes[1], at_point(table, point), looks)
            axes[0].set_title(point_in_words(point), loc="left")
            axes[0].set_ylabel(form.y_label(LOSS_LABEL))
            axes[1].set_ylabel(form.y_label("above that without failures (nats/token)"))
        for axis in rows[-1]:
            axis.set_xlabel("iteration")
        add_legend(figure, line_handles(looks), form)
    return figure


def draw_differences(axis: Axes, table: pd.DataFrame, looks: Mapping[str, SeriesStyle] | None = None) -> None:
    """The mean difference of each series from failure-free runs, and the range of pairs."""
    columns = ("iteration", "difference_nats", "low_difference_nats", "high_difference_nats")
    draw_above_zero(axis, table, columns, looks)


def draw_above_zero(
    axis: Axes, table: pd.DataFrame, columns: tuple[str, str, str, str], looks: Mapping[str, SeriesStyle] | None
) -> None:
    """A line for each series and a range around it, over a line at zero. columns: of x, of the line, low and high."""
    looks = looks or looks_of(table)
    axis.axhline(0.0, color="0.35", linewidth=0.8, zorder=0)
    for name, rows in series_in(table):
        colour, line, _ = looks[name]
        x, mean, low, high = (rows[column] for column in columns)
        axis.fill_between(x, low, high, color=colour, alpha=OPACITY_OF_RANGE, linewidth=0)
        axis.plot(x, mean, color=colour, linestyle=line, label=name)
    from_zero(axis)
