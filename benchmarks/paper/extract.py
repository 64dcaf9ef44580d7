"""What of the sweeps is kept in results/paper: outcomes and validation losses of each run, as parquet; comparing.

Of equal scenario, seeds, text, torch and CPU family the files agree to the bit. Elsewhere seconds still do, since they
know nothing of what is learnt; losses agree within TOLERANCE, or OTHER_TEXT_TOLERANCE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.paper.learning import target_iteration, target_loss, with_target
from sim.core.records import BUCKETS
from sim.reporting.series import at_point
from sim.results.crossed_design import SEEDS
from sim.results.selection import swept_fields
from sim.results.storage import Results

TOLERANCE = 0.03
"""Largest relative difference of losses on another CPU family or torch: rounding grows as training goes on."""

OTHER_TEXT_TOLERANCE = 0.05
"""The same where the standard library is that of another Python 3.11."""

OUTCOMES = (
    *("outcome", "num_iterations", "num_iterations_run", "num_failures", "num_fallbacks", "num_rollbacks"),
    *("iteration_seconds", "wall_clock_seconds", "mean_recovery_seconds", "goodput", "final_validation_loss"),
    *(f"{bucket}_seconds" for bucket in BUCKETS),
)


@dataclass(frozen=True)
class Extract:
    """A job's runs, a row each, and their validation losses, a row each. fields: what the job sweeps."""

    runs: pd.DataFrame
    losses: pd.DataFrame
    fields: tuple[str, ...]

    @classmethod
    def of(cls, results: Results) -> Extract:
        """Of a sweep's folder; runs are renamed after their strategy, point and seeds, which is all that names them."""
        fields = swept_fields(results)
        names = {run: f"{number:04d}" for number, run in enumerate(results.runs["run"])}
        losses = validations(results, names)
        about = ["run", "strategy", "kind", *fields, *SEEDS]
        runs = results.runs.assign(run=results.runs["run"].map(names))[[*about, *OUTCOMES]].reset_index(drop=True)
        losses = losses.merge(runs[about], on="run")[[*about, *LOSS_COLUMNS]]
        return cls(runs, losses, tuple(fields))

    @classmethod
    def read(cls, folder: Path, name: str) -> Extract:
        """Of files that `write` made."""
        runs = pd.read_parquet(folder / f"{name}_runs.parquet")
        losses = pd.read_parquet(folder / f"{name}_losses.parquet")
        known = {"run", "strategy", "kind", *SEEDS, *OUTCOMES}
        return cls(runs, losses, tuple(str(column) for column in runs if column not in known))

    def write(self, folder: Path, name: str) -> None:
        """As two files."""
        folder.mkdir(parents=True, exist_ok=True)
        self.runs.to_parquet(folder / f"{name}_runs.parquet", index=False, compression="zstd")
        self.losses.to_parquet(folder / f"{name}_losses.parquet", index=False, compression="zstd")

    def at(self, point: Mapping[str, Any]) -> Extract:
        """The part of it in which swept fields, or other columns, have these values."""
        fields = tuple(field for field in self.fields if field not in point)
        return Extract(at_point(self.runs, point), at_point(self.losses, point), fields)

    def to_target(self, iteration: int | None = None) -> pd.DataFrame:
        """Its runs with the failure-free loss at an iteration as target: by the rule, unless one is given."""
        at = target_iteration(self.losses) if iteration is None else iteration
        return with_target(self.runs, self.losses, target_loss(self.losses, at))


LOSS_COLUMNS = ("iteration", "executed", "ended_seconds", "validation_loss")


def validations(results: Results, names: dict[str, str]) -> pd.DataFrame:
    """Each validation of each run, in the order of time. executed: iterations completed so far, repeated ones too."""
    records = results.iterations
    records = records.assign(executed=records.groupby("run").cumcount() + 1, run=records["run"].map(names))
    found = records.dropna(subset=["validation_loss"])
    return found[["run", *LOSS_COLUMNS]]


def differences(new: pd.DataFrame, old: pd.DataFrame) -> dict[str, float]:
    """Largest relative difference by column, of those that differ; NaN for what is no number, inf for other rows."""
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
