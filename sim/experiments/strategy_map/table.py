"""A map as a table: a row for each cell and strategy, also of cells that lie between those that were looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sim.core.units import SECONDS_PER_HOUR
from sim.experiments.strategy_map.job import CellResult, MapJob
from sim.experiments.strategy_map.refinement import Cell, Mesh, Span, cells
from sim.results.comparison import Standing, as_values
from sim.results.statistics import estimate_at
from sim.scenario.axes import Axis, is_number


def map_table(job: MapJob) -> pd.DataFrame:
    """A row for each cell and strategy, cells in the order of the axes, strategies in the scenario's.

    Columns: the axes' fields; strategy; is_best; is_close (of the cell: whether another may be first too);
    may_be_first; is_looked_at: else means are interpolated between the corners of a mesh that agree, without intervals.
    hours and usd to the target, means with 95 % intervals (_low, _high); behind: the share by which the strategy is
    behind the best in what is asked for, with its interval; error: what interpolation may be off, as a share;
    num_reached of num_runs pairs of lucks come to the target; iterations to the target, failures_per_iteration: means.
    objective and target_validation_loss: what it is a map of. Values that are no numbers stand as text.
    """
    rows = []
    between = dict(meshes_of(job))
    for cell in sorted(job.grid.points, key=lambda cell: (cell[1], cell[0])):
        look = job.looks.get(cell)
        found = rows_of(look) if look else interpolated(job, cell, between[cell])
        rows += [{**values_at(job, cell), **row} for row in found]
    target = job.grid.scenario.training.target_validation_loss
    return pd.DataFrame(rows).assign(objective=job.objective, target_validation_loss=target)


def values_at(job: MapJob, cell: Cell) -> dict[str, Any]:
    """A cell's values of the axes, by field."""
    values = {axis.field: axis.values[place] for axis, place in zip(job.grid.axes, cell, strict=True) if axis.field}
    return {field: value if is_number(value) else str(value) for field, value in values.items()}


def rows_of(look: CellResult) -> list[dict[str, Any]]:
    """A cell that was looked at."""
    best, contenders = look.verdict.best, look.verdict.contenders
    standings = {standing.strategy: standing for standing in look.verdict.standings}
    return [
        {
            "strategy": name,
            "is_best": best is not None and best.strategy == name,
            "is_close": bool(contenders),
            "may_be_first": best is not None and (best.strategy == name or standings[name] in contenders),
            "is_looked_at": True,
            **means(look, name),
            **behind(standings[name]),
            "num_reached": standings[name].takes.num_reached,
            "num_runs": standings[name].takes.num_runs,
            "iterations": float(np.mean(passed.iterations)),
            "failures_per_iteration": passed.failures_per_iteration,
        }
        for name, passed in look.passages.items()
    ]


def means(look: CellResult, name: str) -> dict[str, float]:
    """Hours and money to the target, with their intervals."""
    passed = look.passages[name]
    found: dict[str, float] = {}
    for what, of, unit in (("hours", passed.seconds, SECONDS_PER_HOUR), ("usd", passed.usd, 1.0)):
        mean = estimate_at(as_values(of))
        found |= {what: mean.mean / unit, f"{what}_low": mean.low / unit, f"{what}_high": mean.high / unit}
    return found


def behind(standing: Standing) -> dict[str, float]:
    """How far behind the best, with its interval."""
    return {
        "behind": standing.behind,
        "behind_low": standing.behind_low,
        "behind_high": standing.behind_high,
        "error": standing.error,
    }


def meshes_of(job: MapJob) -> Iterator[tuple[Cell, Mesh]]:
    """Each cell that was not looked at, with a mesh that it lies in."""
    for mesh in job.meshes:
        yield from ((cell, mesh) for cell in cells(mesh) if cell not in job.looks)


def interpolated(job: MapJob, cell: Cell, mesh: Mesh) -> list[dict[str, Any]]:
    """A cell within a mesh whose corners agree: means by ratio between them."""
    (x0, x1), (y0, y1) = mesh
    u, v = (share_between(axis, ends, place) for axis, ends, place in zip(job.grid.axes, mesh, cell, strict=True))
    shares = {(x0, y0): (1 - u) * (1 - v), (x1, y0): u * (1 - v), (x0, y1): (1 - u) * v, (x1, y1): u * v}
    at_corners = {corner: rows_of(job.looks[corner]) for corner, share in shares.items() if share > 0.0}
    rows = []
    for number, row in enumerate(next(iter(at_corners.values()))):
        found: dict[str, Any] = dict.fromkeys(row, math.nan)
        found |= {name: row[name] for name in ("strategy", "is_best", "is_close", "num_runs")} | {"is_looked_at": False}
        corners = [(shares[corner], here[number]) for corner, here in at_corners.items()]
        found["may_be_first"] = any(here["may_be_first"] for _, here in corners)
        found["num_reached"] = min(here["num_reached"] for _, here in corners)
        for name in ("hours", "usd", "iterations", "failures_per_iteration"):
            found[name] = by_ratio([(share, here[name]) for share, here in corners])
        rows.append(found)
    what = "usd" if job.objective == "money" else "hours"
    best = min((row[what] for row in rows if row["is_best"]), default=math.nan)
    return [{**row, "behind": row[what] / best - 1.0} for row in rows]


def share_between(axis: Axis, ends: Span, place: int) -> float:
    """How far a value is on the way from one end to the other, by ratio where the axis is spaced so."""
    if ends[0] == ends[1]:
        return 0.0
    first, last, here = (float(axis.values[number]) for number in (*ends, place))
    if axis.is_log:
        first, last, here = math.log(first), math.log(last), math.log(here)
    return (here - first) / (last - first)


def by_ratio(corners: list[tuple[float, float]]) -> float:
    """The mean of logarithms, with shares; 0 or NaN where one is."""
    if any(value == 0.0 for _, value in corners):
        return 0.0
    return math.exp(math.fsum(share * math.log(value) for share, value in corners))
