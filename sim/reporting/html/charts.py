"""The charts of a report: losses, hours and money to the target loss, the ledger, nodes, by altair in the page's style.

The page's controls set signals of a chart: `groups` and `strategies` (numbers of those shown), `along` (points in a row
on the chosen axis), `axis` (its number), `failures` (whether they are marked). The style sheet has some of the colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert
from matplotlib.ticker import MaxNLocator

from sim.core.text import decimals, format_name, format_number
from sim.reporting.html.data import ReportData, Rows, rounded, rows_of, thin
from sim.reporting.html.swept_axis import along_axis, title_below
from sim.reporting.ledger import LOOKS, ledger_limits, used_buckets
from sim.reporting.notes import describe_target
from sim.reporting.style import Limits, limits_from_zero, loss_limits, value_limits
from sim.results.loss_curves import COLUMN, Against, failure_marks, loss_curves, run_curves
from sim.results.outcome_tables import ledger_hours, money_to_loss, nodes_over_time, time_to_end, time_to_loss
from sim.results.selection import MissingError

IN_GROUPS = "indexof(groups, datum.group) >= 0"
ALONG = "indexof(strategies, datum.strategy) >= 0 && indexof(along, datum.point) >= 0"
MOST_POINTS_OF_CURVE, MOST_POINTS, MOST_MARKS = 200, 15_000, 2_000
MOST_TICKS = 6
CROSS = "M-1,-1L1,1M-1,1L1,-1"
LOSS_TITLE, HOURS_TITLE = "validation loss of the proxy (nats per token)", "simulated hours of the target model"

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
HEIGHT, HEIGHT_OF_ROW = 340, 36

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "axisX": {"tickCount": {"expr": "ceil(width / 70)"}},
    "view": {"stroke": None},
    "font": "system-ui, sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 130, "tickSize": 4},
}


class ChartColumn(NamedTuple):
    """A column of the data behind a chart: field, title with unit, decimals (None: text)."""

    field: str
    title: str
    digits: int | None = None


@dataclass(frozen=True)
class Chart:
    """A chart: its Vega-Lite spec, whose data set `rows` is also shown as a table of columns; signals: their names."""

    id: str
    title: str
    caption: str
    spec: dict[str, Any]
    signals: tuple[str, ...]
    columns: tuple[ChartColumn, ...]
    fills: tuple[tuple[str, str], ...] = ()


STRATEGY = ChartColumn("label", "strategy")

BY_STRATEGY = alt.EncodingSortField("strategy", op="min")  # keeps the order of rows when some are hidden


def charts_of(data: ReportData) -> tuple[list[Chart], list[str]]:
    """Return the charts, and a sentence for each chart that cannot be drawn."""
    charts, missing = [], []
    for title, make in CHARTS.items():
        try:
            charts += make(data)
        except MissingError as error:
            missing.append(f"No chart of {title}: {error}.")
    return charts, missing


def _loss_charts(data: ReportData) -> list[Chart]:
    with data.working("loss curves", len(COLUMN) * len(data.results.runs)) as run_done:
        runs = {against: run_curves(data.results, against, run_done) for against in COLUMN}
    curves = {against: loss_curves(data.results, against, own) for against, own in runs.items()}
    marks = {against: failure_marks(data.results, against, own) for against, own in runs.items()}
    limits = loss_limits(curves["iteration"])
    return [_loss_chart(data, against, rows, marks[against], limits) for against, rows in curves.items()]


def _loss_chart(
    data: ReportData, against: Against, curves: pd.DataFrame, failures: pd.DataFrame, limits: Limits
) -> Chart:
    several, column = bool((curves["num_runs"] > 1).any()), COLUMN[against]
    hours = ChartColumn("x", "simulated hours", max(2, decimals(curves[column].max())))
    x_column = hours if against == "time" else ChartColumn("x", "iteration", 0)
    columns, names = [STRATEGY, x_column, ChartColumn("loss", "loss (nats)", 3)], {column: "x", "loss_nats": "loss"}
    if several:
        columns += ChartColumn("low", "lowest run", 3), ChartColumn("high", "highest run", 3)
        columns.append(ChartColumn("runs", "runs", 0))
        names |= {"low_loss_nats": "low", "high_loss_nats": "high", "num_runs": "runs"}
    most = max(20, min(MOST_POINTS_OF_CURVE, MOST_POINTS // len(data.groups)))
    thinned = thin(curves, data, most)
    rows = {"rows": rows_of(thinned, data, names)}
    runs = data.results.runs
    found = runs[runs["target_validation_loss"].between(*limits)].drop_duplicates(["strategy", *data.fields])
    if targets := rows_of(found, data, {"target_validation_loss": "target"}):
        rows["targets"] = targets
    marks = thin(failures, data, MOST_MARKS // len(data.groups))
    if len(marks):
        rows["marks"] = rows_of(marks, data, {column: "x", "loss_nats": "loss", "stage": "stage"})
    caption = "Mean over runs, and from the lowest to the highest of them." if several else "One run a strategy."
    caption += f" Crosses{', where switched on' if several else ''}: stages lost." if len(marks) else ""
    caption += " Gaps: rollbacks." if thinned["loss_nats"].isna().any() else ""
    caption += " The first iterations, whose losses are much higher, are cut off."
    caption += f" Thinned to about {most} points per curve." if len(thinned) < len(curves) else ""
    signals = {"groups": data.first_groups, **({"failures": not several} if len(marks) else {})}
    layers = _loss_layers(data, against, rows, limits, columns)
    title = f"Loss against {'simulated time' if against == 'time' else 'iteration'}"
    about = f"loss-{against}", title, f"{title}, a line per strategy.", caption
    return chart(data, about, layers, rows, columns, signals)


def _loss_layers(
    data: ReportData, against: Against, rows: dict[str, Rows], limits: Limits, columns: Sequence[ChartColumn]
) -> list[alt.Chart]:
    """Return a line for each strategy, over a band of the range of several runs, the target, and lost stages."""
    x_title = HOURS_TITLE if against == "time" else "iteration"
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, nice=False))
    y, low = (alt.Y(f"{field}:Q", title=LOSS_TITLE, scale=_linear(limits)) for field in ("loss", "low"))
    base, layers = chart_of("rows", IN_GROUPS).encode(x=x, detail="group:N"), []
    if any(column.field == "low" for column in columns):
        band = base.mark_area(opacity=0.16, clip=True, aria=False)
        layers.append(band.encode(colour(data), y=low, y2="high:Q"))
    line = base.mark_line(clip=True, strokeWidth=2, aria=False, invalid="break-paths-filter-domains")
    layers.append(line.encode(colour(data), colour(data, alt.StrokeDash), y=y, order="order:Q"))
    if "targets" in rows:
        target = chart_of("targets", IN_GROUPS).transform_aggregate(groupby=["target"]).encode(y="target:Q")
        text = target.transform_calculate(words="'target ' + datum.target")
        text = text.mark_text(align="right", baseline="bottom", dy=-3, aria=False)
        layers.append(target.mark_rule(strokeDash=[2, 3], aria=False).properties(name="target"))
        layers.append(text.encode(x=alt.value("width"), text="words:N"))
    if "marks" in rows:
        crosses = chart_of("marks", f"failures && {IN_GROUPS}")
        crosses = crosses.mark_point(shape=CROSS, size=40, strokeWidth=1.5, clip=True, aria=False)
        of_marks = tooltips([STRATEGY, ChartColumn("stage", "lost: stage", 0), columns[1]])
        layers.append(crosses.encode(colour(data), x=x, y=y, tooltip=of_marks))
    circles = base.mark_circle(size=90, opacity=0, clip=True, aria=False)
    return [*layers, circles.encode(y=y, tooltip=tooltips(columns))]


def _hours_charts(data: ReportData) -> list[Chart]:
    """Return a chart of hours to the target loss, or to the end if no run has or reaches a target."""
    if len(data.groups) == 1:
        return []
    if data.results.runs["target_reached_seconds"].notna().any():
        where, found = describe_target(data.results.runs), time_to_loss(data.results)
    else:
        where, found = "the end", time_to_end(data.results)
    if found["mean_hours"].isna().all():
        raise MissingError("no run has finished")
    return [means_chart(data, ChartColumn("hours", f"hours to {where}"), f"Time to {where}", found)]


def _money_charts(data: ReportData) -> list[Chart]:
    if len(data.groups) == 1:
        return []
    found, where = money_to_loss(data.results), describe_target(data.results.runs)
    if found["mean_usd"].isna().all():
        raise MissingError("no run reaches its target loss")
    return [means_chart(data, ChartColumn("usd", f"US dollars to {where}"), f"Money to {where}", found)]


def means_chart(data: ReportData, value: ChartColumn, title: str, found: pd.DataFrame) -> Chart:
    """Return a chart of means (`mean_<value.field>`) along the axis chosen on the page; without a sweep by strategy."""
    limits, digits = value_limits(found, value.field), max(2, decimals(found[f"mean_{value.field}"].min()))
    parts = {f"{part}_{value.field}": part for part in ("mean", "low", "high")}
    found = found.rename(columns={**parts, "num_reached": "reached", "num_runs": "runs"})
    signals: dict[str, Any] = {"strategies": list(range(len(data.styles))), "along": list(range(len(data.points)))}
    columns = [STRATEGY, ChartColumn("mean", value.title, digits), ChartColumn("low", "95 % interval from", digits)]
    columns += [ChartColumn("high", "to", digits), ChartColumn("reached", "runs that got there", 0)]
    columns.append(ChartColumn("runs", "of", 0))
    base = chart_of("rows", ALONG)
    if data.axes:
        columns.insert(1, ChartColumn("place", data.axes[0].label if len(data.axes) == 1 else "at"))
        signals["axis"] = 0
        base = along_axis(base, data.axes, len(data.styles))
    else:
        base = base.encode(y=alt.Y("label:N", sort=BY_STRATEGY, title=None))
    layers = _mean_layers(data, base, columns, {"title": value.title, "scale": _linear(limits)})
    height = 320 if data.axes else 40 + HEIGHT_OF_ROW * len(data.styles)
    about = value.field, title, f"{title} by strategy.", _means_caption(found, limits)
    made = chart(data, about, layers, {"rows": point_rows(data, found)}, columns, signals, height)
    return replace(made, spec={**made.spec, "title": title_below(data.axes)}) if data.axes else made


def _mean_layers(
    data: ReportData, base: alt.Chart, columns: Sequence[ChartColumn], axis: dict[str, Any]
) -> list[alt.Chart]:
    """Return intervals, dots at means and, of a sweep, lines between them. axis: title and scale of the values."""
    channel, end = (alt.Y, "y2") if data.axes else (alt.X, "x2")
    interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, clip=True, aria=False)
    is_partial = alt.condition("datum.reached < datum.runs", alt.value(0), alt.value(1))
    dots = base.mark_point(size=70, strokeWidth=2, opacity=1, aria=False)
    fills = colour(data, alt.Stroke), colour(data, alt.Fill), colour(data, alt.Shape)
    at_mean = channel("mean:Q", **axis)
    layers = [
        interval.encode(channel("low:Q", **axis), colour(data), **{end: "high:Q"}),
        dots.encode(at_mean, *fills, fillOpacity=is_partial, tooltip=tooltips(columns)),
    ]
    if data.axes:
        line = base.mark_line(strokeWidth=1, opacity=0.6, aria=False)
        layers.insert(0, line.encode(at_mean, colour(data), colour(data, alt.StrokeDash), detail="strategy:N"))
    return layers


def point_rows(data: ReportData, found: pd.DataFrame) -> Rows:
    """Return a row for each strategy at each point; a group of replicates is repeated at all of its points."""
    names = {name: name for name in ("mean", "low", "high", "reached", "runs")}
    of_group = {row["group"]: row for row in rows_of(found, data, names)}
    rows: Rows = []
    for number in range(len(data.points)):
        places = [axis.values[axis.places[number]] for axis in data.axes]
        here = [of_group[group.number] for group in data.groups.values() if number in group.points]
        rows += [row | {"point": number, "places": places} for row in here]
    return rows


def _means_caption(found: pd.DataFrame, limits: Limits) -> str:
    if (found["runs"] == 1).all():
        return "One run each: no intervals."
    caption = "Means with their 95 % intervals over seeds."
    if (found["reached"] < found["runs"]).any():
        caption += " Hollow: some runs did not reach the target; the mean is over the others."
    is_cut = found["low"].min() < limits[0] or found["high"].max() > limits[1]
    return f"{caption} Intervals that reach beyond the chart are cut off." if is_cut else caption


def _ledger_charts(data: ReportData) -> list[Chart]:
    found = ledger_hours(data.results)
    found["in_words"] = found["all_hours"].map(format_number)
    parts, fills = [], tuple((format_name(bucket), LOOKS[bucket][0]) for bucket in used_buckets(found))
    for order, bucket in enumerate(used_buckets(found)):
        hours = found[f"{bucket}_hours"]
        share = 100 * hours / found["all_hours"]
        parts.append(found.assign(bucket=format_name(bucket), order=order, hours=hours, share=share))
    digits = max(2, decimals(found["all_hours"].min()))
    hours_column, share_column = ChartColumn("hours", "hours", digits), ChartColumn("share", "% of all", 1)
    columns = (STRATEGY, ChartColumn("bucket", "spent on"), hours_column, share_column)
    rows = {
        "rows": rows_of(pd.concat(parts), data, {name: name for name in ("bucket", "order", "hours", "share")}),
        "totals": rows_of(found, data, {"all_hours": "all", "in_words": "words"}),
    }
    fill_scale = alt.Scale(domain=[name for name, _ in fills], range=[fill for _, fill in fills])
    fill = alt.Color("bucket:N", scale=fill_scale, legend=None)
    scale = _linear(ledger_limits(found))
    y = alt.Y("label:N", sort=BY_STRATEGY, title=None, scale=alt.Scale(paddingInner=0))
    bars = chart_of("rows", IN_GROUPS).mark_bar(size=22, aria=False)
    bars = bars.encode(fill, alt.X("hours:Q", title=HOURS_TITLE, scale=scale), y)
    text = chart_of("totals", IN_GROUPS).mark_text(align="left", dx=4, aria=False)
    layers = [
        bars.encode(order="order:Q", tooltip=tooltips(columns)),
        text.encode(alt.X("all:Q", scale=scale), y, text="words:N"),
    ]
    title, caption = "Where the hours went", "Mean hours over failure seeds; they add up to the time to the end."
    about, height = ("ledger", title, f"{title}: a bar per strategy.", caption), 40 + HEIGHT_OF_ROW * len(data.styles)
    of_buckets = chart(data, about, layers, rows, columns, {"groups": data.first_groups}, height)
    return [replace(of_buckets, fills=fills)]


def _nodes_charts(data: ReportData) -> list[Chart]:
    found = nodes_over_time(data.results)
    found = found[found["failure_seed"] == found["failure_seed"].min()]
    if found["num_nodes"].nunique() == 1:
        return []
    thinned = thin(found, data, max(50, min(5 * MOST_POINTS_OF_CURVE, MOST_POINTS // len(data.groups))))
    hour_digits = max(2, decimals(found["hours"].max()))
    columns = (STRATEGY, ChartColumn("x", "from hour", hour_digits), ChartColumn("nodes", "nodes", 0))
    low, high = limits_from_zero(float(found["num_nodes"].max()))
    ticks = [tick for tick in MaxNLocator(MOST_TICKS, integer=True).tick_values(low, high) if tick <= high]
    base = chart_of("rows", IN_GROUPS).encode(
        alt.X("x:Q", title=HOURS_TITLE, scale=alt.Scale(nice=False)),
        alt.Y("nodes:Q", title="nodes", scale=_linear((low, high)), axis=alt.Axis(values=ticks)),
        detail="group:N",
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=1.5, aria=False)
    layers = [
        line.encode(colour(data), colour(data, alt.StrokeDash), order="order:Q"),
        base.mark_circle(size=60, opacity=0, aria=False).encode(tooltip=tooltips(columns)),
    ]
    caption = f"Active nodes, including idle spares, under failure seed {found['failure_seed'].iloc[0]}."
    caption += " Thinned: some changes are left out." if len(thinned) < len(found) else ""
    rows = {"rows": rows_of(thinned, data, {"hours": "x", "num_nodes": "nodes"})}
    about = "nodes", "Nodes over time", "Nodes over time, a line per strategy.", caption
    return [chart(data, about, layers, rows, columns, {"groups": data.first_groups}, 240)]


def _linear(limits: Limits) -> alt.Scale:
    return alt.Scale(domain=[rounded(limit) for limit in limits], nice=False, zero=False)


def chart_of(rows: str, shown: str) -> alt.Chart:
    """Return a chart without marks of those rows of a data set that a condition shows."""
    found: alt.Chart = alt.Chart(alt.NamedData(rows)).transform_filter(shown)
    return found


def colour(data: ReportData, channel: type[Any] = alt.Color) -> Any:
    """Encode each strategy's colour, its dashes (StrokeDash), or the shape of its marks (Shape)."""
    looks: list[Any] = [style.colour for style in data.styles]
    if channel is alt.StrokeDash:
        looks = [style.dashes or (1, 0) for style in data.styles]
    elif channel is alt.Shape:
        looks = [style.shape for style in data.styles]
    return channel("strategy:N", scale=alt.Scale(domain=list(range(len(looks))), range=looks), legend=None)


def tooltips(columns: Sequence[ChartColumn]) -> list[alt.Tooltip]:
    """Return tooltips with the columns of a row."""
    return [
        alt.Tooltip(f"{field}:N", title=title)
        if digits is None
        else alt.Tooltip(f"{field}:Q", title=title, format=f".{digits}f")
        for field, title, digits in columns
    ]


def chart(
    data: ReportData,
    about: tuple[str, str, str, str],
    layers: Sequence[alt.Chart],
    rows: dict[str, Rows],
    columns: Sequence[ChartColumn],
    signals: dict[str, Any],
    height: int = HEIGHT,
) -> Chart:
    """Return layers as one chart of the container's width. about: id, title, contents for screen readers, caption.

    signals: with initial values. Field `label` of every row is its strategy's name.
    """
    id_, title, what, caption = about
    named = [layer.transform_calculate(label="labels[datum.strategy]") for layer in layers]
    params = [alt.param(name=name, value=value) for name, value in signals.items()]
    params.append(alt.param(name="labels", value=[style.label for style in data.styles]))
    whole = alt.layer(*named).properties(width="container", height=height, description=f"{what} {caption}")
    spec = {**whole.add_params(*params).to_dict(), "datasets": rows, "config": CONFIG}
    return Chart(id_, title, caption, spec, tuple(signals), tuple(columns))


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    assert "</script" not in script.lower(), "it would end the page's script element"
    assert "<!--" not in script, "it would begin a comment"
    return script


CHARTS: dict[str, Callable[[ReportData], list[Chart]]] = {
    "losses": _loss_charts,
    "the time it takes": _hours_charts,
    "where the hours went": _ledger_charts,
    "money": _money_charts,
    "nodes over time": _nodes_charts,
}
