"""Sequential stopping rule: replicates are added to each point until its intervals are narrow enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from sim.core.text import format_count, shortened
from sim.experiments.job import SweepJob
from sim.experiments.plan import swept_fields
from sim.results.crossed_design import Estimate
from sim.results.statistics import PointRuns, estimate, points_of, replicates_needed

TO_TARGET, TO_END = "target_reached_seconds", "wall_clock_seconds"


def parse_share(text: str) -> float:
    """The value of `--until-ci`: '5%' or '0.05' is 0.05. ValueError for anything else."""
    number = text.strip().removesuffix("%").strip()
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise ValueError(f"--until-ci {shortened(text)}: give a share of the mean between 0 and 1, such as 5% or 0.05")
    return share


def narrow_intervals(job: SweepJob, share: float, most: int, force: bool, note: Callable[[str], None]) -> None:
    """Add replicates, the same for all strategies of a point, until each strategy's interval is within the share.

    These are pairs of seeds, or failure seeds where seeds are crossed. It is the interval of the time to the target
    loss, or to the end where there is no target. No point gets more than `most`. Notes what is added and, in the end,
    which intervals stay wider, and why.
    """
    metric = time_metric(job)
    while True:
        groups = points_of(job.table, swept_fields(job.runs))
        wanted = seeds_wanted(groups, metric, share, [len(point.scenario.seeds.failures) for point in job.points], most)
        if not wanted:
            break
        added = job.add_replicates(wanted)
        to_do = [run for run in added if force or not run.is_finished]
        points = format_count(len(wanted), "point")
        note(f"Intervals wider than {100 * share:g} % at {points}: {len(added):,} runs more, {len(to_do):,} to do.")
        job.do(to_do)
    for line in too_wide(groups, metric, share):
        note(line)


def time_metric(job: SweepJob) -> str:
    """The column of the time to the target loss, or to the end where some point has no target."""
    trainings = [point.scenario.training for point in job.points]
    has_target = all(each.target_validation_loss is not None and each.learner != "none" for each in trainings)
    return TO_TARGET if has_target else TO_END


def seeds_wanted(
    groups: Sequence[PointRuns], metric: str, share: float, num_seeds: Sequence[int], most: int
) -> dict[int, int]:
    """The number of replicates to add to each point, by its number; num_seeds: failure seeds that it has.

    Runs that points share, where these differ in fields of other strategies alone, are the first point's. If seeds have
    been added to another of these points, it gets the next ones too.
    """
    wanted: dict[int, int] = {}
    for group in groups:
        _, more = seeds_missing(group, metric, share)
        if not more:
            continue
        point = max(map(int, group.runs["point"].unique()), key=lambda number: num_seeds[number])
        allowed = most - num_seeds[point]
        if allowed > 0:
            wanted[point] = max(wanted.get(point, 0), min(more, allowed))
    return wanted


def seeds_missing(group: PointRuns, metric: str, share: float) -> tuple[Estimate, int | None]:
    """The estimate of a group's mean, and the number of replicates it likely lacks; None where none suffices."""
    found = estimate(group.values(metric))
    return found, replicates_needed(found, share) if found.num_reached else None


def too_wide(groups: Sequence[PointRuns], metric: str, share: float) -> list[str]:
    """A line for each interval that stays wider, with the reason."""
    lines = []
    for group in groups:
        found, more = seeds_missing(group, metric, share)
        if more == 0:
            continue
        where = ", ".join(f"{name}={value}" for name, value in group.as_given.items() if not pd.isna(value))
        if found.num_reached < 2:
            why = "one run alone has a value" if found.num_reached else "no run has a value"
        elif math.isnan(found.half_width):
            why = "its runs have one failure seed alone, and training seeds make no difference"
        elif more is None:
            why = "training seeds make more than that: add to sweep.training_replicates, or leave it out for pairs"
        else:
            width = f"± {found.half_width / abs(found.mean):.1%}"
            seeds = "replicates" if found.is_of_pairs else "failure seeds"
            why = f"still {width} with {found.num_failure_seeds} {seeds} (--max-replicates)"
        lines.append(f"{group.strategy}{f' at {where}' if where else ''}, {metric}: {why}")
    return lines
