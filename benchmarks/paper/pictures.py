"""The figures of results/paper: those of `churnlab plot`, with the target by its rule, and the trend with depth."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.answers import HIGHEST, REBUILDING, Answers
from benchmarks.paper.extract import Extract
from sim.reporting.registry import figure_of
from sim.reporting.series import LOOKS
from sim.reporting.style import STYLE, blank
from sim.results.storage import Results, load
from sim.strategies import legend_label

DRAWN = {
    "loss": ("table2", "loss"),
    "time_to_loss": ("table2", "time_to_loss"),
    "figure2": ("figure2", "reinit"),
    "figure4b": ("figure4b", "checkpoint_interval"),
    "figure4c": ("figure4c", "swapping"),
    "correlated": ("correlated", "loss"),
}
"""Files, and what is drawn in them: a kind of figure of a job."""

IN_WORDS = {"exponential": "independent", "trace": "as in the p3 trace"}
"""Failure processes that are swept whole."""

DPI = 130


def draw_all(runs: Path, folder: Path) -> None:
    """All figures, as PNG."""
    for name, (job, kind) in DRAWN.items():
        results = with_rule(load(runs / job), Extract.read(folder, job))
        save(figure_of(kind, results), folder / f"{name}.png")
    save(depth_figure(Answers(folder)), folder / "depth.png")


def with_rule(results: Results, extract: Extract) -> Results:
    """Results with the target that the rule gives what is kept of them, as if the scenario had named it."""
    found = extract.to_target()
    runs = results.runs
    if "failures" in runs:
        runs = runs.assign(failures=runs["failures"].map(lambda process: IN_WORDS[json.loads(process)["kind"]]))
    columns = ["target_validation_loss", "target_reached_iteration", "target_reached_seconds"]
    return Results(results.folder, runs.assign(**{name: found[name].to_numpy() for name in columns}))


def save(figure: Figure, path: Path) -> None:
    """As PNG, without the version of what drew it."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def depth_figure(answers: Answers) -> Figure:
    """Iterations to a loss, × failure-free, against that loss's failure-free iteration, by layers a stage."""
    table = answers.trend
    notes = [
        "Mean over runs at 16 % an hour, read from running means of validations; losses that not every run came to are "
        "left out. Grey: the paper, 24 layers, at 10,000 iterations."
    ]
    with blank(2.9, notes) as figure:
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, strategy in zip(axes, REBUILDING, strict=True):
            draw_depth(axis, table[table["strategy"] == strategy])
            axis.axhline(answers.paper_ratio(strategy, HIGHEST), color="0.6", linewidth=1.0)
            axis.set_title(legend_label(strategy), loc="left")
            axis.set_xlabel("iterations of the failure-free run")
        axes[0].set_ylabel("iterations to the same loss,\n× failure-free")
        axes[0].legend(frameon=False, title="layers a stage")
    return figure


def draw_depth(axis: Axes, rows: pd.DataFrame) -> None:
    """A line for each depth."""
    for (layers, own), look in zip(rows.groupby("layers_per_stage"), LOOKS[1:], strict=False):
        axis.plot(
            own["at"], own["ratio"], color=look.colour, marker=look.marker, linestyle=look.line, label=str(layers)
        )
    axis.set_xscale("log")
    places = sorted(rows["at"].unique())
    axis.set_xticks(places, [f"{at:,}" for at in places])
    axis.minorticks_off()
