"""Strategy maps and advice: which strategy reaches the target first, or for the least money, over two fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd

from sim.core.records import Bucket
from sim.core.units import SECONDS_PER_HOUR
from sim.results.microbatches import SmallerMicrobatches
from sim.results.ranking import Ranking
from sim.results.statistics import SeedPair, Values, estimate
from sim.scenario.axes import Axis, is_number
from sim.scenario.scenario import Scenario

Cell = tuple[int, int]  # numbers of an x and a y value
Span = tuple[int, int]  # from a grid line to the next
Mesh = tuple[Span, Span]
Objective = Literal["time", "money"]


@dataclass(frozen=True)
class FirstPassages:
    """The times at which a strategy first reaches the target in a cell; NaN where it does not."""

    failures_per_iteration: float  # what was lost per completed iteration, mean over failure seeds
    is_edited: bool  # whether a recovery changed weights under any seed
    num_stopped: int  # failure seeds under which the run was given up
    iterations: tuple[float, ...]  # by training replicate
    seconds: Mapping[SeedPair, float]
    usd: Mapping[SeedPair, float]
    lost: Mapping[SeedPair, int]  # until then: stages; nodes too, if the strategy answers their loss
    iteration_seconds: float  # of an iteration on all nodes, without saves
    steady_seconds: float  # of an iteration without failures and recoveries, mean over failure seeds
    plain_seconds: float  # of one without a strategy, with equal microbatches
    shares: Mapping[Bucket, float]  # of the time, by bucket of the ledger, over failure seeds
    num_started: int  # saves under all failure seeds
    num_durable: int  # of these, completed

    def means(self) -> dict[str, float]:
        """Mean hours and US dollars to the target, with their 95 % intervals (`_low`, `_high`)."""
        found: dict[str, float] = {}
        for what, of, unit in (("hours", self.seconds, SECONDS_PER_HOUR), ("usd", self.usd, 1.0)):
            mean = estimate(Values.by_seeds(of))
            low = max(mean.low, self._least(what, mean.mean)) if not math.isnan(mean.low) else mean.low
            found |= {what: mean.mean / unit, f"{what}_low": low / unit, f"{what}_high": mean.high / unit}
        return found

    def _least(self, what: str, mean: float) -> float:
        """The least that a mean can be: that of the same iterations without failures; no interval goes below it."""
        seconds = min(self.iterations, default=0.0) * self.iteration_seconds if what == "hours" else 0.0
        return min(seconds, mean) if not math.isnan(seconds) else 0.0


@dataclass(frozen=True)
class CellResult:
    """A simulated cell: first passages by strategy, and the strategies' ranking.

    smaller: microbatches that make a plain iteration faster; with these, all strategies were compared.
    """

    first_passages: Mapping[str, FirstPassages]
    ranking: Ranking
    smaller: SmallerMicrobatches | None = None

    @property
    def label(self) -> tuple[str, bool]:
        """The best strategy, and whether others may be first or nothing is decided; equal labels agree."""
        best, is_tested = self.ranking.best, self.ranking.is_tested
        return (best.strategy, bool(self.ranking.contenders)) if best else ("", not is_tested)

    def rows(self) -> list[dict[str, Any]]:
        """A row of the map's table for each strategy."""
        best, contenders = self.ranking.best, self.ranking.contenders
        standings = {standing.strategy: standing for standing in self.ranking.standings}
        rows = []
        for name, passed in self.first_passages.items():
            own = standings[name]
            row = {"strategy": name, "is_best": own is best, "is_close": bool(contenders)}
            row |= {"may_be_first": own is best or own in contenders, "is_looked_at": True, **passed.means()}
            row |= {share: getattr(own, share) for share in ("behind", "behind_low", "behind_high", "error")}
            row |= {"is_tested": self.ranking.is_tested, "num_lost": own.num_lost}
            row |= {"num_reached": own.takes.num_reached, "num_runs": own.takes.num_runs}
            row |= {"iterations": float(np.mean(passed.iterations))}
            rows.append(row | {"failures_per_iteration": passed.failures_per_iteration})
        return rows


@dataclass(frozen=True)
class WholeRunCheck:
    """Iterations to the target of a strategy's whole runs, and those predicted for the same seeds; NaN: missed."""

    strategy: str
    real: tuple[float, ...]
    predicted: tuple[float, ...]

    def agrees(self, share: float) -> bool:
        """Whether the means differ by at most a share of that of the runs, and as many runs miss the target."""
        missed, predicted_missed = num_missed(self.real), num_missed(self.predicted)
        if missed or predicted_missed:
            return missed == predicted_missed
        return abs(math.fsum(self.predicted) / math.fsum(self.real) - 1.0) <= share


def num_missed(iterations: Sequence[float]) -> int:
    """Runs that miss the target."""
    return sum(map(math.isnan, iterations))


@dataclass(frozen=True)
class StrategyMap:
    """A cell for each pair of values of two axes."""

    name: str
    scenario: Scenario
    axes: tuple[Axis, Axis]  # the second has no field where the map is a line
    objective: Objective
    strategies: tuple[str, ...]
    cells: Mapping[Cell, CellResult]  # the simulated ones
    meshes: Sequence[Mesh]  # of these, in which the other cells are interpolated
    own_cell: Cell | None  # the one nearest to the scenario's own values, None if they lie outside
    sampled_cells: tuple[Cell, ...]  # those with trainings under failures
    num_time_seeds: int
    num_replicates: int
    corpus_description: str
    num_branches: int = 0  # single failures that predictions rest on; 0: trained runs
    checks: tuple[WholeRunCheck, ...] = ()  # of predictions, at the scenario's own cell

    @property
    def own(self) -> CellResult | None:
        """The result at the cell nearest to the scenario's own values."""
        return self.cells.get(self.own_cell) if self.own_cell else None

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each cell and strategy, cells in the order of the axes, strategies in the scenario's (`map.csv`).

        is_close: of the cell, whether another may be first too. is_tested: whether enough stages were lost to decide;
        else none is best. num_lost: stages lost before the target in all replicates. is_looked_at: whether the cell was
        simulated, else means are interpolated between the corners of a mesh that agree, without intervals. num_reached:
        of num_runs pairs of seeds. Values that are no numbers are text.
        """
        rows = []
        mesh_of = {cell: mesh for mesh in self.meshes for cell in cells_in(mesh)}
        for (j, y), (i, x) in product(enumerate(self.axes[1].values), enumerate(self.axes[0].values)):
            found = self.cells[i, j].rows() if (i, j) in self.cells else self._interpolated((i, j), mesh_of[i, j])
            values = {axis.field: value for axis, value in zip(self.axes, (x, y), strict=True) if axis.field}
            at = {field: value if is_number(value) else str(value) for field, value in values.items()}
            rows += [at | row for row in found]
        target = self.scenario.training.target_loss
        return pd.DataFrame(rows).assign(objective=self.objective, target_validation_loss=target)

    def _interpolated(self, cell: Cell, mesh: Mesh) -> list[dict[str, Any]]:
        """Rows of a cell within a mesh whose corners agree: geometric means of the corners, 0 or NaN where one is."""
        (x0, x1), (y0, y1) = mesh
        u, v = (share_between(axis, ends, place) for axis, ends, place in zip(self.axes, mesh, cell, strict=True))
        shares = {(x0, y0): (1 - u) * (1 - v), (x1, y0): u * (1 - v), (x0, y1): (1 - u) * v, (x1, y1): u * v}
        at_corners = {corner: self.cells[corner].rows() for corner, share in shares.items() if share > 0.0}
        rows = []
        for number, row in enumerate(next(iter(at_corners.values()))):
            corners = [(shares[corner], here[number]) for corner, here in at_corners.items()]
            found: dict[str, Any] = dict.fromkeys(row, math.nan)
            found |= {name: row[name] for name in ("strategy", "is_best", "is_close", "is_tested", "num_runs")}
            found |= {"is_looked_at": False, "may_be_first": any(here["may_be_first"] for _, here in corners)}
            found["num_reached"] = min(here["num_reached"] for _, here in corners)
            for name in ("hours", "usd", "iterations", "failures_per_iteration"):
                logs = [share * math.log(here[name]) for share, here in corners if here[name]]
                found[name] = math.exp(math.fsum(logs)) if len(logs) == len(corners) else 0.0
            rows.append(found)
        what = "usd" if self.objective == "money" else "hours"
        best = min((row[what] for row in rows if row["is_best"]), default=math.nan)
        return [{**row, "behind": row[what] / best - 1.0} for row in rows]


@dataclass(frozen=True, repr=False)
class Advice:
    """Recommended strategy for a scenario's own values and for multiples of its failure rate.

    learning_costs: iterations to the target under failures as a multiple of those without, of strategies whose
    recoveries change weights; NaN where the target is missed.
    """

    map: StrategyMap
    learning_costs: Mapping[str, float]

    def __repr__(self) -> str:
        """The best strategy and those that may be first as well."""
        nothing = "no strategy" if self.result.ranking.is_tested else "too few failures to decide"
        return f"<Advice: {' or '.join((self.best or nothing, *self.contenders))}>"

    @property
    def result(self) -> CellResult:
        """The result for the scenario's own values."""
        assert self.map.own is not None, "the map is made around the scenario"
        return self.map.own

    @property
    def best(self) -> str | None:
        """The strategy that reaches the target first, or at the lowest cost; None if nothing is decided.

        Nothing is decided if no strategy reaches the target, or too few stages are lost (`sim.results.ranking`).
        """
        best = self.result.ranking.best
        return best.strategy if best else None

    @property
    def contenders(self) -> tuple[str, ...]:
        """Other strategies that may also be first."""
        return tuple(standing.strategy for standing in self.result.ranking.contenders)

    @property
    def lead(self) -> float:
        """The share by which the second strategy is behind the best; infinite where no other reaches the target."""
        return self.result.ranking.lead

    @property
    def is_certain(self) -> bool:
        """Whether enough stages were lost to decide, and the best is significantly ahead of all others."""
        return self.best is not None and not self.contenders

    @property
    def table(self) -> pd.DataFrame:
        """The map's table: `StrategyMap.table`."""
        return self.map.table


def cells_in(mesh: Mesh) -> Iterator[Cell]:
    """All cells of a mesh, its edges among them."""
    (first_x, last_x), (first_y, last_y) = mesh
    return product(range(first_x, last_x + 1), range(first_y, last_y + 1))


def share_between(axis: Axis, ends: Span, place: int) -> float:
    """The share of the way from one end to the other at which a value lies, by ratio on a logarithmic axis."""
    if ends[0] == ends[1]:
        return 0.0
    first, last, here = (float(axis.values[number]) for number in (*ends, place))
    if axis.is_log:
        first, last, here = math.log(first), math.log(last), math.log(here)
    return (here - first) / (last - first)
