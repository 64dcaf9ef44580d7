"""What loss curves tell: the target by its rule, when it is reached, losses at the end, how far a run is behind."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

TARGET_SHARE = 5 / 12
"""The target is what failure-free runs have reached after this share of the steps: the others have 2.4 × as many."""

NUM_LAST = 8
"""Validations that a loss at the end is the mean of: one alone scatters by as much as strategies differ."""


def target_iteration(losses: pd.DataFrame, share: float = TARGET_SHARE) -> int:
    """The iteration whose failure-free loss is the target: the last one validated within this share of all."""
    validated = losses.loc[losses["kind"] == "none", "iteration"]
    return int(validated[validated <= validated.max() * share].max())


def target_loss(losses: pd.DataFrame, iteration: int) -> float:
    """The failure-free loss at an iteration: mean over training seeds, in nats per token, up to the next thousandth."""
    there = losses[(losses["kind"] == "none") & (losses["iteration"] == iteration)]
    if there.empty:
        raise ValueError(f"no failure-free run was validated at iteration {iteration}")
    return math.ceil(1000 * there.drop_duplicates("training_seed")["validation_loss"].mean()) / 1000


def with_target(runs: pd.DataFrame, losses: pd.DataFrame, target: float) -> pd.DataFrame:
    """Runs with a target loss, and when they first had it.

    target_reached_iteration: the iteration, target_reached_executed: iterations completed until then, those among them
    that were run again after a rollback, target_reached_seconds: simulated. Empty where it was not reached.
    """
    hits = losses[losses["validation_loss"] <= target].drop_duplicates("run").set_index("run")
    return runs.assign(
        target_validation_loss=target,
        target_reached_iteration=runs["run"].map(hits["iteration"]),
        target_reached_executed=runs["run"].map(hits["executed"]),
        target_reached_seconds=runs["run"].map(hits["ended_seconds"]),
    )


def smoothed(losses: pd.DataFrame, num_validations: int) -> pd.DataFrame:
    """Each validation replaced by the mean of so many around it (fewer at the ends of a run)."""
    grouped = losses.groupby("run", sort=False)["validation_loss"]
    means = grouped.transform(lambda own: own.rolling(num_validations, center=True, min_periods=1).mean())
    return losses.assign(validation_loss=means)


def last_validations(losses: pd.DataFrame) -> pd.DataFrame:
    """The last NUM_LAST validations of each run, by iteration; of those that were repeated, the later."""
    once = losses.drop_duplicates(["run", "iteration"], keep="last").sort_values("iteration")
    return once.groupby("run", sort=False).tail(NUM_LAST)


def final_losses(losses: pd.DataFrame) -> pd.Series[float]:
    """Mean loss of the last validations of each run, in nats per token."""
    return last_validations(losses).groupby("run")["validation_loss"].mean()


def iterations_behind(own: pd.DataFrame, reference: pd.DataFrame) -> float:
    """How many iterations a run is behind another at its end: mean over its last validations.

    Both are rows of one run. A loss is read as the iteration at which the other has it, along a line in ln(iteration)
    fitted to the other's second half; the other is behind itself by what this leaves, which is taken off.
    """
    second_half = reference[reference["iteration"] > reference["iteration"].max() / 2]
    slope, start = np.polyfit(np.log(second_half["iteration"]), second_half["validation_loss"], 1)

    def lag(rows: pd.DataFrame) -> float:
        last = last_validations(rows)
        return float((last["iteration"] - np.exp((last["validation_loss"] - start) / slope)).mean())

    return lag(own) - lag(reference)


def rollback_factor(probability: float, interval_iterations: int, num_stages: int) -> float:
    """Iterations run for one that is kept, where each failure goes back to the last checkpoint: (e^x - 1) / x.

    x: failures expected in an interval. Closed form for memoryless failures and saves that take no time.
    """
    expected = interval_iterations * num_stages * probability
    return float(np.expm1(expected) / expected)
