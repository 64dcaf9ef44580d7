"""Random effects of two kinds of seeds: means over independent or crossed replicates, and their confidence intervals.

A value is y_ij = μ + a_i + b_j + e_ij, of failure seed i and training seed j. Runs that share a seed are dependent:
Var(mean) = (σ_a² Σ n_i² + σ_b² Σ m_j² + σ_e² n) / n², n_i of n runs with seed i, m_j with seed j (Searle, Casella and
McCulloch, Variance Components, 1992, ch. 4). What varies independently is a cluster of runs. A clustering estimates
the variance by k/(k-1) Σ_c (Σ_{runs of c} r)² / n², of residuals r in k clusters, with k-1 degrees of freedom.

**Independent pairs**: every seed occurs once. Each run is a cluster of its own, and the interval is Student's, n-1
degrees of freedom. So it is wherever the runs of each training seed share failure seeds with no others (or vice versa):
clusters of one kind of seeds then contain the other.

**Crossed**: I failure seeds, each with each of J training seeds. With mean squares M_a = J Σ(ȳ_i. - ȳ)²/(I-1) and
M_b = I Σ(ȳ_.j - ȳ)²/(J-1), of the two clusterings, the interval

    half width² = (t²_{I-1} M_a + t²_{J-1} M_b) / n

covers μ at least as often as it says, for normal effects and any I, J (Banerjee, Sankhya 22, 1960). The shorter one
from M_a + M_b - M_e with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946) is not used: with two
training seeds that matter it contains μ in 88 % (20 × 2) to 92 % (3 × 2) in place of 95 % (docs/sweeps.md). The price
is a wide interval if two training seeds differ (t²_1 = 161); three are far better (t²_2 = 19), and pairs best.

**Others**: cells are missing, or pairs stand beside a crossed block. Runs connected by shared seeds are one part, and
parts are independent. One clustering is by training seeds (by parts, for those with one failure seed); a second one, by
failure seeds, is added for parts in which both kinds of seeds have several. With a single part these are the two sums
above (Cameron, Gelbach and Miller, J. Business & Economic Statistics 29(2), 2011, without the part that they subtract).
Clusters whose sizes s differ by more than a factor of 3 count as (Σs²)²/Σs⁴ ones (Carter, Schnepel and Steigerwald,
Review of Economics and Statistics 99(4), 2017). Both are approximations; simulated, they cover 94 % or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import stdtrit

SEEDS = ["failure_seed", "training_seed"]
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

MOST_UNEQUAL = 3.0
"""Ratio of the sizes of clusters up to which they count as equal."""


@dataclass(frozen=True)
class Estimate:
    """A mean over runs and its interval; NaN if unknown.

    num_reached: runs with a value, which mean and interval are over; num_failure_seeds, num_training_seeds: of those.
    With one seed of a kind the interval is conditional on that seed. training_half_width: the part of the half width
    due to training seeds that several failure seeds share, which more failure seeds do not shrink.
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

    @property
    def is_of_pairs(self) -> bool:
        """Whether the runs are independent: several, in which every seed occurs once."""
        return are_pairs(self.num_reached, self.num_failure_seeds, self.num_training_seeds)


def are_pairs(num_runs: int, num_failure_seeds: int, num_training_seeds: int) -> bool:
    """Whether every seed occurs once in several runs."""
    return num_runs == num_failure_seeds == num_training_seeds > 1


@dataclass(frozen=True)
class Clustering:
    """Clusters of runs that vary independently, several.

    codes: each run's cluster as a number from 0, or -1 for none. scale: makes the sum of squared cluster sums an
    estimate of the variance, with these degrees_of_freedom.
    """

    codes: Codes
    scale: float
    degrees_of_freedom: float

    @classmethod
    def of(cls, codes: Codes) -> Clustering:
        """Clusters of any size; about equal ones count fully."""
        sizes = np.bincount(codes + 1)[1:].astype(float)
        number, total = len(sizes), float(len(codes))
        if sizes.max() <= MOST_UNEQUAL * sizes.min():
            return cls(codes, number / (number - 1), number - 1)
        second, third, fourth = (float((sizes**power).sum()) for power in (2, 3, 4))
        expected = second - 2.0 * third / total + second**2 / total**2  # of residuals, where clusters alone vary
        return cls(codes, second / expected, max(1.0, second**2 / fourth - 1.0))

    def covariance(self, a: Floats, b: Floats) -> float:
        """Return scale · Σ (sum of a cluster's residuals a) (sum of its b) / n²: a variance of the mean if a = b."""
        by_cluster = self.codes + 1
        return self.scale * float(np.bincount(by_cluster, a)[1:] @ np.bincount(by_cluster, b)[1:]) / len(a) ** 2


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

    @cached_property
    def clusterings(self) -> tuple[Clustering, ...]:
        """Clusterings whose variances add up to that of the mean; none for a single cell."""
        num_failure, num_training, num_runs = _number_of(self.failure), _number_of(self.training), len(self.failure)
        if num_runs < 2:
            return ()
        if are_pairs(num_runs, num_failure, num_training) or num_training == 1:
            return (Clustering.of(self.failure),)
        if num_failure == 1:
            return (Clustering.of(self.training),)
        if num_runs == num_failure * num_training:
            return Clustering.of(self.failure), Clustering.of(self.training)
        return _clusterings_of_parts(self.failure, self.training)

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
        return Estimate(
            mean, mean - half_width, mean + half_width, *self.counts, self._training_half_width(rest, confidence)
        )

    def _training_half_width(self, rest: Floats, confidence: float) -> float:
        """The part of the half width due to shared training seeds, from residuals: good enough to plan with."""
        num_seeds = _number_of(self.training)
        if num_seeds == 1 or are_pairs(len(rest), _number_of(self.failure), num_seeds):
            return 0.0
        freedom = len(rest) - _number_of(self.failure) - num_seeds + 1
        left = rest - _means_of(self.failure, rest) - _means_of(self.training, rest)
        within = float((left**2).sum()) / freedom / len(rest) if freedom > 0 else 0.0  # M_e/n, of neither seed
        by_training = Clustering.of(self.training)
        lasting = max(0.0, by_training.covariance(rest, rest) - within)  # σ_b²/J
        return quantile_at(by_training.degrees_of_freedom, confidence) * math.sqrt(lasting)

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
            quantile_at(found.degrees_of_freedom, confidence) ** 2 * found.covariance(a, b)
            for found in self.clusterings
        )


def _clusterings_of_parts(failure: Codes, training: Codes) -> tuple[Clustering, ...]:
    """Clusterings of a design in which cells are missing; a part: runs that shared seeds connect."""
    num_failure, num_runs = _number_of(failure), len(failure)
    shape = (num_failure + _number_of(training),) * 2
    edges = coo_array((np.ones(num_runs), (failure, training + num_failure)), shape)
    num_parts, part_of_seed = connected_components(edges, directed=False)
    part = part_of_seed[failure]
    several_failure, several_training = (
        np.bincount(part_of_seed[seeds], minlength=num_parts)[part] > 1
        for seeds in (np.unique(failure), np.unique(training) + num_failure)
    )
    is_crossed = several_failure & several_training
    main = np.where(several_failure, training, part + shape[0])  # parts with one failure seed are clusters
    found = [Clustering.of(np.unique(main, return_inverse=True)[1])]
    if is_crossed.any():
        codes = np.full(num_runs, -1)
        codes[is_crossed] = np.unique(failure[is_crossed], return_inverse=True)[1]
        found.insert(0, Clustering.of(codes))
    return tuple(found)


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


def quantile(degrees_of_freedom: Any, confidence: float) -> Any:
    """Return the two-sided quantile of Student's t, 0 without degrees of freedom; takes arrays too."""
    return np.where(degrees_of_freedom > 0, stdtrit(np.maximum(degrees_of_freedom, 1), (1.0 + confidence) / 2.0), 0.0)


@lru_cache(maxsize=1024)
def quantile_at(degrees_of_freedom: float, confidence: float) -> float:
    """Return the quantile of one number from a cache: tables of many points need few different ones."""
    return float(quantile(degrees_of_freedom, confidence))
