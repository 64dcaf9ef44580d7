"""Nodes over time: the number present, and the number that all stages need."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sim.reporting import series
from sim.reporting.loss import HOURS_LABEL
from sim.reporting.registry import FigureKind, FigureRequest, Tables
from sim.reporting.style import PAPER, REFERENCE_LINE, add_legend, from_zero
from sim.results.outcome_tables import nodes_over_time
from sim.results.selection import MissingError

MOST_SEEDS, MOST_SEEDS_ON_A_SLIDE = 4, 2


def draw_nodes(
    axis: Axes, table: pd.DataFrame, num_needed: int | None = None, styles: series.Styles | None = None
) -> None:
    """Draw each series' nodes as steps (`nodes_over_time`), a marker at the run's end, and a line of those needed."""
    styles = styles or series.series_styles(table)
    # the longest first: series under the same churn coincide
    for name, rows in sorted(series.series_in(table), key=lambda named: -named[1]["hours"].max()):
        colour, line, marker = styles[name]
        hours, nodes = rows["hours"], rows["num_nodes"]
        axis.step(hours, nodes, where="post", color=colour, linestyle=line, linewidth=1.0, label=name)
        axis.plot(hours.iloc[-1:], nodes.iloc[-1:], marker=marker, color=colour, clip_on=False)
    if num_needed is not None:
        axis.axhline(num_needed, zorder=0, **REFERENCE_LINE)
    from_zero(axis)
    from_zero(axis, "y")
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _nodes_tables(request: FigureRequest) -> Tables:
    found = nodes_over_time(request.results)
    if (found.groupby("run")["num_nodes"].nunique() == 1).all():
        why = "no node fails, or each is replaced at once (cluster.provisioning_seconds: 0)"
        raise MissingError(f"the number of nodes never changes: {why}")
    return {"": found}


def _nodes_figure(request: FigureRequest, tables: Tables) -> Figure:
    table, form, scenario = series.with_series(tables[""], request.fields), request.form, request.scenario
    num_needed = (scenario.workload.num_stages + 1) * scenario.cluster.nodes_per_stage
    points = [
        {**point, "failure_seed": seed}
        for point in series.points_in(table, request.fields)
        for seed in series.at_point(table, point)["failure_seed"].unique()
    ]
    most, styles = MOST_SEEDS if form is PAPER else MOST_SEEDS_ON_A_SLIDE, series.series_styles(table)
    notes = ["Active nodes, including idle spares. All strategies meet the same churn; a mark is where a run ends."]
    with request.panels(points, (0.9, 1.1), notes, most=most, sharex=True, sharey=True) as (figure, rows):
        for (axis,), point in rows:
            draw_nodes(axis, series.at_point(table, point), num_needed, styles)
            axis.set_title(series.describe_point(point).replace("failure_seed", "failure seed"), loc="left")
        axis.set_xlabel(form.x_label(HOURS_LABEL))
        figure.supylabel("active nodes", fontsize="medium")
        needed = Line2D([], [], label="needed by all stages", **REFERENCE_LINE)
        add_legend(figure, [*series.line_handles(styles, with_markers=True), needed], form)
    return figure


FIGURES = (FigureKind("nodes", "nodes over time", _nodes_tables, _nodes_figure),)
