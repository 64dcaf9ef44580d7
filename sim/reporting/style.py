"""House style of all figures: fonts, formats for print and slides, captions, legends, limits of axes, files."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

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
    """The format of figures, for print or for slides."""

    style: Mapping[Any, Any]
    width_inches: float
    height_inches: float | None  # None: as needed
    caption_size: float
    in_caption: int  # characters per line of a caption, x label and legend, and per inch of a y label
    in_x_label: int
    in_y_inch: int
    in_legend: int
    has_caption: bool = False  # whether the caption is drawn; it is always written beside

    @property
    def is_narrow(self) -> bool:
        """Whether panels are below each other, because two do not fit side by side."""
        return self.width_inches < NARROW_INCHES

    def x_label(self, text: str) -> str:
        """Wrap a label below an axis."""
        return textwrap.fill(text, self.in_x_label)

    def y_label(self, text: str, height_inches: float = 1.6) -> str:
        """Wrap a label beside an axis of a height."""
        inches = height_inches if self.height_inches is None else HEIGHT_ON_SLIDES_INCHES
        return textwrap.fill(text, int(inches * self.in_y_inch))


WIDTHS_INCHES = {"column": 3.3, "text": 5.5, "full": 7.0}
NARROW_INCHES, WIDE_INCHES = 4.5, 6.5
SMALLER = {
    "font.size": 7.0,
    "axes.labelsize": 7.0,
    "axes.titlesize": 7.5,
    "legend.fontsize": 6.5,
    "lines.linewidth": 1.2,
}


def print_form(width_inches: float = WIDTHS_INCHES["full"], has_caption: bool = False) -> Form:
    """The format for print at a width, with letters of the size of the surrounding text."""
    is_narrow = width_inches < NARROW_INCHES
    style = {**STYLE, **SMALLER} if is_narrow else STYLE
    in_x_label = width_inches * (15.0 if is_narrow else 8.3 if width_inches >= WIDE_INCHES else 6.4)
    counts = (int(20.5 * width_inches), int(in_x_label), 18 if is_narrow else 16, int(17.0 * width_inches))
    return Form(style, width_inches, None, 6.0 if is_narrow else 6.5, *counts, has_caption)


PAPER = print_form()
SLIDE = Form({**STYLE, **LARGER}, 6.4, 3.6, 6.0, 142, 40, 14, 95)
CAPTION_LINE_INCHES = 0.125
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|h|hours?|s|seconds?|\$)(?!\w))")
CHARACTERS_OF_MARK, COLUMN_SPACING = 8, 1.4

REFERENCE_LINE: dict[str, Any] = {"color": "0.35", "linewidth": 0.8, "linestyle": (0, (1, 1.5))}
"""A dotted line at a target or a requirement."""

Limits = tuple[float, float]
FORMATS = ("png", "pdf", "svg", "pgf")
WITHOUT_DATE: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
LATEX_PROGRAMS = ("xelatex", "lualatex", "pdflatex")
SHARE_AT_START = 0.1  # losses in this share at the start are ignored, since they would fill the panel
ROOM_FOR_INTERVALS = 0.75  # maximum extension of an axis for intervals at each end, as a share of the range of means
ROOM_ABOVE = 1.05


@contextmanager
def new_figure(height_inches: float, notes: Sequence[str], form: Form = PAPER) -> Iterator[Figure]:
    """Open an empty figure of a height (a slide has its own) with the sentences of its caption (`caption_of`)."""
    with mpl.rc_context(dict(form.style)):
        below = caption(notes, form) if form.has_caption else ""
        needed_inches = height_inches + CAPTION_LINE_INCHES * len(below.splitlines())
        figure = Figure(figsize=(form.width_inches, form.height_inches or needed_inches), layout="constrained")
        figure.set_label("\n".join(notes))
        if below:
            figure.supxlabel(below, fontsize=form.caption_size, color="0.3")
        yield figure


def caption_of(figure: Figure) -> str:
    """The caption of a figure, a line for each sentence or group of them; empty if it has none."""
    return str(figure.get_label())


def subplots(figure: Figure, num_rows: int, num_columns: int, form: Form, **options: Any) -> npt.NDArray[Any]:
    """Return (rows, columns) axes; on narrow paper the columns are below each other, with axes of their own."""
    if not form.is_narrow or num_columns == 1:
        axes: npt.NDArray[Any] = figure.subplots(num_rows, num_columns, squeeze=False, **options)
        return axes
    options.pop("width_ratios", None)
    below: npt.NDArray[Any] = figure.subplots(num_rows * num_columns, 1, squeeze=False)
    return below.reshape(num_rows, num_columns)


def add_legend(figure: Figure, handles: Sequence[Artist], form: Form = PAPER) -> None:
    """Place a legend above all panels, in as few rows as fit."""
    labels = [str(handle.get_label()) for handle in handles]
    for num_rows in range(1, len(labels) + 1):
        num_columns = -(-len(labels) // num_rows)
        columns = np.array_split(labels, num_columns)  # as matplotlib fills them
        if sum(max(map(len, column)) + CHARACTERS_OF_MARK for column in columns) <= form.in_legend:
            break
    figure.legend(
        handles=handles, loc="outside upper center", ncols=num_columns, frameon=False, columnspacing=COLUMN_SPACING
    )


def caption(notes: Sequence[str], form: Form = PAPER) -> str:
    """Wrap sentences, each on a new line (on a slide: one paragraph), never between a number and its unit."""
    paragraphs = notes if form.height_inches is None else [" ".join(notes)]
    bound = [BEFORE_UNIT.sub("\u00a0", note) for note in paragraphs]
    return "\n".join(line for note in bound for line in textwrap.wrap(note, form.in_caption))


def from_zero(axis: Axes, which: Literal["x", "y"] = "x") -> None:
    """Set an axis from zero to above all data drawn so far, in all panels that share it."""
    sharing = axis.get_shared_x_axes() if which == "x" else axis.get_shared_y_axes()
    ends = np.array([getattr(panel.dataLim, f"{which}max") for panel in sharing.get_siblings(axis)])
    axis.set(**{f"{which}lim": limits_from_zero(float(ends[np.isfinite(ends)].max(initial=0.0)))})


def loss_limits(curves: pd.DataFrame) -> Limits:
    """Return limits that show means and ranges of `loss_curves` against iteration, except for the start."""
    later = curves[curves["iteration"] >= SHARE_AT_START * curves["iteration"].max()]
    untrained = curves.loc[curves["iteration"] == curves["iteration"].min(), "loss_nats"]
    later = later[~later["loss_nats"].isin(untrained)]  # global weights before the first synchronisation
    means, losses = finite(later[["loss_nats"]]), finite(later[["loss_nats", "low_loss_nats", "high_loss_nats"]])
    if not losses.size:
        return 0.0, 1.0
    most = float(means.max() + ROOM_FOR_INTERVALS * np.ptp(means)) if means.size else float(losses.max())
    low, high = float(losses.min()), min(float(losses.max()), most)
    span = max(high - low, 1e-3)
    return low - 0.05 * span, high + 0.02 * span


def value_limits(table: pd.DataFrame, *units: str) -> Limits:
    """Return limits from 0 that show all `mean_` of units, and `high_` as far as means stay apart."""
    means, highs = (finite(table[[f"{part}_{unit}" for unit in units]]) for part in ("mean", "high"))
    if not means.size:
        return 0.0, 1.0
    span = max(np.ptp(means), 0.05 * means.max())
    high = min(highs.max(initial=means.max()), means.max() + ROOM_FOR_INTERVALS * span)
    return 0.0, float(high + 0.08 * span)


def label_rows(axis: Axes, names: Iterable[str], above: float, below: float) -> None:
    """Name rows from the top, with room above the first and below the last, as shares of a row."""
    names = list(names)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 1 + below, -above)
    axis.grid(axis="y", visible=False)


def limits_from_zero(largest: float, room: float = ROOM_ABOVE) -> Limits:
    """Return limits from 0 to above the largest value."""
    return 0.0, room * largest or 1.0


def finite(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return all finite numbers of a table in one row."""
    values: npt.NDArray[np.float64] = table.to_numpy(float)
    return values[np.isfinite(values)]


def take_literally(figure: Figure) -> None:
    """Show dollar signs in texts literally, except in tick labels, whose powers are formulas."""
    ticks = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in ticks:
            text.set_parse_math(False)


NEGATIVE = re.compile(r"(?<![\w.])-(?=\d)")
LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    "√": r"$\surd$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex(text: str) -> str:
    """Escape a text for LaTeX; numbers stay with their units."""
    bound = NEGATIVE.sub("−", BEFORE_UNIT.sub("\u00a0", text))
    return "".join(LATEX_ESCAPES.get(letter, letter) for letter in bound).replace("\u00a0", "~")


def latex_program() -> str:
    """The installed LaTeX with which PGF files are written. ValueError if there is none."""
    if found := next(filter(shutil.which, LATEX_PROGRAMS), None):
        return found
    raise ValueError(
        "--format pgf needs LaTeX to measure texts, and none of xelatex, lualatex and pdflatex is installed: install "
        "one, or use pdf, which LaTeX can include as well"
    )


def _write_pgf(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_pgf import LatexError

    program = latex_program()
    try:
        with mpl.rc_context({"pgf.texsystem": program}):
            figure.savefig(path)
    except (LatexError, BrokenPipeError) as error:
        path.unlink(missing_ok=True)
        raise ValueError(
            f"--format pgf: {program} failed, perhaps because a package or a font is missing; use pdf, which LaTeX can "
            "include as well"
        ) from error


def save(
    figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf"), captions: Sequence[str] = ("txt",)
) -> list[Path]:
    """Write a figure, and its caption as text (txt) and for LaTeX (tex). No dates: equal data give equal files."""
    take_literally(figure)
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
    with mpl.rc_context({**STYLE, "svg.hashsalt": "churnlab", "pgf.rcfonts": False}):
        for path, ending in zip(paths, formats, strict=True):
            if ending == "pgf":
                _write_pgf(figure, path)
            else:
                figure.savefig(path, metadata=WITHOUT_DATE.get(ending))
    if text := caption_of(figure):
        for ending in captions:
            paths.append(stem.with_name(f"{stem.name}.{ending}"))
            paths[-1].write_text(f"{latex(text) if ending == 'tex' else text}\n", encoding="utf-8")
    return paths
