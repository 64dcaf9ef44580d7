"""The end of a sweep: its table is printed and written as CSV, and where all of it lies is said."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sim.durable import write_whole
from sim.statistics import summary
from sim.summary_table import summary_table
from sim.sweep_files import STATISTICS, fields_of, refusals_explained
from sim.sweep_job import SweepJob
from sim.terminal import console, say


def print_summary(job: SweepJob, reference: str) -> None:
    """Print the table, write `statistics.csv`, and say where all of it lies."""
    runs, folder = job.table(), job.folder.folder
    if runs.empty or not (runs["outcome"] != "failed").any():
        return
    fields = fields_of(job.runs)
    to_compare = reference if (runs["strategy"] == reference).any() else None
    found = summary(runs, fields, reference=to_compare)
    path = write_statistics(folder, found)
    targets = {point.scenario.training.target_validation_loss for point in job.points} - {None}
    heading = f"loss {targets.pop():g}" if len(targets) == 1 else "target loss"
    console.print()
    console.print(summary_table(job.points[0].scenario.name, found, fields, to_compare, heading))
    say(f"Written: {folder / 'runs.parquet'}, {path}, and a folder for each run")


def write_statistics(folder: Path, found: pd.DataFrame) -> Path:
    """Write means, intervals and differences as CSV."""
    path = folder / STATISTICS
    with refusals_explained(folder):
        write_whole(path, found.to_csv(index=False))
    return path
