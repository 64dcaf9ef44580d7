"""Published results of the CheckFree paper (arXiv 2506.15461 v2, Tables 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass

from sim.core.units import SECONDS_PER_HOUR

RATES = (0.05, 0.10, 0.16)
"""Probability that a stage is lost within an hour."""

LOWEST, HIGHEST = RATES[0], RATES[-1]

NUM_STAGES = 6

CHECKPOINT_INTERVAL_ITERATIONS = 100

VALIDATION_INTERVAL_ITERATIONS = 500
"""A loss that a validation finds was reached up to this many iterations earlier."""

RECOVERY_SECONDS = 30.0
"""Approximate recovery time of a stage."""


@dataclass(frozen=True)
class Row:
    """A strategy at one rate in Table 2: the medium model (500M) until a validation loss of 2.85."""

    iteration_seconds: float
    train_hours: float

    @property
    def iterations(self) -> float:
        """Iterations implied by the two."""
        return self.train_hours * SECONDS_PER_HOUR / self.iteration_seconds


@dataclass(frozen=True)
class Span:
    """A published ratio, and the range in which validations every 500 iterations leave it."""

    value: float
    low: float
    high: float

    @property
    def is_below_1(self) -> bool | None:
        """Whether the ratio is below 1; None if the range contains 1."""
        return None if self.low <= 1 <= self.high else self.value < 1


def quotient(own: Row, other: Row, in_hours: bool) -> Span:
    """Ratio of two rows' iterations, or of their training times."""
    share = own.iteration_seconds / other.iteration_seconds if in_hours else 1.0
    fewest, fewest_of_other = (row.iterations - VALIDATION_INTERVAL_ITERATIONS for row in (own, other))
    value, low, high = own.iterations / other.iterations, fewest / other.iterations, own.iterations / fewest_of_other
    return Span(share * value, share * low, share * high)


TABLE_2 = {
    "checkpoint": (Row(91.35, 558.23), Row(91.35, 621.67), Row(92.14, 634.35)),
    "redundant": (Row(151.04, 419.56), Row(151.04, 419.56), Row(151.04, 419.56)),
    "checkfree": (Row(91.32, 367.81), Row(91.32, 405.87), Row(92.12, 562.96)),
    "checkfree_plus": (Row(91.32, 355.13), Row(91.32, 367.81), Row(92.12, 460.6)),
}
"""By strategy, at the three rates."""

FAILURE_FREE_ITERATIONS = 10_000
"""Implied iterations of redundant computation, which converges as failure-free training does."""

RELEASED_PROBABILITIES = (0.0009, 0.002, 0.004)
"""Released configuration: probability that a stage is lost in one iteration, at the three rates."""

TABLE_3 = {
    "OpenWebText": (16.07, 17.59, 17.07),
    "Gutenberg": (13.32, 14.58, 13.46),
    "Stack Exchange": (19.85, 21.36, 20.86),
    "arXiv": (12.25, 13.33, 12.46),
}
"""Perplexity of the large model (1.5B) after 30,000 iterations at 16 %: no failures, CheckFree, CheckFree+."""

BYTES_PER_TOKEN = 4.0
"""Assumed for English text and a vocabulary of 32,000; not published."""


def row_of(strategy: str, rate: float) -> Row:
    """A strategy's row in Table 2. KeyError if there is none."""
    return dict(zip(RATES, TABLE_2[strategy], strict=True))[rate]


def iteration_factor(strategy: str, rate: float) -> float:
    """Iterations to the loss, × failure-free."""
    return row_of(strategy, rate).iterations / FAILURE_FREE_ITERATIONS
