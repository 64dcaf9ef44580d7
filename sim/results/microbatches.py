"""Microbatches that are faster than a scenario's for every strategy."""

from __future__ import annotations

from dataclasses import dataclass

WORTH_SAYING = 0.02
"""Share of the iteration time that smaller microbatches must save: smaller operations lose about as much on a device,
which the default `workload.efficiency` does not model."""


@dataclass(frozen=True)
class SmallerMicrobatches:
    """A factor by which more and smaller microbatches make a plain iteration faster, with both durations."""

    factor: int
    seconds: float
    given_seconds: float

    @property
    def are_faster(self) -> bool:
        """Whether they save enough to be worth a sentence."""
        return self.factor > 1 and self.seconds < (1.0 - WORTH_SAYING) * self.given_seconds
