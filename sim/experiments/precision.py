"""The precision of a design before it is run: half widths to expect of times and of differences between strategies.

They come from variance components of finished runs in the results folder, which may be of other seeds or designs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim.core.text import HOURS, format_number
from sim.experiments.folder import column_of, runs_table
from sim.experiments.job import SweepJob
from sim.experiments.plan import SweepRun, swept_fields
from sim.experiments.sequential import TO_END, TO_TARGET, time_metric
from sim.results.crossed_design import SEEDS, are_pairs
from sim.results.statistics import PointRuns, Values, points_of, references_of
from sim.results.storage import TABLE, read_table
from sim.results.variance_components import Components, expected_half_width
from sim.strategies import legend_label

MOST_LINES = 12

NOTES = {
    " or more": "Or more: all finished runs have one failure seed or one training seed, and the design has several.",
    " to ": "From to: finished runs do not say how much of the variation is due to failure and to training seeds.",
}
"""Explanations of words in lines on strategies."""


def precision_lines(job: SweepJob, runs: Sequence[SweepRun]) -> list[str]:
    """Sentences on the intervals that runs let expect. Nothing is written."""
    seeds = np.array(list(dict.fromkeys((run.failure_seed, run.training_seed) for run in runs)), dtype=np.int64)
    if len(seeds) < 2:
        more = "seeds.failures and seeds.training" if job.folder.made_for == "run" else "sweep.replicates"
        return [f"One replicate has no interval: give {more}, for 3 or more."]
    lines = known_precision(job, runs, time_metric(job))
    return [
        *lines,
        *([] if lines else ["Intervals: their width is unknown until some runs are finished."]),
        in_deviations(seeds),
    ]


def in_deviations(seeds: npt.NDArray[np.int64]) -> str:
    """The half width of a design in standard deviations of a run, and that of other replicates."""
    num_failure, num_training = (len(np.unique(seeds[:, axis])) for axis in (0, 1))
    if are_pairs(len(seeds), num_failure, num_training) or 1 in (num_failure, num_training):
        number = len(seeds)
        more = format_number(expected_half_width(pairs(2 * number), (0.0, 0.0, 1.0)))
        kind = "" if min(num_failure, num_training) > 1 else "training" if num_training == 1 else "failure"
        condition = f" under that {kind} seed" if kind else ""
        wide = format_number(expected_half_width(pairs(number), (0.0, 0.0, 1.0)))
        return (
            f"With {number} replicates, a 95 % interval is ± {wide} standard deviations of a run{condition}; with "
            f"{2 * number}, ± {more}."
        )
    by_failure, by_training = (expected_half_width(seeds, only) for only in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    as_pairs = expected_half_width(pairs(len(seeds)), (0.0, 0.0, 1.0))
    return (
        f"With {num_failure} failure seeds crossed with {num_training} training seeds, a 95 % interval is "
        f"± {format_number(by_failure)} standard deviations of a run if only failure seeds matter, "
        f"± {format_number(by_training)} if only training seeds do; with {len(seeds)} independent pairs, "
        f"± {format_number(as_pairs)}."
    )


def pairs(number: int) -> npt.NDArray[np.int64]:
    """Seeds of so many independent pairs."""
    return np.column_stack([np.arange(number, dtype=np.int64)] * 2)


def known_precision(job: SweepJob, runs: Sequence[SweepRun], metric: str) -> list[str]:
    """A line for each strategy at each point of which several runs are finished, after a heading; none without."""
    known, fields = finished_runs(job, runs), swept_fields(runs)
    if metric not in known or known[metric].notna().sum() < 2:
        return []
    planned = pd.DataFrame([run.identity for run in runs])
    swept = {name: column_of([run.parameters.get(name) for run in runs]) for name in fields}
    planned = pd.concat([planned, pd.DataFrame(swept, index=planned.index)], axis=1)
    columns = ["strategy", *SEEDS, *fields, "outcome", metric]
    frame = pd.concat([known[columns].assign(is_planned=False), planned.assign(is_planned=True)], ignore_index=True)
    points = [point for point in points_of(frame, fields) if point.runs["is_planned"].any()]
    pairs_of_points = zip(points, references_of(points, runs[0].strategy.name), strict=True)
    all_lines = (line_on(point, first, metric) for point, first in pairs_of_points)
    lines = list(islice(filter(None, all_lines), MOST_LINES))
    if not lines:
        return []
    more = ["  ..."] if len(lines) == MOST_LINES < len(points) else []
    what = "time to the target loss" if metric == TO_TARGET else "time to the end"
    heading = f"95 % intervals to expect, from {known[metric].notna().sum():,} finished runs, of the {what}:"
    notes = [note for words, note in NOTES.items() if any(words in line for line in lines)]
    return [heading, *lines, *more, *notes]


def finished_runs(job: SweepJob, runs: Sequence[SweepRun]) -> pd.DataFrame:
    """The table of finished runs among these, and of others that the folder's table has under other seeds."""
    found, fields = runs_table(job.folder.folder, runs), swept_fields(runs)
    path = job.folder.folder / TABLE
    if path.is_file() and job.folder.made_for != "run":
        with suppress(ValueError):  # damaged, or of another sweep
            others = read_table(path, ("strategy", "outcome", *SEEDS, *fields))
            found = pd.concat([found, others], ignore_index=True)
    if found.empty:
        return found
    return found[found["outcome"] != "failed"].drop_duplicates(["strategy", *fields, *SEEDS])


def line_on(point: PointRuns, first: PointRuns | None, metric: str) -> str:
    """What is to be expected of a strategy; empty if nothing is known of it."""
    own, planned = known_values(point, metric), planned_seeds(point, metric)
    components = Components.of(own)
    if not components.is_known:
        return ""
    where = ", ".join(f"{name}={value}" for name, value in point.parameters.items() if value is not None)
    mean = HOURS.of(float(np.nanmean(own.values)))
    line = f"  {legend_label(point.strategy)}{f' at {where}' if where else ''}: {mean} {width(components, planned)}"
    if first is None or first.strategy == point.strategy:
        return line
    difference = Components.of(differences(own, known_values(first, metric)))
    if not difference.is_known:
        return line
    return f"{line}; difference from {legend_label(first.strategy)} {width(difference, planned)}"


def differences(a: Values, b: Values) -> Values:
    """Differences of values under equal seeds."""
    own, other = (dict(zip(map(tuple, each.seeds.tolist()), each.values, strict=True)) for each in (a, b))
    return Values.by_seeds({seeds: value - other[seeds] for seeds, value in own.items() if seeds in other})


def known_values(point: PointRuns, metric: str) -> Values:
    """Values of finished runs; the time to the end does not depend on the training seed."""
    seeds, values = point.values(metric)
    there = ~(point.runs["is_planned"].to_numpy(dtype=bool) | np.isnan(values))
    seeds, values = seeds[there], values[there]
    if metric == TO_END:
        kept = np.unique(seeds[:, 0], return_index=True)[1]
        return Values(seeds[kept][:, [0, 0]], values[kept])
    return Values(seeds, values)


def planned_seeds(point: PointRuns, metric: str) -> npt.NDArray[np.int64]:
    """The seeds of planned runs."""
    seeds = point.seeds[point.runs["is_planned"].to_numpy(dtype=bool)]
    return np.unique(seeds[:, [0, 0]], axis=0) if metric == TO_END else seeds


def width(components: Components, seeds: npt.NDArray[np.int64]) -> str:
    """The half width to expect, in hours."""
    low, high = components.expected(seeds)
    if math.isnan(low):
        return "(one run, no interval)"
    if math.isinf(high):
        return f"± {HOURS.of(low)} or more"
    if high <= 1.05 * low or high == 0.0:
        return f"± {HOURS.of(high)}"
    return f"± {HOURS.between(low, high)}"
