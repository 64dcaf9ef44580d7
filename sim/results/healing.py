"""The excess loss after one failure as a function of stage, step and steps since, fitted to branches.

    excess = cost of the stage × ((steps apart / scale)^GROWTH / (1 + steps since / 3))^healing of the stage

A failure heals by a power law: most of the excess is gone after some tens of steps, the rest stays for hundreds. A
stage that starts from a bad copy, such as S1 of CheckFree, heals faster than others. The longer the lost stage was
trained apart from what replaces it, the longer healing takes. Fitted by weighted least squares
(`scipy.optimize.least_squares`) to means over training seeds; weights are the inverse spread over branches at the same
number of steps since the failure. The excess at once, before any training, is not fitted: it is gone after a few steps,
and too large to weigh beside what lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

Floats = npt.NDArray[np.float64]

DELAY_STEPS = 3.0
"""Steps from which on the power law holds: less than the first comparison, so that it is not fitted."""

GROWTH = 1.5
"""Exponent of the steps apart in the time that healing takes, from whole runs of the quickstart's proxy. It is not
fitted to branches, in which the steps apart are those since the start."""

HEALING, OF_STAGE = (0.5, 0.1), 0.2
"""What is known before any data: mean and standard deviation of the common healing, and the standard deviation of the
stages' healing around it. Few branches move the fit from there a little, many decide it. From branches of the
quickstart's proxy over 200 steps; shorter ones alone let the excess vanish too fast."""

LIMITS = 0.05, 3.0


@dataclass(frozen=True)
class Healing:
    """The fitted excess of a strategy, in nats per token.

    costs: by stage, at step `scale`, at once. healing: exponent by stage, as in the module's formula.
    """

    costs: Mapping[int, float]
    scale: float
    healing: Mapping[int, float]

    def excess(self, stage: int, step: float, since: Floats) -> Floats:
        """The excess so many steps after the loss of a stage at a step; 0 before it.

        A stage that was not measured costs as much as the others on average.
        """
        if stage not in self.costs:
            mean: Floats = np.mean([self.excess(other, step, since) for other in self.costs], axis=0)
            return mean
        shape = shape_of(step / self.scale, np.maximum(since, 0.0), self.healing[stage])
        found: Floats = self.costs[stage] * np.where(since >= 0.0, shape, 0.0)
        return found

    def of_failures(self, rebuilt: Sequence[Rebuilt], steps: Floats) -> Floats:
        """The sum of the excess of all rebuilt stages at some steps of training.

        In a run with several failures, `step` of the formula is the number of steps for which a stage was trained apart
        (`steps_apart`). With steps since the start in its place, the sum is 1.6 to 7 times what whole runs show.
        """
        total = np.zeros(len(steps))
        for one, apart in zip(rebuilt, steps_apart(rebuilt), strict=True):
            total += self.excess(one.stage, apart, steps - one.step)
        return total


def shape_of(apart: Floats | float, since: Floats, healing: Floats | float) -> Floats:
    """The excess as a share of the cost. apart: steps apart, as a multiple of the scale."""
    shape: Floats = (apart**GROWTH / (1.0 + since / DELAY_STEPS)) ** healing
    return shape


class Rebuilt(NamedTuple):
    """A stage rebuilt in a run, at a step. copied_from: the one stage that it became a copy of, if it did."""

    stage: int
    step: int
    copied_from: int | None = None


def steps_apart(rebuilt: Sequence[Rebuilt]) -> list[int]:
    """For each rebuilt stage, in order of steps: for how many steps it was trained apart from what replaces it.

    That is since it was last rebuilt, or since the stage that it is copied from was: then both were alike.
    """
    found, last = [], dict[int, int]()
    for one in rebuilt:
        since = last.get(one.stage, 0)
        if one.copied_from is not None:
            since = max(since, last.get(one.copied_from, 0))
        found.append(one.step - since)
        last[one.stage] = one.step
    return found


def fit(branches: pd.DataFrame) -> Healing:
    """Fit a strategy's branches: columns stage, step, after_steps, training_seed, excess. ValueError without values."""
    known = fitted_rows(branches)
    if known.empty:
        raise ValueError("no branch has an excess loss after some training")
    means = known.groupby(["stage", "step", "after_steps"], as_index=False)["excess"].mean()
    weights = 1.0 / means["after_steps"].map(spread_at(known)).to_numpy(float)
    stages, scale = sorted(set(means["stage"])), float(means["step"].max())
    of_stage = means["stage"].map(stages.index).to_numpy()
    steps, since, found = (means[name].to_numpy(float) for name in ("step", "after_steps", "excess"))

    def costs_at(parameters: Floats) -> tuple[Floats, Floats]:
        """The costs of all stages that fit best with a healing, and the shape of the excess."""
        shape = shape_of(steps / scale, since, parameters[1:][of_stage])
        top, bottom = (np.bincount(of_stage, weights**2 * shape * other, len(stages)) for other in (found, shape))
        return np.maximum(top / bottom, 0.0), shape

    def residuals(parameters: Floats) -> Floats:
        costs, shape = costs_at(parameters)
        mean, spread = HEALING
        before = [(parameters[0] - mean) / spread]
        return np.concatenate(
            [weights * (costs[of_stage] * shape - found), before, (parameters[1:] - parameters[0]) / OF_STAGE]
        )

    parameters = scipy.optimize.least_squares(residuals, [HEALING[0]] * (1 + len(stages)), bounds=LIMITS).x
    costs, _ = costs_at(parameters)
    healing = dict(zip(stages, parameters[1:].tolist(), strict=True))
    return Healing(dict(zip(stages, costs.tolist(), strict=True)), scale, healing)


def fitted_rows(branches: pd.DataFrame) -> pd.DataFrame:
    """The rows that are fitted: with an excess, and after some training."""
    known = branches.dropna(subset=["excess"])
    return known[known["after_steps"] > 0]


def spread_at(branches: pd.DataFrame) -> dict[int, float]:
    """Standard deviation of the excess by steps after the failure: within a stage and step, else over all branches."""
    groups = branches.groupby(["stage", "step", "after_steps"])["excess"]
    spread = groups.var().groupby("after_steps").mean()
    over_all = branches.groupby("after_steps")["excess"].agg(lambda found: found.var(ddof=0))
    found = spread.where(spread > 0.0, over_all).fillna(over_all) ** 0.5
    least = float(found[found > 0.0].min()) if (found > 0.0).any() else 1.0
    return {int(after): max(float(value), least) for after, value in zip(found.index, found, strict=True)}


def amplitudes(branches: pd.DataFrame, fitted: Healing) -> dict[int, float]:
    """The factor on the fitted excess that fits each training seed best."""
    known = fitted_rows(branches)
    weights = 1.0 / known["after_steps"].map(spread_at(known)).to_numpy(float) ** 2
    rows = zip(known["stage"], known["step"], known["after_steps"], strict=True)
    shape = np.array([float(fitted.excess(stage, step, np.array(float(after)))) for stage, step, after in rows])
    seeds, of_seed = np.unique(known["training_seed"], return_inverse=True)
    top, bottom = (np.bincount(of_seed, weights * shape * other) for other in (known["excess"].to_numpy(), shape))
    return {int(seed): float(a / b) if b else 1.0 for seed, a, b in zip(seeds, top, bottom, strict=True)}
