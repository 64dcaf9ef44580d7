"""A Gantt chart of iterations: a row for each stage, a box for each forward and backward."""

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
from sim.reporting.ledger import FILLS
from sim.reporting.style import STYLE
from sim.results.timeline import Timeline

COLOURS = {"forward": "#56B4E9", "backward": "#009E73", "shadow": "#E69F00"}

LINE_OF_EXCHANGE: dict[str, Any] = {"color": "#CC79A7", "linewidth": 2.0, "zorder": 1}

LINE_OF_MESSAGE: dict[str, Any] = {"color": "#888888", "linewidth": 0.5, "zorder": 0}

MOST_OPERATIONS = 4000
"""A chart of more boxes cannot be read."""

ROOM_FOR_NUMBER, ROOM_FOR_EDGES = 0.009, 0.004
"""Least width of a box, as a share of the axis, that has room for its number, and for white edges."""


def gantt_figure(timeline: Timeline, title: str) -> Figure:
    """The first pipeline in the timeline's window: operations of its nodes and messages between them.

    Failures are red lines, with a cross at the stage that is lost; what training stood still for is shaded.
    """
    trace, cluster = timeline.trace, timeline.site.cluster
    rows = {cluster.node(stage, 0): stage for stage in cluster.stages}
    operations = [done for done in trace.operations if done.replica == 0]
    messages = [message for message in trace.messages if message.source in rows and message.target in rows]
    of_first = [message for message in trace.messages if message.source in rows]
    exchanges = [message for message in of_first if message.what.startswith("gradient exchange")]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.5 + 0.26 * len(rows)), layout="constrained")
        axis = figure.subplots()
        ends = [record.ended_seconds for record in timeline.iterations]
        ends += [done.end_seconds for done in operations] + [message.end_seconds for message in messages]
        ends += [span.end_seconds for span in trace.spans]
        axis.set_xlim(trace.start_seconds, min(trace.end_seconds, max(ends, default=trace.end_seconds)))
        draw_operations(axis, operations)
        for message in messages:
            seconds = (message.start_seconds, message.end_seconds)
            axis.plot(seconds, (rows[message.source], rows[message.target]), **LINE_OF_MESSAGE)
        for message in exchanges:
            seconds, row = (message.start_seconds, message.end_seconds), rows[message.source]
            axis.plot(seconds, (row, row), **LINE_OF_EXCHANGE)
        for span in trace.spans:
            colour, hatch = FILLS[span.bucket]
            label = format_name(span.bucket)
            axis.axvspan(span.start_seconds, span.end_seconds, facecolor=colour, hatch=hatch, alpha=0.3, label=label)
        for event in timeline.events:
            if event.kind == "failure" and event.stage is not None:
                axis.axvline(event.time_seconds, color="#D55E00", linewidth=1.2)
                axis.plot(event.time_seconds, event.stage, "x", color="#D55E00", markersize=7)
        name_rows(axis, len(rows))
        pipelines = len(cluster.replicas)
        axis.set_title(title + (f" (first of {pipelines} pipelines)" if pipelines > 1 else ""))
        spans, labels = axis.get_legend_handles_labels()
        buckets = dict(zip(labels, spans, strict=True))
        kinds = {done.kind for done in operations}
        figure.legend(
            handles=[*legend(kinds), *lines_of_messages(bool(exchanges)), *buckets.values()],
            loc="outside upper center",
            ncols=6,
            frameon=False,
        )
    return figure


def draw_operations(axis: Axes, operations: Sequence[Operation]) -> None:
    """A row for each stage; boxes with the microbatch's number where there is room; set the axis' limits before."""
    low, high = axis.get_xlim()
    for done in operations:
        seconds = done.end_seconds - done.start_seconds
        if seconds <= 0.0:
            continue
        width = seconds / (high - low)
        axis.barh(
            done.stage,
            seconds,
            left=done.start_seconds,
            height=0.8,
            color=COLOURS[done.kind],
            edgecolor="white" if width > ROOM_FOR_EDGES else COLOURS[done.kind],
            linewidth=0.4,
        )
        middle = done.start_seconds + seconds / 2
        if width > ROOM_FOR_NUMBER and low <= middle <= high and done.microbatch >= 0:
            axis.annotate(str(done.microbatch), (middle, done.stage), ha="center", va="center", fontsize=5.5)


def name_rows(axis: Axes, num_rows: int) -> None:
    """Stage 0 on top."""
    axis.set_yticks(range(num_rows), [f"S{stage}" for stage in range(num_rows)])
    axis.set_ylim(num_rows - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("simulated time (seconds)")


def legend(kinds: Collection[str]) -> list[Patch]:
    """What the colours of operations mean."""
    return [Patch(color=colour, label=kind) for kind, colour in COLOURS.items() if kind in kinds]


def lines_of_messages(exchanges: bool) -> list[Line2D]:
    """What the lines mean."""
    message = Line2D([], [], label="message", **LINE_OF_MESSAGE)
    return [message, Line2D([], [], label="gradient exchange", **LINE_OF_EXCHANGE)] if exchanges else [message]
