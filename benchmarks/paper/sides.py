"""Whether an order of two strategies holds in every pair of runs of equal seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sim.results.crossed_design import SEEDS

REPRODUCED, NOT_REPRODUCED, CANNOT_TELL = "R", "N", "?"

LEAST_PAIRS = 6


@dataclass(frozen=True)
class Side:
    """In how many pairs of seeds a number is below that of a reference, equal, and above."""

    num_below: int
    num_equal: int
    num_above: int

    @property
    def num_pairs(self) -> int:
        """All of them."""
        return self.num_below + self.num_equal + self.num_above

    def order(self, is_below: bool) -> str:
        """Whether a claim that it is below, or above, holds in every pair; few pairs tell nothing."""
        if self.num_pairs < LEAST_PAIRS:
            return CANNOT_TELL
        agree, contradict = (self.num_below, self.num_above) if is_below else (self.num_above, self.num_below)
        return {agree: REPRODUCED, contradict: NOT_REPRODUCED}.get(self.num_pairs, CANNOT_TELL)

    def count(self, is_below: bool) -> str:
        """In how many pairs the claim holds, as text."""
        agree = self.num_below if is_below else self.num_above
        ties = f", {self.num_equal} equal" if self.num_equal else ""
        return f"{agree} of {self.num_pairs}{ties}"


def side(runs: pd.DataFrame, metric: str, strategy: str, reference: str) -> Side:
    """How pairs of runs of equal seeds differ in a metric; what was not reached is above all that was."""
    pairs = runs.pivot(index=SEEDS, columns="strategy", values=metric).fillna(np.inf)
    own, other = pairs[strategy], pairs[reference]
    return Side(int((own < other).sum()), int((own == other).sum()), int((own > other).sum()))


def combined(verdicts: Sequence[str]) -> str:
    """The verdict that all share, or that it can't be told."""
    return verdicts[0] if len(set(verdicts)) == 1 else CANNOT_TELL
