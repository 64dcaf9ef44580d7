"""Cells of the tables in docs/paper.md: ratios, hours and differences with their intervals, names of strategies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.paper.answers import RATE
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.series import at_point
from sim.strategies import legend_label

OWN_NAMES = {
    "redundant_text": "redundant, `paper_text`",
    "redundant_table2": "redundant, `paper_table2`",
    "checkfree_rolls_back": "CheckFree, rolls back",
}

NO_VALUE = "–"

Row = Sequence[str]

Found = dict[str, Any]
"""A row of a table of `benchmarks.paper.answers`."""


def records(rows: pd.DataFrame) -> list[Found]:
    """The rows of a table, one after another."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def only(rows: pd.DataFrame, strategy: str, rate: float) -> Found:
    """The row of a strategy at a rate; the first, where there are several alike."""
    return row_at(rows, {"strategy": strategy, RATE: rate})


def row_at(rows: pd.DataFrame, point: Mapping[str, Any]) -> Found:
    """The row with these values; the first, where there are several alike."""
    return records(at_point(rows, point))[0]


def ratio(row: Found) -> str:
    """A ratio with its interval, and how many runs it is of where some have no value."""
    if not row["num_reached"]:
        return f"{NO_VALUE}{of_runs(row)}"
    found = f"{row['ratio']:.2f}"
    if not math.isnan(row["low_ratio"]) and row["low_ratio"] != row["high_ratio"]:
        found += f" ({row['low_ratio']:.2f} to {row['high_ratio']:.2f})"
    return found + of_runs(row)


def hours_of(row: Found) -> str:
    """Hours with their interval."""
    if not row["num_reached"]:
        return f"{NO_VALUE}{of_runs(row)}"
    mean, low, high = (f"{max(row[name], 0.0) / SECONDS_PER_HOUR:.1f}" for name in ("mean", "low", "high"))
    return mean + (f" ({low} to {high})" if low != high else "") + of_runs(row)


def difference(row: Found) -> str:
    """A difference of losses with its interval."""
    if math.isnan(row["difference"]):
        return f"{NO_VALUE}{of_runs(row)}"
    found = f"{row['difference']:+.3f}"
    if not math.isnan(row["difference_low"]):
        found += f" ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
    return found + of_runs(row)


def of_runs(row: Found) -> str:
    """How many of the runs have a value, where not all have."""
    return "" if row["num_reached"] == row["num_runs"] else f", {row['num_reached']} of {row['num_runs']} runs"


def behind(row: Found) -> str:
    """Iterations behind, and from the least to the most of its runs."""
    spread = f" ({row['low']:.0f} to {row['high']:.0f})" if row["num_runs"] > 1 else ""
    return f"{row['mean']:.0f}{spread}"


def percent(rate: float) -> str:
    """A rate as people say it."""
    return f"{100 * rate:.0f} %"


def name_of(strategy: str) -> str:
    """What tables call a strategy."""
    return OWN_NAMES.get(strategy) or legend_label(strategy).replace("_", " ")
