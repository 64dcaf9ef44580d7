"""What a sweep's runs tell: means with intervals, strategies compared under the same churn, replicates still needed.

How means get their intervals, and from which textbooks, is told in sim/results/crossed_design.py.

Not modelled: that runs without a value (stopped, failed, target never reached) may be the worst ones. Every mean is
over the runs that have one: a conditional mean wherever `num_reached` is less than `num_runs`, to be said beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim.core.text import shortened, suggestion
from sim.results.crossed_design import SEEDS, Cells, Counts, Interval, quantile

METRICS = ("wall_clock_seconds", "target_reached_seconds", "final_validation_loss", "goodput")

REACHED_EVEN_IF_STOPPED = ("target_reached_seconds", "target_reached_iteration", "target_reached_usd")

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over runs and its interval; NaN where there is nothing to tell it from.

    num_runs: all runs asked; num_reached: those that have a value, which alone mean and interval speak of.
    num_failure_seeds, num_training_seeds: different seeds among those. With one training seed the interval is given
    that seed, with one failure seed given that churn; of one replicate there is none (low and high are NaN).
    training_half_width: the part of the half width that training seeds make, which more failure seeds do not shrink.
    """

    mean: float
    low: float
    high: float
    num_runs: int
    num_reached: int
    num_failure_seeds: int
    num_training_seeds: int
    training_half_width: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    @classmethod
    def around(cls, interval: Interval, counts: Counts) -> Estimate:
        """A mean with an interval that reaches equally far up and down."""
        mean, half_width, training_half_width = interval
        return cls(mean, mean - half_width, mean + half_width, *counts, training_half_width)


class Values(NamedTuple):
    """A value a run: (runs, 2) failure and training seeds, (runs,) values, NaN where a run has none."""

    seeds: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Values:
        """Of rows with both seeds and a `value`."""
        return cls(rows[SEEDS].to_numpy(dtype=np.int64), rows["value"].to_numpy(dtype=float))


@dataclass(frozen=True)
class PairedDifference:
    """How strategies differ under the same seeds: a - b, and (mean of a) / (mean of b) - 1."""

    difference: Estimate
    relative: Estimate


def estimate(values: pd.DataFrame, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of column `value` over rows with `failure_seed` and `training_seed`, and its interval.

    Where the training seed makes no difference (most often to seconds), runs of one failure seed are one replicate: a
    plain t interval over failure seeds. Likewise where the failure seed makes none. ValueError where a pair of seeds
    comes twice.
    """
    return estimate_at(Values.of(values), confidence)


def estimate_at(values: Values, confidence: float = CONFIDENCE) -> Estimate:
    """The same from arrays."""
    cells = Cells.at(values.seeds, values.values[:, None])
    return Estimate.around(cells.interval(cells.columns[0], confidence), cells.counts)


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, confidence: float = CONFIDENCE) -> PairedDifference:
    """How `a` differs from `b`, both as for `estimate`, over the seeds of which both have a value.

    num_runs counts pairs of runs, num_reached those with both values. Relative: Fieller's interval of the ratio of
    means, not symmetric; that of b against a is its inverse. Its low and high are NaN where b varies so much, over so
    few seeds, that its mean may be 0; all of it where that mean is not positive: a share of it says nothing.
    """
    return paired_difference_at(Values.of(a), Values.of(b), confidence)


def paired_difference_at(a: Values, b: Values, confidence: float = CONFIDENCE) -> PairedDifference:
    """The same from arrays."""
    places = {pair: place for place, pair in enumerate(map(tuple, b.seeds.tolist()))}
    if len(places) < len(b.seeds):
        Cells.at(b.seeds, b.values[:, None])  # says which pair of seeds comes twice
    paired = [(ours, places[pair]) for ours, pair in enumerate(map(tuple, a.seeds.tolist())) if pair in places]
    in_a, in_b = np.array(paired, dtype=np.int64).reshape(-1, 2).T
    cells = Cells.at(a.seeds[in_a], np.column_stack((a.values[in_a], b.values[in_b])))
    ours, theirs = cells.columns
    difference = Estimate.around(cells.interval(ours - theirs, confidence), cells.counts)
    if not len(ours) or theirs.mean() <= 0.0:
        return PairedDifference(difference, Estimate.around(Interval(math.nan, math.nan, math.nan), cells.counts))
    ratio, low, high = cells.ratio(ours, theirs, confidence)
    if (ours >= 0.0).all() and low < 0.0:
        low = 0.0
    training_half_width = cells.interval((ours - ratio * theirs) / theirs.mean(), confidence).training_half_width
    relative = Estimate(ratio - 1.0, low - 1.0, high - 1.0, *cells.counts, training_half_width)
    return PairedDifference(difference, relative)


def replicates_needed(estimate: Estimate, relative_half_width: float, confidence: float = CONFIDENCE) -> int | None:
    """How many more failure seeds likely make the half width at most this share of the mean, at most doubling them.

    0: it is small enough. 1 where there are fewer than two failure seeds, since one churn says nothing of others. None:
    no number of failure seeds will do, since the training seeds make more than that by themselves, or the mean is 0.
    """
    if not relative_half_width > 0.0:
        raise ValueError(f"relative half width {relative_half_width}: must be more than 0")
    now = estimate.num_failure_seeds
    if now < 2:
        return 1
    goal = relative_half_width * abs(estimate.mean)
    if estimate.half_width <= goal:
        return 0
    if goal <= estimate.training_half_width:
        return None
    fixed = estimate.training_half_width**2
    numbers = np.arange(now + 1, 2 * now + 1)
    shrunk = now / numbers * (quantile(numbers - 1, confidence) / quantile(now - 1, confidence)) ** 2
    enough = numbers[fixed + (estimate.half_width**2 - fixed) * shrunk <= goal**2]
    return int(enough[0]) - now if len(enough) else now


def summary(
    runs: pd.DataFrame,
    fields: Sequence[str],
    metrics: Sequence[str] | None = None,
    reference: str | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """A row for each strategy, each combination of its swept values and each metric, from a sweep's table of runs.

    fields: the swept fields, columns of `runs` that are empty where they do not concern a strategy. metrics: columns of
    numbers; by default those of METRICS that there are. Columns: strategy, the fields, metric, mean, low, high,
    num_runs, num_reached (runs with a value: finished ones; of target_reached_* all that reached it),
    num_failure_seeds, num_training_seeds. Then against the strategy `reference` at the same values of the fields that
    concern both, over the seeds for which both have a value: num_paired, difference, difference_low, difference_high,
    relative_difference, relative_low, relative_high; NaN where the reference has no such point, or several (a field
    that concerns it alone has several values).

    ValueError for unknown columns, an unknown reference, or rows that agree in strategy, fields and seeds.
    """
    metrics = [name for name in METRICS if name in runs.columns] if metrics is None else list(metrics)
    for name in ("strategy", "outcome", *SEEDS, *fields, *metrics):
        if name not in runs.columns:
            raise ValueError(f"the runs have no column '{shortened(name)}'{suggestion(name, map(str, runs.columns))}")
    known = list(dict.fromkeys(str(name) for name in runs["strategy"]))
    if reference is not None and reference not in known:
        raise ValueError(f"reference '{shortened(reference)}': no run is of it{suggestion(reference, known)}")
    points = points_of(runs, fields)
    others = References([point for point in points if point.strategy == reference])
    rows = []
    for point in points:
        against = others.of(point)
        for metric in metrics:
            values = point.values(metric)
            row = {"strategy": point.strategy, **point.as_given, "metric": metric}
            row |= columns_of(estimate_at(values, confidence))
            if against is not None:
                row |= columns_against(paired_difference_at(values, against.values(metric), confidence))
            rows.append(row)
    return pd.DataFrame(rows, columns=["strategy", *fields, "metric", *MEAN_COLUMNS, *AGAINST_COLUMNS])


MEAN_COLUMNS = ("mean", "low", "high", "num_runs", "num_reached", "num_failure_seeds", "num_training_seeds")

AGAINST_COLUMNS = (
    "num_paired",
    "difference",
    "difference_low",
    "difference_high",
    "relative_difference",
    "relative_low",
    "relative_high",
)


def columns_of(found: Estimate) -> dict[str, float]:
    """An estimate as columns."""
    return {name: getattr(found, name) for name in MEAN_COLUMNS}


def columns_against(found: PairedDifference) -> dict[str, float]:
    """A paired difference as columns."""
    difference, relative = found.difference, found.relative
    numbers = (
        difference.num_reached,
        *(difference.mean, difference.low, difference.high),
        *(relative.mean, relative.low, relative.high),
    )
    return dict(zip(AGAINST_COLUMNS, numbers, strict=True))


@dataclass(frozen=True)
class PointRuns:
    """A strategy's runs at one point. parameters: the swept values that concern it, None for an empty one."""

    strategy: str
    parameters: dict[str, Any]
    as_given: dict[str, Any]
    runs: pd.DataFrame

    def values(self, metric: str) -> Values:
        """A metric's values: of finished runs, since others ended for another reason; NaN where it is unknown."""
        if metric not in self.runs:
            return Values(self.seeds, np.full(len(self.runs), math.nan))
        values = self.runs[metric].to_numpy(dtype=float)
        if metric not in REACHED_EVEN_IF_STOPPED:
            values = np.where(self.is_finished, values, math.nan)
        return Values(self.seeds, values)

    @cached_property
    def seeds(self) -> npt.NDArray[np.int64]:
        """(runs, 2) failure and training seeds."""
        return np.column_stack([self.runs[name].to_numpy(dtype=np.int64) for name in SEEDS])

    @cached_property
    def is_finished(self) -> npt.NDArray[np.bool_]:
        """(runs,) whether each ended as finished."""
        return np.array([outcome == "finished" for outcome in self.runs["outcome"]], dtype=np.bool_)


class References:
    """The reference's runs at its points, found by the values of the fields that concern it and others."""

    def __init__(self, points: Sequence[PointRuns]) -> None:
        self._points = points
        self._by_fields: dict[tuple[str, ...], dict[tuple[Any, ...], list[PointRuns]]] = {}

    def of(self, point: PointRuns) -> PointRuns | None:
        """The one point of the reference whose shared values are a point's; None where there is none, or several."""
        if not self._points:
            return None
        shared = tuple(name for name in self._points[0].parameters if name in point.parameters)
        if shared not in self._by_fields:
            table: dict[tuple[Any, ...], list[PointRuns]] = {}
            for other in self._points:
                table.setdefault(tuple(other.parameters[name] for name in shared), []).append(other)
            self._by_fields[shared] = table
        found = self._by_fields[shared].get(tuple(point.parameters[name] for name in shared), [])
        return found[0] if len(found) == 1 else None


def points_of(runs: pd.DataFrame, fields: Sequence[str]) -> list[PointRuns]:
    """The runs by strategy and swept values, in their order. A field concerns a strategy if a run of it has a value."""
    points = []
    for strategy, own in runs.groupby("strategy", sort=False):
        concerned = [name for name in fields if own[name].notna().any()]
        groups = own.groupby(concerned, sort=False, dropna=False) if concerned else [((), own)]
        for _, rows in groups:
            as_given = {name: rows[name].iloc[0] for name in fields}  # each alone: a row of all makes floats of ints
            parameters = {name: None if pd.isna(as_given[name]) else as_given[name] for name in concerned}
            points.append(PointRuns(str(strategy), parameters, as_given, rows))
    return points
