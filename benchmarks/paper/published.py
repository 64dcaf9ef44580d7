"""What the CheckFree paper publishes (arXiv 2506.15461 v2, Tables 2 and 3): figures only, to set ours beside."""

from __future__ import annotations

from dataclasses import dataclass

from sim.core.units import SECONDS_PER_HOUR

RATES = (0.05, 0.10, 0.16)
"""Chance that a stage is lost within an hour."""

NUM_STAGES = 6

CHECKPOINT_INTERVAL_ITERATIONS = 100

VALIDATION_INTERVAL_ITERATIONS = 500
"""A loss that is first validated after so many was reached up to so many before."""

RECOVERY_SECONDS = 30.0
"""About as long takes the recovery of a stage."""


@dataclass(frozen=True)
class Row:
    """A strategy at a rate in Table 2: the medium model (500M) until a validation loss of 2.85."""

    iteration_seconds: float
    train_hours: float

    @property
    def iterations(self) -> float:
        """What the two imply."""
        return self.train_hours * SECONDS_PER_HOUR / self.iteration_seconds


@dataclass(frozen=True)
class Span:
    """A published ratio, and the range in which validations every 500 iterations leave it."""

    value: float
    low: float
    high: float

    @property
    def is_below_1(self) -> bool | None:
        """On which side of 1 it is; None where that is not known."""
        return None if self.low <= 1 <= self.high else self.value < 1


def quotient(own: Row, other: Row, in_hours: bool) -> Span:
    """Iterations of a row over those of another, or train times."""
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
"""Redundant computation converges as if nothing failed: its implied iterations."""

RELEASED_PROBABILITIES = (0.0009, 0.002, 0.004)
"""Of the released configuration: that a stage is lost in an iteration, at the three rates."""

TABLE_3 = {
    "OpenWebText": (16.07, 17.59, 17.07),
    "Gutenberg": (13.32, 14.58, 13.46),
    "Stack Exchange": (19.85, 21.36, 20.86),
    "arXiv": (12.25, 13.33, 12.46),
}
"""Perplexity of the large model (1.5B) after 30,000 iterations at 16 %: no failures, CheckFree, CheckFree+."""

BYTES_PER_TOKEN = 4.0
"""Of English text under a vocabulary of 32,000, about: an assumption, not published."""


def row_of(strategy: str, rate: float) -> Row:
    """The row of a strategy that has one. KeyError for others."""
    row = published(strategy, rate)
    if row is None:
        raise KeyError(f"{strategy} at {rate}")
    return row


def published(strategy: str, rate: float) -> Row | None:
    """The row that one of our strategies answers to; redundant computation has one, under whichever preset."""
    rows = TABLE_2.get("redundant" if strategy.startswith("redundant") else strategy)
    return rows[RATES.index(rate)] if rows and rate in RATES else None
