"""Sequential stopping rule: how many more failure seeds each point needs until its intervals are narrow enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from sim.core.text import shortened
from sim.results.statistics import Estimate, PointRuns, estimate, replicates_needed
from sim.scenario.scenario import Scenario


def share_of(text: str) -> float:
    """What `--until-ci` gives: '5%' or '0.05' is 0.05. ValueError for anything else."""
    number = text.strip().removesuffix("%").strip()
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise ValueError(f"--until-ci {shortened(text)}: give a share of the mean between 0 and 1, such as 5% or 0.05")
    return share


def metric_of(scenarios: Sequence[Scenario]) -> str:
    """The metric whose intervals are narrowed: the time to the target loss; to the end where there is no target."""
    has_target = all(scenario.training.target_validation_loss is not None for scenario in scenarios)
    learns = all(scenario.training.learner != "none" for scenario in scenarios)
    return "target_reached_seconds" if has_target and learns else "wall_clock_seconds"


def seeds_wanted(
    groups: Sequence[PointRuns], metric: str, share: float, seeds: Sequence[Sequence[int]], most: int
) -> dict[int, int]:
    """How many failure seeds more each point needs, by its number; seeds: those that it has.

    Runs that points share, since the points differ in what concerns other strategies alone, are the first point's; but
    they may have been added to another: that one goes on then.
    """
    wanted: dict[int, int] = {}
    for group in groups:
        _, more = seeds_missing(group, metric, share)
        if not more:
            continue
        point = max(map(int, group.runs["point"].unique()), key=lambda number: len(seeds[number]))
        allowed = most - len(seeds[point])
        if allowed > 0:
            wanted[point] = max(wanted.get(point, 0), min(more, allowed))
    return wanted


def seeds_missing(group: PointRuns, metric: str, share: float) -> tuple[Estimate, int | None]:
    """What is known of a group's mean, and how many seeds more it likely takes; None where no number of them helps."""
    found = estimate(group.values(metric))
    return found, replicates_needed(found, share) if found.num_reached else None


def too_wide(groups: Sequence[PointRuns], metric: str, share: float) -> list[str]:
    """What stays wider than wished, and why, a line each."""
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
            why = "training seeds make more than that: add to sweep.training_replicates"
        else:
            width = f"± {found.half_width / abs(found.mean):.1%}"
            why = f"still {width} with {found.num_failure_seeds} failure seeds (--max-replicates)"
        lines.append(f"{group.strategy}{f' at {where}' if where else ''}, {metric}: {why}")
    return lines
