"""How many iterations a strategy takes to the target loss, by how often stages are lost: learnt from real runs.

A strategy whose recoveries change weights needs more iterations the more failures it meets per iteration. That number
is all that seconds, links and rates of a cell have to do with learning; so real runs at a few cells (knots) tell the
others by interpolation, under each pair of seeds by itself. Pairs of seeds keep their luck from knot to knot, since a
higher rate brings the same failures sooner.

Assumed: failures strike the same stages, and come as evenly, in all cells.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

Seeds = tuple[int, int]
"""Failure seed, training seed."""


@dataclass(frozen=True)
class SamplePoint:
    """Real runs of a strategy at one cell.

    iterations: to the target, by pair of seeds; NaN where it was not reached in `most_iterations`.
    """

    failures_per_iteration: float
    iterations: Mapping[Seeds, float]
    most_iterations: int


@dataclass(frozen=True)
class IterationsToTarget:
    """Iterations to the target by failures per iteration, through the knots, the first of which is free of failures.

    most_iterations: a target that takes more counts as missed. is_flat: recoveries never change weights, so that it
    takes the same everywhere.
    """

    knots: tuple[SamplePoint, ...]
    most_iterations: float
    is_flat: bool = False

    def __post_init__(self) -> None:
        """Knots ascend from 0."""
        rates = [knot.failures_per_iteration for knot in self.knots]
        assert rates[0] == 0.0, "the first knot is free of failures"
        assert all(low < high for low, high in pairwise(rates)), rates

    def iterations_at(self, failures_per_iteration: float) -> dict[Seeds, float]:
        """Iterations to the target for each pair of seeds; NaN where it is missed.

        Between two knots in a straight line; from the last knot that reaches it towards the first that misses it, up to
        the iterations that were given there, and missed from that knot on. Beyond the last of all along the line from
        the first.
        """
        return {seeds: self._at(failures_per_iteration, seeds) for seeds in self.knots[0].iterations}

    def _at(self, rate: float, seeds: Seeds) -> float:
        if self.is_flat:
            return self.knots[0].iterations[seeds]
        before = (0.0, self.knots[0].iterations[seeds])
        for knot in self.knots:
            here, is_missed = knot.iterations[seeds], math.isnan(knot.iterations[seeds])
            if is_missed and rate >= knot.failures_per_iteration:
                return math.nan
            if rate <= knot.failures_per_iteration:
                end = float(knot.most_iterations) if is_missed else here
                return between(before, (knot.failures_per_iteration, end), rate)
            before = (knot.failures_per_iteration, here)
        found = between((0.0, self.knots[0].iterations[seeds]), before, rate) if before[0] else math.nan
        return found if found <= self.most_iterations else math.nan

    def error_at(self, failures_per_iteration: float) -> float:
        """How far off reading between knots may be, as a share of the mean: nothing at a knot where all runs reach it.

        Between two such knots as a straight line errs, most halfway: by what the worst knot is off, told from the
        others, but by no more than half of what failures add there, which alone counts where knots are too few. Beyond
        the last one by up to that half, from one and a half times its rate on.
        """
        if self.is_flat:
            return 0.0
        free, here = mean(self.iterations_at(0.0)), mean(self.iterations_at(failures_per_iteration))
        half = abs(here / free - 1.0) / 2 if not math.isnan(here) else 0.0
        known = [knot.failures_per_iteration for knot in self.knots if not math.isnan(mean(knot.iterations))]
        errors = [error for number in range(1, len(self.knots) - 1) if (error := self._error_of(number)) is not None]
        for low, high in pairwise(known):
            if low <= failures_per_iteration <= high:
                u = (failures_per_iteration - low) / (high - low)
                return min(max(errors, default=math.inf), half) * 4 * u * (1 - u)
        last = known[-1] if known else 0.0
        return half * (min(1.0, 2 * (failures_per_iteration / last - 1.0)) if last else 1.0)

    def _error_of(self, number: int) -> float | None:
        """How far a knot's mean is from what the others tell; None where that cannot be told."""
        left_out = self.knots[number]
        others = IterationsToTarget(self.knots[:number] + self.knots[number + 1 :], self.most_iterations)
        told, true = mean(others.iterations_at(left_out.failures_per_iteration)), mean(left_out.iterations)
        return None if math.isnan(told / true) else abs(told / true - 1.0)


def between(first: tuple[float, float], last: tuple[float, float], x: float) -> float:
    """On the straight line through two points, or beyond them."""
    (x0, y0), (x1, y1) = first, last
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def mean(iterations: Mapping[Seeds, float]) -> float:
    """Over all pairs of seeds; NaN where one has no value."""
    return math.fsum(iterations.values()) / len(iterations)


def next_knot(rates: Collection[float], tried: Mapping[float, bool], num_knots: int) -> float | None:
    """The rate, of those there are, at which real runs tell most next; None when all that are to be are done.

    tried: rates that have been run, and whether all runs came to the target there. From low to high, more closely
    where failures are few, as most cells are; once the target is missed, halfway between that and the last success.
    """
    if len(tried) >= num_knots:
        return None
    low = max((rate for rate, is_reached in tried.items() if is_reached), default=0.0)
    high = min((rate for rate, is_reached in tried.items() if not is_reached), default=None)
    able = [rate for rate in rates if low < rate and (high is None or rate < high)]
    if not able:
        return None
    goal = max(rates) * ((len(tried) + 1) / num_knots) ** 2 if high is None else (low + high) / 2
    return min(able, key=lambda rate: (abs(rate - goal), rate))
