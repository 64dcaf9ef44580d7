"""Iterations to the target loss by failure rate, interpolated between trained runs.

If a strategy's recoveries change weights, the iterations depend on the seconds, links and rates of a cell through the
failures per iteration alone. So they are interpolated between trained runs at a few cells, the sample points, for each
pair of seeds: a higher rate brings the same failures sooner. Assumed: failures hit the same stages, and are spread as
evenly over time, in all cells.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sim.results.healing import Rebuilt

Seeds = tuple[int, int]
"""Failure seed, training seed."""


@dataclass(frozen=True)
class SamplePoint:
    """Trained runs at one cell. iterations: to the target, by seeds; NaN where not reached in `most_iterations`."""

    failures_per_iteration: float
    iterations: Mapping[Seeds, float]
    most_iterations: int


@dataclass(frozen=True)
class IterationsToTarget:
    """Iterations to the target by failures per iteration, through sample points of which the first has no failures.

    most_iterations: a target that takes more is missed. is_flat: recoveries never change weights, so all are equal.
    """

    samples: tuple[SamplePoint, ...]
    most_iterations: float
    is_flat: bool = False

    def __post_init__(self) -> None:
        """Check that sample points ascend from 0."""
        rates = [sample.failures_per_iteration for sample in self.samples]
        assert rates[0] == 0.0, "the first sample point has no failures"
        assert all(low < high for low, high in pairwise(rates)), rates

    @property
    def without(self) -> Mapping[Seeds, float]:
        """Iterations without failures, by seeds."""
        return self.samples[0].iterations

    def of_run(self, failures_per_iteration: float, rebuilt: Sequence[Rebuilt]) -> tuple[float, ...]:  # noqa: ARG002
        """Iterations of a run by training replicate: by failure seed, or the mean of each of several training seeds.

        Runs of one training seed under several failure seeds are not independent, those of several training seeds are.
        """
        return replicates(self.iterations_at(failures_per_iteration))

    def error(self, failures_per_iteration: float, iterations: float) -> float:  # noqa: ARG002
        """The possible error of the interpolation, as `error_at`."""
        return self.error_at(failures_per_iteration)

    def iterations_at(self, failures_per_iteration: float) -> dict[Seeds, float]:
        """Iterations to the target for each pair of seeds; NaN where it is missed.

        Linear between sample points; the first one that misses the target counts with its most iterations, and from
        there on it is missed. Beyond the last one, along the line from the first.
        """
        return {seeds: self._at(failures_per_iteration, seeds) for seeds in self.samples[0].iterations}

    def _at(self, rate: float, seeds: Seeds) -> float:
        if self.is_flat:
            return self.samples[0].iterations[seeds]
        before = (0.0, self.samples[0].iterations[seeds])
        for sample in self.samples:
            here, is_missed = sample.iterations[seeds], math.isnan(sample.iterations[seeds])
            if is_missed and rate >= sample.failures_per_iteration:
                return math.nan
            if rate <= sample.failures_per_iteration:
                end = float(sample.most_iterations) if is_missed else here
                return linear(before, (sample.failures_per_iteration, end), rate)
            before = (sample.failures_per_iteration, here)
        found = linear((0.0, self.samples[0].iterations[seeds]), before, rate) if before[0] else math.nan
        return found if found <= self.most_iterations else math.nan

    def error_at(self, failures_per_iteration: float) -> float:
        """The possible error of the interpolation, as a share of the mean; 0 at a sample point where all runs reach it.

        Between two such points it is largest halfway: the largest error of a sample point predicted from the others, at
        most half of what failures add there, and that half where there are too few points. Beyond the last one it grows
        to that half at one and a half times its rate.
        """
        if self.is_flat:
            return 0.0
        without, here = mean(self.iterations_at(0.0)), mean(self.iterations_at(failures_per_iteration))
        half = abs(here / without - 1.0) / 2 if not math.isnan(here) else 0.0
        known = [sample.failures_per_iteration for sample in self.samples if not math.isnan(mean(sample.iterations))]
        errors = [error for number in range(1, len(self.samples) - 1) if (error := self._error_of(number)) is not None]
        for low, high in pairwise(known):
            if low <= failures_per_iteration <= high:
                u = (failures_per_iteration - low) / (high - low)
                return min(max(errors, default=math.inf), half) * 4 * u * (1 - u)
        last = known[-1] if known else 0.0
        return half * (min(1.0, 2 * (failures_per_iteration / last - 1.0)) if last else 1.0)

    def _error_of(self, number: int) -> float | None:
        """The share by which a sample point's mean differs from the others' prediction; None where there is none."""
        left_out = self.samples[number]
        others = IterationsToTarget(self.samples[:number] + self.samples[number + 1 :], self.most_iterations)
        predicted, true = mean(others.iterations_at(left_out.failures_per_iteration)), mean(left_out.iterations)
        return None if math.isnan(predicted / true) else abs(predicted / true - 1.0)


def replicates(iterations: Mapping[Seeds, float]) -> tuple[float, ...]:
    """Iterations by failure seed under one training seed, else their mean under each training seed."""
    by_training: dict[int, list[float]] = {}
    for (_, training), found in iterations.items():
        by_training.setdefault(training, []).append(found)
    if len(by_training) == 1:
        return tuple(iterations.values())
    return tuple(math.fsum(found) / len(found) for found in by_training.values())


def linear(first: tuple[float, float], last: tuple[float, float], x: float) -> float:
    """The value at x of the straight line through two points."""
    (x0, y0), (x1, y1) = first, last
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def mean(iterations: Mapping[Seeds, float]) -> float:
    """The mean over all pairs of seeds; NaN where one has no value."""
    return math.fsum(iterations.values()) / len(iterations)


def next_rate(rates: Collection[float], tried: Mapping[float, bool], num_samples: int) -> float | None:
    """The most informative of the rates for the next trained runs; None when no more are needed.

    tried: rates of earlier sample points, and whether all runs reached the target there. Rates ascend, more densely
    where failures are few; once the target is missed, the next is halfway between that and the last success.
    """
    if len(tried) >= num_samples:
        return None
    low = max((rate for rate, is_reached in tried.items() if is_reached), default=0.0)
    high = min((rate for rate, is_reached in tried.items() if not is_reached), default=None)
    able = [rate for rate in rates if low < rate and (high is None or rate < high)]
    if not able:
        return None
    goal = max(rates) * ((len(tried) + 1) / num_samples) ** 2 if high is None else (low + high) / 2
    return min(able, key=lambda rate: (abs(rate - goal), rate))
