"""Tables that compare strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from sim.core.text import decimals
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.table import Column, Row, Table, columns_of
from sim.reporting.words import format_value, words_of
from sim.results.storage import RunFiles
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

ITERATIONS, COST = "iters\n(re-run)", "cost\n$"
OPTIONAL = ITERATIONS, COST


def comparison(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return a row for each run: its folder and its summary without the ledger."""
    return pd.DataFrame([{"run": run.folder.name, **run.summary} for run in runs]).drop(columns="ledger_seconds")


def comparison_table(runs: Sequence[RunFiles], scenario: Scenario) -> Table:
    """Return a row for each strategy; with several replicates mean ± standard deviation over those that finished."""
    num_replicates = len(scenario.seeds.replicates)
    title = f"{scenario.name}: strategies under the same churn"
    if num_replicates > 1:
        title += f", mean ± standard deviation of {num_replicates} replicates"
    rows, cells = [], {}
    for name, own in comparison(runs).groupby("strategy", sort=False):
        finished, label = own[own["outcome"] == "finished"], legend_label(str(name))
        if len(finished) < len(own):
            label += f" ({len(finished)} of {len(own)} finished)"
        cells = _compared_cells(finished, scenario)
        rows.append(Row((label, *cells.values())))
    return Table(title, columns_of(cells, OPTIONAL), tuple(rows))


def _compared_cells(rows: pd.DataFrame, scenario: Scenario) -> dict[str, str]:
    """Return a strategy's cells by heading."""
    target, is_learnt = scenario.training.target_loss, scenario.training.learner != "none"
    once = rows.drop_duplicates("failure_seed")  # seconds do not depend on the training seed
    ignores_failures, cells = (once["kind"] == "none").all(), {}
    if scenario.cluster.nodes_per_stage > 1:
        cells["nodes\nlost"] = "-" if ignores_failures else counted(once, "num_nodes_lost")
    cells["stages lost\n(fallb.)"] = "-" if ignores_failures else counted(once, "num_failures", "num_fallbacks")
    if target is not None and is_learnt:
        cells[f"hours to\nloss {target:g}"] = hours_to_target(rows)
    cells["hours\nto end"] = hours(once["wall_clock_seconds"])
    cells["over-\nhead"] = spread(once["overhead"] * 100, "{:+.0f} %")
    cells["seconds\nper iter."] = _to_three_digits(once["iteration_seconds"])
    cells[COST] = spread(once["cost_usd"], "{:,.0f}" if once["cost_usd"].astype(float).mean() >= 100 else "{:.2f}")
    cells[ITERATIONS] = counted(rows, "num_iterations_run", "num_iterations_rerun")
    if is_learnt:
        cells["final\nval. loss"] = spread(rows["final_validation_loss"], "{:.3f}")
    return cells


def hours_to_target(rows: pd.DataFrame) -> str:
    """Format the hours to the target loss, over the replicates that reach it; `-` if none does."""
    reached = rows["target_reached_seconds"].dropna()
    missed = "" if len(reached) in (0, len(rows)) else f" ({len(reached)} of {len(rows)})"
    return hours(reached) + missed


def hours(seconds: pd.Series[Any]) -> str:
    """Format seconds as hours, to three digits or to the hour."""
    return _to_three_digits(seconds.astype(float) / SECONDS_PER_HOUR)


def _to_three_digits(values: pd.Series[Any]) -> str:
    mean = values.astype(float).mean()
    return spread(values, "{:.0f}" if mean >= 1000 else "{:.1f}" if mean >= 10 else "{:.2f}" if mean >= 1 else "{:.3g}")


def counted(rows: pd.DataFrame, count: str, *within: str) -> str:
    """Format a count and, in brackets, a part of it."""
    return spread(rows[count], "{:.0f}") + "".join(f" ({spread(rows[part], '{:.0f}')})" for part in within)


def spread(values: pd.Series[Any], style: str) -> str:
    """Format the mean, and the standard deviation over replicates if they differ."""
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


WIDTH_OF_HEADINGS = 12
DIGITS_OF_SPREADS = 2
MOST_ROWS = 60


@dataclass(frozen=True)
class Metric:
    """A metric in a table of means. unit: the divisor of its values; compared: against the reference strategy."""

    heading: str
    name: str
    unit: float = 1.0
    compared: bool = False


def summary_table(
    name: str, found: pd.DataFrame, fields: Sequence[str], reference: str | None, target: str = "target loss"
) -> Table:
    """Return the table at the end of a sweep: `means_table` of hours and losses. target: the target loss in words."""
    known = {"wall_clock_seconds", *found.loc[found["num_reached"] > 0, "metric"]}
    metrics = (
        Metric("hours\nto end", "wall_clock_seconds", SECONDS_PER_HOUR, True),
        Metric(f"hours to\n{target}", "target_reached_seconds", SECONDS_PER_HOUR, True),
        Metric("final\nval. loss", "final_validation_loss"),
    )
    title = f"{name}: means ± half of their 95 % intervals; in brackets 95 % intervals of paired differences"
    shown = [metric for metric in metrics if metric.name in known]
    return means_table(title, found, fields, shown, reference).limited(MOST_ROWS, "in statistics.csv")


def means_table(
    title: str, found: pd.DataFrame, fields: Sequence[str], metrics: Sequence[Metric], reference: str | None
) -> Table:
    """Return a row for each point and strategy of a `summary`: means ± half of their intervals, differences in %."""
    columns = ["runs"]
    for metric in metrics:
        is_compared = metric.compared and reference is not None
        columns += [metric.heading, *([f"% against\n{legend_label(str(reference))}"] if is_compared else [])]

    def values(rows: pd.DataFrame) -> list[str]:
        cells = [str(rows["num_runs"].iloc[0])]
        for metric in metrics:
            row = rows[rows["metric"] == metric.name].iloc[0]
            cells.append(_mean_cell(row, metric.unit))
            if metric.compared and reference is not None:
                cells.append("" if row["strategy"] == reference else relative_cell(row))
        return cells

    return table_by_point(title, found, fields, columns, values)


def table_by_point(
    title: str,
    found: pd.DataFrame,
    fields: Sequence[str],
    columns: Iterable[str],
    values: Callable[[pd.DataFrame], Sequence[Any]],
    note: str = "",
    optional: Collection[str] = (),
) -> Table:
    """Return a row for each strategy at each point: its name, its swept values, and values computed of its rows.

    optional: those of the columns that a narrow terminal leaves out.
    """
    rows = list[Row]()
    before: list[str] | None = None
    for group in groups_in_order(found, fields):
        strategy, *point = (group[name].iloc[0] for name in ("strategy", *fields))
        here = [format_value(value) for value in point]
        rows.append(Row((legend_label(str(strategy)), *point, *values(group)), before not in (None, here)))
        before = here
    of_strategy, *of_values = columns_of(columns, optional)
    return Table(title, (of_strategy, *swept_columns(fields), *of_values), tuple(rows), note)


def swept_columns(fields: Sequence[str]) -> list[Column]:
    """Return a column for each field, headed by its name in words, or by its path if several have the same."""
    labels = [words_of(field).label for field in fields]
    names = [label if labels.count(label) == 1 else field for label, field in zip(labels, fields, strict=True)]
    headings = [fill(name.replace("_", " "), WIDTH_OF_HEADINGS) for name in names]
    return [Column(heading, format=_format_of(field)) for heading, field in zip(headings, fields, strict=True)]


def _format_of(field: str) -> Callable[[Any], str]:
    words = words_of(field)
    return lambda value: "" if pd.isna(value) else words.value(value)


def groups_in_order(found: pd.DataFrame, fields: Sequence[str]) -> list[pd.DataFrame]:
    """Return the rows of each strategy at each point: points in the order of the swept values, then strategies."""
    order = [pd.factorize(found[name])[0] for name in (*fields, "strategy")]  # -1: no value
    return [rows for _, rows in found.groupby(order)]


def _mean_cell(row: pd.Series[Any], unit: float) -> str:
    if math.isnan(row["mean"]):
        return "-"
    mean, spread = mean_and_spread(row["mean"] / unit, (row["high"] - row["low"]) / 2 / unit)
    missed = "" if row["num_reached"] == row["num_runs"] else f" ({row['num_reached']}/{row['num_runs']})"
    return mean + (f" ± {spread}" if spread else "") + missed


def mean_and_spread(mean: float, half_width: float) -> tuple[str, str]:
    """Format a mean and half of its interval, which is empty if it is zero or unknown.

    The mean has three digits, or fewer if the half width has two before that; the half width has as many decimals.
    """
    digits = decimals(mean)
    if not half_width > 0.0:
        return f"{mean:.{digits}f}", ""
    digits = min(digits, decimals(half_width, DIGITS_OF_SPREADS))
    spread = f"{half_width:.{digits}f}"
    return f"{mean:.{digits}f}", spread if float(spread) else f"{half_width:.{decimals(half_width, 1)}f}"


def relative_cell(row: pd.Series[Any]) -> str:
    """Format a relative difference with its interval in per cent; empty if all values are equal."""
    share, low, high = (100 * row[name] for name in ("relative_difference", "relative_low", "relative_high"))
    if math.isnan(share):
        return "-"
    if share == low == high == 0.0:
        return ""
    digits = 0 if abs(share) >= 10 else 1
    known = not math.isnan(low) and low != high
    mean, least, most = (_signed(value, digits) for value in (share, low, high))
    return mean + (f" ({least}, {most})" if known else "")


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text if text.strip("+-0.") else text[1:]  # no sign before a zero
