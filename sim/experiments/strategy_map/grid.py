"""The grid of a map: the scenario of each cell, and groups of cells with a common training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from models.spec import Routes, plain_routes
from models.training_state import digest
from sim.cluster.topology import usd_per_node_hour
from sim.core.text import format_count
from sim.experiments.microbatches import at_equal_size, smaller_microbatches
from sim.failures import PROCESSES
from sim.results.microbatches import SmallerMicrobatches
from sim.results.strategy_map import Cell
from sim.scenario.axes import Axis, ScenarioTemplate, is_number
from sim.scenario.document import ScenarioError
from sim.scenario.loading import DataError
from sim.scenario.scenario import Scenario, SeedsConfig
from sim.scenario.sweep_points import Point
from sim.simulation.run import time_only
from sim.strategies import STRATEGIES, StrategyConfig, strategy_class

WITHOUT_EFFECT = ("name", "description", "seeds", "sweep")
"""Sections that have no effect on a map."""

WHERE_FAILURES_ARE = ("failures", "cluster")
"""Sections that decide which stages are lost, and when."""


@dataclass(frozen=True)
class ComparisonGroup:
    """A strategy, and the hash of all that decides its learning under given failures per iteration."""

    strategy: str
    key: str


class Grid:
    """The cells of two axes. candidates: index by name of strategies that stop on failures. Raises ScenarioError."""

    def __init__(self, template: ScenarioTemplate, axes: tuple[Axis, Axis], seeds: SeedsConfig, name: str) -> None:
        self.axes, self.seeds, self.name = axes, seeds, name
        self.scenario = template.scenario
        self.shape = len(axes[0].values), len(axes[1].values)
        self.points = {
            (i, j): self._point(template, [(axes[0], x), (axes[1], y)])
            for i, x in enumerate(axes[0].values)
            for j, y in enumerate(axes[1].values)
        }
        self.candidates = {
            config.name: index
            for index, config in enumerate(self.scenario.strategies)
            if strategy_class(config.kind).stops_on_failures
        }
        self.group, self.smaller = cache(self._group), cache(self._smaller)
        self._smaller_by_key: dict[str, SmallerMicrobatches | None] = {}
        check(self)

    def _point(self, template: ScenarioTemplate, values: Sequence[tuple[Axis, Any]]) -> Point:
        try:
            return template.point([(axis, value) for axis, value in values if axis.field])
        except ScenarioError as error:
            where = ", ".join(f"{axis.field}: {value}" for axis, value in values if axis.field)
            problems = [replace(each, message=f"{each.message} (at {where})") for each in error.problems]
            raise ScenarioError(error.source, problems) from None

    @property
    def own_cell(self) -> Cell | None:
        """The cell nearest to the scenario's own values; None if they lie outside."""
        i, j = (axis.nearest(axis.own) for axis in self.axes)
        return None if i is None or j is None else (i, j)

    def num_iterations(self, cell: Cell) -> int:
        """The number of iterations in a cell's scenario."""
        scenario = self.points[cell].scenario
        return scenario.training.steps * scenario.iterations_per_step

    def iteration_time_key(self, cell: Cell) -> str:
        """A hash that is equal for cells whose iterations take equal times."""
        scenario = self.points[cell].scenario
        sections = scenario.workload, scenario.cluster, scenario.network
        return digest("".join(section.model_dump_json() for section in sections))

    def _smaller(self, cell: Cell) -> SmallerMicrobatches | None:
        """The smaller microbatches with which a cell's strategies are compared, if these are faster for all."""
        key, scenario = self.iteration_time_key(cell), self.points[cell].scenario
        key += digest("".join(config.model_dump_json() for config in scenario.strategies))
        if key not in self._smaller_by_key:
            self._smaller_by_key[key] = smaller_microbatches(scenario)
        return self._smaller_by_key[key]

    def equal_scenario(self, cell: Cell, strategy: str) -> Scenario:
        """The scenario in which a strategy is simulated in a cell: all strategies with microbatches of equal size."""
        return at_equal_size(self.points[cell].scenario, self._config(cell, strategy), self.smaller(cell))

    def _group(self, cell: Cell, strategy: str) -> ComparisonGroup:
        """The comparison group of a strategy in a cell."""
        scenario = self.points[cell].scenario
        others = {
            field: value
            for field, value in self.points[cell].parameters.items()
            if field.partition(".")[0] in WHERE_FAILURES_ARE and not is_number(value)
        }
        sections = self._config(cell, strategy), scenario.training, scenario.fallback
        dumped = [section.model_dump(mode="json") for section in sections]
        more = [scenario.workload.num_stages, scenario.iterations_per_step, others]
        return ComparisonGroup(strategy, digest(json.dumps([dumped, more], sort_keys=True, default=str)))

    def groups_differ_along(self, axis: int) -> bool:
        """Whether any strategy learns differently along an axis, the first (0) or the second (1)."""
        along = [(i, 0) if axis == 0 else (0, i) for i in range(self.shape[axis])]
        return any(len({self.group(cell, name) for cell in along}) > 1 for name in self.candidates)

    def root(self, cell: Cell, strategy: str) -> str:
        """A hash of the training that a strategy begins with in a cell, and of its target."""
        scenario = self.points[cell].scenario
        start = time_only(scenario).root(self._routes(cell, strategy))
        return digest(f"{start.lineage.key} {scenario.training.model_dump_json()} {scenario.iterations_per_step}")

    def sample_point(self, cell: Cell, strategy: str) -> Point:
        """Trained runs of a strategy in a cell."""
        workload = self.equal_scenario(cell, strategy).workload
        return self._alone(cell, strategies=(self._config(cell, strategy),), seeds=self.seeds, workload=workload)

    def failure_free_point(self, cell: Cell, strategy: str) -> Point:
        """Trained runs without failures, of the training that a strategy begins with."""
        is_plain = self._routes(cell, strategy) == plain_routes(self.points[cell].scenario.workload.num_stages)
        config = STRATEGIES["none"].Config(kind="none") if is_plain else self._config(cell, strategy)
        seeds = self.seeds.model_copy(update={"failures": self.seeds.failures[:1]})
        never = PROCESSES["never"].Config(kind="never")
        point = self._alone(cell, strategies=(config,), seeds=seeds, failures=never)
        return replace(point, parameters={"failures.kind": "never"})

    def _alone(self, cell: Cell, **sections: Any) -> Point:
        point = self.points[cell]
        scenario = point.scenario.model_copy(update={"name": self.name, **sections})
        return replace(point, scenario=scenario, strategy_of={})

    def _config(self, cell: Cell, strategy: str) -> StrategyConfig:
        return self.points[cell].scenario.strategies[self.candidates[strategy]]

    def _routes(self, cell: Cell, strategy: str) -> Routes:
        config, num_stages = self._config(cell, strategy), self.points[cell].scenario.workload.num_stages
        return strategy_class(config.kind)(config, num_stages).training_variant()


def with_steps(scenario: Scenario, steps: int) -> Scenario:
    """The scenario with another number of steps."""
    training = scenario.training.model_copy(update={"steps": steps})
    return scenario.model_copy(update={"training": training})


def check(grid: Grid) -> None:
    """Reject grids with nothing to compare, no target, or axes that change other things, with ValueError."""
    scenario = grid.scenario
    if len(grid.candidates) < 2:
        affected = format_count(len(grid.candidates), "strategy is", "strategies are")
        raise DataError(f"only {affected} affected by failures; give at least two", ("strategies",))
    if scenario.training.learner == "none":
        raise ValueError("training.learner is none: times to a loss can be compared only with a model that learns")
    if scenario.training.target_validation_loss is None:
        raise ValueError(
            "training.target_validation_loss is not set: give the loss to reach, with --set "
            "training.target_validation_loss=2.0, for example, or auto"
        )
    for axis in grid.axes:
        if axis.field.partition(".")[0].partition("[")[0] in WITHOUT_EFFECT:
            raise ValueError(f"{axis.option}: '{axis.field}' has no effect on a map; give another field")
    names = [config.name for config in scenario.strategies]
    if any([config.name for config in point.scenario.strategies] != names for point in grid.points.values()):
        raise ValueError("a map compares strategies: they must have the same names, in the same order, in all cells")


def require_prices(grid: Grid) -> None:
    """Reject the objective money where a cell's device has no price, with ValueError."""
    for point in grid.points.values():
        cluster = point.scenario.cluster
        if usd_per_node_hour(cluster) is None:
            raise ValueError(
                f"--objective money: no {cluster.price.replace('_', '-')} price of device '{cluster.device.name}' is "
                "known; set cluster.price, or the device's spot_usd_per_hour or on_demand_usd_per_hour"
            )
