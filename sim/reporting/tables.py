"""The look of all tables that compare strategies: their names at the left, figures at the right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sim.core.text import decimals
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.series import format_value
from sim.results.storage import RunFiles
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label


def strategy_table(title: str, headings: Iterable[str]) -> Table:
    """An empty table with a column of strategies' names, and one of figures for each heading."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("strategy")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


# The table at the end of a run, and the words that say what its numbers are of.


def comparison(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """One row per run: its folder and its summary without the ledger."""
    rows = [{"run": run.folder.name, **run.summary} for run in runs]
    return pd.DataFrame(rows).drop(columns="ledger_seconds")


def comparison_table(runs: Sequence[RunFiles], scenario: Scenario) -> Table:
    """One row per strategy; with several replicates, mean ± standard deviation over those that finished.

    Hours are simulated; replicates that differ in the training seed alone take the same time and count once in
    them. Overhead and goodput are against the same iterations without failures or extra work.
    """
    frame = comparison(runs)
    target = scenario.training.target_validation_loss
    num_replicates = len(scenario.seeds.failures) * len(scenario.seeds.training)
    title = f"{scenario.name}: strategies under the same churn"
    if num_replicates > 1:
        title += f", mean ± standard deviation of {num_replicates} replicates"
    columns: list[tuple[str, Callable[[pd.DataFrame], str]]] = [
        ("stages lost\n(fallb.)", failures_met),
        ("hours\nto end", lambda rows: hours(once_per_churn(rows)["wall_clock_seconds"])),
        ("over-\nhead", lambda rows: spread(once_per_churn(rows)["overhead"] * 100, "{:+.0f} %")),
        ("seconds\nan iter.", lambda rows: to_three_digits(once_per_churn(rows)["iteration_seconds"])),
        ("cost\n$", lambda rows: dollars(once_per_churn(rows)["cost_usd"])),
        ("iters\n(re-run)", lambda rows: pair(rows["num_iterations_run"], rows["num_iterations_rerun"])),
        ("final\nval. loss", lambda rows: spread(rows["final_validation_loss"], "{:.3f}")),
    ]
    if scenario.cluster.nodes_per_stage > 1:
        columns.insert(0, ("nodes\nlost", nodes_lost))
    if scenario.training.learner == "none":
        columns.pop()
    elif target is not None:
        columns.insert(len(columns) - 6, (f"hours to\nloss {target:g}", hours_to_target))
    table = strategy_table(title, (heading for heading, _ in columns))
    for name in dict.fromkeys(frame["strategy"]):
        rows = frame[frame["strategy"] == name]
        finished = rows[rows["outcome"] == "finished"]
        label = legend_label(name)
        if len(finished) < len(rows):
            label += f" ({len(finished)} of {len(rows)} finished)"
        table.add_row(label, *(cell(finished) for _, cell in columns))
    return table


def once_per_churn(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each failure seed: seconds do not depend on the training seed."""
    return rows.drop_duplicates("failure_seed")


def failures_met(rows: pd.DataFrame) -> str:
    """Stages lost, and in brackets what the fallback had to take; none where failures are ignored."""
    rows = once_per_churn(rows)
    return "-" if (rows["kind"] == "none").all() else pair(rows["num_failures"], rows["num_fallbacks"])


def nodes_lost(rows: pd.DataFrame) -> str:
    """Nodes, spares among them; most of them had others beside them in their stage."""
    rows = once_per_churn(rows)
    return "-" if (rows["kind"] == "none").all() else spread(rows["num_nodes_lost"], "{:.0f}")


def hours_to_target(rows: pd.DataFrame) -> str:
    """Simulated hours until the target loss, over the replicates that reach it; `-` where none does."""
    reached = rows["target_reached_seconds"].dropna()
    missed = "" if len(reached) in (0, len(rows)) else f" ({len(reached)} of {len(rows)})"
    return hours(reached) + missed


def hours(seconds: pd.Series[Any]) -> str:
    """Seconds as hours, to three digits or to the hour."""
    return to_three_digits(seconds.astype(float) / SECONDS_PER_HOUR)


def to_three_digits(values: pd.Series[Any]) -> str:
    """To three digits, but no fewer than a whole number has."""
    mean = values.astype(float).mean()
    return spread(values, "{:.0f}" if mean >= 1000 else "{:.1f}" if mean >= 10 else "{:.2f}" if mean >= 1 else "{:.3g}")


def dollars(values: pd.Series[Any]) -> str:
    """Money to the cent, from 100 on to the dollar."""
    return spread(values, "{:,.0f}" if values.astype(float).mean() >= 100 else "{:.2f}")


def pair(values: pd.Series[Any], within: pd.Series[Any]) -> str:
    """A count, and in brackets how many of a kind are among it."""
    return f"{spread(values, '{:.0f}')} ({spread(within, '{:.0f}')})"


def spread(values: pd.Series[Any], style: str) -> str:
    """Mean, and the standard deviation over replicates where they differ."""
    values = values.astype(float)
    if values.isna().all():
        return "-"
    mean = style.format(values.mean() if abs(values.mean()) > 1e-9 else 0.0)
    deviation = values.std()
    return mean if math.isnan(deviation) or deviation == 0.0 else f"{mean} ± {style.format(deviation).lstrip('+')}"


def write_comparison(folder: Path, runs: Sequence[RunFiles]) -> Path:
    """Write the comparison as CSV."""
    path = folder / "comparison.csv"
    comparison(runs).to_csv(path, index=False)
    return path


# Means with their intervals, and strategies compared under the same churn, as a table for people.

WIDTH_OF_HEADINGS = 12

MOST_ROWS = 60


def summary_table(
    name: str, found: pd.DataFrame, fields: Sequence[str], reference: str | None, target: str = "target loss"
) -> Table:
    """A row for each point and strategy: mean ± half of the 95 % interval, and against the reference in per cent."""

    def is_known(metric: str) -> bool:
        return bool(found.loc[found["metric"] == metric, "num_reached"].any())

    columns = [("hours\nto end", "wall_clock_seconds", SECONDS_PER_HOUR)]
    if is_known("target_reached_seconds"):
        columns.append((f"hours to\n{target}", "target_reached_seconds", SECONDS_PER_HOUR))
    if reference is not None:
        against = [(f"% against\n{legend_label(reference)}", metric, 0.0) for _, metric, _ in columns]
        columns = [column for pair in zip(columns, against, strict=True) for column in pair]
    if is_known("final_validation_loss"):
        columns.append(("final\nval. loss", "final_validation_loss", 1.0))
    title = f"{name}: means ± half of their 95 % intervals; in brackets 95 % intervals of paired differences"
    table = strategy_table(title, [*headings(fields), "runs", *(heading for heading, _, _ in columns)])
    groups, before = groups_in_order(found, fields), None
    for rows in groups[:MOST_ROWS]:
        values = [format_value(rows[field].iloc[0]) for field in fields]
        if before not in (None, values):
            table.add_section()
        before = values
        by_metric = {str(row["metric"]): row for _, row in rows.iterrows()}
        first = rows.iloc[0]
        cells = [
            mean_cell(by_metric[metric], unit) if unit else relative_cell(by_metric[metric])
            for _, metric, unit in columns
        ]
        table.add_row(legend_label(str(first["strategy"])), *values, str(first["num_runs"]), *cells)
    if len(groups) > MOST_ROWS:
        table.caption = f"{len(groups) - MOST_ROWS} more rows in statistics.csv"
    return table


def headings(fields: Sequence[str]) -> list[str]:
    """The last part of each field's name, the whole name where several end alike."""
    last = [field.rpartition(".")[2] for field in fields]
    names = [part if last.count(part) == 1 else field for part, field in zip(last, fields, strict=True)]
    return [fill(name.replace("_", " "), WIDTH_OF_HEADINGS) for name in names]


def groups_in_order(found: pd.DataFrame, fields: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of each strategy at each point: points in the order of the swept values, strategies in their own."""

    def places(column: str) -> dict[Any, int]:
        return {value: place for place, value in enumerate(found[column].dropna().unique())}

    orders = {name: places(name) for name in (*fields, "strategy")}

    def order(rows: pd.DataFrame) -> list[int]:
        return [orders[name].get(rows[name].iloc[0], -1) for name in (*fields, "strategy")]

    return sorted((rows for _, rows in found.groupby(["strategy", *fields], sort=False, dropna=False)), key=order)


def mean_cell(row: pd.Series[Any], unit: float) -> str:
    """A mean and half its interval, in a unit; how many runs have a value, where not all do."""
    if math.isnan(row["mean"]):
        return "-"
    mean, half_width = row["mean"] / unit, (row["high"] - row["low"]) / 2 / unit
    digits = decimals(mean)
    missed = "" if row["num_reached"] == row["num_runs"] else f" ({row['num_reached']}/{row['num_runs']})"
    return f"{mean:.{digits}f}" + ("" if not half_width > 0.0 else f" ± {half_width:.{digits}f}") + missed


def relative_cell(row: pd.Series[Any]) -> str:
    """A relative difference with its interval, in per cent; nothing where all is equal, as for the reference itself."""
    share, low, high = (100 * row[name] for name in ("relative_difference", "relative_low", "relative_high"))
    if math.isnan(share):
        return "-"
    if share == low == high == 0.0:
        return ""
    digits = 0 if abs(share) >= 10 else 1
    known = not math.isnan(low) and low != high
    return f"{share:+.{digits}f}" + (f" ({low:+.{digits}f}, {high:+.{digits}f})" if known else "")
