"""Which charts a report has: loss, time and money to the target loss, where the hours went, nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import altair as alt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from sim.figure_data import COLUMN, Against, MissingError, failure_marks, loss_curves
from sim.ledger_figures import FILLS
from sim.names import in_words
from sim.outcome_data import ledger_hours, nodes_over_time
from sim.page_means import hours_charts, money_charts
from sim.page_rows import loss_limits, rounded, rows_of, thin
from sim.page_source import Source
from sim.page_vega import (
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
from sim.records import BUCKETS
from sim.wording import decimals, in_digits

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
        parts.append(found.assign(bucket=in_words(bucket), order=order, hours=hours, share=share))
    found["in_words"] = found["all_hours"].map(in_digits)
    digits = max(2, decimals(found["all_hours"].min()))
    columns = (STRATEGY, Column("bucket", "spent on"), Column("hours", "hours", digits), Column("share", "% of all", 1))
    rows = {
        ROWS: rows_of(pd.concat(parts), source, {name: name for name in ("bucket", "order", "hours", "share")}),
        "totals": rows_of(found, source, {"all_hours": "all", "in_words": "words"}),
    }
    fills = tuple((in_words(bucket), FILLS[bucket][0]) for bucket in used)
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
