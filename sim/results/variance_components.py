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

from sim.results.crossed_design import Cells, quantile_at
from sim.results.statistics import CONFIDENCE, Values

Variances = tuple[float, float, float]
"""Of failure seed, training seed and rest."""


class Components(NamedTuple):
    """Half the mean squared differences of runs, by the seed that they share; NaN without such runs."""

    sharing_none: float
    sharing_failure: float
    sharing_training: float

    @classmethod
    def of(cls, found: Values) -> Components:
        """Those of the runs that have a value."""
        there = ~np.isnan(found.values)
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
    same = [np.equal.outer(seeds[:, axis], seeds[:, axis]) for axis in (0, 1)]
    covariance = variances[0] * same[0] + variances[1] * same[1] + variances[2] * np.eye(number)
    residual = covariance - covariance.mean(axis=0) - covariance.mean(axis=1, keepdims=True) + covariance.mean()
    square = 0.0
    for clustering in cells.clusterings:
        clusters = np.eye(int(clustering.codes.max()) + 1)[clustering.codes] * (clustering.codes >= 0)[:, None]
        spread = float(np.einsum("ri,rs,si->", clusters, residual, clusters))
        square += quantile_at(clustering.degrees_of_freedom, confidence) ** 2 * clustering.scale * spread / number**2
    return math.sqrt(max(0.0, square))
