"""Figures of results/paper, drawn from its extracts; and a map, which needs runs.

python -m benchmarks.paper.figures    # draws all of them but the map, from the committed extracts
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.as_results import as_results
from benchmarks.paper.extract import COMMITTED, Extract
from benchmarks.paper.jobs import SCENARIOS, TABLE_2_JOB
from benchmarks.paper.published import HIGHEST, iteration_factor
from benchmarks.paper.tables import RATE, REBUILDING, SECONDS, StudyTables, name_of
from sim.core.units import SECONDS_PER_HOUR
from sim.experiments.strategy_map.study import MapOptions, strategy_map
from sim.experiments.sweep import Observer
from sim.reporting.branches import after_label, draw_stages
from sim.reporting.loss import draw_loss
from sim.reporting.outcomes import draw_means
from sim.reporting.registry import figure_of
from sim.reporting.series import KIND_ORDER, SERIES_STYLES, Styles, line_handles, styles_by_kind
from sim.reporting.strategy_map import write_map
from sim.reporting.style import STYLE, add_legend, new_figure
from sim.reporting.words import words_of
from sim.results.branches import Branches, load_branches
from sim.scenario.loading import load_scenario
from sim.scenario.sweep_points import load_points
from sim.strategies import legend_label

FIGURES = {"figure2": "reinit", "figure4b": "checkpoint_interval", "figure4c": "swapping"}
"""Kinds of figures of `churnlab plot`, by job."""

PROCESS_NAMES = {"exponential": "independent losses", "trace": "as in the p3 trace"}
"""Names of the failure processes that a job sweeps."""

BRANCHED = {"checkfree": "checkfree", "released_head": "reinit", "checkfree_plus": "checkfree_plus"}
"""Strategies in the figure of single failures, and the kinds whose styles they have."""

LOSS_LABEL = "validation loss (nats per byte)"

DPI = 150


def draw_all(folder: Path) -> None:
    """Draw all figures but the map as PNG, from the extracts in a folder."""
    for name, kind in FIGURES.items():
        with as_results(SCENARIOS / f"{name}.yaml", Extract.read(folder, name)) as results:
            save(figure_of(kind, results), folder / f"{name}.png")
    tables = StudyTables(folder)
    save(depth_figure(tables.trend), folder / "depth.png")
    save(table_2_figure(tables), folder / "table2.png")
    save(churn_figure(tables.extract("correlated")), folder / "correlated.png")
    save(stages_figure(load_branches(folder)), folder / "branches.png")


def save(figure: Figure, path: Path) -> None:
    """Save as PNG, without the version of matplotlib."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def depth_figure(trend: pd.DataFrame) -> Figure:
    """Iterations to a loss, × failure-free, against that loss's failure-free iteration, by layers per stage."""
    notes = [
        "Mean over runs at 16 % per hour, read from running means of validations; losses that not every run reached "
        "are left out. Grey: the paper, at 10,000 iterations."
    ]
    with new_figure(2.9, notes) as figure:
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, strategy in zip(axes, REBUILDING, strict=True):
            draw_depth(axis, trend[trend["strategy"] == strategy])
            factor = iteration_factor(strategy, HIGHEST)
            axis.axhline(factor, color="0.6", linewidth=1.0, label="4, paper, at 10,000")
            axis.set_title(legend_label(strategy), loc="left")
            axis.set_xlabel("iterations of the failure-free run")
        axes[0].set_ylabel("iterations to the same loss,\n× failure-free")
        axes[0].legend(frameon=False, title="layers per stage", loc="lower right")
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


def table_2_figure(tables: StudyTables) -> Figure:
    """Hours to the target against the rate, with intervals, and loss against iteration at the highest rate."""
    found = tables.against("table2", SECONDS, "none")
    hours = {f"{part}_hours": found[part] / SECONDS_PER_HOUR for part in ("mean", "low", "high")}
    found = found.assign(kind=found["strategy"], **hours)
    at_highest, target = tables.extract("table2").at({RATE: HIGHEST}), tables.extract("table2").target()[1]
    notes = [
        f"Left: hours to {target:g} nats per byte, means and 95 % intervals. Right: loss at 16 % per hour, mean over "
        "runs and range, against iteration."
    ]
    styles = styles_by_kind({legend_label(kind): kind for kind in KIND_ORDER})
    with new_figure(3.2, notes) as figure:
        left, right = figure.subplots(1, 2)
        draw_means(left, found[found["strategy"] != "none"], RATE, "hours", styles)
        left.set_xlabel(words_of(RATE).label)
        left.set_ylabel("hours to the target loss")
        draw_loss_by_iteration(right, at_highest, styles)
        right.axhline(target, color="0.6", linewidth=0.8, zorder=0)
        right.set_ylabel(LOSS_LABEL)
        add_legend(figure, line_handles(styles))
    return figure


def churn_figure(extract: Extract) -> Figure:
    """Loss against iteration under independent and correlated losses of nodes."""
    (field,) = extract.fields
    notes = ["Means over runs, and their range; losses of nodes at 16 % per hour."]
    styles = styles_by_kind({legend_label(kind): kind for kind in KIND_ORDER})
    drawn = {name: styles[name] for name in map(legend_label, ("none", *REBUILDING))}
    with new_figure(2.9, notes) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, value in zip(axes, extract.runs[field].unique(), strict=True):
            draw_loss_by_iteration(axis, extract.at({field: value}), styles)
            axis.set_title(PROCESS_NAMES[json.loads(value)["kind"]], loc="left")
        axes[0].set_ylabel(LOSS_LABEL)
        add_legend(figure, line_handles(drawn))
    return figure


def stages_figure(found: Branches) -> Figure:
    """Excess loss by the stage that is lost, at once and at the end, with intervals over training seeds."""
    notes = [
        f"Validation loss above that of the same training without the failure at step {found.steps[0]}; means and 95 % "
        "intervals over training seeds."
    ]
    table = found.excess(("strategy", "stage", "after_steps"))
    styles = styles_by_kind({name_of(name): kind for name, kind in BRANCHED.items()})
    with new_figure(2.9, notes) as figure:
        axes = figure.subplots(1, 2)
        for axis, after in zip(axes, (found.after_steps[0], found.after_steps[-1]), strict=True):
            axis.set_title(after_label(after).replace("\n", " "), loc="left")
            for number, name in enumerate(BRANCHED):
                rows = table[(table["strategy"] == name) & (table["after_steps"] == after)]
                draw_stages(axis, rows, styles[name_of(name)], number, len(BRANCHED))
            axis.set_xlabel("stage that is lost")
            axis.set_xticks(range(len(found.stages)), [f"S{stage}" for stage in found.stages])
        axes[0].set_ylabel("excess loss (nats per byte)")
        add_legend(figure, line_handles(styles, with_markers=True))
    return figure


def draw_loss_by_iteration(axis: Axes, extract: Extract, styles: Styles) -> None:
    """Draw each strategy's mean loss over runs against iteration, and the range."""
    once = extract.losses.drop_duplicates(["run", "iteration"], keep="last")
    grouped = once.groupby(["strategy", "kind", "iteration"], sort=False)["validation_loss"]
    curves = grouped.agg(loss_nats="mean", low_loss_nats="min", high_loss_nats="max", num_runs="size").reset_index()
    draw_loss(axis, curves.sort_values("iteration"), styles=styles)
    axis.set_xlabel("iteration")
    low, high = once.loc[once["iteration"] > once["iteration"].max() / 6, "validation_loss"].agg(["min", "max"])
    axis.set_ylim(low - 0.02, high + 0.02)


# ---- map over the failure rate ----------------------------------------------------------------------

MAP_RATES = (0.01, 0.02, 0.05, 0.10, 0.13, 0.16)

MAP_PRESET = "paper_table2"
"""Of redundant computation: 147.3 s per iteration. `paper_text` takes 152.1."""

NUM_SAMPLE_POINTS = 2
"""Real runs are at 5 and 16 %, and are Table 2's."""

MAP_STRATEGIES = (
    "strategies=[{{kind: checkpoint, interval_iterations: 100}}, {{kind: redundant, preset: {preset}, "
    "label: {preset}}}, {{kind: checkfree, end_stages: copy}}, checkfree_plus]"
)


def make_map(runs: Path, folder: Path, target: float, cache: Path, observer: Observer) -> None:
    """Make the map with real runs of Table 2's training; write its table and figure into a folder."""
    name = f"crossings_{MAP_PRESET}"
    overrides = ["sweep=null", MAP_STRATEGIES.format(preset=MAP_PRESET), f"name={name}"]
    overrides.append(f"training.target_validation_loss={target!r}")
    axis = f"{RATE}={','.join(map(str, MAP_RATES))}"
    scenario = load_scenario(TABLE_2_JOB.scenario, overrides)
    num_pairs = len(load_points(TABLE_2_JOB.scenario)[0].scenario.seeds.replicates)
    options = MapOptions(replicates=num_pairs, num_samples=NUM_SAMPLE_POINTS, predicts=False)
    found = strategy_map(scenario, axis, options=options, results=runs, cache=cache, observer=observer)
    write_map(found, runs / f"{name}-map")
    for kind in ("csv", "png"):
        shutil.copyfile(runs / f"{name}-map" / f"map.{kind}", folder / f"{name}.{kind}")


if __name__ == "__main__":
    draw_all(COMMITTED / "full")
