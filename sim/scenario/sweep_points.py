"""Points of a sweep: scenarios in which the swept fields have their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from sim.core.text import format_count, format_value, shortened
from sim.scenario.document import AssignmentError, Document, Overrides, Problem, ScenarioError
from sim.scenario.loading import ScenarioSource, document_of, scenario_of
from sim.scenario.scenario import Scenario, SweepConfig
from sim.scenario.yaml_text import Location


class Assignment(NamedTuple):
    """The value of a field at a point, and its path in the scenario file."""

    field: str
    value: Any
    where: Location


@dataclass(frozen=True)
class Point:
    """One combination of the swept fields' values, and the scenario that it makes."""

    parameters: dict[str, Any]
    scenario: Scenario
    strategy_of: dict[str, int] = field(default_factory=dict)  # for fields of one strategy: its index
    keeps_records: bool = True  # iterations and events of its runs; otherwise their outcomes alone

    def parameters_of(self, strategy_index: int) -> dict[str, Any]:
        """The swept values that concern a strategy: all but those of other strategies."""
        others = {name for name, index in self.strategy_of.items() if index != strategy_index}
        return {name: value for name, value in self.parameters.items() if name not in others}

    def with_more_replicates(self, number: int) -> Point:
        """The point with so many pairs of seeds more, or failure seeds where these are crossed."""
        more = self.scenario.seeds.extended(number)
        return replace(self, scenario=self.scenario.model_copy(update={"seeds": more}))


def load_points(source: ScenarioSource, overrides: Overrides = ()) -> list[Point]:
    """The points of a scenario; without `sweep:` it is the only one. Raises ScenarioError with all problems found."""
    document, base_folder = document_of(source)
    base = scenario_of(document, base_folder, document.change(overrides))
    if base.sweep is None:
        return [Point({}, base)]
    sweep = base.sweep
    seeds = base.seeds.counted(sweep.replicates, sweep.training_replicates)
    document.data.pop("sweep")
    points: list[Point] = []
    problems: dict[Problem, list[list[Assignment]]] = {}
    for assignments in combinations(sweep):
        try:
            point = point_of(deepcopy(document), assignments, base_folder)
            scenario = point.scenario.model_copy(update={"seeds": seeds})
            points.append(replace(point, scenario=scenario, keeps_records=sweep.keep == "records"))
        except ScenarioError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(assignments)
    if not problems:
        return points
    named = []
    for problem, found in problems.items():
        if not any(problem.place == document.place(assignment.where) for assignment in found[0]):
            values = ", ".join(f"{shortened(each.field)}: {format_value(each.value)}" for each in found[0])
            others = f", and {format_count(len(found) - 1, 'more point')}" if len(found) > 1 else ""
            problem = replace(problem, message=f"{problem.message} (at {values}{others})")
        named.append(problem)
    raise ScenarioError(document.source, named)


def point_of(document: Document, assignments: list[Assignment], base_folder: Path) -> Point:
    """The point at which the swept fields have these values. Raises ScenarioError."""
    problems, strategy_of = [], {}
    for target, value, where in assignments:
        place = document.place(where)
        try:
            path = document.assign(target, value, place)
        except AssignmentError as error:
            problems.append(Problem(place, ".".join(map(str, where[:3])), str(error)))
            continue
        if len(path) > 1 and path[0] == "strategies" and isinstance(path[1], int):
            strategy_of[target] = path[1]
    scenario = scenario_of(document, base_folder, problems)
    return Point({assignment.field: assignment.value for assignment in assignments}, scenario, strategy_of)


def combinations(sweep: SweepConfig) -> Iterator[list[Assignment]]:
    """The values of each point, in order: by hand, together, and every combination, whose last field varies fastest."""

    def column(section: str, name: str, values: Sequence[Any]) -> list[Assignment]:
        return [Assignment(name, value, ("sweep", section, name, index)) for index, value in enumerate(values)]

    by_hand = [
        [Assignment(name, value, ("sweep", "list", index, name)) for name, value in point.items()]
        for index, point in enumerate(sweep.list)
    ]
    together = list(map(list, zip(*(column("zip", *item) for item in sweep.zip.items()), strict=True)))
    axes = [[[each] for each in column("grid", *item)] for item in sweep.grid.items()]
    for parts in product(by_hand or [[]], together or [[]], *axes):
        yield [assignment for part in parts for assignment in part]
