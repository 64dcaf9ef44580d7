"""Figures, drawn from files of finished runs and never from a live one. One house style: `STYLE`.

Colours are Okabe and Ito's, safe for the colour-blind; line styles tell strategies apart in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sim.clock import SECONDS_PER_HOUR
from sim.results import RunFiles

STYLE: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}
LineStyle = Literal["-", "--", "-.", ":"]
LINES: tuple[tuple[str, LineStyle], ...] = (
    ("#000000", "-"),
    ("#D55E00", "-"),
    ("#0072B2", "--"),
    ("#009E73", "-"),
    ("#CC79A7", "-."),
    ("#E69F00", "--"),
    ("#56B4E9", ":"),
)
KIND_ORDER = ("none", "checkpoint", "redundant", "checkfree", "checkfree_plus")
WIDTH_OF_CAPTION = 148
DASHES: tuple[LineStyle, ...] = get_args(LineStyle)
HEIGHT_OF_START = 0.04
"""The loss axis begins at the loss after this share of the iterations: the first steps would fill the panel."""


def convergence_figure(runs: Sequence[RunFiles], notes: Sequence[str]) -> Figure:
    """Validation loss against simulated time (left) and against iteration (right), failures marked.

    One curve for each run; replicates of a strategy share its colour. `notes` stand below the panels.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.5), layout="constrained")
        time_axis, iteration_axis = figure.subplots(1, 2, sharey=True)
        lines = line_styles(runs)
        for run in runs:
            draw_loss(time_axis, run, lines[run.summary["strategy"]], against="time")
            draw_loss(iteration_axis, run, lines[run.summary["strategy"]], against="iteration")
        time_axis.set_xlabel("simulated wall-clock time of the target model (hours)")
        iteration_axis.set_xlabel("iteration")
        time_axis.set_ylabel("validation loss of the proxy model (nats/token)")
        time_axis.set_ylim(*loss_limits(runs))
        target = runs[0].summary["target_validation_loss"]
        for axis in (time_axis, iteration_axis):
            axis.set_xlim(left=0)
            if target is not None:
                axis.axhline(target, color="0.35", linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=0)
        low, high = time_axis.get_ylim()
        if target is not None and low <= target <= high:
            iteration_axis.annotate(
                f"target {target:g}",
                (1, target),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=7,
            )
        figure.legend(handles=legend_handles(runs, lines), loc="outside upper center", ncols=6, frameon=False)
        figure.supxlabel(caption(notes), fontsize=6.5, color="0.3")
    return figure


def caption(notes: Sequence[str]) -> str:
    """Sentences below a figure, each from a line of its own, and none wider than the figure."""
    return "\n".join(line for note in notes for line in textwrap.wrap(note, WIDTH_OF_CAPTION))


def draw_loss(axis: Axes, run: RunFiles, line: tuple[str, LineStyle], against: str) -> None:
    """Draw one run's validation loss against simulated `time` (hours) or `iteration`, failures marked on it.

    Against time, a rollback breaks the curve and takes it up at the loss it goes back to; against iteration, each
    iteration has its last value.
    """
    colour, style = line
    points = run.iterations.dropna(subset=["validation_loss"])
    marks = run.events[run.events["kind"] == "failure"]
    if against == "time":
        x, y = loss_over_time(points, run.events)
        mark_x = marks["time_seconds"].to_numpy() / SECONDS_PER_HOUR
    else:
        points = points.drop_duplicates("iteration", keep="last").sort_values("iteration")
        x, y = points["iteration"].to_numpy(), points["validation_loss"].to_numpy()
        mark_x = marks["iteration"].to_numpy()
    axis.plot(x, y, color=colour, linestyle=style, label=run.summary["strategy"])
    known = ~np.isnan(y)
    if run.summary["kind"] != "none" and known.any():
        mark_x = mark_x[mark_x >= x[known][0]]
        mark_y = np.interp(mark_x, x[known], y[known])
        axis.plot(mark_x, mark_y, linestyle="", marker="x", markersize=4, color=colour, zorder=3)


def loss_over_time(points: pd.DataFrame, events: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hours and losses in the order of time, with a gap and the older loss at every rollback."""
    curve = list(zip(points["ended_seconds"], points["validation_loss"], strict=True))
    for rollback in events[events["kind"] == "rolled_back"].itertuples():
        back_to = events[(events["kind"] == "recovered") & (events["time_seconds"] == rollback.time_seconds)]
        before = points[points["ended_seconds"] <= rollback.time_seconds]
        older = before[before["iteration"] <= back_to["iteration"].iloc[0]]
        curve.append((rollback.time_seconds, np.nan))
        if not older.empty:
            curve.append((rollback.time_seconds, older["validation_loss"].iloc[-1]))
    curve.sort(key=lambda point: point[0])  # stable: the gap stays before the older loss
    hours = np.array([seconds for seconds, _ in curve], dtype=np.float64) / SECONDS_PER_HOUR
    return hours, np.array([loss for _, loss in curve], dtype=np.float64)


def line_styles(runs: Sequence[RunFiles]) -> dict[str, tuple[str, LineStyle]]:
    """Colour and line style of each strategy: fixed for the five known kinds, the next free one for others."""
    fixed = dict(zip(KIND_ORDER, LINES, strict=False))
    kinds = dict.fromkeys((run.summary["strategy"], run.summary["kind"]) for run in runs)
    styles: dict[str, tuple[str, LineStyle]] = {}
    reserved = [fixed[kind] for _, kind in kinds if kind in fixed]
    more: list[tuple[str, LineStyle]] = [(colour, dash) for dash in DASHES for colour, _ in LINES]
    spare = iter([line for line in dict.fromkeys([*LINES, *more]) if line not in reserved])
    for name, kind in kinds:
        style = fixed.get(kind)
        styles[name] = style if style and style not in styles.values() else next(spare)
    return styles


def legend_handles(runs: Sequence[RunFiles], lines: dict[str, tuple[str, LineStyle]]) -> list[Line2D]:
    """A line for each strategy and the mark of a failure."""
    labels = dict.fromkeys(run.summary["strategy"] for run in runs)
    handles = [
        Line2D([], [], color=lines[name][0], linestyle=lines[name][1], label=legend_label(name)) for name in labels
    ]
    return [*handles, Line2D([], [], color="0.3", linestyle="", marker="x", markersize=4, label="stage failure")]


def legend_label(strategy: str) -> str:
    """A strategy's name for people."""
    return {
        "none": "no failures",
        "checkpoint": "checkpointing",
        "redundant": "redundant",
        "checkfree": "CheckFree",
        "checkfree_plus": "CheckFree+",
        "checkfree_hybrid": "CheckFree+ hybrid",
        "neighbour_checkpoint": "in neighbours",
    }.get(strategy, strategy)


def loss_limits(runs: Sequence[RunFiles]) -> tuple[float, float]:
    """Limits of the loss axis: from below the best loss up to the loss soon after the start."""
    lows, highs = [], []
    for run in runs:
        points = run.iterations.dropna(subset=["validation_loss"])
        if points.empty:
            continue
        start = HEIGHT_OF_START * run.summary["num_iterations"]
        lows.append(points["validation_loss"].min())
        later = points[points["iteration"] >= start]
        highs.append((points if later.empty else later)["validation_loss"].max())
    if not lows:
        return 0.0, 1.0
    span = max(max(highs) - min(lows), 1e-3)
    return min(lows) - 0.05 * span, max(highs) + 0.02 * span


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other; no dates in them, so equal data give equal files."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".pdf")]
    with mpl.rc_context(STYLE):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
