"""What the CheckFree paper publishes (arXiv 2506.15461 v2, Tables 2 and 3): figures only, to set ours beside."""

from __future__ import annotations

from dataclasses import dataclass

from sim.clock import SECONDS_PER_HOUR

RATES = (0.05, 0.10, 0.16)
"""Chance that a stage is lost within an hour."""
NUM_STAGES = 6
CHECKPOINT_INTERVAL_ITERATIONS = 100
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


def published(strategy: str, rate: float) -> Row | None:
    """The row that one of our strategies answers to; redundant computation has one, under whichever preset."""
    rows = TABLE_2.get("redundant" if strategy.startswith("redundant") else strategy)
    return rows[RATES.index(rate)] if rows and rate in RATES else None
