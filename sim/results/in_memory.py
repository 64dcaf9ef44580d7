"""Simulated runs as DataFrames, without files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sim.core.records import BUCKETS, EventRecord, IterationRecord
from sim.core.text import format_count
from sim.core.units import SECONDS_PER_HOUR
from sim.results.storage import Results, records_table
from sim.results.summary import flat, summarise
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run


@dataclass(frozen=True, repr=False)
class SimulatedRun:
    """One strategy under one pair of seeds. Times are simulated seconds, losses nats per token."""

    scenario: Scenario
    run: Run

    def __repr__(self) -> str:
        """Its name and size."""
        iterations, failures = format_count(self.run.num_iterations, "iteration"), self.run.num_failures
        return f"<SimulatedRun {self.name}: {iterations}, {format_count(failures, 'failure')}>"

    @property
    def name(self) -> str:
        """Strategy and seeds."""
        return f"{self.run.strategy}-f{self.run.failure_seed}-t{self.run.training_seed}"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The run's outcomes, as in `summary.json`."""
        return summarise(self.scenario, self.run)

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """A row for each completed iteration."""
        return pd.DataFrame(records_table(self.run.iterations, IterationRecord).to_pandas())

    @cached_property
    def events(self) -> pd.DataFrame:
        """A row for each failure, recovery, checkpoint and the like."""
        return pd.DataFrame(records_table(self.run.events, EventRecord).to_pandas())

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """The number of nodes from each `time_seconds` on."""
        return pd.DataFrame(self.run.nodes, columns=["time_seconds", "num_nodes"])

    @cached_property
    def losses(self) -> pd.DataFrame:
        """The losses of completed iterations, against simulated hours; no rows where nothing learns."""
        learnt = self.iterations.dropna(subset=["train_loss", "validation_loss"], how="all")
        hours = learnt["ended_seconds"] / SECONDS_PER_HOUR
        return learnt.assign(hours=hours)[["iteration", "step", "hours", "train_loss", "validation_loss"]]

    @cached_property
    def ledger(self) -> pd.Series[float]:
        """Simulated seconds by bucket; they add up to the wall-clock time."""
        return pd.Series({bucket: self.run.ledger[bucket] for bucket in BUCKETS}, name="seconds")


def as_results(runs: Sequence[SimulatedRun]) -> Results:
    """Convert simulated runs of one scenario to `Results`, for figures and statistics."""
    tables = {
        name: pd.concat([getattr(run, name).assign(run=run.name) for run in runs])
        for name in ("iterations", "events", "nodes")
    }
    ledgers = [run.ledger.rename_axis("bucket").reset_index().assign(run=run.name) for run in runs]
    rows = pd.DataFrame([{"run": run.name, **flat(run.summary)} for run in runs])
    return Results(Path("in memory"), rows, {**tables, "ledger": pd.concat(ledgers)})
