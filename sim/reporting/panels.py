"""Single panels of results, drawn on an axis of the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sim.core.text import shortened, suggestion
from sim.reporting.ledger import draw_ledger, ledger_limits
from sim.reporting.loss import HOURS_LABEL, LOSS_LABEL, X_LABEL, draw_loss_at, loss_tables
from sim.reporting.nodes import draw_nodes
from sim.reporting.outcomes import draw_means, draw_rows
from sim.reporting.series import at_point, choose_field, series_styles, with_series
from sim.reporting.strategy_map import draw_map_panel
from sim.results.loss_curves import Against
from sim.results.outcome_tables import ledger_hours, money_to_loss, nodes_over_time, time_to_loss
from sim.results.selection import comparable, swept_fields
from sim.results.storage import Results
from sim.results.strategy_map import StrategyMap

Point = Mapping[str, Any]


def draw(axis: Axes, found: Results | StrategyMap, kind: str = "loss", at: Point | None = None) -> None:
    """Draw one panel of results, or a strategy map, on a matplotlib axis.

    kind: loss, loss_by_iteration, ledger, nodes, time_to_loss or money_to_loss; of a map it is not used. at: the point
    of a sweep, as values by field, for kinds that show one point. ValueError for another kind, MissingError where the
    results do not contain the data.
    """
    if isinstance(found, StrategyMap):
        draw_map_panel(axis, found)
        return
    if kind not in PANELS:
        raise ValueError(f"kind {shortened(kind)}: no such panel{suggestion(kind, PANELS)}")
    PANELS[kind](axis, comparable(found), at or {})


def loss(against: Against, axis: Axes, results: Results, at: Point) -> None:
    """Draw validation loss against simulated time or iteration."""
    tables = loss_tables(results, against, "curves")
    draw_loss_at(axis, tables, "curves", at, series_styles(tables["curves"]))
    axis.set(xlabel=X_LABEL[against], ylabel=LOSS_LABEL)


def ledger(axis: Axes, results: Results, at: Point) -> None:
    """Draw the hours in each bucket."""
    table = at_point(with_series(ledger_hours(results), swept_fields(results)), at)
    draw_ledger(axis, table)
    axis.set_xlim(*ledger_limits(table))
    axis.set_xlabel(HOURS_LABEL)


def nodes(axis: Axes, results: Results, at: Point) -> None:
    """Draw the number of nodes over time."""
    draw_nodes(axis, at_point(with_series(nodes_over_time(results), swept_fields(results)), at))
    axis.set(xlabel=HOURS_LABEL, ylabel="nodes")


def to_target(
    table_of: Callable[[Results], pd.DataFrame], unit: str, label: str, axis: Axes, results: Results, at: Point
) -> None:
    """Draw what it takes to reach the target: against the swept field with most values, or by strategy."""
    fields = [name for name in swept_fields(results) if name not in at]
    table = at_point(with_series(table_of(results), fields), at)
    field = choose_field(results.runs, fields, None)
    if field is None:
        draw_rows(axis, table, unit)
        axis.set_xlabel(label)
    else:
        draw_means(axis, table, field, unit)
        axis.set(xlabel=field.replace("_", " "), ylabel=label)


PANELS: Mapping[str, Callable[[Axes, Results, Point], None]] = {
    "loss": partial(loss, "time"),
    "loss_by_iteration": partial(loss, "iteration"),
    "ledger": ledger,
    "nodes": nodes,
    "time_to_loss": partial(to_target, time_to_loss, "hours", "simulated hours to the target loss"),
    "money_to_loss": partial(to_target, money_to_loss, "usd", "US dollars to the target loss"),
}
