"""Figures of results/paper: those of `churnlab plot` with the target by its rule, the trend with depth, and maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.extract import Extract
from benchmarks.paper.jobs import TABLE_2_JOB
from benchmarks.paper.published import HIGHEST, iteration_factor
from benchmarks.paper.tables import RATE, REBUILDING, StudyTables
from sim.experiments.strategy_map.study import MapOptions, strategy_map
from sim.experiments.sweep import Observer
from sim.reporting.registry import figure_of
from sim.reporting.series import SERIES_STYLES
from sim.reporting.strategy_map import write_map
from sim.reporting.style import STYLE, new_figure
from sim.results.storage import Results, load
from sim.scenario.loading import load_scenario
from sim.strategies import legend_label

FIGURES = {
    "loss": ("table2", "loss"),
    "time_to_loss": ("table2", "time_to_loss"),
    "figure2": ("figure2", "reinit"),
    "figure4b": ("figure4b", "checkpoint_interval"),
    "figure4c": ("figure4c", "swapping"),
    "correlated": ("correlated", "loss"),
}
"""By file name: a job, and the kind of figure."""

PROCESS_NAMES = {"exponential": "independent", "trace": "as in the p3 trace"}
"""Names of the failure processes that a job sweeps."""

DPI = 130


def draw_all(runs: Path, folder: Path) -> None:
    """Draw all figures as PNG."""
    for name, (job, kind) in FIGURES.items():
        results = with_rule(load(runs / job), Extract.read(folder, job))
        save(figure_of(kind, results), folder / f"{name}.png")
    save(depth_figure(StudyTables(folder).trend), folder / "depth.png")


def with_rule(results: Results, extract: Extract) -> Results:
    """Results with the target that the rule gives for their extract, in place of the scenario's."""
    found = extract.to_target()
    runs = results.runs
    if "failures" in runs:
        runs = runs.assign(failures=runs["failures"].map(lambda process: PROCESS_NAMES[json.loads(process)["kind"]]))
    columns = ["target_validation_loss", "target_reached_iteration", "target_reached_seconds"]
    return Results(results.folder, runs.assign(**{name: found[name].to_numpy() for name in columns}))


def save(figure: Figure, path: Path) -> None:
    """Save as PNG, without the version of matplotlib."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def depth_figure(trend: pd.DataFrame) -> Figure:
    """Iterations to a loss, × failure-free, against that loss's failure-free iteration, by layers a stage."""
    notes = [
        "Mean over runs at 16 % an hour, read from running means of validations; losses that not every run reached are "
        "left out. Grey: the paper, 24 layers, at 10,000 iterations."
    ]
    with new_figure(2.9, notes) as figure:
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, strategy in zip(axes, REBUILDING, strict=True):
            draw_depth(axis, trend[trend["strategy"] == strategy])
            axis.axhline(iteration_factor(strategy, HIGHEST), color="0.6", linewidth=1.0)
            axis.set_title(legend_label(strategy), loc="left")
            axis.set_xlabel("iterations of the failure-free run")
        axes[0].set_ylabel("iterations to the same loss,\n× failure-free")
        axes[0].legend(frameon=False, title="layers a stage")
    return figure


def draw_depth(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw a line per depth."""
    for (layers, own), look in zip(rows.groupby("layers_per_stage"), SERIES_STYLES[1:], strict=False):
        axis.plot(
            own["at"], own["ratio"], color=look.colour, marker=look.marker, linestyle=look.line, label=str(layers)
        )
    axis.set_xscale("log")
    places = sorted(rows["at"].unique())
    axis.set_xticks(places, [f"{at:,}" for at in places])
    axis.minorticks_off()


# ---- maps over the failure rate, with either preset of redundant computation ------------------------

MAP_RATES = (0.01, 0.02, 0.05, 0.10, 0.13, 0.16)

MAP_PRESETS = ("paper_text", "paper_table2")

NUM_SAMPLE_POINTS = 2
"""Real runs are at 5 and 16 %, and are Table 2's."""

MAP_SEEDS = ("sweep=null", "seeds.failures=[0, 1, 2]", "seeds.training=[0, 1]", "seeds.design=crossed")

MAP_STRATEGIES = (
    "strategies=[{{kind: checkpoint, interval_iterations: 100}}, {{kind: redundant, preset: {preset}, "
    "label: {preset}}}, {{kind: checkfree, end_stages: copy}}, checkfree_plus]"
)


def make_maps(runs: Path, folder: Path, target: float, cache: Path, observer: Observer) -> None:
    """Make both maps, with real runs of Table 2's training; write their tables and figures into a folder."""
    for preset in MAP_PRESETS:
        name = f"crossings_{preset}"
        overrides = [*MAP_SEEDS, MAP_STRATEGIES.format(preset=preset), f"name={name}"]
        overrides.append(f"training.target_validation_loss={target!r}")
        axis = f"{RATE}={','.join(map(str, MAP_RATES))}"
        scenario = load_scenario(TABLE_2_JOB.scenario, overrides)
        options = MapOptions(replicates=3, num_samples=NUM_SAMPLE_POINTS)
        found = strategy_map(scenario, axis, options=options, results=runs, cache=cache, observer=observer)
        write_map(found, runs / f"{name}-map")
        for kind in ("csv", "png"):
            shutil.copyfile(runs / f"{name}-map" / f"map.{kind}", folder / f"{name}.{kind}")
