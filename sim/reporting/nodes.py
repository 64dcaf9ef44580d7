"""Nodes over time: how many are there, and how many the stages need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sim.reporting.loss import HOURS_LABEL
from sim.reporting.series import (
    SeriesStyle,
    at_point,
    left_out,
    line_handles,
    looks_of,
    point_in_words,
    points_in,
    series_in,
    short,
    with_series,
)
from sim.reporting.style import PAPER, Form, add_legend, blank, from_zero

MOST_SEEDS, MOST_SEEDS_ON_A_SLIDE = 4, 2


def nodes_figure(
    table: pd.DataFrame, fields: Sequence[str], num_needed: int | None, notes: Sequence[str], form: Form = PAPER
) -> Figure:
    """Nodes that are there against simulated time, and where each run ends: a panel for each failure seed."""
    table = with_series(table, fields)
    points = [
        {**point, "failure_seed": seed}
        for point in points_in(table, fields)
        for seed in at_point(table, point)["failure_seed"].unique()
    ]
    shown, looks = points[: MOST_SEEDS if form is PAPER else MOST_SEEDS_ON_A_SLIDE], looks_of(table)
    notes = [*notes, *left_out(points, shown)]
    with blank(0.9 + 1.1 * len(shown), notes, form) as figure:
        axes = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, point in zip(axes, shown, strict=True):
            draw_nodes(axis, at_point(table, point), num_needed, looks)
            named = {(short(name) if name == "failure_seed" else name): value for name, value in point.items()}
            axis.set_title(point_in_words(named), loc="left")
        axes[-1].set_xlabel(form.x_label(HOURS_LABEL))
        figure.supylabel("nodes that are there", fontsize="medium")
        needed = Line2D([], [], color="0.35", linewidth=0.8, linestyle=(0, (1, 1.5)), label="needed by all stages")
        handles = line_handles(looks, with_markers=True)
        add_legend(figure, handles if num_needed is None else [*handles, needed], form)
    return figure


def draw_nodes(
    axis: Axes, table: pd.DataFrame, num_needed: int | None = None, looks: Mapping[str, SeriesStyle] | None = None
) -> None:
    """Nodes of each series as steps, ending in its marker. Those of the same churn lie on each other, longest below."""
    looks = looks or looks_of(table)
    longest_first = sorted(series_in(table), key=lambda named: -named[1]["hours"].max())
    for name, rows in longest_first:
        colour, line, marker = looks[name]
        axis.step(
            rows["hours"], rows["num_nodes"], where="post", color=colour, linestyle=line, linewidth=1.0, label=name
        )
        axis.plot(rows["hours"].iloc[-1:], rows["num_nodes"].iloc[-1:], marker=marker, color=colour, clip_on=False)
    if num_needed is not None:
        axis.axhline(num_needed, color="0.35", linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=0)
    from_zero(axis)
    from_zero(axis, "y")
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
