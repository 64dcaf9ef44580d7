"""The look of all figures: one house style for paper and slides, how strategies look, legends, captions, files.

Figures are drawn from tables (`sim.results.loss_curves` and others), which come from files of finished runs and never
from a live one. Colours are Okabe and Ito's, safe for the colour-blind; line styles and markers tell strategies apart
in grey. A slide is 16:9 and so small in inches that its letters are large on any screen.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.handlelength": 2.8,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}

HEIGHT_ON_SLIDES_INCHES = 1.9

LARGER = {"font.size": 9.0, "axes.labelsize": 9.0, "axes.titlesize": 9.5, "legend.fontsize": 8.5}


@dataclass(frozen=True)
class Form:
    """What figures are made for. height_inches: None where each figure takes what it needs.

    Characters in a line of the caption, of an x axis' label, in an inch of a y axis' one, and in a row of the legend.
    """

    style: Mapping[Any, Any]
    width_inches: float
    height_inches: float | None
    caption_size: float
    in_caption: int
    in_x_label: int
    in_y_inch: int
    in_legend: int

    def x_label(self, text: str) -> str:
        """A label below an axis."""
        return textwrap.fill(text, self.in_x_label)

    def y_label(self, text: str, height_inches: float = 1.6) -> str:
        """A label beside an axis that is so high."""
        inches = height_inches if self.height_inches is None else HEIGHT_ON_SLIDES_INCHES
        return textwrap.fill(text, int(inches * self.in_y_inch))


PAPER = Form(STYLE, 7.2, None, 6.5, 148, 60, 16, 122)

SLIDE = Form({**STYLE, **LARGER}, 6.4, 3.6, 6.0, 142, 40, 14, 95)

CAPTION_LINE_INCHES = 0.125

ROOM_BEYOND = 1.05

BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|h|hours?|s|seconds?|\$)(?!\w))")

CHARACTERS_OF_MARK = 9


@contextmanager
def blank(height_inches: float, notes: Sequence[str], form: Form = PAPER) -> Iterator[Figure]:
    """An empty figure in the house style, to be filled while this lasts, with a caption below its panels.

    height_inches: of all but the caption. A slide has its own height.
    """
    with mpl.rc_context(dict(form.style)):
        below = caption(notes, form)
        needed_inches = height_inches + CAPTION_LINE_INCHES * len(below.splitlines())
        figure = Figure(figsize=(form.width_inches, form.height_inches or needed_inches), layout="constrained")
        figure.supxlabel(below, fontsize=form.caption_size, color="0.3")
        yield figure


def add_legend(figure: Figure, handles: Sequence[Artist], form: Form = PAPER) -> None:
    """The legend above all panels, in as few rows as there is room for."""
    labels = [str(handle.get_label()) for handle in handles]
    for num_rows in range(1, len(labels) + 1):
        num_columns = -(-len(labels) // num_rows)
        columns = np.array_split(labels, num_columns)  # as matplotlib fills them
        if sum(max(map(len, column)) + CHARACTERS_OF_MARK for column in columns) <= form.in_legend:
            break
    figure.legend(handles=handles, loc="outside upper center", ncols=num_columns, frameon=False)


def caption(notes: Sequence[str], form: Form = PAPER) -> str:
    """Sentences below a figure, none wider than it: each from a line of its own, on a slide one after the other.

    No line ends between a number and its unit.
    """
    paragraphs = notes if form.height_inches is None else [" ".join(notes)]
    bound = [BEFORE_UNIT.sub("\u00a0", note) for note in paragraphs]
    return "\n".join(line for note in bound for line in textwrap.wrap(note, form.in_caption))


def from_zero(axis: Axes, which: Literal["x", "y"] = "x") -> None:
    """An axis from zero to beyond all that is drawn so far, in whichever of the panels that share it."""
    sharing = axis.get_shared_x_axes() if which == "x" else axis.get_shared_y_axes()
    ends = np.array([getattr(panel.dataLim, f"{which}max") for panel in sharing.get_siblings(axis)])
    end = ROOM_BEYOND * float(ends[np.isfinite(ends)].max(initial=0.0)) or 1.0
    (axis.set_xlim if which == "x" else axis.set_ylim)(0.0, end)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other; no dates in them, so equal data give equal files."""
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf")]
    with mpl.rc_context(STYLE):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
