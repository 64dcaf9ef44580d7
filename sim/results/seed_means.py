"""Means over training seeds of what each seed gives as a mean over other things: failures, stages, steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sim.results.crossed_design import Estimate
from sim.results.statistics import Values, estimate


def means_over_seeds(table: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean, `low` and `high` of the 95 % t interval over training seeds, and `num_seeds`, in each group."""
    keys = list(by)
    of_seeds = table.groupby([*keys, "training_seed"], sort=False)[value].agg(lambda found: found.mean(skipna=False))
    rows: list[dict[str, Any]] = []
    for group, values in of_seeds.groupby(level=keys, sort=False):
        found = estimate_over_seeds(values.index.get_level_values("training_seed").to_numpy(), values.to_numpy())
        names = group if isinstance(group, tuple) else (group,)
        ends = {"mean": found.mean, "low": found.low, "high": found.high, "num_seeds": found.num_reached}
        rows.append(dict(zip(keys, names, strict=True)) | ends)
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "num_seeds"])


def estimate_over_seeds(seeds: Any, values: Any) -> Estimate:
    """Mean of a value of each training seed, and its t interval."""
    pairs = np.column_stack((np.zeros(len(seeds), dtype=np.int64), np.asarray(seeds, dtype=np.int64)))
    return estimate(Values(pairs, np.asarray(values, dtype=float)))
