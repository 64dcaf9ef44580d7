"""The part of the sweeps that results/paper keeps: outcomes and validation losses of each run, as parquet.

With the same scenario, seeds, text, torch and CPU family the files agree to the bit. Elsewhere seconds still do, since
they do not depend on training; losses agree within TOLERANCE, or within OTHER_TEXT_TOLERANCE.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.core.records import BUCKETS
from sim.reporting.series import at_point
from sim.results.crossed_design import SEEDS
from sim.results.selection import swept_fields
from sim.results.storage import Results, read_json
from sim.scenario.scenario import AUTO_TARGET_SHARE

COMMITTED = Path(__file__).parents[2] / "results" / "paper"

OUTCOMES = (
    *("outcome", "num_iterations", "num_iterations_run", "num_failures", "num_fallbacks", "num_rollbacks"),
    *("iteration_seconds", "wall_clock_seconds", "mean_recovery_seconds", "goodput", "final_validation_loss"),
    *(f"{bucket}_seconds" for bucket in BUCKETS),
)

LOSS_COLUMNS = ("iteration", "executed", "ended_seconds", "validation_loss")


@dataclass(frozen=True)
class Extract:
    """A job's runs, a row each, and their validation losses, a row each. fields: the swept fields."""

    runs: pd.DataFrame
    losses: pd.DataFrame
    fields: tuple[str, ...]

    @classmethod
    def of(cls, results: Results) -> Extract:
        """Extract of a sweep's folder; runs are numbered, and identified by strategy, point and seeds."""
        fields = swept_fields(results)
        names = {run: f"{number:04d}" for number, run in enumerate(results.runs["run"])}
        losses = validations(results, names)
        about = ["run", "strategy", "kind", *fields, *SEEDS]
        runs = results.runs.assign(run=results.runs["run"].map(names))[[*about, *OUTCOMES]].reset_index(drop=True)
        losses = losses.merge(runs[about], on="run")[[*about, *LOSS_COLUMNS]]
        return cls(runs, losses, tuple(fields))

    @classmethod
    def read(cls, folder: Path, name: str) -> Extract:
        """Extract from the files that `write` made."""
        runs = pd.read_parquet(folder / f"{name}_runs.parquet")
        losses = pd.read_parquet(folder / f"{name}_losses.parquet")
        known = {"run", "strategy", "kind", *SEEDS, *OUTCOMES}
        return cls(runs, losses, tuple(str(column) for column in runs if column not in known))

    def write(self, folder: Path, name: str) -> None:
        """Write two files."""
        folder.mkdir(parents=True, exist_ok=True)
        self.runs.to_parquet(folder / f"{name}_runs.parquet", index=False, compression="zstd")
        self.losses.to_parquet(folder / f"{name}_losses.parquet", index=False, compression="zstd")

    def at(self, point: Mapping[str, Any]) -> Extract:
        """The rows in which swept fields, or other columns, have these values."""
        fields = tuple(field for field in self.fields if field not in point)
        return Extract(at_point(self.runs, point), at_point(self.losses, point), fields)

    def smoothed(self, num_validations: int) -> Extract:
        """The same with running means in place of the validation losses."""
        return Extract(self.runs, smoothed(self.losses, num_validations), self.fields)

    def target(self) -> tuple[int, float]:
        """The target by the rule: the iteration whose failure-free loss it is, and the loss."""
        return (at := target_iteration(self.losses)), target_loss(self.losses, at)

    def to_target(self, iteration: int | None = None) -> pd.DataFrame:
        """The runs with the failure-free loss at an iteration as target; default: the target by the rule."""
        at = target_iteration(self.losses) if iteration is None else iteration
        return with_target(self.runs, self.losses, target_loss(self.losses, at))


def validations(results: Results, names: dict[str, str]) -> pd.DataFrame:
    """Validations of all runs in order of time. executed: iterations completed by then, repeated ones included."""
    records = results.iterations
    records = records.assign(executed=records.groupby("run").cumcount() + 1, run=records["run"].map(names))
    found = records.dropna(subset=["validation_loss"])
    return found[["run", *LOSS_COLUMNS]]


# ---- what is read from loss curves -------------------------------------------------------------------

TARGET_SHARE = float(AUTO_TARGET_SHARE)
"""The target is reached by failure-free runs after this share of the steps: others have 2.4 × as many."""

NUM_LAST = 8
"""Validations in the mean that is the loss at the end: a single one varies by as much as strategies differ."""


def target_iteration(losses: pd.DataFrame, share: float = TARGET_SHARE) -> int:
    """The iteration whose failure-free loss is the target: the last one validated within this share of all."""
    validated = losses.loc[losses["kind"] == "none", "iteration"]
    return int(validated[validated <= validated.max() * share].max())


def target_loss(losses: pd.DataFrame, iteration: int) -> float:
    """Failure-free loss at an iteration: mean over training seeds, nats per token, rounded up to a thousandth."""
    there = losses[(losses["kind"] == "none") & (losses["iteration"] == iteration)]
    if there.empty:
        raise ValueError(f"no failure-free run was validated at iteration {iteration}")
    return math.ceil(1000 * there.drop_duplicates("training_seed")["validation_loss"].mean()) / 1000


def with_target(runs: pd.DataFrame, losses: pd.DataFrame, target: float) -> pd.DataFrame:
    """Runs with a target loss and when they first reached it; empty where they did not.

    target_reached_iteration: the iteration; target_reached_executed: iterations completed by then, including those
    repeated after a rollback; target_reached_seconds: simulated seconds.
    """
    hits = losses[losses["validation_loss"] <= target].drop_duplicates("run").set_index("run")
    return runs.assign(
        target_validation_loss=target,
        target_reached_iteration=runs["run"].map(hits["iteration"]),
        target_reached_executed=runs["run"].map(hits["executed"]),
        target_reached_seconds=runs["run"].map(hits["ended_seconds"]),
    )


def smoothed(losses: pd.DataFrame, num_validations: int) -> pd.DataFrame:
    """Centred running means over this many validations (fewer at the ends of a run)."""
    grouped = losses.groupby("run", sort=False)["validation_loss"]
    means = grouped.transform(lambda own: own.rolling(num_validations, center=True, min_periods=1).mean())
    return losses.assign(validation_loss=means)


def last_validations(losses: pd.DataFrame) -> pd.DataFrame:
    """The last NUM_LAST validations of each run, by iteration; the later one of a repeated iteration."""
    once = losses.drop_duplicates(["run", "iteration"], keep="last").sort_values("iteration")
    return once.groupby("run", sort=False).tail(NUM_LAST)


def final_losses(losses: pd.DataFrame) -> pd.Series[float]:
    """Mean loss of the last validations of each run, in nats per token."""
    return last_validations(losses).groupby("run")["validation_loss"].mean()


def rollback_factor(probability: float, interval_iterations: int, num_stages: int) -> float:
    """Iterations run per iteration kept if each failure goes back to the last checkpoint: (e^x - 1) / x.

    x: failures expected in an interval. Closed form for memoryless failures and saves that take no time.
    """
    expected = interval_iterations * num_stages * probability
    return float(np.expm1(expected) / expected)


# ---- comparison with the committed numbers -----------------------------------------------------------

TOLERANCE = 0.03
"""Largest relative difference of losses on another CPU family or torch: rounding errors grow during training."""

OTHER_TEXT_TOLERANCE = 0.05
"""The same where the standard library is that of another Python 3.11."""

TRAINED = ("validation_loss", "final_validation_loss", "loss_nats")
"""Columns that training determines; all others are simulated and the same on every machine."""

EXACT = 1e-9


def made_on() -> dict[str, Any]:
    """Versions and hardware that determine the bits of a loss, beside scenario and seeds."""
    import torch

    from models.corpus import load_corpus
    from models.spec import DataSpec
    from models.trajectory import cpu_family

    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": f"{cpu_family()}, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        "text": load_corpus(DataSpec(), Path()).content_hash,
    }


def compare(new: Path, old: Path) -> tuple[list[str], bool]:
    """Describe how new numbers differ from committed ones; and whether all differences are within the tolerance."""
    here, there = made_on(), read_json(old / "made_on.json")
    others = {name: there.get(name, "unknown") for name, value in here.items() if there.get(name) != value}
    for_losses = (OTHER_TEXT_TOLERANCE if "text" in others else TOLERANCE) if others else 0.0
    names, old_names = ({path.name for path in folder.glob("*.parquet")} for folder in (new, old))
    lines = [f"{name}: only among those made here" for name in sorted(names - old_names)]
    lines += [f"{name}: not made here" for name in sorted(old_names - names)]
    num_equal, agrees = 0, names == old_names != set()
    for name in sorted(names & old_names):
        found = differences(pd.read_parquet(new / name), pd.read_parquet(old / name))
        num_equal += not found
        for column, difference in found.items():
            fits = difference <= (for_losses if column in TRAINED else EXACT)
            agrees &= fits
            lines.append(f"{name}: {column} differs by up to {difference:.2g}{'' if fits else ', too much'}")
    shown = old.relative_to(Path.cwd()) if old.is_relative_to(Path.cwd()) else old
    whole = f"{num_equal} of {len(old_names)} tables agree with {shown} to the bit."
    made = [f"Made here with {name} {here[name]}; the committed ones with {value}." for name, value in others.items()]
    return [*made, *lines, whole], agrees


def differences(new: pd.DataFrame, old: pd.DataFrame) -> dict[str, float]:
    """Largest relative difference of each column that differs; NaN for text, infinity for other rows or columns."""
    if list(new) != list(old) or len(new) != len(old):
        return {"rows or columns": float("inf")}
    found: dict[str, float] = {}
    for name in map(str, new):
        if new[name].equals(old[name]):
            continue
        if not pd.api.types.is_numeric_dtype(new[name]):
            found[name] = float("nan")
            continue
        a, b = new[name].to_numpy(float), old[name].to_numpy(float)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        found[name] = float(np.max(np.where(same, 0.0, np.abs(a - b) / np.maximum(np.abs(b), 1e-300))))
    return found
