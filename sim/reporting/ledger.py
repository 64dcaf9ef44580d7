"""Time of a run by ledger bucket, as bars and tables, and the number of nodes over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sim.cluster.topology import num_nodes
from sim.core.records import BUCKETS, Bucket
from sim.core.text import decimals, format_name
from sim.reporting import series
from sim.reporting.loss import HOURS_LABEL
from sim.reporting.registry import MOST_ROWS, FigureKind, FigureRequest, Tables
from sim.reporting.style import PAPER, REFERENCE_LINE, Limits, add_legend, from_zero, limits_from_zero
from sim.reporting.table import Table
from sim.reporting.tables import table_by_point
from sim.reporting.words import point_in_words
from sim.results.outcome_tables import ledger_hours, nodes_over_time
from sim.results.selection import MissingError, swept_fields
from sim.results.storage import Results

LOOKS: dict[Bucket, tuple[str, str, str]] = {
    "productive_compute": ("#009E73", "", "productive\ncompute"),
    "bubble_and_communication": ("#B8D8EA", "", "bubble,\ncommun."),
    "redundant_compute": ("#0072B2", "///", "redundant\ncompute"),
    "checkpoint_save": ("#F0E442", "---", "checkp.\nsave"),
    "lost_work": ("#D55E00", "|||", "lost\nwork"),
    "detection": ("#000000", "", "detec-\ntion"),
    "provisioning": ("#8C8C8C", "...", "provi-\nsioning"),
    "state_transfer": ("#CC79A7", "\\\\\\", "state\ntransfer"),
    "waiting_for_nodes": ("#D9D9D9", "xxx", "waiting\nfor nodes"),
}
"""Colour (Okabe and Ito's except for two pale ones), hatching and heading of each bucket."""

PALE: tuple[Bucket, ...] = ("checkpoint_save", "waiting_for_nodes")
ROOM_FOR_SUM = 1.12
MOST_SEEDS, MOST_SEEDS_ON_A_SLIDE = 4, 2


RECOVERY = "seconds per\nrecovery"


def ledger_table(results: Results) -> Table:
    """Return the hours in each bucket by strategy, without empty buckets, and the mean seconds of a recovery."""
    hours, runs = ledger_hours(results), results.runs
    used = used_buckets(hours)
    digits = 2 if hours[[f"{bucket}_hours" for bucket in BUCKETS]].max().max() >= 1.0 else 4
    once = runs[runs["outcome"] == "finished"].drop_duplicates(["strategy", "failure_seed"])
    recovery_seconds = once.groupby("strategy")["mean_recovery_seconds"].mean()

    def values(rows: pd.DataFrame) -> list[str]:
        row, mean_seconds = rows.iloc[0], recovery_seconds[rows["strategy"].iloc[0]]
        cells = [f"{row[f'{name}_hours']:.{digits}f}" for name in (*used, "all")]
        return [*cells, "-" if pd.isna(mean_seconds) else f"{mean_seconds:.1f}"]

    title = "Where the hours went" + (" (means)" if runs["failure_seed"].nunique() > 1 else "")
    columns = [*(LOOKS[bucket][2] for bucket in used), "all", RECOVERY]
    return table_by_point(title, hours, (), columns, values, optional=(RECOVERY,))


def ledger_by_point(results: Results) -> Table:
    """Return the hours in each bucket by strategy and swept values, without empty buckets."""
    fields, hours = swept_fields(results), ledger_hours(results)
    used = used_buckets(hours)

    def values(rows: pd.DataFrame) -> list[str]:
        cells = [rows[f"{name}_hours"].iloc[0] for name in ("all", *used)]
        digits = max(2, decimals(cells[0]))
        return [f"{value:.{digits}f}" if value else "0" for value in cells]

    columns = ["all hours", *map(format_name, used)]
    note = "Mean hours over failure seeds, of finished runs; the buckets add up to all hours."
    return table_by_point("Where the hours went", hours, fields, columns, values, note)


def draw_ledger(axis: Axes, table: pd.DataFrame) -> None:
    """Draw a bar for each series: its hours in each bucket (`ledger_hours`), and their sum at the end of the bar."""
    left = pd.Series(0.0, index=table.index)
    for bucket in used_buckets(table):
        hours = table[f"{bucket}_hours"]
        axis.barh(range(len(table)), hours, left=left, height=0.7, label=format_name(bucket), **fill_of(bucket))
        left = left + hours
    for row, total in enumerate(left):
        axis.annotate(f" {total:.1f} h" if total >= 10 else f" {total:.3g} h", (total, row), va="center", fontsize=7)
    axis.set_yticks(range(len(table)), [name for name, _ in series.series_in(table)])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)


def fill_of(bucket: Bucket) -> dict[str, Any]:
    """Return the patch properties of a bucket: hatched in white, or in grey if its colour is pale."""
    colour, hatch, _ = LOOKS[bucket]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "0.45" if bucket in PALE else "white", "linewidth": 0.3}


def used_buckets(table: pd.DataFrame) -> list[Bucket]:
    """Return the buckets that contain any time."""
    return [bucket for bucket in BUCKETS if table[f"{bucket}_hours"].any()]


def ledger_limits(table: pd.DataFrame) -> Limits:
    """Return limits of the axis of hours, with room for the sum beside each bar."""
    return limits_from_zero(float(table["all_hours"].max()), ROOM_FOR_SUM)


def _ledger_figure(request: FigureRequest, tables: Tables) -> Figure:
    table, form = series.with_series(tables[""], request.fields), request.form
    means = ": means over failure seeds, of runs that finished" if (table["num_runs"] > 1).any() else ""
    points = series.points_in(table, request.fields)
    bars = [len(series.at_point(table, point)) for point in points[:MOST_ROWS]]
    inches, notes = (0.65 + 0.3 * sum(bars), 0.3), [f"{request.seeds}{means}."]
    handles = [Patch(**fill_of(bucket), label=format_name(bucket)) for bucket in used_buckets(table)]
    with request.panels(points, inches, notes, sharex=True, height_ratios=bars) as (figure, rows):
        for (axis,), point in rows:
            draw_ledger(axis, series.at_point(table, point))
        axis.set_xlim(*ledger_limits(table))
        axis.set_xlabel(form.x_label(HOURS_LABEL))
        add_legend(figure, handles, form)
    return figure


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


def _that_differ(table: pd.DataFrame, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove points at which every series has the nodes of an earlier point until the first of the two ends."""
    found: list[tuple[dict[str, Any], dict[str, NDArray[np.float64]]]] = []
    for point in points:
        rows = series.series_in(series.at_point(table, point))
        own = {name: each[["hours", "num_nodes"]].to_numpy(float) for name, each in rows}
        if not any(
            own.keys() == kept.keys() and all(_agree(own[name], kept[name]) for name in own) for _, kept in found
        ):
            found.append((point, own))
    return [point for point, _ in found]


def _agree(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two series have the same nodes until the first of their ends. Rows: hours, number of nodes."""
    end_hours = min(one[-1, 0], other[-1, 0])
    return np.array_equal(*(rows[rows[:, 0] < end_hours] for rows in (one, other)))


def _nodes_figure(request: FigureRequest, tables: Tables) -> Figure:
    table, form, scenario = series.with_series(tables[""], request.fields), request.form, request.scenario
    num_needed = num_nodes(scenario.cluster, scenario.workload.num_stages) - scenario.cluster.num_spares
    points = [
        {**point, "failure_seed": seed}
        for point in series.points_in(table, request.fields)
        for seed in series.at_point(table, point)["failure_seed"].unique()
    ]
    shown = _that_differ(table, points)
    most, styles = MOST_SEEDS if form is PAPER else MOST_SEEDS_ON_A_SLIDE, series.series_styles(table)
    notes = ["Active nodes, including idle spares. All strategies meet the same churn; a mark is where a run ends."]
    if len(shown) < len(points):
        notes.append("Panels that would repeat another are left out.")
    with request.panels(shown, (0.9, 1.1), notes, most=most, sharex=True, sharey=True) as (figure, rows):
        for (axis,), point in rows:
            draw_nodes(axis, series.at_point(table, point), num_needed, styles)
            axis.set_title(point_in_words(point), loc="left")
        axis.set_xlabel(form.x_label(HOURS_LABEL))
        figure.supylabel("active nodes", fontsize="medium")
        needed = Line2D([], [], label="needed by all stages", **REFERENCE_LINE)
        add_legend(figure, [*series.line_handles(styles, with_markers=True), needed], form)
    return figure


FIGURES = (
    FigureKind("ledger", "where the hours went", lambda request: {"": ledger_hours(request.results)}, _ledger_figure),
    FigureKind("nodes", "nodes over time", _nodes_tables, _nodes_figure),
)
