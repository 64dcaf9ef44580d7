"""Axes of a strategy map: edges of its cells, ticks, and names of strategies in its regions."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from scipy import ndimage

from sim.reporting.words import words_of
from sim.scenario.axes import Axis
from sim.strategies import legend_label

SMALLEST_NAMED = 0.04  # regions of a smaller share of the map are not named
LETTER_INCHES, LINE_INCHES = 0.085, 0.15  # of a name in a region
FEWEST_TICKS = 3

Edges = npt.NDArray[np.float64]


def edges(axis: Axis) -> Edges:
    """Return (values + 1,) edges of cells: halfway between values, by ratio on a logarithmic axis."""
    if not axis.is_numeric:
        return np.arange(len(axis.values) + 1, dtype=np.float64) - 0.5
    values: Edges = np.array(axis.values, dtype=np.float64)
    values = np.log(values) if axis.is_log else values
    middles = (values[1:] + values[:-1]) / 2
    first, last = (
        (2 * values[0] - middles[0], 2 * values[-1] - middles[-1]) if len(middles) else values[0] + (-0.5, 0.5)
    )
    ends: Edges = np.array([first, *middles, last])
    return np.exp(ends) if axis.is_log else ends


def position(axis: Axis, value: Any) -> float:
    """Return the position of a value on an axis."""
    return float(value) if axis.is_numeric else float(axis.values.index(value))


def scale_axis(axis: Axes, which: str, of: Axis, ends: Edges) -> None:
    """Set the label, the scale, the ticks and the limits of an axis of a map."""
    words = words_of(of.field)
    axis.set(**{f"{which}label": words.label})
    one = axis.xaxis if which == "x" else axis.yaxis
    if of.is_numeric and words.factor != 1.0:
        one.set_major_formatter(FuncFormatter(lambda value, _: words.value(float(value))))
    if of.is_log:
        axis.set(**{f"{which}scale": "log"})
        one.set_minor_locator(NullLocator())
        ticks = _round_ticks(ends)
        one.set_ticks(ticks, [words.value(float(f"{value:g}")) for value in ticks])
    elif not of.is_numeric:
        one.set_ticks(range(len(of.values)), [str(value) for value in of.values])
    axis.set(**{f"{which}lim": (ends[0], ends[-1])})


def _round_ticks(ends: Edges) -> list[float]:
    """Numbers such as 1, 2 and 5 times powers of ten between the ends of a logarithmic axis; more if these are few."""
    low, high = math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[-1]))
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
        inside = [tick for tick in ticks if ends[0] <= tick <= ends[-1]]
        if len(inside) >= FEWEST_TICKS:
            break
    return inside


def name_regions(axis: Axes, best: Any, edges_x: Edges, edges_y: Edges) -> None:
    """Write the best strategy's name into each region in which it has room, at the widest place."""
    for name in dict.fromkeys(name for name in best.flat if name is not None):
        regions, num = ndimage.label(best == name)
        for number in range(1, num + 1):
            inside = regions == number
            if inside.mean() < SMALLEST_NAMED:
                continue
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold"}
            label = textwrap.fill(legend_label(name), 14)
            if (where := _room_for(label, inside, axis)) is None:
                continue
            x, y = (
                math.sqrt(ends[n] * ends[n + 1]) if ends[0] > 0 else (ends[n] + ends[n + 1]) / 2
                for ends, n in ((edges_x, where[1]), (edges_y, where[0]))
            )
            text = axis.annotate(label, (x, y), **look)
            text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])


def _room_for(label: str, inside: npt.NDArray[np.bool_], axis: Axes) -> tuple[int, int] | None:
    """The cell (row, column) of a region at which a label is centred, far from its borders; None if it would cross one.

    Cells are equally large, which they nearly are.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None
    box, (rows, columns), lines = axis.get_position(), inside.shape, label.splitlines()
    width, height = figure.get_size_inches() * (box.width, box.height)
    num_columns = max(map(len, lines)) * LETTER_INCHES / (width / columns)
    num_rows = len(lines) * LINE_INCHES / (height / rows)
    size = 2 * math.ceil((num_rows - 1) / 2) + 1, 2 * math.ceil((num_columns - 1) / 2) + 1
    fits = ndimage.binary_erosion(inside, np.ones((max(1, size[0]), max(1, size[1]))), border_value=0)
    if not fits.any():
        return None
    depth = np.where(fits, ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1], 0.0)
    deepest = np.argwhere(depth == depth.max())
    row, column = deepest[np.abs(deepest - deepest.mean(axis=0)).sum(axis=1).argmin()]
    return int(row), int(column)
