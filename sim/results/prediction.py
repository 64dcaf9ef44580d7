"""Losses of whole runs, predicted from training without failures and from the excess of single ones.

The loss of a run is that of its trunk at the same step plus the excess of each stage that was rebuilt on the way
(`healing`). Every training seed has its own trunk and its own amplitude of the excess,
so that the spread of predictions over training seeds contains what is uncertain about both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sim.results.healing import Floats, Healing, Rebuilt, amplitudes, fit
from sim.results.seed_means import means_over_seeds

EXTENSION = 2
"""Multiple of the steps of the training up to which a target is looked for."""

FEWEST_CONTINUED = 8
"""Validations of a trunk from which on it can be continued."""


@dataclass(frozen=True)
class Prediction:
    """The predicted learning of a strategy.

    steps: at which trunks were validated, ascending; trunks: losses there by training seed, in nats per token.
    healing: of one failure; None where recoveries never change weights. factors: on it, by training seed.
    num_steps: of the training; by default those of the trunks.
    """

    steps: tuple[int, ...]
    trunks: Mapping[int, Floats]
    healing: Healing | None = None
    factors: Mapping[int, float] = field(default_factory=dict)
    num_steps: int | None = None

    @classmethod
    def of(
        cls, trunks: pd.DataFrame, branches: pd.DataFrame, steps: Sequence[int], num_steps: int | None = None
    ) -> Prediction:
        """Fit the rows of a strategy in `Branches.trunks` and `Branches.table`. steps: those to be used of trunks."""
        at = trunks[trunks["step"].isin(steps)].sort_values("step")
        seeds = sorted(set(at["training_seed"].tolist()))
        curves = {seed: at.loc[at["training_seed"] == seed, "loss"].to_numpy(float) for seed in seeds}
        rebuilt = branches[branches["is_rebuilt"]] if len(branches) else branches
        known = tuple(sorted(set(at["step"].astype(int))))
        if not len(rebuilt) or rebuilt["excess"].isna().all():
            return cls(known, curves, num_steps=num_steps)
        healing = fit(rebuilt)
        return cls(known, curves, healing, amplitudes(rebuilt, healing), num_steps)

    @property
    def seeds(self) -> list[int]:
        """The training seeds."""
        return list(self.trunks)

    def losses(self, seed: int, rebuilt: Sequence[Rebuilt]) -> Floats:
        """(steps,) predicted losses under a training seed. rebuilt: the stages that are rebuilt, in order of steps."""
        return self._with_excess(self.trunks[seed], seed, rebuilt, np.array(self.steps, dtype=float))

    def _with_excess(self, trunk: Floats, seed: int, rebuilt: Sequence[Rebuilt], steps: Floats) -> Floats:
        """Losses of a trunk at some steps, with the excess of rebuilt stages."""
        if self.healing is None or not rebuilt:
            return trunk
        return trunk + self.factors.get(seed, 1.0) * self.healing.of_failures(rebuilt, steps)

    def step_of(self, target: float, seed: int, rebuilt: Sequence[Rebuilt]) -> float:
        """The first validated step at which the predicted loss is at most a target; NaN if it is missed.

        Up to EXTENSION times `num_steps` the trunk is continued (`continued`), beyond that the target is missed.
        """
        reached = np.flatnonzero(self.losses(seed, rebuilt) <= target)
        if len(reached):
            return float(self.steps[reached[0]])
        if len(self.steps) < FEWEST_CONTINUED:
            return math.nan
        interval, last = self.steps[-1] - self.steps[-2], self.steps[-1]
        later = np.arange(last + interval, EXTENSION * (self.num_steps or last) + 1, interval, dtype=float)
        losses = self._with_excess(self.continued(seed, later), seed, rebuilt, later)
        reached = np.flatnonzero(losses <= target)
        return float(later[reached[0]]) if len(reached) else math.nan

    def continued(self, seed: int, later: Floats) -> Floats:
        """The trunk after its last step: a line in the logarithm of the step, through its second half."""
        half = len(self.steps) // 2
        logs, losses = np.log(np.array(self.steps[half:], dtype=float)), self.trunks[seed][half:]
        slope, height = np.polyfit(logs, losses, 1)
        if slope >= 0.0:
            return np.full(len(later), float(losses.mean()))
        found: Floats = height + slope * np.log(later)
        return found


@dataclass(frozen=True)
class WholeRuns:
    """Predicted whole runs at several failure rates.

    field: of the scenario, that sets the rate; empty if there is none. table: a row for each `value` of it, `strategy`,
    `training_seed` and `failure_seed`: `num_rebuilt` stages, `steps_to_target`, `hours_to_target` (NaN: missed), and
    `final_validation_loss`. target: in nats per token; None without one.
    """

    field: str
    table: pd.DataFrame
    target: float | None

    @property
    def values(self) -> list[Any]:
        """The failure rates."""
        return list(dict.fromkeys(self.table["value"]))

    def means(self, column: str) -> pd.DataFrame:
        """Means over training seeds by `value` and `strategy`, with 95 % t intervals; NaN if a run misses the target.

        Each seed's value is the mean over its failure seeds.
        """
        return means_over_seeds(self.table, column, ("value", "strategy"))

    def difference(self, strategy: str, reference: str, column: str) -> pd.DataFrame:
        """Mean difference of two strategies under equal seeds by `value`, as `means`."""
        keys = ["value", "training_seed", "failure_seed"]
        ours, theirs = (self.table[self.table["strategy"] == name].set_index(keys) for name in (strategy, reference))
        both = (ours[column] - theirs[column]).rename(column).reset_index()
        return means_over_seeds(both, column, ("value",))
