"""The time ledger: every simulated second in exactly one bucket, and the buckets add up to wall-clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.records import BUCKETS, Bucket


@dataclass(frozen=True)
class IterationSplit:
    """How the seconds of one iteration divide, averaged over the nodes that hold stages."""

    productive_seconds: float
    bubble_seconds: float
    redundant_seconds: float

    @property
    def seconds(self) -> float:
        """The whole iteration."""
        return math.fsum((self.productive_seconds, self.bubble_seconds, self.redundant_seconds))

    def lasting(self, seconds: float) -> IterationSplit:
        """The same shares of another time."""
        scale = seconds / self.seconds if self.seconds else 0.0
        productive, redundant = scale * self.productive_seconds, scale * self.redundant_seconds
        return IterationSplit(productive, max(0.0, seconds - productive - redundant), redundant)


class Ledger:
    """Books seconds as they pass.

    An iteration is booked to productive compute, bubble and redundant compute when it completes, and moved
    to lost work, whole, when a rollback undoes it.
    """

    def __init__(self) -> None:
        self._other: dict[Bucket, float] = dict.fromkeys(BUCKETS, 0.0)
        self._kept: list[IterationSplit] = []

    def spend(self, bucket: Bucket, seconds: float) -> None:
        """Book seconds that are no part of a completed iteration."""
        assert seconds >= 0.0, "time does not run backwards"
        self._other[bucket] += seconds

    def take_back(self, bucket: Bucket, seconds: float) -> None:
        """Seconds booked before turn out to be part of an iteration that goes on."""
        self._other[bucket] -= seconds

    def complete_iteration(self, split: IterationSplit) -> None:
        """Book a completed iteration, the next after those kept so far."""
        self._kept.append(split)

    def roll_back(self, num_iterations: int) -> None:
        """Keep the first `num_iterations` completed iterations; the later ones become lost work."""
        assert 0 <= num_iterations <= len(self._kept), "a rollback goes back"
        self._other["lost_work"] += math.fsum(split.seconds for split in self._kept[num_iterations:])
        del self._kept[num_iterations:]

    def buckets(self) -> dict[Bucket, float]:
        """Seconds in each bucket."""
        totals = dict(self._other)
        totals["productive_compute"] += math.fsum(split.productive_seconds for split in self._kept)
        totals["bubble_and_communication"] += math.fsum(split.bubble_seconds for split in self._kept)
        totals["redundant_compute"] += math.fsum(split.redundant_seconds for split in self._kept)
        return totals
