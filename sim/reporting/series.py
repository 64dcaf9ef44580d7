"""Series of a figure: a strategy or a variant of one, its line style and label; and the points of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from sim.core.text import shortened, suggestion
from sim.reporting.words import format_value, variant_in_words
from sim.strategies import legend_label

LineStyle = Literal["-", "--", "-.", ":", ""] | tuple[float, tuple[float, ...]]


class SeriesStyle(NamedTuple):
    """Colour, line style and marker of a series."""

    colour: str
    line: LineStyle
    marker: str


Styles = Mapping[str, SeriesStyle]  # the style of each series by its name
LONG_DASHES: LineStyle = (0.0, (8.0, 1.5))
DASH_DOT_DOT: LineStyle = (0.0, (4.0, 1.2, 1.0, 1.2, 1.0, 1.2))

SERIES_STYLES = (
    SeriesStyle("#000000", "-", "o"),
    SeriesStyle("#D55E00", "-", "s"),
    SeriesStyle("#0072B2", "--", "^"),
    SeriesStyle("#009E73", LONG_DASHES, "D"),
    SeriesStyle("#CC79A7", "-.", "v"),
    SeriesStyle("#E69F00", DASH_DOT_DOT, "P"),
    SeriesStyle("#56B4E9", ":", "X"),
)
"""In order of use; the first five belong to KIND_ORDER. Okabe and Ito's colours, safe for colour-blind readers."""

KIND_ORDER = ("none", "checkpoint", "redundant", "checkfree", "checkfree_plus")


def with_series(table: pd.DataFrame, fields: Iterable[str]) -> pd.DataFrame:
    """Add a column `series`: the strategy's display name and its own swept values."""
    own = [name for name in fields if is_strategy_field(name)]
    names = []
    for row in table[["strategy", *own]].to_dict("records"):
        present = {name: row[name] for name in own if not pd.isna(row[name])}
        names.append(variant_in_words(legend_label(str(row["strategy"])), present))
    return table.assign(series=names)


def series_in(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each series' name and rows in order of appearance; without a column `series`, each strategy's."""
    if "series" not in table:
        table = with_series(table, ())
    for name, rows in table.groupby("series", sort=False):
        yield str(name), rows


def series_styles(table: pd.DataFrame) -> dict[str, SeriesStyle]:
    """Return the style of each series in a table."""
    return styles_by_kind({name: str(rows["kind"].iloc[0]) for name, rows in series_in(table)})


def styles_by_kind(kinds: Mapping[str, str]) -> dict[str, SeriesStyle]:
    """Return a style for each name: for the first name of a known kind its fixed one, for others the next free one."""
    fixed = dict(zip(KIND_ORDER, SERIES_STYLES, strict=False))
    lines_taken = {(style.colour, style.line) for style in SERIES_STYLES}
    more = [
        SeriesStyle(one.colour, other.line, other.marker)
        for other in SERIES_STYLES[1:]
        for one in SERIES_STYLES[1:]
        if (one.colour, other.line) not in lines_taken  # without markers these would look alike
    ]
    reserved = {fixed[kind] for kind in kinds.values() if kind in fixed}
    free_first = [*SERIES_STYLES[len(KIND_ORDER) :], *SERIES_STYLES[1:], *more]  # black is reserved for no failures
    spare = iter([style for style in dict.fromkeys(free_first) if style not in reserved])
    styles: dict[str, SeriesStyle] = {}
    for name, kind in kinds.items():
        own = fixed.get(kind)
        is_free = own is not None and own not in styles.values()
        styles[name] = own if own and is_free else next(spare, SERIES_STYLES[len(styles) % len(SERIES_STYLES)])
    return styles


def line_handles(styles: Styles, with_markers: bool = False) -> list[Artist]:
    """Return a legend handle for each series."""
    return [
        Line2D([], [], color=colour, linestyle=line, marker=marker if with_markers else None, label=name)
        for name, (colour, line, marker) in styles.items()
    ]


def is_strategy_field(field: str) -> bool:
    """Whether a swept field belongs to one strategy; others apply to all."""
    return field.startswith(("strategies[", "strategies."))


def points_in(table: pd.DataFrame, fields: Iterable[str]) -> list[dict[str, Any]]:
    """Return each combination of the fields that apply to all strategies, in sweep order; [{}] if there are none."""
    shared = [name for name in fields if not is_strategy_field(name)]
    if not shared:
        return [{}]
    points = table[shared].drop_duplicates()
    numeric = [name for name in shared if pd.api.types.is_numeric_dtype(points[name])]
    if numeric:
        points = points.sort_values(numeric, kind="stable")
    return [dict(zip(shared, values, strict=True)) for values in points.itertuples(index=False)]


def at_point(table: pd.DataFrame, point: Mapping[str, Any]) -> pd.DataFrame:
    """Select the rows at a point."""
    for name, value in point.items():
        table = table[table[name].isna() if pd.isna(value) else table[name] == value]
    return table


def choose_field(table: pd.DataFrame, fields: Sequence[str], wanted: str | None) -> str | None:
    """Return the field for the x axis: the one wanted, else the numeric one with most values; None without a sweep.

    Fields that apply to all strategies come before those of one. ValueError if the wanted field was not swept.
    """
    if wanted is not None:
        if wanted not in fields:
            known = suggestion(wanted, fields) if fields else "; nothing was swept"
            raise ValueError(f"--x {shortened(wanted)}: no such swept field{known}")
        return wanted
    several = [name for name in fields if table[name].nunique() > 1]
    numeric = [name for name in several if are_numbers(table[name])]
    return max(numeric or several, key=lambda name: (not is_strategy_field(name), table[name].nunique()), default=None)


def are_numbers(values: pd.Series[Any]) -> bool:
    """Whether the values of a field are numbers; it may be empty for strategies that do not have it."""
    known = values.dropna().infer_objects()
    return pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)


def describe_point(point: Mapping[str, Any]) -> str:
    """Format a point's fields and values."""
    return ", ".join(f"{name} {format_value(value) or 'null'}" for name, value in point.items())


def omitted_points(points: Sequence[object], drawn: Sequence[object]) -> list[str]:
    """Return a sentence for the caption if there are more points than panels."""
    sentence = f"The first {len(drawn)} of {len(points)} points; the CSV file contains all of them."
    return [sentence] if len(points) > len(drawn) else []
