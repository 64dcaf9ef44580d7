"""The tables of a report: means and comparisons, failures and recoveries, events, failed runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from sim.core.text import decimals, format_name
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.html.data import ReportData
from sim.reporting.ledger import ledger_by_point
from sim.reporting.notes import describe_target
from sim.reporting.table import Column, Row, Table
from sim.reporting.tables import Metric, means_table, swept_columns, table_by_point
from sim.reporting.verdict import TO_END, TO_TARGET, USD_TO_END, USD_TO_TARGET
from sim.reporting.words import format_value
from sim.results.selection import MissingError
from sim.results.statistics import summary
from sim.strategies import legend_label

MOST_ROWS, MOST_EVENTS = 400, 200
PLACE_OF_REST = "are left out here: see the folder's tables."
AT_ALL = "any"
OMITTED_EVENTS = ("checkpoint_started", "checkpoint_durable")

COUNTS = {
    "num_failures": "stages lost",
    "num_nodes_lost": "nodes lost",
    "num_rollbacks": "rollbacks",
    "num_fallbacks": "fallbacks",
    "num_iterations_rerun": "iterations done again",
    "mean_recovery_seconds": "seconds per recovery",
}


def comparison(data: ReportData) -> Table:
    """Return means ± half of their intervals, differences from the strategy without failures, or else the first."""
    runs, target = data.results.runs, describe_target(data.results.runs)
    ideal = runs.loc[runs["kind"] == "none", "strategy"].tolist()
    reference = [*ideal, *data.strategies][0] if len(data.strategies) > 1 else None
    metrics = (
        Metric(f"hours to {target}", TO_TARGET, SECONDS_PER_HOUR, True),
        Metric("hours to end", TO_END, SECONDS_PER_HOUR, True),
        Metric("final validation loss", "final_validation_loss"),
        Metric(f"$ to {target}", USD_TO_TARGET),
        Metric("$ to end", USD_TO_END),
        Metric("goodput", "goodput"),
    )
    known = [metric for metric in metrics if metric.name in runs and runs[metric.name].notna().any()]
    found = summary(runs, data.fields, [metric.name for metric in known], reference)
    table = means_table("Strategies compared", found, data.fields, known, reference)
    note = (
        "Means ± half of their 95 % intervals over seeds; (2/3): over the runs that reached the target. Differences "
        "are paired by seeds, with their 95 % intervals in brackets. A mean without ± has one seed, or equal values."
    )
    joined = without_repeats(replace(table, note=note), data)
    return joined.limited(MOST_ROWS, PLACE_OF_REST)


def without_repeats(table: Table, data: ReportData) -> Table:
    """Join the rows of each strategy that ignores failures, if they are the same at all points, before all others."""
    runs, num_fields = data.results.runs, len(data.fields)
    names = {legend_label(name) for name in runs.loc[runs["kind"] == "none", "strategy"]}
    by_name: dict[str, list[int]] = {}
    for number, cells in enumerate(table.cells):
        if cells[0] in names:
            by_name.setdefault(cells[0], []).append(number)
    firsts, dropped = list[Row](), set[int]()
    for numbers in by_name.values():
        if len({tuple(table.cells[number][1 + num_fields :]) for number in numbers}) == 1 < len(numbers):
            name, *values = table.rows[numbers[0]].values
            firsts.append(Row((name, *[AT_ALL] * num_fields, *values[num_fields:])))
            dropped |= set(numbers)
    rows, before = firsts, [AT_ALL] * num_fields
    for number, row in enumerate(table.rows):
        if number not in dropped:
            here = table.cells[number][1 : 1 + num_fields]
            rows.append(replace(row, begins_group=bool(rows) and here != before))
            before = here
    return replace(table, rows=tuple(rows))


def ledger(data: ReportData) -> Table | None:
    """Return the hours in each bucket of the ledger; None if no run has finished."""
    try:
        found = ledger_by_point(data.results)
        return without_repeats(found, data).limited(MOST_ROWS, PLACE_OF_REST)
    except MissingError:
        return None


def failures(data: ReportData) -> Table:
    """Return a row for each point and strategy: mean counts of failures and recoveries."""
    runs, fields = data.results.runs, data.fields
    found = summary(runs, fields, list(COUNTS))
    kinds = dict(zip(runs["strategy"], runs["kind"], strict=True))

    def values(rows: pd.DataFrame) -> list[str]:
        first, means = rows.iloc[0], dict(zip(rows["metric"], rows["mean"], strict=True))
        ignores_failures = kinds[first["strategy"]] == "none"
        counted = (means[name] for name in COUNTS)
        counts = [f"{mean:.0f}" if mean % 1.0 == 0.0 else f"{mean:.1f}" for mean in counted]
        return [str(first["num_runs"] - first["num_reached"]), *(["-"] * len(COUNTS) if ignores_failures else counts)]

    note = (
        "Means over finished runs. All strategies meet the same failures at the same simulated times, so longer runs "
        "meet more of them."
    )
    columns = ["stopped early", *COUNTS.values()]
    table = table_by_point("Failures and recoveries", found, fields, columns, values, note)
    return without_repeats(table, data).limited(MOST_ROWS, PLACE_OF_REST)


def events(data: ReportData) -> Table | None:
    """Return all failures and recoveries in order; None for a sweep, whose runs have too many."""
    found = data.results.events
    if found.empty or data.fields:
        return None
    of_runs = data.results.runs[["run", "strategy", "failure_seed"]]
    found = found[~found["kind"].isin(OMITTED_EVENTS)].merge(of_runs, on="run")
    columns = (
        Column("strategy", "left", legend_label),
        Column("failure seed"),
        Column("hours", format=lambda seconds: f"{seconds / SECONDS_PER_HOUR:.2f}"),
        Column("iteration"),
        Column("what", "left", format_name),
        Column("stage", format=format_value),
        Column("in words", "left"),
    )
    fields = ["strategy", "failure_seed", "time_seconds", "iteration", "kind", "stage", "detail"]
    rows = tuple(Row(values) for values in found[fields].itertuples(index=False, name=None))
    table = Table("Every failure and recovery", columns, rows)
    return table.limited(MOST_EVENTS, "are in events.parquet of the runs.") if rows else None


def failed(data: ReportData) -> Table | None:
    """Return the runs that failed, and why; None if there are none."""
    if data.failed.empty:
        return None
    rows = tuple(Row(values) for values in zip(data.failed["run"], data.failed["error"].map(str), strict=True))
    columns = Column("run", "left"), Column("error", "left")
    return Table("Runs that failed", columns, rows).limited(MOST_ROWS, PLACE_OF_REST)


def runs(data: ReportData) -> tuple[Table, list[Path | None]]:
    """Return a row for each run, and the folders of these runs; None where the sweep keeps none."""
    found, fields = data.results.runs, list(data.fields)
    columns = [Column("run", "left"), Column("strategy", "left", legend_label)]
    columns += swept_columns(fields)
    columns += [Column("failure seed"), Column("training seed"), Column("outcome", "left")]
    names = ["run", "strategy", *fields, "failure_seed", "training_seed", "outcome"]
    for name, heading, shown in (
        (TO_TARGET, f"hours to {describe_target(found)}", _hours),
        (TO_END, "hours to end", _hours),
        ("final_validation_loss", "final validation loss", lambda loss: "-" if pd.isna(loss) else f"{loss:.3f}"),
        ("num_failures", "stages lost", format_value),
        ("num_nodes_lost", "nodes lost", format_value),
    ):
        if name in found and found[name].notna().any():
            columns.append(Column(heading, format=shown))
            names.append(name)
    rows = tuple(Row(values) for values in found[names].itertuples(index=False, name=None))
    folders = [data.results.folders[run] for run in found["run"].iloc[:MOST_ROWS]]
    table = Table("Every run", tuple(columns), rows).limited(MOST_ROWS, PLACE_OF_REST)
    return table, [folder if folder.is_dir() else None for folder in folders]


def _hours(seconds: float) -> str:
    hours = seconds / SECONDS_PER_HOUR
    return "-" if pd.isna(seconds) else f"{hours:.{decimals(hours)}f}"
