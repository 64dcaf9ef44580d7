"""What the charts of a report are made of: altair's parts, in the page's style.

A chart listens to signals that the page's controls set: `groups` and `strategies` (numbers of those shown), `along`
(points in a row on the axis chosen), `axis` (its number) and `failures` (whether they are marked). Text, grid and the
black line take their colours from the page's style sheet, so that they follow light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import altair as alt
import vl_convert

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])

HEIGHT, HEIGHT_OF_ROW = 340, 36

ROWS = "rows"

IN_GROUPS = "indexof(groups, datum.group) >= 0"

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "axisX": {"tickCount": {"expr": "ceil(width / 70)"}},
    "view": {"stroke": None},
    "font": "system-ui, sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 130, "tickSize": 4},
}

Rows = list[dict[str, Any]]

Signals = dict[str, Any]

Specification = dict[str, Any]


class Style(NamedTuple):
    """How a strategy's lines look: name for people, colour, dashes (none: a line without gaps)."""

    label: str
    colour: str
    dashes: tuple[int, ...]


class Column(NamedTuple):
    """Of the table behind a chart: which field, its heading with its unit, decimals (None: text)."""

    field: str
    title: str
    digits: int | None = None


@dataclass(frozen=True)
class Chart:
    """A chart as the page needs it. spec: in Vega-Lite; signals: those that it listens to; fills: its legend."""

    id: str
    title: str
    caption: str
    spec: Specification
    signals: tuple[str, ...]
    columns: tuple[Column, ...]
    fills: tuple[tuple[str, str], ...] = ()

    @property
    def marks_failures(self) -> bool:
        """Whether it can show where stages were lost."""
        return "failures" in self.signals


STRATEGY = Column("label", "strategy")

BY_STRATEGY = alt.EncodingSortField("strategy", op="min")
"""Rows in the order of the strategies, whatever is hidden and shown again."""


def chart_of(name: str = ROWS) -> alt.Chart:
    """A chart without marks of the rows of a name; ROWS are those in the table behind it."""
    return alt.Chart(alt.NamedData(name))


def colour(styles: Sequence[Style], channel: type[Any] = alt.Color) -> Any:
    """Each strategy's colour."""
    scale = alt.Scale(domain=list(range(len(styles))), range=[style.colour for style in styles])
    return channel("strategy:N", scale=scale, legend=None)


def dashes(styles: Sequence[Style]) -> alt.StrokeDash:
    """Each strategy's dashes."""
    scale = alt.Scale(domain=list(range(len(styles))), range=[style.dashes or (1, 0) for style in styles])
    return alt.StrokeDash("strategy:N", scale=scale, legend=None)


def tips(columns: Sequence[Column]) -> list[alt.Tooltip]:
    """What a tooltip says: the columns of the table, of one row."""
    return [
        alt.Tooltip(f"{field}:N", title=title)
        if digits is None
        else alt.Tooltip(f"{field}:Q", title=title, format=f".{digits}f")
        for field, title, digits in columns
    ]


def specification(
    layers: Sequence[alt.Chart],
    rows: dict[str, Rows],
    description: str,
    signals: Signals,
    styles: Sequence[Style],
    height: int = HEIGHT,
) -> Specification:
    """Layers over each other as one Vega-Lite chart as wide as its place, with all their rows.

    description: what a screen reader says of it. signals: those it listens to, and what they are at first. `label` of
    every row is the name of its strategy.
    """
    named = [layer.transform_calculate(label="labels[datum.strategy]") for layer in layers]
    params = [alt.param(name=name, value=value) for name, value in signals.items()]
    params.append(alt.param(name="labels", value=[style.label for style in styles]))
    whole = alt.layer(*named).properties(width="container", height=height, description=description).add_params(*params)
    return {**whole.to_dict(), "datasets": rows, "config": CONFIG}


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    assert "</script" not in script.lower(), "it would end the page's script element"
    assert "<!--" not in script, "it would begin a comment"
    return script
