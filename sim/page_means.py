"""Charts of means with their 95 % intervals along a swept field: hours and money to the target loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from sim.figure_data import MissingError
from sim.outcome_data import money_to_loss, time_to_end, time_to_loss
from sim.page_rows import rounded, rows_of
from sim.page_source import Source
from sim.page_vega import (
    BY_STRATEGY,
    HEIGHT_OF_ROW,
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
from sim.page_words import target_in_words
from sim.wording import decimals

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
