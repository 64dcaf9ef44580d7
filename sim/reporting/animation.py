"""Animation of runs on one clock: a strip of node states for each run, and the losses below.

Everything is drawn twice, with and without the data. A frame shows the former up to its instant and the latter after
it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.loss import LOSS_LABEL
from sim.reporting.style import REFERENCE_LINE, STYLE
from sim.reporting.tracks import Track
from sim.results.activity import STATES, State, activity
from sim.results.loss_curves import interpolated

COLOURS: dict[State, str] = {
    "computing": "#6CC4AA",
    "lost work": "#D55E00",
    "waiting": "#F0E442",
    "recovering": "#505050",
    "gone": "#000000",
}
"""Safe for colour-blind readers, and of different lightness."""
MEANINGS = {"lost work": "computing, later lost"}
FAILURE = "#000000"

UNIT_WIDTH = 800  # all lengths below are pixels at this width
LEFT, RIGHT, TOP, TITLE, BELOW_STRIP, LOSS, AXIS = 44, 16, 34, 22, 8, 190, 46
ROW, LEAST_STRIP, LARGEST_STRIP = 9, 30, 130
ABOVE_STRIP, LINE_IN_TITLE, FONT_SIZE, DOT = 5, 34, 12, 4
SAMPLES = 5  # instants within a pixel, of which the most frequent state is shown
SHARE_AT_START = 0.08  # losses in this share at the start of a run may be above the panel
STYLE_OF_FRAMES = {**STYLE, "font.size": 9, "axes.labelsize": 9, "legend.fontsize": 9, "axes.grid": False}


@dataclass(frozen=True)
class Canvas:
    """Runs, the width in pixels, and the layout."""

    tracks: Sequence[Track]
    width: int

    def pixels(self, length: float) -> int:
        """Convert a length at UNIT_WIDTH to pixels."""
        return round(length * self.width / UNIT_WIDTH)

    @cached_property
    def hours(self) -> float:
        """The time of the longest run."""
        return max(one.hours for one in self.tracks)

    @cached_property
    def height(self) -> int:
        """Height in pixels."""
        strips = sum(TITLE + strip_height(one) + BELOW_STRIP for one in self.tracks)
        return self.pixels(TOP + strips + (TITLE + LOSS) * self.has_losses + AXIS)

    @cached_property
    def has_losses(self) -> bool:
        """Whether there is a loss to draw."""
        return any(len(one.loss) for one in self.tracks)

    @property
    def left(self) -> int:
        """Where time begins."""
        return self.pixels(LEFT)

    @property
    def right(self) -> int:
        """Where it ends."""
        return self.width - self.pixels(RIGHT)

    def x_of(self, hours: float) -> int:
        """Where an instant is."""
        return self.left + round((self.right - self.left) * hours / self.hours)

    def strips(self) -> Iterator[tuple[Track, int, int]]:
        """Each track with the top and the bottom of its strip."""
        top = TOP
        for one in self.tracks:
            top += TITLE + strip_height(one)
            yield one, self.pixels(top - strip_height(one)), self.pixels(top)
            top += BELOW_STRIP

    @property
    def loss_panel(self) -> tuple[int, int]:
        """Top and bottom of the panel of losses."""
        bottom = self.height - self.pixels(AXIS)
        return bottom - self.pixels(LOSS), bottom

    @cached_property
    def loss_limits(self) -> tuple[float, float]:
        """Limits that show all losses except those at the start, which are much higher."""
        later = pd.concat([one.loss[one.loss["hours"] >= SHARE_AT_START * one.hours] for one in self.tracks])
        low, high = float(later["loss_nats"].min()), float(later["loss_nats"].max())
        span = max(high - low, 1e-3)
        return low - 0.06 * span, high + 0.02 * span

    @cached_property
    def rasters(self) -> list[NDArray[np.int8]]:
        """The states in each strip."""
        return [raster(one, self.hours, self.right - self.left) for one in self.tracks]


def strip_height(track: Track) -> int:
    """Height of a strip at UNIT_WIDTH."""
    return int(np.clip(ROW * len(track.rows), LEAST_STRIP, LARGEST_STRIP))


def raster(track: Track, hours: float, num_columns: int) -> NDArray[np.int8]:
    """State of each place (rows) in each interval (columns) as an index of STATES; -1 after the end."""
    records, num_samples = track.records, num_columns * SAMPLES
    num_slots = records.num_stages * records.num_replicas
    states = np.full((num_slots, num_samples), -1, dtype=np.int8)
    samples_per_second = num_samples / (hours * SECONDS_PER_HOUR)
    found = activity(records)
    ends = (found[["start_seconds", "end_seconds"]].to_numpy() * samples_per_second).round().astype(int)
    for place, state, (start, end) in zip(found["place"], found["state"], ends, strict=True):
        states[place, start:end] = STATES.index(state)
    by_column = states[num_slots - records.num_places :].reshape(records.num_places, num_columns, SAMPLES)
    counts = np.stack([(by_column == state).sum(axis=2) for state in range(-1, len(STATES))])
    found_most: NDArray[np.int8] = (counts.argmax(axis=0) - 1).astype(np.int8)
    return found_most


def frames(tracks: Sequence[Track], width: int, num_frames: int) -> Iterator[Image.Image]:
    """Yield the complete picture, then a number of growing frames, of which the last is complete."""
    canvas = Canvas(tracks, width)
    empty, full = draw(canvas, with_data=False), draw(canvas, with_data=True)
    for hours in (canvas.hours, *np.linspace(0, canvas.hours, num_frames + 1)[1:]):
        yield _frame(canvas, empty, full, float(hours))


def _frame(canvas: Canvas, empty: Image.Image, full: Image.Image, hours: float) -> Image.Image:
    x, frame = canvas.x_of(hours), empty.copy()
    end = x if hours < canvas.hours else canvas.width
    frame.paste(full.crop((0, 0, end, canvas.height)), (0, 0))
    pen, font = ImageDraw.Draw(frame), ImageFont.truetype(findfont("DejaVu Sans"), canvas.pixels(FONT_SIZE))
    clock = ImageFont.truetype(findfont("DejaVu Sans:bold"), canvas.pixels(FONT_SIZE + 2))
    pen.text((canvas.pixels(8), canvas.pixels(10)), f"{hours:.1f} h", fill="black", font=clock)
    for one, top, bottom in canvas.strips():
        where = canvas.right, top - canvas.pixels(ABOVE_STRIP)
        pen.text(where, one.status(hours), fill="#333333", font=font, anchor="rs")
        if hours < one.hours:
            pen.line((x, top, x, bottom), fill="black", width=canvas.pixels(1))
    if canvas.has_losses:
        _draw_heads(canvas, pen, hours)
    return frame


def _draw_heads(canvas: Canvas, pen: ImageDraw.ImageDraw, hours: float) -> None:
    """Draw a dot at the head of each curve."""
    (low, high), (top, bottom), radius = canvas.loss_limits, canvas.loss_panel, canvas.pixels(DOT)
    for one in canvas.tracks:
        if one.loss.empty or hours < one.loss["hours"].iloc[0]:
            continue
        at = min(hours, float(one.loss["hours"].iloc[-1]))
        hours_known, losses = (one.loss[name].to_numpy(float) for name in ("hours", "loss_nats"))
        loss = float(interpolated(hours_known, losses, np.array([at]))[0])
        if low <= loss <= high:
            x, y = canvas.x_of(at), bottom - round((bottom - top) * (loss - low) / (high - low))
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, fill=one.style.colour, outline="white")


def draw(canvas: Canvas, with_data: bool) -> Image.Image:
    """Draw everything that does not move, with all data or without data."""
    dpi = 100 * canvas.width / UNIT_WIDTH
    with mpl.rc_context(STYLE_OF_FRAMES):
        figure = Figure(figsize=(canvas.width / dpi, canvas.height / dpi), dpi=dpi)
        axes = [_strip_axis(figure, canvas, number, with_data) for number in range(len(canvas.tracks))]
        if canvas.has_losses:
            axes.append(_loss_axis(figure, canvas, with_data))
        for axis in axes:
            axis.set_xlim(0, canvas.hours)
            axis.tick_params(labelbottom=axis is axes[-1])
        axes[-1].set_xlabel("simulated time (hours)")
        figure.legend(handles=_legend(canvas), loc="upper right", ncols=6, frameon=False, borderaxespad=0.6,
                      handlelength=1.2, handletextpad=0.5, columnspacing=1.2)  # fmt: skip
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi)
        return Image.open(file).convert("RGB")


def _legend(canvas: Canvas) -> list[Any]:
    there = {STATES[number] for found in canvas.rasters for number in np.unique(found) if number >= 0}
    handles: list[Any] = [
        Patch(facecolor=colour, label=MEANINGS.get(state, state)) for state, colour in COLOURS.items() if state in there
    ]
    if any((one.records.events["kind"] == "failure").any() for one in canvas.tracks):
        handles.append(Line2D([], [], color=FAILURE, linestyle="", marker="|", markersize=9, label="failure"))
    return handles


def _axis(figure: Figure, canvas: Canvas, top: int, bottom: int) -> Axes:
    left, width, height = canvas.left / canvas.width, canvas.right - canvas.left, canvas.height
    return figure.add_axes((left, 1 - bottom / height, width / canvas.width, (bottom - top) / height))


def _strip_axis(figure: Figure, canvas: Canvas, number: int, with_data: bool) -> Axes:
    one, top, bottom = list(canvas.strips())[number]
    axis, num_rows, num_replicas = _axis(figure, canvas, top, bottom), len(one.rows), one.records.num_replicas
    axis.set_ylim(num_rows, 0)
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False, left=False)
    stages = [(row + num_replicas / 2, name) for row, name in enumerate(one.rows) if name]
    shown = stages[:: -(-len(stages) * FONT_SIZE // strip_height(one))]
    axis.set_yticks([row for row, _ in shown], [name for _, name in shown], fontsize=8)
    _draw_title(figure, canvas, one, top - canvas.pixels(ABOVE_STRIP))
    if with_data:
        colours = np.array([(1.0, 1.0, 1.0), *(to_rgb(COLOURS[state]) for state in STATES)])
        pixels = colours[canvas.rasters[number] + 1]
        axis.imshow(pixels, aspect="auto", extent=(0, canvas.hours, num_rows, 0), interpolation="nearest")
        for edge in range(num_replicas, num_rows, num_replicas):
            axis.axhline(edge, color="white", linewidth=0.7)
        _draw_failures(axis, one)
    return axis


def _draw_title(figure: Figure, canvas: Canvas, track: Track, bottom: int) -> None:
    """Draw the name of a run with the line of its curve, as a legend."""

    def place(x: float, y: float) -> tuple[float, float]:
        return (canvas.left + canvas.pixels(x)) / canvas.width, 1 - (bottom - canvas.pixels(y)) / canvas.height

    (start, y), (end, _) = place(0, 4), place(LINE_IN_TITLE, 4)
    colour, line, _ = track.style
    figure.add_artist(Line2D([start, end], [y, y], color=colour, linestyle=line, linewidth=2))
    figure.text(*place(LINE_IN_TITLE + 7, 0), track.name, fontweight="bold", va="baseline")


def _draw_failures(axis: Axes, track: Track) -> None:
    """Draw a tick over the rows of each stage that is lost."""
    events, num_replicas = track.records.events, track.records.num_replicas
    failures = events[(events["kind"] == "failure") & events["stage"].notna()]
    first = track.records.num_stages - len(track.rows) // num_replicas
    for seconds, stage in failures[["time_seconds", "stage"]].itertuples(index=False):
        top = (max(stage, first) - first) * num_replicas
        ends = [top - 0.25 * num_replicas, top + 1.25 * num_replicas]
        hours = seconds / SECONDS_PER_HOUR
        axis.plot([hours, hours], ends, color=FAILURE, linewidth=1.6, solid_capstyle="butt", clip_on=False)


def _loss_axis(figure: Figure, canvas: Canvas, with_data: bool) -> Axes:
    axis, targets = _axis(figure, canvas, *canvas.loss_panel), {one.target for one in canvas.tracks}
    low, high = canvas.loss_limits
    axis.set_ylim(low, high)
    axis.set_title(LOSS_LABEL, loc="left", fontsize=9)
    axis.grid(visible=True)
    for target in targets:
        if len(targets) == 1 and target is not None and low <= target <= high:
            axis.axhline(target, zorder=0, **REFERENCE_LINE)
            axis.annotate(
                f"target {target:g} ", (1, target), xycoords=("axes fraction", "data"), ha="right", va="bottom"
            )
    for one in canvas.tracks if with_data else ():
        axis.plot(one.loss["hours"], one.loss["loss_nats"], color=one.style.colour, linestyle=one.style.line)
    return axis
