"""Tables as the rows of charts: thinned, rounded, with the groups that the page's controls choose from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sim.loss_figures import SHARE_AT_START
from sim.page_source import Source
from sim.page_vega import Rows

SIGNIFICANT_DIGITS = 6


def loss_limits(curves: pd.DataFrame, num_iterations: int) -> tuple[float, float]:
    """Limits of the loss axis: from below the lowest loss to the highest soon after the start."""
    later = curves[curves["iteration"] >= SHARE_AT_START * num_iterations]
    rows = curves if later.empty else later
    losses = rows[["loss_nats", "low_loss_nats", "high_loss_nats"]].to_numpy(float)
    low, high = float(np.nanmin(losses)), float(np.nanmax(losses))
    span = max(high - low, 1e-3)
    return rounded(low - 0.05 * span), rounded(high + 0.02 * span)


def thin(rows: pd.DataFrame, source: Source, most: int) -> pd.DataFrame:
    """No more rows than this of each group, evenly chosen; first and last, and those at a gap, stay."""
    numbers = np.array([source.groups[key].number for key in source.keys(rows)], dtype=int)
    kept = []
    for number in dict.fromkeys(numbers):
        own = rows[numbers == number]
        if len(own) > most:
            chosen = set(np.linspace(0, len(own) - 1, most).round().astype(int).tolist())
            gaps = np.flatnonzero(own["loss_nats"].isna()) if "loss_nats" in own else np.array([], dtype=int)
            if len(gaps) < most:
                chosen |= {place for gap in gaps.tolist() for place in (gap - 1, gap, gap + 1) if 0 <= place < len(own)}
            own = own.iloc[sorted(chosen)]
        kept.append(own)
    return pd.concat(kept) if kept else rows


def rows_of(table: pd.DataFrame, source: Source, names: dict[str, str]) -> Rows:
    """A table's columns under other names as rows, with group, strategy and, where they have none, `order`."""
    groups = [source.groups[key] for key in source.keys(table)]
    columns = {new: [plain(value) for value in table[old]] for old, new in names.items()}
    columns |= {"group": [group.number for group in groups], "strategy": [group.strategy for group in groups]}
    columns.setdefault("order", list(range(len(table))))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, numbers no longer than anybody can see."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() else rounded(value)


def rounded(value: float) -> float:
    """To a few digits."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def in_columns(rows: Rows) -> dict[str, list[Any]]:
    """Rows that have the same fields as columns: a third of the bytes."""
    return {field: [row[field] for row in rows] for field in rows[0]} if rows else {}
