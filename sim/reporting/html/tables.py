"""The tables of a report: means with intervals and comparisons, what failures there were, what was left undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sim.core.records import BUCKETS
from sim.core.text import decimals, format_name, format_number
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.html.data import ReportData
from sim.reporting.html.narrative import TO_END, TO_TARGET, USD_TO_END, USD_TO_TARGET, target_in_words
from sim.reporting.series import format_value
from sim.reporting.tables import groups_in_order, headings, mean_cell, relative_cell
from sim.results.outcome_tables import ledger_hours
from sim.results.selection import MissingError
from sim.results.statistics import summary
from sim.strategies import legend_label

MOST_ROWS = 400

MOST_EVENTS = 200

UNTOLD = ("checkpoint_started", "checkpoint_durable")


@dataclass(frozen=True)
class Column:
    """A column's heading; text stands at the left, figures at the right."""

    title: str
    is_text: bool = False


@dataclass(frozen=True)
class Row:
    """Cells as text; begins: a new group of rows begins here."""

    cells: tuple[str, ...]
    begins: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table of a report."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


def comparison(data: ReportData) -> PageTable:
    """A row for each point and strategy: means ± half of their 95 % intervals, differences from the reference."""
    runs, fields = data.results.runs, data.fields
    reference = reference_of(runs)
    metrics = [
        (title, metric, unit)
        for title, metric, unit in (
            (f"hours to {target_heading(runs)}", TO_TARGET, SECONDS_PER_HOUR),
            ("hours to end", TO_END, SECONDS_PER_HOUR),
            ("final validation loss", "final_validation_loss", 1.0),
            (f"$ to {target_heading(runs)}", USD_TO_TARGET, 1.0),
            ("$ to end", USD_TO_END, 1.0),
            ("goodput", "goodput", 1.0),
        )
        if metric in runs and runs[metric].notna().any()
    ]
    found = summary(runs, fields, [metric for _, metric, _ in metrics], reference)
    columns = [Column("strategy", True), *(Column(one_line(name), True) for name in headings(fields)), Column("runs")]
    compared = [metric for metric in (TO_TARGET, TO_END) if reference is not None]
    for title, metric, _ in metrics:
        columns.append(Column(title))
        if metric in compared:
            columns.append(Column(f"% against {legend_label(str(reference))}"))
    rows, before = [], None
    for group in groups_in_order(found, fields):
        first, by_metric = group.iloc[0], {str(row["metric"]): row for _, row in group.iterrows()}
        values = [format_value(first[field]) for field in fields]
        cells = [legend_label(str(first["strategy"])), *values, str(first["num_runs"])]
        for _, metric, unit in metrics:
            cells.append(mean_cell(by_metric[metric], unit))
            if metric in compared:
                is_itself = first["strategy"] == reference
                cells.append("" if is_itself else relative_cell(by_metric[metric]).replace("-", "−"))
        rows.append(Row(tuple(cells), before not in (None, values)))
        before = values
    note = (
        "Means ± half of their 95 % intervals over seeds; (2/3): over the runs that got there. Differences are paired: "
        "of the same seeds, with their 95 % intervals in brackets. Where nothing follows a mean, there is one seed, or "
        "all seeds agree."
    )
    return PageTable("Strategies compared", tuple(columns), *cut(rows, note))


def ledger(data: ReportData) -> PageTable | None:
    """Where the hours went: a row for each point and strategy; None where no run has finished."""
    fields = data.fields
    try:
        found = ledger_hours(data.results)
    except MissingError:
        return None
    used = [bucket for bucket in BUCKETS if found[f"{bucket}_hours"].any()]
    columns = [Column("strategy", True), *(Column(one_line(name), True) for name in headings(fields))]
    columns += [Column("all hours"), *(Column(format_name(bucket)) for bucket in used)]
    rows, before = [], None
    for group in groups_in_order(found, fields):
        row = group.iloc[0]
        values = [format_value(row[field]) for field in fields]
        hours = [row[name] for name in ("all_hours", *(f"{bucket}_hours" for bucket in used))]
        digits = max(2, decimals(row["all_hours"]))
        cells = [f"{value:.{digits}f}" if value else "0" for value in hours]
        rows.append(Row((legend_label(str(row["strategy"])), *values, *cells), before not in (None, values)))
        before = values
    note = "Mean hours over failure seeds, of finished runs; the buckets add up to all hours."
    return PageTable("Where the hours went", tuple(columns), *cut(rows, note))


def cut(rows: Sequence[Row], note: str) -> tuple[tuple[Row, ...], str]:
    """No more rows than a page can do with, and a note that says so."""
    if len(rows) > MOST_ROWS:
        note = f"{note} {len(rows) - MOST_ROWS:,} more rows are left out here: see the folder's tables."
    return tuple(rows[:MOST_ROWS]), note


def reference_of(runs: pd.DataFrame) -> str | None:
    """The strategy that the others are compared with: the one without failures, else the first; None if it is alone."""
    names = list(dict.fromkeys(runs["strategy"]))
    ideal = list(dict.fromkeys(runs.loc[runs["kind"] == "none", "strategy"]))
    return str((ideal or names)[0]) if len(names) > 1 else None


def target_heading(runs: pd.DataFrame) -> str:
    """The loss to be reached, as a heading."""
    target = target_in_words(runs)
    return f"loss {target}" if target else "target loss"


def one_line(heading: str) -> str:
    """A heading without its line breaks."""
    return heading.replace("\n", " ")


def failures(data: ReportData) -> PageTable:
    """What each strategy met and what it took: means a run."""
    runs, fields = data.results.runs, data.fields
    counts = (
        ("stages lost", "num_failures"),
        ("nodes lost", "num_nodes_lost"),
        ("rollbacks", "num_rollbacks"),
        ("fallbacks", "num_fallbacks"),
        ("iterations done again", "num_iterations_rerun"),
        ("seconds a recovery", "mean_recovery_seconds"),
    )
    found = summary(runs, fields, [metric for _, metric in counts])
    columns = [Column("strategy", True), *(Column(one_line(name), True) for name in headings(fields))]
    columns += [Column("stopped early"), *(Column(title) for title, _ in counts)]
    kinds = dict(zip(runs["strategy"], runs["kind"], strict=True))
    rows, before = [], None
    for group in groups_in_order(found, fields):
        first, means = group.iloc[0], dict(zip(group["metric"], group["mean"], strict=True))
        values, name = [format_value(first[field]) for field in fields], str(first["strategy"])
        num_stopped = str(first["num_runs"] - first["num_reached"])
        cells = ["-" if kinds[name] == "none" else average(means[metric]) for _, metric in counts]
        rows.append(Row((legend_label(name), *values, num_stopped, *cells), before not in (None, values)))
        before = values
    note = (
        "Means over finished runs. All strategies meet the same failures at the same simulated times, so that whoever "
        "takes longer meets more."
    )
    return PageTable("Failures and recoveries", tuple(columns), *cut(rows, note))


def average(value: float) -> str:
    """A mean of counts: whole where it is whole, - where there is none."""
    return f"{value:.0f}" if value % 1.0 == 0.0 else format_number(value)


def events(data: ReportData) -> PageTable | None:
    """What happened when in each run, where there are few enough to read."""
    found = data.results.events
    if found.empty or data.fields:
        return None
    of_runs = data.results.runs[["run", "strategy", "failure_seed"]]
    found = found[~found["kind"].isin(UNTOLD)].merge(of_runs, on="run")
    columns = (
        Column("strategy", True), Column("failure seed"), Column("hours"), Column("iteration"), Column("what", True),
        Column("stage"), Column("in words", True),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                legend_label(str(event["strategy"])),
                str(event["failure_seed"]),
                f"{event['time_seconds'] / SECONDS_PER_HOUR:.2f}",
                str(event["iteration"]),
                format_name(str(event["kind"])),
                "" if pd.isna(event["stage"]) else str(int(event["stage"])),
                str(event["detail"]),
            )
        )
        for event in found.head(MOST_EVENTS).to_dict("records")
    )
    note = f"{len(found) - MOST_EVENTS:,} more are in events.parquet of the runs." if len(found) > MOST_EVENTS else ""
    return PageTable("Every failure and recovery", columns, rows, note) if rows else None


def failed(data: ReportData) -> PageTable | None:
    """Runs that could not be done, and why."""
    if data.failed.empty:
        return None
    rows = tuple(Row((row["run"], str(row["error"]))) for _, row in data.failed.iterrows())
    return PageTable("Runs that failed", (Column("run", True), Column("error", True)), *cut(rows, ""))
