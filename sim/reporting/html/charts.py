"""Charts of means with their 95 % intervals along a swept field: hours and money to the target loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from sim.core.records import BUCKETS
from sim.core.text import decimals, format_name, format_number
from sim.reporting.html.data import Source, loss_limits, rounded, rows_of, thin
from sim.reporting.html.narrative import target_in_words
from sim.reporting.html.vega import (
    BY_STRATEGY,
    HEIGHT_OF_ROW,
    IN_GROUPS,
    ROWS,
    STRATEGY,
    Chart,
    Column,
    Rows,
    Style,
    chart_of,
    colour,
    dashes,
    specification,
    tips,
)
from sim.reporting.ledger import FILLS
from sim.results.loss_curves import COLUMN, Against, failure_marks, loss_curves
from sim.results.outcome_tables import ledger_hours, money_to_loss, nodes_over_time, time_to_end, time_to_loss
from sim.results.selection import MissingError

ALONG = "indexof(strategies, datum.strategy) >= 0 && indexof(along, datum.point) >= 0"

SHARE_BETWEEN = 0.88
"""Of the way from one swept value to the next, what lies between the marks of the one and those of the other."""

MOST_OF_MEAN = 1.6
"""Intervals are cut off at this many times the highest mean: one of two runs would make all others points."""


def hours_charts(source: Source, styles: Sequence[Style]) -> list[Chart]:
    """Hours to the target loss; to the end where no run has or reaches one. Nothing where there is one mean alone."""
    if len(source.groups) == 1:
        return []
    if source.results.runs["target_reached_seconds"].notna().any():
        where, found = goal(source), time_to_loss(source.results)
        return [means_chart(source, styles, Column("hours", f"hours to {where}"), f"Time to {where}", found)]
    found = time_to_end(source.results)
    if found["mean_hours"].isna().all():
        raise MissingError("no run has finished")
    return [means_chart(source, styles, Column("hours", "hours to the end"), "Time to the end", found)]


def money_charts(source: Source, styles: Sequence[Style]) -> list[Chart]:
    """Dollars to the target loss. Nothing where there is one mean alone."""
    if len(source.groups) == 1:
        return []
    found = money_to_loss(source.results)
    if found["mean_usd"].isna().all():
        raise MissingError("no run reaches its target loss")
    where = goal(source)
    return [means_chart(source, styles, Column("usd", f"US dollars to {where}"), f"Money to {where}", found)]


def goal(source: Source) -> str:
    """The loss to be reached, in words."""
    target = target_in_words(source.results.runs)
    return f"loss {target}" if target else "the target loss"


def means_chart(source: Source, styles: Sequence[Style], value: Column, title: str, found: pd.DataFrame) -> Chart:
    """Means along the axis that the page's control chooses; a row a strategy where nothing is swept.

    value: what they are of; its field is the unit in the columns `mean_`, `low_` and `high_` of `found`.
    """
    parts = {f"{part}_{value.field}": part for part in ("mean", "low", "high")}
    found = found.rename(columns={**parts, "num_reached": "reached", "num_runs": "runs"})
    digits = max(2, decimals(found["mean"].min()))
    columns = [STRATEGY, Column("mean", value.title, digits), Column("low", "95 % interval from", digits)]
    columns += [
        Column("high", "to", digits),
        Column("reached", "runs that got there", 0),
        Column("runs", "of", 0),
    ]
    limits, is_cut = value_limits(found)
    scale = alt.Scale(domain=limits, nice=False, zero=False)
    signals: dict[str, Any] = {"strategies": list(range(len(styles))), "along": list(range(len(source.settings)))}
    base = chart_of().transform_filter(ALONG)
    channel, end = (alt.Y, "y2") if source.axes else (alt.X, "x2")
    if source.axes:
        columns.insert(1, Column("place", source.axes[0].label if len(source.axes) == 1 else "at"))
        signals["axis"] = 0
        base = along_axis(base, source, styles)
    else:
        base = base.encode(y=alt.Y("label:N", sort=BY_STRATEGY, title=None))
    interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, clip=True, aria=False)
    at_mean = channel("mean:Q", scale=scale, title=value.title)
    fills = (colour(styles, alt.Stroke), colour(styles, alt.Fill))
    is_partial = alt.condition("datum.reached < datum.runs", alt.value(0), alt.value(1))
    dots = base.mark_point(size=70, strokeWidth=2, opacity=1, aria=False)
    layers = [
        interval.encode(channel("low:Q", scale=scale, title=value.title), colour(styles), **{end: "high:Q"}),
        dots.encode(at_mean, *fills, fillOpacity=is_partial, tooltip=tips(columns)),
    ]
    if source.axes:
        line = base.mark_line(strokeWidth=1, opacity=0.6, aria=False)
        layers.insert(0, line.encode(at_mean, colour(styles), dashes(styles), detail="strategy:N"))
    caption = caption_of(found, is_cut)
    rows = {ROWS: point_rows(source, found)}
    height = 320 if source.axes else 40 + HEIGHT_OF_ROW * len(styles)
    spec = specification(layers, rows, f"{title} by strategy. {caption}", signals, styles, height)
    return Chart(value.field, title, caption, spec, tuple(signals), tuple(columns))


def value_limits(found: pd.DataFrame) -> tuple[tuple[float, float], bool]:
    """Limits of the axis of means, and whether intervals reach beyond them."""
    mean = found["mean"]
    lows, highs = found["low"].fillna(mean), found["high"].fillna(mean)
    bottom = max(0.0, lows.min(), mean.min() / MOST_OF_MEAN)
    top = min(highs.max(), MOST_OF_MEAN * mean.max())
    room = 0.06 * max(top - bottom, 0.1 * top)
    limits = rounded(max(0.0, bottom - room)), rounded(top + room)
    return limits, bool(lows.min() < limits[0] or highs.max() > limits[1])


def along_axis(base: alt.Chart, source: Source, styles: Sequence[Style]) -> alt.Chart:
    """Swept values at the bottom, strategies at each so little aside that none hides another."""
    title = source.axes[0].label if len(source.axes) == 1 else None
    scale, in_order = (
        alt.Scale(paddingInner=SHARE_BETWEEN, paddingOuter=SHARE_BETWEEN / 2),
        alt.EncodingSortField("point", op="min"),
    )
    return base.transform_calculate(place="datum.places[axis]").encode(
        alt.X("place:N", sort=in_order, title=title, axis=alt.Axis(labelAngle=0), scale=scale),
        alt.XOffset("strategy:N", scale=alt.Scale(domain=list(range(len(styles))))),
    )


def point_rows(source: Source, found: pd.DataFrame) -> Rows:
    """A row for each strategy at each point, where a strategy that a field does not concern has the same at all."""
    names = {name: name for name in ("mean", "low", "high", "reached", "runs")}
    of_group = {row["group"]: row for row in rows_of(found, source, names)}
    rows: Rows = []
    for number in range(len(source.settings)):
        places = [axis.values[axis.places[number]] for axis in source.axes]
        here = [group.number for group in source.groups.values() if number in group.points]
        rows += [{**of_group[group], "point": number, "places": places} for group in here]
    return rows


def caption_of(found: pd.DataFrame, is_cut: bool) -> str:
    """What intervals and hollow points mean, where there are any."""
    if (found["runs"] == 1).all():
        return "One run each: no intervals."
    caption = "Means with their 95 % intervals over seeds."
    if (found["reached"] < found["runs"]).any():
        caption += " Hollow: not every run got there, and the mean is over those that did."
    return f"{caption} Intervals that reach beyond the chart are cut off." if is_cut else caption


# Which charts a report has: loss, time and money to the target loss, where the hours went, nodes.

MOST_POINTS_OF_CURVE, MOST_POINTS, MOST_MARKS = 200, 15_000, 2_000

MOST_TICKS = 6

CROSS = "M-1,-1L1,1M-1,1L1,-1"

ROOM_FOR_TEXT = 1.15

LOSS_TITLE = "validation loss of the proxy (nats per token)"


def charts_of(source: Source, styles: Sequence[Style]) -> tuple[list[Chart], list[str]]:
    """The charts of some results, and for each that could not be made a sentence that says why."""
    made, left_out = [], []
    for title, make in CHARTS.items():
        try:
            made += make(source, styles)
        except MissingError as error:
            left_out.append(f"No chart of {title}: {error}.")
    return made, left_out


def loss_charts(source: Source, styles: Sequence[Style]) -> list[Chart]:
    """Loss against simulated time and against iteration, with the range over runs, and where stages were lost."""
    curves: dict[Against, pd.DataFrame] = {against: loss_curves(source.results, against) for against in COLUMN}
    limits = loss_limits(curves["iteration"], source.results.runs["num_iterations"].max())
    return [loss_chart(source, styles, against, rows, limits) for against, rows in curves.items()]


def loss_chart(
    source: Source, styles: Sequence[Style], against: Against, curves: pd.DataFrame, limits: tuple[float, float]
) -> Chart:
    """Loss against simulated time, or against iteration."""
    several = bool((curves["num_runs"] > 1).any())
    hour_digits = max(2, decimals(curves[COLUMN[against]].max()))
    x_column = Column("x", "simulated hours", hour_digits) if against == "time" else Column("x", "iteration", 0)
    columns = [STRATEGY, x_column, Column("loss", "loss (nats)", 3)]
    names = {COLUMN[against]: "x", "loss_nats": "loss"}
    if several:
        columns += [Column("low", "lowest run", 3), Column("high", "highest run", 3), Column("runs", "runs", 0)]
        names |= {"low_loss_nats": "low", "high_loss_nats": "high", "num_runs": "runs"}
    most = max(20, min(MOST_POINTS_OF_CURVE, MOST_POINTS // len(source.groups)))
    thinned = thin(curves, source, most)
    rows = {ROWS: rows_of(thinned, source, names)}
    x_title = "simulated hours of the target model" if against == "time" else "iteration"
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, nice=False))
    scale = alt.Scale(domain=limits, nice=False, zero=False)
    y = alt.Y("loss:Q", title=LOSS_TITLE, scale=scale)
    base = chart_of().transform_filter(IN_GROUPS).encode(x=x, detail="group:N")
    layers = []
    if several:
        band = base.mark_area(opacity=0.16, clip=True, aria=False)
        layers.append(band.encode(colour(styles), y=alt.Y("low:Q", title=LOSS_TITLE, scale=scale), y2="high:Q"))
    line = base.mark_line(clip=True, strokeWidth=2, aria=False, invalid="break-paths-filter-domains")
    layers.append(line.encode(colour(styles), dashes(styles), y=y, order="order:Q"))
    if targets := target_rows(source, limits):
        rows["targets"] = targets
        layers += target_layers()
    marks = thin(failure_marks(source.results, against), source, MOST_MARKS // len(source.groups))
    if len(marks):
        rows["marks"] = rows_of(marks, source, {COLUMN[against]: "x", "loss_nats": "loss", "stage": "stage"})
        crosses = chart_of("marks").transform_filter(f"failures && {IN_GROUPS}")
        crosses = crosses.mark_point(shape=CROSS, size=40, strokeWidth=1.5, clip=True, aria=False)
        said = tips([STRATEGY, Column("stage", "lost: stage", 0), x_column])
        layers.append(crosses.encode(colour(styles), x=x, y=y, tooltip=said))
    layers.append(base.mark_circle(size=90, opacity=0, clip=True, aria=False).encode(y=y, tooltip=tips(columns)))
    title = f"Loss against {'simulated time' if against == 'time' else 'iteration'}"
    caption = "Mean over runs, and from the lowest to the highest of them." if several else "One run a strategy."
    caption += f" Crosses{', where switched on' if several else ''}: stages lost." if len(marks) else ""
    caption += " Gaps: rollbacks." if thinned["loss_nats"].isna().any() else ""
    caption += " The first iterations, with losses far above, are cut off."
    caption += f" Thinned to about {most} points a curve." if len(thinned) < len(curves) else ""
    signals = {"groups": source.first_groups, **({"failures": not several} if len(marks) else {})}
    spec = specification(layers, rows, f"{title}, a line a strategy. {caption}", signals, styles)
    return Chart(f"loss-{against}", title, caption, spec, tuple(signals), tuple(columns))


def target_rows(source: Source, limits: tuple[float, float]) -> Rows:
    """The loss to be reached by each group, where it is within the limits."""
    runs = source.results.runs
    found = runs[runs["target_validation_loss"].between(*limits)].drop_duplicates(["strategy", *source.fields])
    return rows_of(found, source, {"target_validation_loss": "target"})


def target_layers() -> list[alt.Chart]:
    """A rule at the loss to be reached."""
    base = chart_of("targets").transform_filter(IN_GROUPS).transform_aggregate(groupby=["target"]).encode(y="target:Q")
    text = base.transform_calculate(words="'target ' + datum.target")
    return [
        base.mark_rule(strokeDash=[2, 3], aria=False).properties(name="target"),
        text.mark_text(align="right", baseline="bottom", dy=-3, aria=False).encode(
            x=alt.value("width"), text="words:N"
        ),
    ]


def ledger_charts(source: Source, styles: Sequence[Style]) -> list[Chart]:
    """Where the hours went: a stacked bar for each strategy."""
    found = ledger_hours(source.results)
    used = [bucket for bucket in BUCKETS if found[f"{bucket}_hours"].any()]
    parts = []
    for order, bucket in enumerate(used):
        hours = found[f"{bucket}_hours"]
        share = 100 * hours / found["all_hours"]
        parts.append(found.assign(bucket=format_name(bucket), order=order, hours=hours, share=share))
    found["in_words"] = found["all_hours"].map(format_number)
    digits = max(2, decimals(found["all_hours"].min()))
    columns = (STRATEGY, Column("bucket", "spent on"), Column("hours", "hours", digits), Column("share", "% of all", 1))
    rows = {
        ROWS: rows_of(pd.concat(parts), source, {name: name for name in ("bucket", "order", "hours", "share")}),
        "totals": rows_of(found, source, {"all_hours": "all", "in_words": "words"}),
    }
    fills = tuple((format_name(bucket), FILLS[bucket][0]) for bucket in used)
    scale = alt.Scale(domain=[name for name, _ in fills], range=[fill for _, fill in fills])
    y = alt.Y("label:N", sort=BY_STRATEGY, title=None, scale=alt.Scale(paddingInner=0))
    x_title = "simulated hours of the target model"
    bars = chart_of().transform_filter(IN_GROUPS).mark_bar(size=22, aria=False)
    x_scale = alt.Scale(domain=[0, rounded(ROOM_FOR_TEXT * found["all_hours"].max())], nice=False)
    bars = bars.encode(
        alt.Color("bucket:N", scale=scale, legend=None), alt.X("hours:Q", title=x_title, scale=x_scale), y
    )
    text = chart_of("totals").transform_filter(IN_GROUPS).mark_text(align="left", dx=4, aria=False)
    layers = [
        bars.encode(order="order:Q", tooltip=tips(columns)),
        text.encode(alt.X("all:Q", scale=x_scale), y, text="words:N"),
    ]
    title, caption = "Where the hours went", "Mean hours over failure seeds; they add up to the time to the end."
    signals, height = {"groups": source.first_groups}, 40 + HEIGHT_OF_ROW * len(styles)
    spec = specification(layers, rows, f"{title}: a bar a strategy. {caption}", signals, styles, height)
    return [Chart("ledger", title, caption, spec, tuple(signals), columns, fills)]


def nodes_charts(source: Source, styles: Sequence[Style]) -> list[Chart]:
    """How many nodes are there when, where they come and go."""
    found = nodes_over_time(source.results)
    found = found[found["failure_seed"] == found["failure_seed"].min()]
    if found["num_nodes"].nunique() == 1:
        return []
    thinned = thin(found, source, max(50, min(5 * MOST_POINTS_OF_CURVE, MOST_POINTS // len(source.groups))))
    rows = {ROWS: rows_of(thinned, source, {"hours": "x", "num_nodes": "nodes"})}
    columns = (STRATEGY, Column("x", "from hour", max(2, decimals(found["hours"].max()))), Column("nodes", "nodes", 0))
    ticks = list(MaxNLocator(MOST_TICKS, integer=True).tick_values(0, found["num_nodes"].max()))
    base = chart_of().transform_filter(IN_GROUPS)
    base = base.encode(
        alt.X("x:Q", title="simulated hours of the target model", scale=alt.Scale(nice=False)),
        alt.Y("nodes:Q", title="nodes", scale=alt.Scale(domain=[0, ticks[-1]]), axis=alt.Axis(values=ticks)),
        detail="group:N",
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=1.5, aria=False)
    layers = [
        line.encode(colour(styles), dashes(styles), order="order:Q"),
        base.mark_circle(size=60, opacity=0, aria=False).encode(tooltip=tips(columns)),
    ]
    caption = f"All that are there, spares too, under failure seed {found['failure_seed'].iloc[0]}."
    caption += " Thinned: some changes are left out." if len(thinned) < len(found) else ""
    signals = {"groups": source.first_groups}
    spec = specification(layers, rows, f"Nodes over time, a line a strategy. {caption}", signals, styles, 240)
    return [Chart("nodes", "Nodes over time", caption, spec, tuple(signals), columns)]


CHARTS: dict[str, Callable[[Source, Sequence[Style]], list[Chart]]] = {
    "losses": loss_charts,
    "the time it takes": hours_charts,
    "where the hours went": ledger_charts,
    "money": money_charts,
    "nodes over time": nodes_charts,
}
