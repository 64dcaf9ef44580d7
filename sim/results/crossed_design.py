"""Crossed random effects: means over failure seeds crossed with training seeds, and their confidence intervals.

A value is y_ij = μ + a_i + b_j + e_ij, i of I failure seeds, j of J training seeds, one run in each cell, so that
Var(mean) = σ_a²/I + σ_b²/J + σ_e²/(IJ) (Searle, Casella and McCulloch, Variance Components, 1992, ch. 4): the n = IJ
runs are not independent. With mean squares M_a = J Σ(ȳ_i. - ȳ)²/(I-1) and M_b = I Σ(ȳ_.j - ȳ)²/(J-1) the interval

    half width² = (t²_{I-1} M_a + t²_{J-1} M_b) / n

covers μ at least as often as it says, for normal effects and any I, J (Banerjee, Sankhya 22, 1960). The shorter one
from M_a + M_b - M_e with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946) is not used: with two
training seeds that matter it contains μ in 88 % instead of 95 % (test_statistics.py). The price is a wide interval if
two training seeds differ (t²_1 = 161); three are far better (t²_2 = 19).

If cells are missing, M_a/n becomes I/(I-1) Σ_i (Σ_j r_ij)²/n² of residuals r, and M_b/n likewise (Cameron, Gelbach and
Miller, J. Business & Economic Statistics 29(2), 2011, without the part that they subtract): an approximation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

SEEDS = ["failure_seed", "training_seed"]
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs and its interval; NaN if unknown.

    num_reached: runs with a value, which mean and interval are over; num_failure_seeds, num_training_seeds: of those.
    With one seed of a kind the interval is conditional on that seed. training_half_width: the part of the half width
    due to training seeds, which more failure seeds do not shrink.
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
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Cells:
    """Runs with values by their seeds, without runs that only repeat others."""

    failure: Codes  # each run's seed as a number from 0
    training: Codes
    columns: tuple[Floats, ...]  # values of these runs
    counts: tuple[int, int, int, int]  # of all runs: num_runs and the fields after it of `Estimate`

    @classmethod
    def at(cls, seeds: Codes, values: Floats) -> Cells:
        """Select runs that have all values: (runs, 2) seeds, (runs, columns) values. ValueError if a pair comes twice.

        If all runs of each failure seed have the same values, they are one replicate, because training seeds make no
        difference; likewise runs of one training seed.
        """
        pairs = set()
        for failure_seed, training_seed in seeds.tolist():
            if (failure_seed, training_seed) in pairs:
                raise ValueError(
                    f"failure seed {failure_seed} with training seed {training_seed} comes twice among runs taken for "
                    "replicates: name every field in which the runs differ"
                )
            pairs.add((failure_seed, training_seed))
        there: NDArray[np.bool_] = np.logical_not(np.isnan(values).any(axis=1))
        values, seeds = values[there], seeds[there]
        failure, training = (np.unique(seeds[:, axis], return_inverse=True)[1] for axis in (0, 1))
        counts = len(there), len(values), _number_of(failure), _number_of(training)
        if repeats(failure, values):
            first = _first_of_each(failure)
            failure, training, values = failure[first], np.zeros_like(first), values[first]
        elif counts[3] > 1 and repeats(training, values):
            first = _first_of_each(training)
            failure, training, values = np.zeros_like(first), training[first], values[first]
        return cls(failure, training, tuple(values.T), counts)

    def interval(self, values: Floats, confidence: float) -> Estimate:
        """Return the mean of a value per cell, with its interval: NaN for a single cell."""
        if not 0.0 < confidence < 1.0:
            raise ValueError(f"confidence {confidence}: must be between 0 and 1")
        if len(values) < 2:
            only = float(values[0]) if len(values) else math.nan
            return Estimate(only, math.nan, math.nan, *self.counts, math.nan)
        mean = float(values.mean())
        rest = values - mean
        half_width = math.sqrt(self.squared_reach(rest, rest, confidence))
        t_training = quantile_at(_number_of(self.training) - 1, confidence)
        freedom = len(rest) - _number_of(self.failure) - _number_of(self.training) + 1
        left = rest - _means_of(self.failure, rest) - _means_of(self.training, rest)
        within = float((left**2).sum()) / freedom / len(rest) if freedom > 0 else 0.0  # M_e/n, of neither seed
        lasting = max(0.0, covariance_between(self.training, rest, rest) - within)  # σ_b²/J: good enough to plan with
        training_half_width = t_training * math.sqrt(lasting)
        return Estimate(mean, mean - half_width, mean + half_width, *self.counts, training_half_width)

    def ratio(self, a: Floats, b: Floats, confidence: float) -> tuple[float, float, float]:
        """Return (mean of a) / (mean of b), the latter positive, and the ends of its interval.

        The interval contains ratios ρ with 0 in the interval of a - ρ b (Fieller, J. Royal Statistical Society B 16(2),
        1954); NaN if it has no bounds because b's mean may be 0. The linearised interval (Cochran, Sampling Techniques,
        1977, ch. 6) is too short for skewed values: with 8 seeds of lognormal churn, σ = 1, it contained the ratio in
        87 %, Fieller's in 98 %.
        """
        mean = float(b.mean())
        ratio = float(a.mean()) / mean
        rest = a - ratio * b
        rest, rest_of_b = rest - rest.mean(), b - mean
        if len(b) < 2:
            return ratio, math.nan, math.nan
        if not rest.any():
            return ratio, ratio, ratio
        # ρ = ratio + δ: (δ mean)² ≤ reach²(rest - δ b) makes square δ² + 2 slope δ - reach ≤ 0
        reach = self.squared_reach(rest, rest, confidence)
        slope = self.squared_reach(rest, rest_of_b, confidence)
        square = mean**2 - self.squared_reach(rest_of_b, rest_of_b, confidence)
        if square <= 0.0:
            return ratio, math.nan, math.nan
        root = math.sqrt(slope**2 + square * reach)
        return ratio, ratio + (-slope - root) / square, ratio + (-slope + root) / square

    def squared_reach(self, a: Floats, b: Floats, confidence: float) -> float:
        """Return half width² of residuals a = b, or its bilinear form: for a + b it is those of a, b and twice this."""
        return sum(
            quantile_at(_number_of(codes) - 1, confidence) ** 2 * covariance_between(codes, a, b)
            for codes in (self.failure, self.training)
        )


def _number_of(codes: Codes) -> int:
    return int(codes.max()) + 1 if len(codes) else 0


def _first_of_each(codes: Codes) -> Codes:
    return np.unique(codes, return_index=True)[1]


def repeats(codes: Codes, values: Floats) -> bool:
    """Whether all runs of a seed have the same values, for each seed, and some seed has several runs."""
    first = _first_of_each(codes)
    return len(first) < len(codes) and bool((values == values[first][codes]).all())


def _means_of(codes: Codes, values: Floats) -> Floats:
    means: Floats = (np.bincount(codes, values) / np.bincount(codes))[codes]
    return means


def covariance_between(codes: Codes, a: Floats, b: Floats) -> float:
    """Return k/(k-1) Σ (sum of a seed's residuals a) (sum of its b) / n², k seeds, n runs: M/n if a = b; 0 if k = 1."""
    num_seeds = _number_of(codes)
    if num_seeds < 2:
        return 0.0
    return num_seeds / (num_seeds - 1) * float(np.bincount(codes, a) @ np.bincount(codes, b)) / len(a) ** 2


def quantile(degrees_of_freedom: Any, confidence: float) -> Any:
    """Return the two-sided quantile of Student's t, 0 without degrees of freedom; takes arrays too."""
    return np.where(degrees_of_freedom > 0, stdtrit(np.maximum(degrees_of_freedom, 1), (1.0 + confidence) / 2.0), 0.0)


@lru_cache(maxsize=1024)
def quantile_at(degrees_of_freedom: int, confidence: float) -> float:
    """Return the quantile of one number from a cache: tables of many points need few different ones."""
    return float(quantile(degrees_of_freedom, confidence))
