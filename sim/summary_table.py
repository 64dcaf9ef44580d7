"""Means with their intervals, and strategies compared under the same churn, as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from rich.table import Table

from sim.clock import SECONDS_PER_HOUR
from sim.figures import legend_label
from sim.tables import strategy_table
from sim.wording import decimals

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
        values = [as_text(rows[field].iloc[0]) for field in fields]
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


def as_text(value: Any) -> str:
    """A swept value; nothing where it does not concern the strategy."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


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
