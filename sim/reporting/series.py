"""Series of a figure: their order, line styles and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from sim.strategies import legend_label

LineStyle = Literal["-", "--", "-.", ":", ""] | tuple[float, tuple[float, ...]]


class SeriesStyle(NamedTuple):
    """How a strategy is drawn: its line, and its marker where there are points."""

    colour: str
    line: LineStyle
    marker: str


LONG_DASHES: LineStyle = (0.0, (8.0, 1.5))

DASH_DOT_DOT: LineStyle = (0.0, (4.0, 1.2, 1.0, 1.2, 1.0, 1.2))

LOOKS = (
    SeriesStyle("#000000", "-", "o"),
    SeriesStyle("#D55E00", "-", "s"),
    SeriesStyle("#0072B2", "--", "^"),
    SeriesStyle("#009E73", LONG_DASHES, "D"),
    SeriesStyle("#CC79A7", "-.", "v"),
    SeriesStyle("#E69F00", DASH_DOT_DOT, "P"),
    SeriesStyle("#56B4E9", ":", "X"),
)
"""Looks in the order of use; the first five belong to the kinds of KIND_ORDER."""

KIND_ORDER = ("none", "checkpoint", "redundant", "checkfree", "checkfree_plus")


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


def looks_of(table: pd.DataFrame) -> dict[str, SeriesStyle]:
    """A look for each series of a table."""
    return looks_for({name: str(rows["kind"].iloc[0]) for name, rows in series_in(table)})


def looks_for(kinds: Mapping[str, str]) -> dict[str, SeriesStyle]:
    """A look for each name by its kind: fixed for the first of the five known kinds, the next free one for others."""
    fixed = dict(zip(KIND_ORDER, LOOKS, strict=False))
    more = [SeriesStyle(one.colour, other.line, other.marker) for other in LOOKS for one in LOOKS]
    reserved = {fixed[kind] for kind in kinds.values() if kind in fixed}
    free_first = [*LOOKS[len(KIND_ORDER) :], *LOOKS[1:], *more]  # black is for no failures
    spare = iter([look for look in dict.fromkeys(free_first) if look not in reserved])
    looks: dict[str, SeriesStyle] = {}
    for name, kind in kinds.items():
        look = fixed.get(kind)
        looks[name] = look if look and look not in looks.values() else next(spare, LOOKS[len(looks) % len(LOOKS)])
    return looks


def line_handles(looks: Mapping[str, SeriesStyle], with_markers: bool = False) -> list[Artist]:
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
