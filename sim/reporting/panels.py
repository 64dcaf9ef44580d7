"""Single panels of results, drawn on an axis of the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from sim.core.text import shortened, suggestion
from sim.reporting.ledger import draw_ledger, draw_nodes, ledger_limits
from sim.reporting.loss import HOURS_LABEL, LOSS_LABEL, X_LABEL, draw_loss_at, loss_styles, loss_tables
from sim.reporting.outcomes import draw_means, draw_rows
from sim.reporting.series import at_point, choose_field, describe_point, points_in, with_series
from sim.reporting.strategy_map import draw_map_panel
from sim.reporting.words import words_of
from sim.results.loss_curves import Against
from sim.results.outcome_tables import ledger_hours, money_to_loss, nodes_over_time, time_to_loss
from sim.results.selection import comparable, swept_fields
from sim.results.storage import Results
from sim.results.strategy_map import StrategyMap

LOSS: dict[str, Against] = {"loss": "time", "loss_by_iteration": "iteration"}
AT_ONE_POINT = {"ledger": ledger_hours, "nodes": nodes_over_time}
TO_TARGET = {
    "time_to_loss": (time_to_loss, "hours", "simulated hours to the target loss"),
    "money_to_loss": (money_to_loss, "usd", "US dollars to the target loss"),
}


def draw(axis: Axes, found: Results | StrategyMap, kind: str = "loss", at: Mapping[str, Any] | None = None) -> None:
    """Draw one panel of results, or a strategy map, on a matplotlib axis.

    kind: loss, loss_by_iteration, ledger, nodes, time_to_loss or money_to_loss; not used for a map. at: the point
    of a sweep, as values by field, for kinds that show one point. ValueError for another kind, and if such a kind has
    several points; MissingError where the results do not contain the data.
    """
    if isinstance(found, StrategyMap):
        draw_map_panel(axis, found)
        return
    if kind not in {*LOSS, *AT_ONE_POINT, *TO_TARGET}:
        raise ValueError(f"kind {shortened(kind)}: no such panel{suggestion(kind, [*LOSS, *AT_ONE_POINT, *TO_TARGET])}")
    results, at = comparable(found), at or {}
    fields = swept_fields(results)
    if kind in TO_TARGET:
        _draw_to_target(axis, results, kind, at)
        return
    points = points_in(at_point(results.runs, at), fields)
    if len(points) > 1:
        raise ValueError(
            f"kind {kind} shows one point of a sweep, and there are {len(points)}: name one with `at`, such as "
            f"{describe_point(points[0])}"
        )
    if kind in LOSS:
        tables = loss_tables(results, LOSS[kind], "curves")
        draw_loss_at(axis, tables, "curves", at, loss_styles(tables, "curves"))
        axis.set(xlabel=X_LABEL[LOSS[kind]], ylabel=LOSS_LABEL)
        return
    table = at_point(with_series(AT_ONE_POINT[kind](results), fields), at)
    if kind == "ledger":
        draw_ledger(axis, table)
        axis.set(xlabel=HOURS_LABEL, xlim=ledger_limits(table))
    else:
        draw_nodes(axis, table)
        axis.set(xlabel=HOURS_LABEL, ylabel="nodes")


def _draw_to_target(axis: Axes, results: Results, kind: str, at: Mapping[str, Any]) -> None:
    """Draw the time or cost to the target against the swept field with most values, or by strategy."""
    table_of, unit, label = TO_TARGET[kind]
    fields = [name for name in swept_fields(results) if name not in at]
    table, field = at_point(with_series(table_of(results), fields), at), choose_field(results.runs, fields, None)
    if field is None:
        draw_rows(axis, table, unit)
        axis.set_xlabel(label)
    else:
        draw_means(axis, table, field, unit)
        axis.set(xlabel=words_of(field).label, ylabel=label)
