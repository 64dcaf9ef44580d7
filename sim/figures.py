"""The look of all figures: one house style for paper and slides, how strategies look, legends, captions, files.

Figures are drawn from tables (`sim.figure_data` and those above it), which come from files of finished runs and never
from a live one. Colours are Okabe and Ito's, safe for the colour-blind; line styles and markers tell strategies apart
in grey. A slide is 16:9 and so small in inches that its letters are large on any screen.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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

LineStyle = Literal["-", "--", "-.", ":", ""] | tuple[float, tuple[float, ...]]


class Look(NamedTuple):
    """How a strategy is drawn: its line, and its marker where there are points."""

    colour: str
    line: LineStyle
    marker: str


LONG_DASHES: LineStyle = (0.0, (8.0, 1.5))
DASH_DOT_DOT: LineStyle = (0.0, (4.0, 1.2, 1.0, 1.2, 1.0, 1.2))
LOOKS = (
    Look("#000000", "-", "o"),
    Look("#D55E00", "-", "s"),
    Look("#0072B2", "--", "^"),
    Look("#009E73", LONG_DASHES, "D"),
    Look("#CC79A7", "-.", "v"),
    Look("#E69F00", DASH_DOT_DOT, "P"),
    Look("#56B4E9", ":", "X"),
)
"""The first five are those of KIND_ORDER."""
KIND_ORDER = ("none", "checkpoint", "redundant", "checkfree", "checkfree_plus")
NAMES = {
    "none": "no failures",
    "checkpoint": "checkpointing",
    "redundant": "redundant",
    "checkfree": "CheckFree",
    "checkfree_plus": "CheckFree+",
    "checkfree_hybrid": "CheckFree+ hybrid",
    "neighbour_checkpoint": "in neighbours",
}
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


def legend_label(strategy: str) -> str:
    """A strategy's name for people."""
    return NAMES.get(strategy, strategy)


# ---- series: a strategy, or one of several variants of it ----------------------------------------


def with_series(table: pd.DataFrame, fields: Iterable[str]) -> pd.DataFrame:
    """The table with a column `series`: the strategy, and with which of its own swept values, for people."""
    own = [name for name in fields if is_own(name)]
    names = []
    for row in table[["strategy", *own]].to_dict("records"):
        values = [f"{short(name)} {as_text(row[name])}" for name in own if not pd.isna(row[name])]
        names.append(legend_label(str(row["strategy"])) + (f", {', '.join(values)}" if values else ""))
    return table.assign(series=names)


def series_in(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each series' name and rows, in their order; of a table without `series`, each strategy's."""
    if "series" not in table:
        table = with_series(table, ())
    for name, rows in table.groupby("series", sort=False):
        yield str(name), rows


def looks_of(table: pd.DataFrame) -> dict[str, Look]:
    """A look for each series of a table."""
    return looks_for({name: str(rows["kind"].iloc[0]) for name, rows in series_in(table)})


def looks_for(kinds: Mapping[str, str]) -> dict[str, Look]:
    """A look for each name by its kind: fixed for the first of the five known kinds, the next free one for others."""
    fixed = dict(zip(KIND_ORDER, LOOKS, strict=False))
    more = [Look(one.colour, other.line, other.marker) for other in LOOKS for one in LOOKS]
    reserved = {fixed[kind] for kind in kinds.values() if kind in fixed}
    free_first = [*LOOKS[len(KIND_ORDER) :], *LOOKS[1:], *more]  # black is for no failures
    spare = iter([look for look in dict.fromkeys(free_first) if look not in reserved])
    looks: dict[str, Look] = {}
    for name, kind in kinds.items():
        look = fixed.get(kind)
        looks[name] = look if look and look not in looks.values() else next(spare, LOOKS[len(looks) % len(LOOKS)])
    return looks


def line_handles(looks: Mapping[str, Look], with_markers: bool = False) -> list[Artist]:
    """A line in the legend for each series."""
    return [
        Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker if with_markers else None, label=name)
        for name, look in looks.items()
    ]


# ---- points of a sweep: a panel each -------------------------------------------------------------


def is_own(field: str) -> bool:
    """Whether a swept field belongs to one strategy; others concern all."""
    return field.startswith(("strategies[", "strategies."))


def points_in(table: pd.DataFrame, fields: Iterable[str]) -> list[dict[str, Any]]:
    """Each combination of the fields that concern all strategies, in the order of the sweep: one, if there is none."""
    shared = [name for name in fields if not is_own(name)]
    if not shared:
        return [{}]
    points = table[shared].drop_duplicates()
    numeric = [name for name in shared if pd.api.types.is_numeric_dtype(points[name])]
    if numeric:
        points = points.sort_values(numeric, kind="stable")
    return [dict(zip(shared, values, strict=True)) for values in points.itertuples(index=False)]


def at_point(table: pd.DataFrame, point: Mapping[str, Any]) -> pd.DataFrame:
    """The rows at a point."""
    for name, value in point.items():
        table = table[table[name].isna() if pd.isna(value) else table[name] == value]
    return table


def point_in_words(point: Mapping[str, Any]) -> str:
    """A point's fields and values."""
    return ", ".join(f"{name} {as_text(value) or 'null'}" for name, value in point.items())


def left_out(points: Sequence[object], shown: Sequence[object]) -> list[str]:
    """A sentence where more points are there than panels are drawn."""
    if len(points) == len(shown):
        return []
    return [f"The first {len(shown)} of {len(points)}; all of them are in the table beside."]


def short(field: str) -> str:
    """The last part of a field's name, in words."""
    return field.rpartition(".")[2].replace("_", " ")


def as_text(value: Any) -> str:
    """A swept value; nothing where there is none."""
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other; no dates in them, so equal data give equal files."""
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf")]
    with mpl.rc_context(STYLE):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
