"""Who is ahead: strategies ranked by their replicates, and whether these can decide. One answer for all commands.

What can decide? Without failures, strategies differ by their overhead, which one run shows exactly; they are compared
for what failures cost them. That cost is a sum over the stages lost before the target. If N stages are lost in all
replicates together, the sum has a relative standard error of at least 1/√N, and more because a rollback loses a random
part of an interval (√(4/3)/√N). At N = 10 the 95 % interval of the cost is ±72 % of it, and that of the failure rate
(exact Poisson limits: 4.8 to 18.4) spans a factor of four; below five failures the interval of the cost contains zero.
So with fewer than ten stages lost under both of two strategies their order is not decided, however narrow the interval
over replicates is: replicates without failures are copies of each other, and their agreement is no evidence. Failures
count once for each failure seed, and once in all if failure seeds make no difference (scripted failures).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sim.results.crossed_design import Estimate, repeats
from sim.results.statistics import Values, estimate, paired_difference

FEWEST_FAILURES = 10.0
"""Stages lost before the target, over all replicates, from which on the order of two strategies can be decided."""

SMALL_LEAD = 0.05
"""Where failures were too few to decide: share of the best time within which the least overhead is recommended."""


CHANCE = 0.01
"""Share by which iterations can be shorter than plain ones while nodes are missing, or by rounding."""


@dataclass(frozen=True)
class Outcomes:
    """The replicates of a strategy.

    values: seconds or dollars to the target, NaN if not reached; lost: stages lost until then, unknown if None;
    steady_seconds: mean of an iteration without recoveries; plain_seconds: of one without a strategy, with equal
    microbatches; error: of interpolation, as a share.
    """

    values: Values
    lost: Values | None = None
    steady_seconds: float = math.nan
    plain_seconds: float = 0.0
    error: float = 0.0

    @property
    def is_faster_by_chance(self) -> bool:
        """Whether a strategy makes iterations shorter, as only another order of work can: no merit of its own."""
        return self.steady_seconds < (1.0 - CHANCE) * self.plain_seconds

    @cached_property
    def is_one_sample(self) -> bool:
        """Whether all failure seeds gave the same run, so that these replicates are one."""
        seeds, values = self.values
        return len(np.unique(seeds[:, 0])) > 1 and len(np.unique(values)) == 1

    @cached_property
    def num_lost(self) -> float:
        """Stages lost under all failure seeds that make a difference; infinite if unknown."""
        if self.lost is None:
            return math.inf
        seeds, found = self.lost
        means = [float(found[seeds[:, 0] == seed].mean()) for seed in np.unique(seeds[:, 0])]
        by_training = np.unique(self.values.seeds[:, 1], return_inverse=True)[1]
        is_one_churn = self.is_one_sample or repeats(by_training, self.values.values)
        return means[0] if is_one_churn else math.fsum(means)


@dataclass(frozen=True)
class Standing:
    """A strategy's mean, and the share by which it is behind the best, NaN for an unknown interval.

    error: of interpolation, as a share; num_lost: stages lost in all replicates; is_tested: whether under this strategy
    or the best enough stages were lost to decide; overhead: share by which its iterations without recoveries take
    longer than those of the strategy with the shortest, NaN if unknown or if they are shorter than plain ones by
    chance.
    """

    strategy: str
    takes: Estimate
    behind: float
    behind_low: float
    behind_high: float
    error: float = 0.0
    num_lost: float = math.inf
    is_tested: bool = True
    overhead: float = math.nan

    @property
    def reaches(self) -> bool:
        """Whether all of its runs reach the target."""
        return self.takes.num_reached == self.takes.num_runs > 0

    @property
    def may_be_first(self) -> bool:
        """Whether it is too close to the best: few failures, or an interval or an interpolation error around 0."""
        return self.reaches and not (self.is_tested and self.behind_low > 0.0 and self.behind > self.error)


@dataclass(frozen=True)
class Ranking:
    """Strategies in the order in which they reach the target; those that miss it under some seed are last."""

    standings: tuple[Standing, ...]

    @property
    def reaching(self) -> tuple[Standing, ...]:
        """Those that reach the target in all of their runs."""
        return tuple(standing for standing in self.standings if standing.reaches)

    @property
    def is_tested(self) -> bool:
        """Whether enough stages were lost to decide between the two that need least."""
        return len(self.reaching) < 2 or self.reaching[1].is_tested

    @property
    def best(self) -> Standing | None:
        """The one with the least mean; None if none reaches the target in all of its runs, or nothing is decided."""
        return self.reaching[0] if self.reaching and self.is_tested else None

    @property
    def contenders(self) -> tuple[Standing, ...]:
        """Others that are too close to the best; none if there is no best."""
        return tuple(standing for standing in self.reaching[1:] if standing.may_be_first) if self.best else ()

    @property
    def has_one_sample(self) -> bool:
        """Whether there are several strategies, but only one distinct replicate to compare them by."""
        return len(self.reaching) > 1 and math.isnan(self.reaching[0].takes.low)

    @property
    def num_lost(self) -> float:
        """Stages lost in all replicates together under the strategy with the least mean; 0 without one."""
        return self.reaching[0].num_lost if self.reaching else 0.0

    @property
    def lead(self) -> float:
        """The share by which the second is behind the best; infinite if no other reaches the target."""
        return next((standing.behind for standing in self.reaching[1:]), math.inf)

    @property
    def by_overhead(self) -> tuple[Standing, ...]:
        """By overhead without failures, for where nothing is decided; first those close to the least mean."""

        def order(one: Standing) -> tuple[bool, bool, float, str]:
            return math.isnan(one.overhead), one.behind > SMALL_LEAD, _known(one.overhead), one.strategy

        return tuple(sorted(self.reaching, key=order))


def _known(overhead: float) -> float:
    return math.inf if math.isnan(overhead) else round(overhead, 4)


def rank(outcomes: Mapping[str, Outcomes]) -> Ranking:
    """Rank strategies, and say of each whether it can be distinguished from the best.

    Intervals of zero width, from replicates that are all the same run, become unknown: they are no certainty.
    """
    means = {name: _estimate(found) for name, found in outcomes.items()}
    are_all_faster = all(found.is_faster_by_chance for found in outcomes.values())
    steady = {
        name: math.nan if found.is_faster_by_chance and not are_all_faster else found.steady_seconds
        for name, found in outcomes.items()
    }
    reaching = [steady[name] for name, mean in means.items() if mean.num_reached == mean.num_runs]
    least_seconds = min((seconds for seconds in reaching if seconds > 0.0), default=math.nan)

    def order(name: str) -> tuple[bool, float, str]:
        mean = means[name]
        return mean.num_reached < mean.num_runs, math.inf if math.isnan(mean.mean) else mean.mean, name

    standings: list[Standing] = []
    for name in sorted(outcomes, key=order):
        own, best = outcomes[name], outcomes[standings[0].strategy if standings else name]
        standings.append(
            Standing(
                name,
                means[name],
                *_behind(own, best),
                error=math.hypot(own.error, best.error),
                num_lost=own.num_lost,
                is_tested=max(own.num_lost, best.num_lost) >= FEWEST_FAILURES,
                overhead=steady[name] / least_seconds - 1.0,
            )
        )
    return Ranking(tuple(standings))


def _estimate(found: Outcomes) -> Estimate:
    mean = estimate(found.values)
    return replace(mean, low=math.nan, high=math.nan) if found.is_one_sample else mean


def _behind(own: Outcomes, best: Outcomes) -> tuple[float, float, float]:
    """The share by which one is behind the best, and its interval."""
    if own is best:
        return 0.0, 0.0, 0.0
    relative = paired_difference(own.values, best.values).relative
    if own.is_one_sample and best.is_one_sample:
        return relative.mean, math.nan, math.nan
    return relative.mean, relative.low, relative.high
