"""Parts of the charts of a report: altair in the page's style.

The page's controls set signals of a chart: `groups` and `strategies` (numbers of those shown), `along` (points in a row
on the chosen axis), `axis` (its number) and `failures` (whether they are marked). Text, grid and the black line take
their colours from the page's style sheet, so that they follow light and dark mode.
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


class LegendStyle(NamedTuple):
    """A strategy in the legend: display name, colour, dashes in pixels (none: a solid line)."""

    label: str
    colour: str
    dashes: tuple[int, ...]


class ChartColumn(NamedTuple):
    """A column of the data behind a chart: field, title with unit, decimals (None: text)."""

    field: str
    title: str
    digits: int | None = None


@dataclass(frozen=True)
class Chart:
    """A chart of the page. spec: in Vega-Lite; signals: the names of those it uses; fills: names and colours."""

    id: str
    title: str
    caption: str
    spec: Specification
    signals: tuple[str, ...]
    columns: tuple[ChartColumn, ...]
    fills: tuple[tuple[str, str], ...] = ()

    @property
    def marks_failures(self) -> bool:
        """Whether it can show failures."""
        return "failures" in self.signals


STRATEGY = ChartColumn("label", "strategy")

BY_STRATEGY = alt.EncodingSortField("strategy", op="min")
"""Keeps rows in the order of the strategies when some are hidden and shown again."""


def chart_of(name: str = ROWS) -> alt.Chart:
    """Return a chart without marks of a data set; the reader can open ROWS as a table."""
    return alt.Chart(alt.NamedData(name))


def colour(styles: Sequence[LegendStyle], channel: type[Any] = alt.Color) -> Any:
    """Encode each strategy's colour."""
    scale = alt.Scale(domain=list(range(len(styles))), range=[style.colour for style in styles])
    return channel("strategy:N", scale=scale, legend=None)


def dashes(styles: Sequence[LegendStyle]) -> alt.StrokeDash:
    """Encode each strategy's dashes."""
    scale = alt.Scale(domain=list(range(len(styles))), range=[style.dashes or (1, 0) for style in styles])
    return alt.StrokeDash("strategy:N", scale=scale, legend=None)


def tooltips(columns: Sequence[ChartColumn]) -> list[alt.Tooltip]:
    """Return tooltips with the columns of a row."""
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
    styles: Sequence[LegendStyle],
    height: int = HEIGHT,
) -> Specification:
    """Return layers as one Vega-Lite chart of the container's width, with their data sets.

    description: for screen readers. signals: with initial values. Field `label` of every row is its strategy's name.
    """
    named = [layer.transform_calculate(label="labels[datum.strategy]") for layer in layers]
    params = [alt.param(name=name, value=value) for name, value in signals.items()]
    params.append(alt.param(name="labels", value=[style.label for style in styles]))
    whole = alt.layer(*named).properties(width="container", height=height, description=description).add_params(*params)
    return {**whole.to_dict(), "datasets": rows, "config": CONFIG}


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    assert "</script" not in script.lower(), "it would end the page's script element"
    assert "<!--" not in script, "it would begin a comment"
    return script
