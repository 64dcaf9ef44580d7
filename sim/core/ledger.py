"""The time ledger: every simulated second is in exactly one bucket, and the buckets add up to wall-clock time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from sim.core.records import BUCKETS, Bucket


@dataclass(frozen=True)
class IterationSplit:
    """The seconds of one iteration by bucket, averaged over the nodes that hold stages."""

    productive_seconds: float
    bubble_seconds: float
    redundant_seconds: float

    @property
    def seconds(self) -> float:
        """Duration of the iteration."""
        return math.fsum((self.productive_seconds, self.bubble_seconds, self.redundant_seconds))

    def lasting(self, seconds: float) -> IterationSplit:
        """The same shares of another duration."""
        scale = seconds / self.seconds if self.seconds else 0.0
        productive, redundant = scale * self.productive_seconds, scale * self.redundant_seconds
        return IterationSplit(productive, max(0.0, seconds - productive - redundant), redundant)


class Ledger:
    """Seconds by bucket. Completed iterations are booked by their splits, and moved to lost work by a rollback.

    Successive equal iterations are stored once, with their number.
    """

    def __init__(self) -> None:
        self._other: dict[Bucket, float] = dict.fromkeys(BUCKETS, 0.0)
        self._kept: list[tuple[IterationSplit, int]] = []
        self.num_iterations = 0

    def spend(self, bucket: Bucket, seconds: float) -> None:
        """Book seconds that do not belong to a completed iteration."""
        assert seconds >= 0.0, "time does not run backwards"
        self._other[bucket] += seconds

    def take_back(self, bucket: Bucket, seconds: float) -> None:
        """Remove booked seconds that belong to an iteration that is resumed."""
        self._other[bucket] -= seconds

    def complete_iteration(self, split: IterationSplit, num: int = 1) -> None:
        """Book the next completed iteration, or several equal ones."""
        is_repeated = self._kept and (self._kept[-1][0] is split or self._kept[-1][0] == split)
        before = self._kept.pop()[1] if is_repeated else 0
        self._kept.append((split, before + num))
        self.num_iterations += num

    def roll_back(self, num_iterations: int) -> None:
        """Keep the first `num_iterations` completed iterations; the later ones become lost work."""
        assert 0 <= num_iterations <= self.num_iterations, "a rollback goes back"
        undone: list[tuple[float, int]] = []
        while self.num_iterations > num_iterations:
            split, num = self._kept.pop()
            num_undone = min(num, self.num_iterations - num_iterations)
            if num > num_undone:
                self._kept.append((split, num - num_undone))
            undone.append((split.seconds, num_undone))
            self.num_iterations -= num_undone
        self._other["lost_work"] += exact_sum(undone)

    def buckets(self) -> dict[Bucket, float]:
        """Seconds in each bucket."""
        totals = dict(self._other)
        totals["productive_compute"] += exact_sum((split.productive_seconds, num) for split, num in self._kept)
        totals["bubble_and_communication"] += exact_sum((split.bubble_seconds, num) for split, num in self._kept)
        totals["redundant_compute"] += exact_sum((split.redundant_seconds, num) for split, num in self._kept)
        return totals


def exact_sum(seconds: Iterable[tuple[float, int]]) -> float:
    """The sum of pairs (seconds, number of times), rounded once: equal to `math.fsum` of all terms, to the bit."""
    num_of: Counter[float] = Counter()
    for each, num in seconds:
        num_of[each] += num
    if len(num_of) == 1:
        ((each, num),) = num_of.items()
        return each * num  # a product is rounded once
    return float(sum((Fraction(each) * num for each, num in num_of.items()), Fraction(0)))
