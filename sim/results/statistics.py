"""Statistics over replicates: means with intervals, paired differences, replicates needed.

`crossed_design` derives the intervals. Every mean is over the runs that have a value, which must be stated if
`num_reached` is less than `num_runs`: runs without one (stopped, failed, target not reached) may be the worst ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim.core.text import shortened, suggestion
from sim.results.crossed_design import SEEDS, Cells, Estimate, quantile
from sim.results.selection import by_point

METRICS = ("wall_clock_seconds", "target_reached_seconds", "final_validation_loss", "goodput")
REACHED_EVEN_IF_STOPPED = ("target_reached_seconds", "target_reached_iteration", "target_reached_usd")
CONFIDENCE = 0.95
SeedPair = tuple[int, int]  # a failure seed of the simulation, and the number of a training replicate


class Values(NamedTuple):
    """A value for each run: (runs, 2) failure and training seeds, (runs,) values, NaN if a run has none."""

    seeds: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: pd.DataFrame | Values) -> Values:
        """Convert rows with both seeds and a `value`."""
        if isinstance(rows, Values):
            return rows
        return cls(rows[SEEDS].to_numpy(dtype=np.int64), rows["value"].to_numpy(dtype=float))

    @classmethod
    def by_seeds(cls, found: Mapping[SeedPair, float]) -> Values:
        """Convert values by pairs of seeds."""
        return cls(np.array(list(found), dtype=np.int64).reshape(-1, 2), np.array(list(found.values()), dtype=float))


@dataclass(frozen=True)
class PairedDifference:
    """The difference of strategies under the same seeds: a - b, and (mean of a) / (mean of b) - 1."""

    difference: Estimate
    relative: Estimate


def estimate(values: pd.DataFrame | Values, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of values and its confidence interval. values: rows with both seeds and a `value`.

    For independent pairs of seeds it is Student's interval over the runs. If the training seed makes no difference (as
    most often to seconds), or the failure seed makes none, it is Student's over the other. ValueError if a pair of
    seeds occurs twice.
    """
    seeds, found = Values.of(values)
    cells = Cells.at(seeds, found[:, None])
    return cells.interval(cells.columns[0], confidence)


def paired_difference(
    a: pd.DataFrame | Values, b: pd.DataFrame | Values, confidence: float = CONFIDENCE
) -> PairedDifference:
    """Return the difference of `a` from `b`, both as for `estimate`, over the seeds for which both have a value.

    num_runs counts pairs of runs, num_reached those with both values. Relative: Fieller's interval of the ratio of
    means, not symmetric. Its ends are NaN if the mean of b may be 0; all of it is NaN if that mean is not positive.
    """
    a, b = Values.of(a), Values.of(b)
    places = {pair: place for place, pair in enumerate(map(tuple, b.seeds.tolist()))}
    if len(places) < len(b.seeds):
        Cells.at(b.seeds, b.values[:, None])  # raises an error that names the pair of seeds
    paired = [(ours, places[pair]) for ours, pair in enumerate(map(tuple, a.seeds.tolist())) if pair in places]
    in_a, in_b = np.array(paired, dtype=np.int64).reshape(-1, 2).T
    cells = Cells.at(a.seeds[in_a], np.column_stack((a.values[in_a], b.values[in_b])))
    ours, theirs = cells.columns
    difference = cells.interval(ours - theirs, confidence)
    if not len(ours) or theirs.mean() <= 0.0:
        return PairedDifference(difference, Estimate(math.nan, math.nan, math.nan, *cells.counts, math.nan))
    ratio, low, high = cells.ratio(ours, theirs, confidence)
    if (ours >= 0.0).all() and low < 0.0:
        low = 0.0
    training_half_width = cells.interval((ours - ratio * theirs) / theirs.mean(), confidence).training_half_width
    relative = Estimate(ratio - 1.0, low - 1.0, high - 1.0, *cells.counts, training_half_width)
    return PairedDifference(difference, relative)


def replicates_needed(estimate: Estimate, relative_half_width: float, confidence: float = CONFIDENCE) -> int | None:
    """Estimate how many more replicates make the half width at most a share of the mean; at most as many again.

    Of independent pairs of seeds, pairs; of crossed seeds, failure seeds. 0: it is small enough. 1 with fewer than two,
    since one gives no estimate of the variance. None: no number suffices, because the training seeds that failure
    seeds share alone cause more, or the mean is 0.
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
    """Return a row for each strategy, combination of its swept values and metric, from a sweep's table of runs.

    fields: columns of `runs` that are empty if they do not apply to a strategy. metrics: default: those of METRICS that
    exist. AGAINST_COLUMNS: against the strategy `reference` at the same values of the fields that concern both, over
    the seeds for which both have a value; NaN if the reference has no such point, or several. ValueError for unknown
    columns, an unknown reference, or rows that agree in strategy, fields and seeds.
    """
    metrics = [name for name in METRICS if name in runs.columns] if metrics is None else list(metrics)
    for name in ("strategy", "outcome", *SEEDS, *fields, *metrics):
        if name not in runs.columns:
            raise ValueError(f"the runs have no column '{shortened(name)}'{suggestion(name, map(str, runs.columns))}")
    known = list(dict.fromkeys(str(name) for name in runs["strategy"]))
    if reference is not None and reference not in known:
        raise ValueError(f"reference '{shortened(reference)}': no run is of it{suggestion(reference, known)}")
    points = points_of(runs, fields)
    rows = []
    for point, against in zip(points, references_of(points, reference), strict=True):
        for metric in metrics:
            values = point.values(metric)
            mean = estimate(values, confidence)
            row = {"strategy": point.strategy, **point.as_given, "metric": metric}
            row |= {name: getattr(mean, name) for name in MEAN_COLUMNS}
            if against is not None:
                found = paired_difference(values, against.values(metric), confidence)
                ends = [value for one in (found.difference, found.relative) for value in (one.mean, one.low, one.high)]
                row |= dict(zip(AGAINST_COLUMNS, (found.difference.num_reached, *ends), strict=True))
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


@dataclass(frozen=True)
class PointRuns:
    """A strategy's runs at one point. parameters: the swept values that apply to it, None for an empty one."""

    strategy: str
    parameters: dict[str, Any]
    as_given: dict[str, Any]
    runs: pd.DataFrame

    def values(self, metric: str) -> Values:
        """Return a metric's values; NaN for runs that have not finished or lack it."""
        has_value = True if metric in REACHED_EVEN_IF_STOPPED else self.is_finished
        values = self.runs[metric].to_numpy(dtype=float) if metric in self.runs else math.nan
        return Values(self.seeds, np.where(has_value, values, np.full(len(self.runs), math.nan)))

    @cached_property
    def seeds(self) -> npt.NDArray[np.int64]:
        """(runs, 2) failure and training seeds."""
        return self.runs[SEEDS].to_numpy(dtype=np.int64)

    @cached_property
    def is_finished(self) -> npt.NDArray[np.bool_]:
        """(runs,) whether each ended as finished."""
        return (self.runs["outcome"] == "finished").to_numpy(dtype=np.bool_)


def references_of(points: Sequence[PointRuns], reference: str | None) -> list[PointRuns | None]:
    """Return for each point the reference's with its values of shared fields; None if there is none, or several."""
    others = [point for point in points if point.strategy == reference]
    found: list[PointRuns | None] = []
    for _, own in groupby(points, key=lambda point: point.strategy):
        group = list(own)  # whose points have the same fields
        shared = [name for other in others[:1] for name in other.parameters if name in group[0].parameters]
        indexed: dict[tuple[Any, ...], list[PointRuns]] = {}
        for other in others:
            indexed.setdefault(tuple(other.parameters[name] for name in shared), []).append(other)
        same = [indexed.get(tuple(point.parameters[name] for name in shared), []) for point in group]
        found += [one[0] if len(one) == 1 else None for one in same]
    return found


def points_of(runs: pd.DataFrame, fields: Sequence[str]) -> list[PointRuns]:
    """Group runs by strategy and swept values, in order. A field applies to a strategy if a run of it has a value."""
    applies = runs[list(fields)].notna().groupby(runs["strategy"]).any()
    points = []
    for about, rows in by_point(runs, fields):
        as_given = {name: about[name] for name in fields}
        concerned = [name for name in fields if applies.loc[about["strategy"], name]]
        parameters = {name: None if pd.isna(as_given[name]) else as_given[name] for name in concerned}
        points.append(PointRuns(str(about["strategy"]), parameters, as_given, rows))
    return points
