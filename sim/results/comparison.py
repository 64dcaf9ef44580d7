"""Ranking of strategies over runs under the same seeds, with confidence intervals of their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.core.text import DIGITS_OF_SHARES, format_number
from sim.results.statistics import Estimate, Values, estimate, paired_difference

SeedPair = tuple[int, int]
"""A failure seed of the simulation, and the number of a training replicate."""


@dataclass(frozen=True)
class Standing:
    """A strategy's mean, and the share by which it is behind the best; error: of interpolation, as a share."""

    strategy: str
    takes: Estimate
    behind: float
    behind_low: float
    behind_high: float
    error: float

    @property
    def reaches(self) -> bool:
        """Whether all of its runs reach the target."""
        return self.takes.num_reached == self.takes.num_runs > 0

    @property
    def may_be_first(self) -> bool:
        """Whether it is too close to the best: the interval of the difference or the interpolation error contains 0."""
        return self.reaches and not (self.behind_low > 0.0 and self.behind > self.error)


@dataclass(frozen=True)
class Ranking:
    """Strategies in the order in which they reach the target; those that miss it under some seed are last."""

    standings: tuple[Standing, ...]

    @property
    def best(self) -> Standing | None:
        """The first; None if none reaches the target in all of its runs."""
        return self.standings[0] if self.standings and self.standings[0].reaches else None

    @property
    def contenders(self) -> tuple[Standing, ...]:
        """Others that are too close to the first."""
        return tuple(standing for standing in self.standings[1:] if standing.may_be_first) if self.best else ()

    @property
    def lead(self) -> float:
        """The share by which the second is behind the best; infinite if no other reaches the target."""
        return next((standing.behind for standing in self.standings[1:] if standing.reaches), math.inf)


def rank(values: Mapping[str, Values], errors: Mapping[str, float]) -> Ranking:
    """Rank strategies by seconds or money by pair of seeds (NaN: not reached); errors: of interpolation, as shares."""
    means = {name: estimate(found) for name, found in values.items()}

    def order(name: str) -> tuple[bool, float, str]:
        mean = means[name]
        return mean.num_reached < mean.num_runs, math.inf if math.isnan(mean.mean) else mean.mean, name

    standings: list[Standing] = []
    for name in sorted(values, key=order):
        first = standings[0].strategy if standings else name
        behind = (0.0, 0.0, 0.0)
        if name != first:
            relative = paired_difference(values[name], values[first]).relative
            behind = relative.mean, relative.low, relative.high
        error = math.hypot(errors.get(name, 0.0), errors.get(first, 0.0))
        standings.append(Standing(name, means[name], *behind, error))
    return Ranking(tuple(standings))


def as_values(found: Mapping[SeedPair, float]) -> Values:
    """Convert values by pairs of seeds to arrays."""
    return Values(np.array(list(found), dtype=np.int64).reshape(-1, 2), np.array(list(found.values()), dtype=float))


FEWEST_LOST = 3.0
"""With fewer lost stages a run, a comparison of strategies is one of plain speed."""


def few_failures_note(num_lost: float) -> list[str]:
    """Return a sentence if too few stages are lost to compare recovery. num_lost: stages a run, on average."""
    if num_lost >= FEWEST_LOST:
        return []
    few = f"Only {format_number(num_lost, DIGITS_OF_SHARES)} stages were lost a run on average"
    found = f"{few if num_lost else 'No stage was lost in any run'}: this compares plain speed more than recovery."
    return [f"{found} More training.steps or iterations_per_step would be closer to a long training."]
