"""The end of a sweep."""

from __future__ import annotations

from sim.sweep_job import SweepJob
from sim.terminal import console, say


def print_summary(job: SweepJob, reference: str) -> None:
    """Table of means."""
    table = job.table()
    fields = [name for name in table if "." in name]
    console.print(
        table.groupby([*fields, "strategy"])[["wall_clock_seconds", "target_reached_seconds", "final_validation_loss"]]
        .mean()
        .to_string()
    )
    say(str(job.folder.folder))
