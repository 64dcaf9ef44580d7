"""The charts of a report: losses, hours and money to the target loss, the ledger, nodes, by altair in the page's style.

The page's controls set signals of a chart: `groups` and `strategies` (numbers of those shown), `along` (points in a row
on the chosen axis), `axis` (its number) and `failures` (whether they are marked). Text, grid and the black line take
their colours from the page's style sheet, so that they follow light and dark mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert
from matplotlib.ticker import MaxNLocator

from sim.core.text import decimals, format_name, format_number
from sim.reporting.html.data import ReportData, Rows, rounded, rows_of, thin
from sim.reporting.ledger import FILLS, ledger_limits, used_buckets
from sim.reporting.notes import describe_target
from sim.reporting.style import Limits, limits_from_zero, loss_limits, value_limits
from sim.results.loss_curves import COLUMN, Against, failure_marks, loss_curves
from sim.results.outcome_tables import ledger_hours, money_to_loss, nodes_over_time, time_to_end, time_to_loss
from sim.results.selection import MissingError

ALONG = "indexof(strategies, datum.strategy) >= 0 && indexof(along, datum.point) >= 0"

SHARE_BETWEEN = 0.88
"""Share of the distance between two swept values that separates their groups of marks."""

MOST_POINTS_OF_CURVE, MOST_POINTS, MOST_MARKS = 200, 15_000, 2_000
MOST_TICKS = 6
CROSS = "M-1,-1L1,1M-1,1L1,-1"
LOSS_TITLE, HOURS_TITLE = "validation loss of the proxy (nats per token)", "simulated hours of the target model"

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

Styles = Sequence[LegendStyle]


def charts_of(data: ReportData, styles: Styles) -> tuple[list[Chart], list[str]]:
    """Return the charts, and a sentence for each that the results cannot give."""
    charts, missing = [], []
    for title, make in CHARTS.items():
        try:
            charts += make(data, styles)
        except MissingError as error:
            missing.append(f"No chart of {title}: {error}.")
    return charts, missing


def _linear(limits: Limits) -> alt.Scale:
    return alt.Scale(domain=[rounded(limit) for limit in limits], nice=False, zero=False)


def _loss_charts(data: ReportData, styles: Styles) -> list[Chart]:
    curves: dict[Against, pd.DataFrame] = {against: loss_curves(data.results, against) for against in COLUMN}
    limits = loss_limits(curves["iteration"])
    return [_loss_chart(data, styles, against, rows, limits) for against, rows in curves.items()]


def _loss_chart(data: ReportData, styles: Styles, against: Against, curves: pd.DataFrame, limits: Limits) -> Chart:
    several, column = bool((curves["num_runs"] > 1).any()), COLUMN[against]
    columns = _loss_columns(curves, against, several)
    names = {column: "x", "loss_nats": "loss"}
    if several:
        names |= {"low_loss_nats": "low", "high_loss_nats": "high", "num_runs": "runs"}
    most = max(20, min(MOST_POINTS_OF_CURVE, MOST_POINTS // len(data.groups)))
    thinned = thin(curves, data, most)
    rows = {ROWS: rows_of(thinned, data, names)}
    x_title = HOURS_TITLE if against == "time" else "iteration"
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("loss:Q", title=LOSS_TITLE, scale=_linear(limits))
    base = chart_of().transform_filter(IN_GROUPS).encode(x=x, detail="group:N")
    layers = curve_layers(base, styles, limits, several)
    if targets := _target_rows(data, limits):
        rows["targets"] = targets
        layers += _target_layers()
    marks = thin(failure_marks(data.results, against), data, MOST_MARKS // len(data.groups))
    if len(marks):
        rows["marks"] = rows_of(marks, data, {column: "x", "loss_nats": "loss", "stage": "stage"})
        layers.append(_failure_layer(styles, x, y, columns[1]))
    layers.append(base.mark_circle(size=90, opacity=0, clip=True, aria=False).encode(y=y, tooltip=tooltips(columns)))
    title = f"Loss against {'simulated time' if against == 'time' else 'iteration'}"
    caption = "Mean over runs, and from the lowest to the highest of them." if several else "One run a strategy."
    caption += f" Crosses{', where switched on' if several else ''}: stages lost." if len(marks) else ""
    caption += " Gaps: rollbacks." if thinned["loss_nats"].isna().any() else ""
    caption += " The first iterations, with losses far above, are cut off."
    caption += f" Thinned to about {most} points a curve." if len(thinned) < len(curves) else ""
    signals: Signals = {"groups": data.first_groups, **({"failures": not several} if len(marks) else {})}
    spec = specification(layers, rows, f"{title}, a line a strategy. {caption}", signals, styles)
    return Chart(f"loss-{against}", title, caption, spec, tuple(signals), columns)


def _loss_columns(curves: pd.DataFrame, against: Against, several: bool) -> tuple[ChartColumn, ...]:
    hour_digits = max(2, decimals(curves[COLUMN[against]].max()))
    hours, iteration = ChartColumn("x", "simulated hours", hour_digits), ChartColumn("x", "iteration", 0)
    columns = (STRATEGY, hours if against == "time" else iteration, ChartColumn("loss", "loss (nats)", 3))
    of_several = (ChartColumn("low", "lowest run", 3), ChartColumn("high", "highest run", 3))
    return (*columns, *of_several, ChartColumn("runs", "runs", 0)) if several else columns


def curve_layers(base: alt.Chart, styles: Styles, limits: Limits, several: bool) -> list[alt.Chart]:
    """Return a line for each strategy, over a band of the range of several runs."""
    mean, low = (alt.Y(f"{field}:Q", title=LOSS_TITLE, scale=_linear(limits)) for field in ("loss", "low"))
    line = base.mark_line(clip=True, strokeWidth=2, aria=False, invalid="break-paths-filter-domains")
    layers = [line.encode(colour(styles), dashes(styles), y=mean, order="order:Q")]
    if several:
        band = base.mark_area(opacity=0.16, clip=True, aria=False)
        layers.insert(0, band.encode(colour(styles), y=low, y2="high:Q"))
    return layers


def _failure_layer(styles: Styles, x: alt.X, y: alt.Y, x_column: ChartColumn) -> alt.Chart:
    crosses: alt.Chart = chart_of("marks").transform_filter(f"failures && {IN_GROUPS}")
    crosses = crosses.mark_point(shape=CROSS, size=40, strokeWidth=1.5, clip=True, aria=False)
    columns = [STRATEGY, ChartColumn("stage", "lost: stage", 0), x_column]
    return crosses.encode(colour(styles), x=x, y=y, tooltip=tooltips(columns))


def _target_rows(data: ReportData, limits: Limits) -> Rows:
    runs = data.results.runs
    found = runs[runs["target_validation_loss"].between(*limits)].drop_duplicates(["strategy", *data.fields])
    return rows_of(found, data, {"target_validation_loss": "target"})


def _target_layers() -> list[alt.Chart]:
    base = chart_of("targets").transform_filter(IN_GROUPS).transform_aggregate(groupby=["target"]).encode(y="target:Q")
    text = base.transform_calculate(words="'target ' + datum.target")
    text = text.mark_text(align="right", baseline="bottom", dy=-3, aria=False)
    return [
        base.mark_rule(strokeDash=[2, 3], aria=False).properties(name="target"),
        text.encode(x=alt.value("width"), text="words:N"),
    ]


def hours_charts(data: ReportData, styles: Styles) -> list[Chart]:
    """Return a chart of hours to the target loss, or to the end if no run has or reaches a target."""
    if data.results.runs["target_reached_seconds"].notna().any():
        where, found = describe_target(data.results.runs), time_to_loss(data.results)
    else:
        where, found = "the end", time_to_end(data.results)
    if found["mean_hours"].isna().all() and len(data.groups) > 1:
        raise MissingError("no run has finished")
    return means_charts(data, styles, ChartColumn("hours", f"hours to {where}"), f"Time to {where}", found)


def _money_charts(data: ReportData, styles: Styles) -> list[Chart]:
    if len(data.groups) == 1:
        return []
    found, where = money_to_loss(data.results), describe_target(data.results.runs)
    if found["mean_usd"].isna().all():
        raise MissingError("no run reaches its target loss")
    return means_charts(data, styles, ChartColumn("usd", f"US dollars to {where}"), f"Money to {where}", found)


def means_charts(data: ReportData, styles: Styles, value: ChartColumn, title: str, found: pd.DataFrame) -> list[Chart]:
    """Return a chart of means along the axis that the page's control chooses; a row a strategy without a sweep.

    None of a single mean. value: its field is the unit of the columns `mean_`, `low_` and `high_` of `found`.
    """
    if len(data.groups) == 1:
        return []
    limits, digits = value_limits(found, value.field), max(2, decimals(found[f"mean_{value.field}"].min()))
    parts = {f"{part}_{value.field}": part for part in ("mean", "low", "high")}
    found = found.rename(columns={**parts, "num_reached": "reached", "num_runs": "runs"})
    is_cut = bool(found["low"].min() < limits[0] or found["high"].max() > limits[1])
    signals: Signals = {"strategies": list(range(len(styles))), "along": list(range(len(data.points)))}
    columns = [STRATEGY, ChartColumn("mean", value.title, digits), ChartColumn("low", "95 % interval from", digits)]
    columns += [ChartColumn("high", "to", digits), ChartColumn("reached", "runs that got there", 0)]
    columns.append(ChartColumn("runs", "of", 0))
    base = chart_of().transform_filter(ALONG)
    if data.axes:
        columns.insert(1, ChartColumn("place", data.axes[0].label if len(data.axes) == 1 else "at"))
        signals["axis"] = 0
        base = along_axis(base, data, styles)
    else:
        base = base.encode(y=alt.Y("label:N", sort=BY_STRATEGY, title=None))
    axis, caption = {"title": value.title, "scale": _linear(limits)}, _caption_of(found, is_cut)
    layers = mean_layers(base, columns, styles, axis, upright=bool(data.axes))
    rows, height = {ROWS: point_rows(data, found)}, 320 if data.axes else 40 + HEIGHT_OF_ROW * len(styles)
    spec = specification(layers, rows, f"{title} by strategy. {caption}", signals, styles, height)
    return [Chart(value.field, title, caption, spec, tuple(signals), tuple(columns))]


def mean_layers(
    base: alt.Chart, columns: Sequence[ChartColumn], styles: Styles, axis: dict[str, Any], upright: bool
) -> list[alt.Chart]:
    """Return intervals, dots at means and, if values are upright, lines between them.

    axis: title and scale of the values.
    """
    channel, end = (alt.Y, "y2") if upright else (alt.X, "x2")
    interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, clip=True, aria=False)
    fills = (colour(styles, alt.Stroke), colour(styles, alt.Fill))
    is_partial = alt.condition("datum.reached < datum.runs", alt.value(0), alt.value(1))
    dots = base.mark_point(size=70, strokeWidth=2, opacity=1, aria=False)
    at_mean = channel("mean:Q", **axis)
    layers = [
        interval.encode(channel("low:Q", **axis), colour(styles), **{end: "high:Q"}),
        dots.encode(at_mean, *fills, fillOpacity=is_partial, tooltip=tooltips(columns)),
    ]
    if upright:
        line = base.mark_line(strokeWidth=1, opacity=0.6, aria=False)
        layers.insert(0, line.encode(at_mean, colour(styles), dashes(styles), detail="strategy:N"))
    return layers


def along_axis(base: alt.Chart, data: ReportData, styles: Styles) -> alt.Chart:
    """Encode the swept values at the bottom, with strategies side by side at each."""
    title = data.axes[0].label if len(data.axes) == 1 else None
    scale = alt.Scale(paddingInner=SHARE_BETWEEN, paddingOuter=SHARE_BETWEEN / 2)
    in_order = alt.EncodingSortField("point", op="min")
    return base.transform_calculate(place="datum.places[axis]").encode(
        alt.X("place:N", sort=in_order, title=title, axis=alt.Axis(labelAngle=0), scale=scale),
        alt.XOffset("strategy:N", scale=alt.Scale(domain=list(range(len(styles))))),
    )


def point_rows(data: ReportData, found: pd.DataFrame) -> Rows:
    """Return a row for each strategy at each point; a group of replicates is repeated at all of its points."""
    names = {name: name for name in ("mean", "low", "high", "reached", "runs")}
    of_group = {row["group"]: row for row in rows_of(found, data, names)}
    rows: Rows = []
    for number in range(len(data.points)):
        places = [axis.values[axis.places[number]] for axis in data.axes]
        here = [group.number for group in data.groups.values() if number in group.points]
        rows += [{**of_group[group], "point": number, "places": places} for group in here]
    return rows


def _caption_of(found: pd.DataFrame, is_cut: bool) -> str:
    if (found["runs"] == 1).all():
        return "One run each: no intervals."
    caption = "Means with their 95 % intervals over seeds."
    if (found["reached"] < found["runs"]).any():
        caption += " Hollow: not every run got there, and the mean is over those that did."
    return f"{caption} Intervals that reach beyond the chart are cut off." if is_cut else caption


def _ledger_charts(data: ReportData, styles: Styles) -> list[Chart]:
    found = ledger_hours(data.results)
    found["in_words"] = found["all_hours"].map(format_number)
    parts = []
    for order, bucket in enumerate(used_buckets(found)):
        hours = found[f"{bucket}_hours"]
        share = 100 * hours / found["all_hours"]
        parts.append(found.assign(bucket=format_name(bucket), order=order, hours=hours, share=share))
    digits = max(2, decimals(found["all_hours"].min()))
    hours_column, share_column = ChartColumn("hours", "hours", digits), ChartColumn("share", "% of all", 1)
    columns = (STRATEGY, ChartColumn("bucket", "spent on"), hours_column, share_column)
    rows = {
        ROWS: rows_of(pd.concat(parts), data, {name: name for name in ("bucket", "order", "hours", "share")}),
        "totals": rows_of(found, data, {"all_hours": "all", "in_words": "words"}),
    }
    fills = tuple((format_name(bucket), FILLS[bucket][0]) for bucket in used_buckets(found))
    fill_scale = alt.Scale(domain=[name for name, _ in fills], range=[fill for _, fill in fills])
    fill = alt.Color("bucket:N", scale=fill_scale, legend=None)
    scale, no_padding = _linear(ledger_limits(found)), alt.Scale(paddingInner=0)
    y = alt.Y("label:N", sort=BY_STRATEGY, title=None, scale=no_padding)
    bars = chart_of().transform_filter(IN_GROUPS).mark_bar(size=22, aria=False)
    bars = bars.encode(fill, alt.X("hours:Q", title=HOURS_TITLE, scale=scale), y)
    text = chart_of("totals").transform_filter(IN_GROUPS).mark_text(align="left", dx=4, aria=False)
    layers = [
        bars.encode(order="order:Q", tooltip=tooltips(columns)),
        text.encode(alt.X("all:Q", scale=scale), y, text="words:N"),
    ]
    title, caption = "Where the hours went", "Mean hours over failure seeds; they add up to the time to the end."
    signals, height = {"groups": data.first_groups}, 40 + HEIGHT_OF_ROW * len(styles)
    spec = specification(layers, rows, f"{title}: a bar a strategy. {caption}", signals, styles, height)
    return [Chart("ledger", title, caption, spec, tuple(signals), columns, fills)]


def _nodes_charts(data: ReportData, styles: Styles) -> list[Chart]:
    found = nodes_over_time(data.results)
    found = found[found["failure_seed"] == found["failure_seed"].min()]
    if found["num_nodes"].nunique() == 1:
        return []
    thinned = thin(found, data, max(50, min(5 * MOST_POINTS_OF_CURVE, MOST_POINTS // len(data.groups))))
    rows = {ROWS: rows_of(thinned, data, {"hours": "x", "num_nodes": "nodes"})}
    hour_digits = max(2, decimals(found["hours"].max()))
    columns = (STRATEGY, ChartColumn("x", "from hour", hour_digits), ChartColumn("nodes", "nodes", 0))
    low, high = limits_from_zero(float(found["num_nodes"].max()))
    ticks = [tick for tick in MaxNLocator(MOST_TICKS, integer=True).tick_values(low, high) if tick <= high]
    base = chart_of().transform_filter(IN_GROUPS)
    base = base.encode(
        alt.X("x:Q", title=HOURS_TITLE, scale=alt.Scale(nice=False)),
        alt.Y("nodes:Q", title="nodes", scale=_linear((low, high)), axis=alt.Axis(values=ticks)),
        detail="group:N",
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=1.5, aria=False)
    layers = [
        line.encode(colour(styles), dashes(styles), order="order:Q"),
        base.mark_circle(size=60, opacity=0, aria=False).encode(tooltip=tooltips(columns)),
    ]
    caption = f"Active nodes, including idle spares, under failure seed {found['failure_seed'].iloc[0]}."
    caption += " Thinned: some changes are left out." if len(thinned) < len(found) else ""
    signals = {"groups": data.first_groups}
    spec = specification(layers, rows, f"Nodes over time, a line a strategy. {caption}", signals, styles, 240)
    return [Chart("nodes", "Nodes over time", caption, spec, tuple(signals), columns)]


def chart_of(name: str = ROWS) -> alt.Chart:
    """Return a chart without marks of a data set; the reader can open ROWS as a table."""
    return alt.Chart(alt.NamedData(name))


def colour(styles: Styles, channel: type[Any] = alt.Color) -> Any:
    """Encode each strategy's colour."""
    scale = alt.Scale(domain=list(range(len(styles))), range=[style.colour for style in styles])
    return channel("strategy:N", scale=scale, legend=None)


def dashes(styles: Styles) -> alt.StrokeDash:
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
    styles: Styles,
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


CHARTS: dict[str, Callable[[ReportData, Styles], list[Chart]]] = {
    "losses": _loss_charts,
    "the time it takes": hours_charts,
    "where the hours went": _ledger_charts,
    "money": _money_charts,
    "nodes over time": _nodes_charts,
}
