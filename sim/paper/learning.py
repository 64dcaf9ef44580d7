"""What loss curves tell: the target by its rule, when it is reached, and how far a run is behind another."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

TARGET_SHARE = 5 / 12
"""The target is what failure-free runs have reached after this share of the steps: the others have 2.4 × as many."""
NUM_LAST_RECORDS = 8
"""Over so many, how far a run is behind is averaged."""
Floats = npt.NDArray[np.float64]


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


def iterations_behind(own: pd.DataFrame, reference: pd.DataFrame) -> float:
    """How many iterations a run is behind another at its end: mean over its last records.

    Both are rows of one run; a record is a validation lower than all before. Behind: a record's iteration, less the one
    at which the other's records first came so low (between two of them: along a line).
    """
    iterations, losses = records(own)
    reached, lowest = records(reference)
    return float((iterations - np.interp(-losses, -lowest, reached))[-NUM_LAST_RECORDS:].mean())


def records(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Iterations and losses of the validations that are lower than all before, in the order of iterations."""
    rows = rows.drop_duplicates("iteration", keep="last").sort_values("iteration")
    losses = rows["validation_loss"].to_numpy(float)
    are = losses < np.minimum.accumulate(np.concatenate(([np.inf], losses[:-1])))
    return rows["iteration"].to_numpy(float)[are], losses[are]


def rollback_factor(probability: float, interval_iterations: int, num_stages: int) -> float:
    """Iterations run for one that is kept, where each failure goes back to the last checkpoint: (e^x - 1) / x.

    x: failures expected in an interval. Closed form for memoryless failures and saves that take no time.
    """
    expected = interval_iterations * num_stages * probability
    return float(np.expm1(expected) / expected)
