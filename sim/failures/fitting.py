"""Laws of durations fitted by maximum likelihood, with right-censored durations: known only to be longer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy

from sim.core.units import SECONDS_PER_HOUR
from sim.failures.history import Flags, Floats

Law = Literal["exponential", "weibull", "lognormal"]
LAWS: tuple[Law, ...] = ("exponential", "weibull", "lognormal")

LEVEL = 0.95
"""Coverage of all intervals."""

MOST_CLASSES, EVENTS_IN_CLASS = 10, 5
"""Of ages, in the test of fit."""


SPREADS = (0.1, 10.0)
"""Of laws that failure processes accept; nearly equal durations have others."""


@dataclass(frozen=True)
class Estimate:
    """A value and its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Durations:
    """Durations in seconds, all above 0; those that are not ended are censored."""

    seconds: Floats
    is_ended: Flags

    @property
    def num_ended(self) -> int:
        """Number of durations whose end is known."""
        return int(self.is_ended.sum())

    @cached_property
    def censored(self) -> Any:
        """The same for scipy, in hours."""
        hours = self.seconds / SECONDS_PER_HOUR
        return scipy.stats.CensoredData(uncensored=hours[self.is_ended], right=hours[~self.is_ended])

    @cached_property
    def survival(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Kaplan and Meier's estimate: hours, the share of longer durations, and its interval (log-log)."""
        curve: Any = scipy.stats.ecdf(self.censored).sf
        with warnings.catch_warnings():  # it is not defined where all or none are left
            warnings.simplefilter("ignore", RuntimeWarning)
            interval: Any = curve.confidence_interval(LEVEL, method="log-log")
        low, high = (np.asarray(end.probabilities, float) for end in (interval.low, interval.high))
        return curve.quantiles, curve.probabilities, np.nan_to_num(low), np.nan_to_num(high, nan=1.0)


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law that was fitted to durations. spread: shape k of weibull, sigma of lognormal; None for exponential.

    largest_gap: between its survival curve and the observed one; p_value: of the test of fit, nan with too few ends.
    """

    law: Law
    mean_hours: Estimate
    spread: Estimate | None
    log_likelihood: float
    largest_gap: float
    p_value: float

    @property
    def aic(self) -> float:
        """Akaike's criterion: twice the number of parameters less twice the log likelihood; less is better."""
        return 2.0 * (1 if self.spread is None else 2) - 2.0 * self.log_likelihood

    @property
    def distribution(self) -> Any:
        """The law in hours, as a distribution of scipy."""
        return distribution(self.law, self.mean_hours.value, self.spread.value if self.spread else 1.0)

    @property
    def fits(self) -> bool:
        """Whether the law differs from what was observed by no more than chance, at 5 %."""
        return not self.p_value < 0.05


def distribution(law: Law, mean: float, spread: float) -> Any:
    """A law of a given mean, as a distribution of scipy."""
    if law == "exponential":
        return scipy.stats.expon(scale=mean)
    if law == "weibull":
        return scipy.stats.weibull_min(spread, scale=mean / math.gamma(1.0 + 1.0 / spread))
    return scipy.stats.lognorm(spread, scale=mean * math.exp(-(spread**2) / 2.0))


def rate_per_hour(num_events: int, hours: float) -> Estimate:
    """A constant rate from a number of events in some hours, with Garwood's interval (Biometrika 28, 1936)."""
    tail = (1.0 - LEVEL) / 2.0
    low = float(scipy.stats.chi2.ppf(tail, 2 * num_events)) / 2.0 if num_events else 0.0
    high = float(scipy.stats.chi2.ppf(1.0 - tail, 2 * num_events + 2)) / 2.0
    return Estimate(num_events / hours, low / hours, high / hours)


def fit_law(law: Law, durations: Durations) -> LawFit:
    """Fit one law. ValueError with fewer than two durations whose end is known, or if these are all equal."""
    hours = durations.seconds / SECONDS_PER_HOUR
    ended = hours[durations.is_ended]
    if len(ended) < 2 or (law != "exponential" and ended.min() == ended.max()):
        raise ValueError(f"{law}: {len(ended)} durations with a known end, and at least two different ones are needed")
    if law == "exponential":
        rate = rate_per_hour(len(ended), float(hours.sum()))
        mean, spread = Estimate(1.0 / rate.value, 1.0 / rate.high, 1.0 / rate.low), None
    else:
        mean, spread = fit_mean_and_spread(law, durations)
    fitted = distribution(law, mean.value, spread.value if spread else 1.0)
    at, observed, _, _ = durations.survival
    before = np.concatenate(([1.0], observed[:-1]))
    expected = fitted.sf(at)
    gap = float(max(np.abs(expected - observed).max(), np.abs(expected - before).max()))
    p_value = test_of_fit(fitted, durations, 1 if spread is None else 2)
    return LawFit(law, mean, spread, log_likelihood(fitted, durations), gap, p_value)


def test_of_fit(law: Any, durations: Durations, num_parameters: int) -> float:
    """Pearson's test of a law over classes of age, with censoring (Akritas, JASA 83, 1988); nan with too few ends.

    Until an age, the expected number of ends is the sum of the cumulative hazard over the durations, as far as they
    were under watch. Classes have equal expected numbers.
    """
    num_classes = min(MOST_CLASSES, durations.num_ended // EVENTS_IN_CLASS)
    if num_classes < num_parameters + 2:
        return math.nan
    order = np.argsort(durations.seconds)
    hours, is_ended = durations.seconds[order] / SECONDS_PER_HOUR, durations.is_ended[order]
    hazard = -law.logsf(hours)
    expected = np.cumsum(hazard) + hazard * np.arange(len(hours) - 1, -1, -1)
    targets = expected[-1] * np.arange(1, num_classes) / num_classes
    classes = np.searchsorted(targets, expected)
    observed = np.bincount(classes[is_ended], minlength=num_classes)
    in_each = float(expected[-1]) / num_classes
    statistic = float(((observed - in_each) ** 2).sum()) / in_each
    return float(scipy.stats.chi2.sf(statistic, num_classes - num_parameters))


def log_likelihood(law: Any, durations: Durations) -> float:
    """Of durations in hours: density of those that ended, survival of the others."""
    hours = durations.seconds / SECONDS_PER_HOUR
    return float(law.logpdf(hours[durations.is_ended]).sum() + law.logsf(hours[~durations.is_ended]).sum())


def fit_mean_and_spread(law: Law, durations: Durations) -> tuple[Estimate, Estimate]:
    """Mean in hours and spread with Wald's intervals on a log scale. ValueError for a spread of no use."""
    family = scipy.stats.weibull_min if law == "weibull" else scipy.stats.lognorm
    spread, _, scale = family.fit(durations.censored, floc=0)
    mean = float(family(spread, scale=scale).mean())
    if not (SPREADS[0] <= spread <= SPREADS[1] and math.isfinite(mean)):
        raise ValueError(f"{law}: the durations are too much alike, or too different: {spread:.3g}")

    def loss(at: Floats) -> float:
        return -log_likelihood(distribution(law, math.exp(at[0]), math.exp(at[1])), durations)

    best = np.log([mean, spread])
    covariance = np.linalg.pinv(hessian(loss, best))
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0)) * float(scipy.stats.norm.ppf((1.0 + LEVEL) / 2.0))
    low, high = np.exp(best - errors), np.exp(best + errors)
    return (
        Estimate(mean, float(low[0]), float(high[0])),
        Estimate(float(spread), float(low[1]), float(high[1])),
    )


def hessian(function: Callable[[Floats], float], at: Floats, step: float = 1e-3) -> Floats:
    """Second derivatives of a function of a few variables, by central differences."""
    size = len(at)
    found = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            ends = [(a, b) for a in (1, -1) for b in (1, -1)]
            moved = [function(at + step * (a * np.eye(size)[i] + b * np.eye(size)[j])) * a * b for a, b in ends]
            found[i, j] = sum(moved) / (4.0 * step**2)
    return found


def fit_laws(durations: Durations) -> tuple[LawFit, ...]:
    """All laws that can be fitted, best first by Akaike's criterion; none with fewer than two ends."""
    found = []
    for law in LAWS:
        try:
            with np.errstate(all="ignore"):  # on the way to a spread of no use
                found.append(fit_law(law, durations))
        except ValueError:
            continue
    return tuple(sorted(found, key=lambda fit: fit.aic))
