"""Limits of axes: one rule for figures and for the charts of the HTML report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Limits = tuple[float, float]

SHARE_AT_START = 0.04
"""Losses in this share of the iterations, the first, do not count: they would fill the panel."""

ROOM_FOR_INTERVALS = 0.75
"""Intervals widen the axis by at most this share of the range of the means, at each end; longer ones are cut."""

ROOM_ABOVE = 1.05


def loss_limits(curves: pd.DataFrame) -> Limits:
    """Return limits of a loss axis: from below the lowest loss to above the highest one after the start.

    curves: `sim.results.loss_curves.loss_curves` against iteration. Means and ranges over runs count.
    """
    later = curves[curves["iteration"] >= SHARE_AT_START * curves["iteration"].max()]
    losses = finite(later[["loss_nats", "low_loss_nats", "high_loss_nats"]])
    if not losses.size:
        return 0.0, 1.0
    low, high = float(losses.min()), float(losses.max())
    span = max(high - low, 1e-3)
    return low - 0.05 * span, high + 0.02 * span


def value_limits(table: pd.DataFrame, *units: str) -> Limits:
    """Return limits, at least 0, that show all means, and intervals as far as the means stay apart.

    table: columns `mean_`, `low_` and `high_` of each unit.
    """
    means, lows, highs = (finite(table[[f"{part}_{unit}" for unit in units]]) for part in ("mean", "low", "high"))
    if not means.size:
        return 0.0, 1.0
    span = max(np.ptp(means), 0.05 * means.max())
    low = max(lows.min(initial=means.min()), means.min() - ROOM_FOR_INTERVALS * span)
    high = min(highs.max(initial=means.max()), means.max() + ROOM_FOR_INTERVALS * span)
    return max(float(low - 0.08 * span), 0.0), float(high + 0.08 * span)


def limits_from_zero(largest: float, room: float = ROOM_ABOVE) -> Limits:
    """Return limits from 0 to above the largest value."""
    return 0.0, room * largest or 1.0


def finite(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return all finite numbers of a table in one row."""
    values: npt.NDArray[np.float64] = table.to_numpy(float)
    return values[np.isfinite(values)]
