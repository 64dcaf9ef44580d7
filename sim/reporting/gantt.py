"""Gantt chart of iterations: a row for each stage, a box for each forward and backward pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sim.core.records import Operation
from sim.core.text import format_name
from sim.reporting.ledger import LOOKS
from sim.reporting.style import STYLE, label_rows
from sim.results.timeline import Timeline

COLOURS = {"forward": "#56B4E9", "backward": "#009E73", "weights": "#B2DF8A", "shadow": "#F0E442"}
"""Colours that differ in lightness too, except of weights and shadow, which rarely occur together."""
LINE_OF_EXCHANGE: dict[str, Any] = {"color": "#CC79A7", "linewidth": 2.0, "zorder": 1}
LINE_OF_MESSAGE: dict[str, Any] = {"color": "#888888", "linewidth": 0.5, "zorder": 0}
MOST_OPERATIONS = 4000  # a chart with more boxes is unreadable
ROOM_FOR_NUMBER, ROOM_FOR_EDGES = 0.009, 0.004  # minimum width of a box, as a share of the axis


def gantt_figure(timeline: Timeline, title: str) -> Figure:
    """Draw a timeline's first pipeline: operations, messages, failures (red), interruptions (shaded)."""
    cluster, operations = timeline.site.cluster, [done for done in timeline.trace.operations if done.replica == 0]
    num_pipelines, num_rows = len(cluster.replicas), len(cluster.stages)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.5 + 0.26 * num_rows), layout="constrained")
        axis, trace = figure.subplots(), timeline.trace
        ends = [one.end_seconds for items in (trace.operations, trace.messages, trace.spans) for one in items]
        ends += [record.ended_seconds for record in timeline.iterations]
        axis.set_xlim(trace.start_seconds, min(trace.end_seconds, max(ends, default=trace.end_seconds)))
        draw_operations(axis, operations)
        messages = _draw_messages(axis, timeline)
        _draw_interruptions(axis, timeline)
        name_rows(axis, num_rows)
        axis.set_title(title + (f" (first of {num_pipelines} pipelines)" if num_pipelines > 1 else ""))
        spans, labels = axis.get_legend_handles_labels()
        buckets = dict(zip(labels, spans, strict=True))
        handles = [*legend({done.kind for done in operations}), *messages, *buckets.values()]
        figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False)
    return figure


def draw_operations(axis: Axes, operations: Sequence[Operation]) -> None:
    """Draw a row for each stage, with the microbatch's number in boxes that have room. Set the axis' limits before."""
    low, high = axis.get_xlim()
    for done in operations:
        seconds = done.end_seconds - done.start_seconds
        if seconds <= 0.0:
            continue
        width, colour = seconds / (high - low), COLOURS[done.kind]
        edge = "white" if width > ROOM_FOR_EDGES else colour
        axis.barh(done.stage, seconds, 0.8, done.start_seconds, color=colour, edgecolor=edge, linewidth=0.4)
        middle = done.start_seconds + seconds / 2
        if width > ROOM_FOR_NUMBER and low <= middle <= high and done.microbatch >= 0:
            axis.annotate(str(done.microbatch), (middle, done.stage), ha="center", va="center", fontsize=5.5)


def _draw_messages(axis: Axes, timeline: Timeline) -> list[Line2D]:
    cluster, trace = timeline.site.cluster, timeline.trace
    rows = {cluster.slot(stage, 0): stage for stage in cluster.stages}
    handles = [Line2D([], [], label="message", **LINE_OF_MESSAGE)]
    for message in trace.messages:
        if message.source not in rows:
            continue
        seconds = (message.start_seconds, message.end_seconds)
        if message.target in rows:
            axis.plot(seconds, (rows[message.source], rows[message.target]), **LINE_OF_MESSAGE)
        if message.what.startswith("gradient exchange"):
            axis.plot(seconds, (rows[message.source], rows[message.source]), **LINE_OF_EXCHANGE)
            handles[1:] = [Line2D([], [], label="gradient exchange", **LINE_OF_EXCHANGE)]
    return handles


def _draw_interruptions(axis: Axes, timeline: Timeline) -> None:
    for span in timeline.trace.spans:
        colour, hatch, _ = LOOKS[span.bucket]
        label = format_name(span.bucket)
        axis.axvspan(span.start_seconds, span.end_seconds, facecolor=colour, hatch=hatch, alpha=0.3, label=label)
    for event in timeline.events:
        if event.kind == "failure" and event.stage is not None:
            axis.axvline(event.time_seconds, color="#D55E00", linewidth=1.2)
            axis.plot(event.time_seconds, event.stage, "x", color="#D55E00", markersize=7)


def name_rows(axis: Axes, num_rows: int) -> None:
    """Name the rows, stage 0 at the top, and the time axis."""
    label_rows(axis, [f"S{stage}" for stage in range(num_rows)], above=0.6, below=0.6)
    axis.set_xlabel("simulated time (seconds)")


def legend(kinds: Collection[str]) -> list[Patch]:
    """Return legend handles of kinds of operations."""
    return [Patch(color=colour, label=kind) for kind, colour in COLOURS.items() if kind in kinds]
