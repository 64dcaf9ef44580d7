"""Where the time went: the ledger as a stacked bar and as a table, from files of finished runs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from sim.clock import SECONDS_PER_HOUR
from sim.figures import STYLE, caption, legend_label
from sim.names import in_words
from sim.records import BUCKETS, Bucket
from sim.results import RunFiles
from sim.tables import strategy_table

FILLS: dict[Bucket, tuple[str, str]] = {
    "productive_compute": ("#009E73", ""),
    "bubble_and_communication": ("#B8D8EA", ""),
    "redundant_compute": ("#0072B2", "///"),
    "checkpoint_save": ("#F0E442", ""),
    "lost_work": ("#D55E00", ""),
    "detection": ("#000000", ""),
    "provisioning": ("#8C8C8C", "..."),
    "state_transfer": ("#CC79A7", "\\\\\\"),
    "waiting_for_nodes": ("#D9D9D9", "xxx"),
}
"""Colour (Okabe and Ito's, but for two pale ones) and hatching of each bucket."""


def ledger_hours(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Mean hours in each bucket (columns) by strategy (rows), over failure seeds; finished runs only.

    Training seeds do not change seconds, so that each failure seed counts once.
    """
    rows = {
        (run.summary["strategy"], run.summary["failure_seed"]): run.summary["ledger_seconds"]
        for run in runs
        if run.summary["outcome"] == "finished"
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(BUCKETS)) / SECONDS_PER_HOUR
    frame.index = pd.Index([strategy for strategy, _ in rows], name="strategy")
    return frame.groupby(level=0, sort=False).mean()


HEADINGS: dict[Bucket, str] = {
    "productive_compute": "productive\ncompute",
    "bubble_and_communication": "bubble,\ncommun.",
    "redundant_compute": "redundant\ncompute",
    "checkpoint_save": "checkp.\nsave",
    "lost_work": "lost\nwork",
    "detection": "detec-\ntion",
    "provisioning": "provi-\nsioning",
    "state_transfer": "state\ntransfer",
    "waiting_for_nodes": "waiting\nfor nodes",
}


def ledger_table(runs: Sequence[RunFiles]) -> Table:
    """Hours in each bucket by strategy, empty buckets left out, and how many seconds a recovery takes."""
    hours = ledger_hours(runs)
    used = [bucket for bucket in BUCKETS if hours[bucket].any()]
    digits = 2 if hours.to_numpy().max(initial=0.0) >= 1.0 else 4
    several = len({run.summary["failure_seed"] for run in runs}) > 1
    title = "Where the hours went" + (" (means)" if several else "")
    table = strategy_table(title, (*(HEADINGS[bucket] for bucket in used), "all", "seconds a\nrecovery"))
    for strategy, row in hours.iterrows():
        recoveries = pd.Series(
            {
                run.summary["failure_seed"]: run.summary["mean_recovery_seconds"]
                for run in runs
                if run.summary["strategy"] == strategy and run.summary["outcome"] == "finished"
            },
            dtype=float,
        )
        each = "-" if recoveries.isna().all() else f"{recoveries.mean():.1f}"
        cells = [f"{value:.{digits}f}" for value in (*row[used], row.sum())]
        table.add_row(legend_label(str(strategy)), *cells, each)
    return table


def ledger_figure(runs: Sequence[RunFiles], notes: Sequence[str]) -> Figure:
    """One stacked bar for each strategy: simulated hours in each bucket, which add up to the wall-clock time."""
    hours = ledger_hours(runs)
    used = [bucket for bucket in BUCKETS if hours[bucket].any()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.4 + 0.3 * len(hours)), layout="constrained")
        axis = figure.subplots()
        left = pd.Series(0.0, index=hours.index)
        for bucket in used:
            colour, hatch = FILLS[bucket]
            axis.barh(
                range(len(hours)), hours[bucket], left=left, color=colour, hatch=hatch, height=0.7, edgecolor="white",
                linewidth=0.3, label=in_words(bucket),
            )  # fmt: skip
            left = left + hours[bucket]
        for row, whole in enumerate(left):
            axis.annotate(
                f" {whole:.1f} h" if whole >= 10 else f" {whole:.3g} h", (whole, row), va="center", fontsize=7
            )
        axis.set_yticks(range(len(hours)), [legend_label(str(strategy)) for strategy in hours.index])
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.margins(x=0.08)
        axis.set_xlabel("simulated wall-clock time of the target model (hours)")
        figure.legend(loc="outside upper center", ncols=5, frameon=False)
        figure.supxlabel(caption(notes), fontsize=6.5, color="0.3")
    return figure
