"""Variance components of failure seed, training seed and rest, and the width of interval that a design lets expect.

Half the squared difference of two runs has the mean σ_b² + σ_e² if they share the failure seed, σ_a² + σ_e² if they
share the training seed, and σ_a² + σ_b² + σ_e² if they share none. These three are what is known of finished runs, as
far as there are such pairs; a design that shares no seeds needs the last alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.results.crossed_design import Cells, Codes, quantile_at
from sim.results.statistics import CONFIDENCE, Values

MOST_COMPARED = 500

Variances = tuple[float, float, float]
"""Of failure seed, training seed and rest."""


class Components(NamedTuple):
    """Half the mean squared differences of runs, by the seed that they share; NaN without such runs."""

    sharing_none: float
    sharing_failure: float
    sharing_training: float

    @classmethod
    def of(cls, found: Values) -> Components:
        """Those of the runs that have a value, or the first MOST_COMPARED of them."""
        there = np.flatnonzero(~np.isnan(found.values))[:MOST_COMPARED]
        seeds, values = found.seeds[there], found.values[there]
        first, second = np.triu_indices(len(values), 1)
        halves = (values[first] - values[second]) ** 2 / 2.0
        same = seeds[first] == seeds[second]
        kinds = ~same.any(axis=1), same[:, 0], same[:, 1]
        return cls(*(float(halves[kind].mean()) if kind.any() else math.nan for kind in kinds))

    @property
    def is_known(self) -> bool:
        """Whether anything is known."""
        return not all(map(math.isnan, self))

    @property
    def possible(self) -> list[Variances]:
        """Extreme variances that agree with what is known, least where a kind of seeds is not known at all."""
        none, failure, training = self
        if math.isnan(none):
            known = failure if math.isnan(training) else training
            own = (0.0, known, 0.0) if math.isnan(training) else (known, 0.0, 0.0)
            return [own, (0.0, 0.0, known)]
        if not math.isnan(failure) and not math.isnan(training):
            return [(max(0.0, none - failure), max(0.0, none - training), max(0.0, failure + training - none))]
        if not math.isnan(failure):
            of_failure = max(0.0, none - failure)
            return [(of_failure, failure, 0.0), (of_failure, 0.0, failure)]
        if not math.isnan(training):
            of_training = max(0.0, none - training)
            return [(training, of_training, 0.0), (0.0, of_training, training)]
        return [(none, 0.0, 0.0), (0.0, none, 0.0), (0.0, 0.0, none)]

    def expected(self, seeds: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return the least and the greatest half width to expect of runs under (runs, 2) seeds.

        The greatest is infinite if the design varies a kind of seeds of which finished runs have one alone.
        """
        found = [expected_half_width(seeds, variances) for variances in self.possible]
        is_missing = (
            math.isnan(self.sharing_none) and len(np.unique(seeds[:, int(math.isnan(self.sharing_failure))])) > 1
        )
        return min(found), math.inf if is_missing else max(found)


def expected_half_width(seeds: npt.NDArray[np.int64], variances: Variances, confidence: float = CONFIDENCE) -> float:
    """Return the root mean square of half widths under (runs, 2) seeds; NaN for a single run."""
    number = len(seeds)
    if number < 2:
        return math.nan
    cells = Cells.at(seeds, np.arange(float(number))[:, None])  # different values: no run repeats another
    effects = cells.failure, cells.training, np.arange(number)
    square = 0.0
    for found in cells.clusterings:
        spread = math.fsum(
            variance * _spread(found.codes, effect) for variance, effect in zip(variances, effects, strict=True)
        )
        square += quantile_at(found.degrees_of_freedom, confidence) ** 2 * found.scale * spread / number**2
    return math.sqrt(max(0.0, square))


def _spread(clusters: Codes, effect: Codes) -> float:
    """The expected sum of squared cluster sums of residuals, where an effect of variance 1 alone varies.

    The residual sum of cluster c has the coefficient n_ce - n_c n_e / n of effect e, of n_ce runs in c with effect e.
    """
    inside = clusters >= 0
    in_cluster, of_effect = np.bincount(clusters[inside]).astype(float), np.bincount(effect).astype(float)
    both, counts = np.unique(clusters[inside] * len(of_effect) + effect[inside], return_counts=True)
    cluster, own = np.divmod(both, len(of_effect))
    mixed = float((counts * in_cluster[cluster] * of_effect[own]).sum()) / len(effect)
    means = float((in_cluster**2).sum() * (of_effect**2).sum()) / len(effect) ** 2
    return float((counts**2).sum()) - 2.0 * mixed + means
