"""Axes of a strategy map: a field of a scenario and its values, as the options `--x` and `--y` give them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim.core.text import format_value, shortened
from sim.scenario.document import AssignmentError, Overrides, Problem, ScenarioError
from sim.scenario.loading import ScenarioSource, document_of, scenario_of
from sim.scenario.quantities import with_plain_numbers
from sim.scenario.schema import at, schema_at
from sim.scenario.sweep_points import Assignment, Point, point_of
from sim.scenario.yaml_text import Location, YamlTextError, read_yaml

SPREAD = 4.0  # an axis without values reaches from own value / SPREAD to × SPREAD, or as far as is allowed
LOG_RATIO = 4.0  # ranges whose end is at least so many times their start are spaced logarithmically
SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True)
class Axis:
    """A field and its values, ascending where they are numbers."""

    field: str
    values: tuple[Any, ...]
    own: Any  # the scenario's own value, None where unset
    is_log: bool  # spaced by ratios
    option: str  # as it was asked for

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(map(is_number, self.values))

    def nearest(self, value: Any) -> int | None:
        """The number of the value nearest to one, by ratio if so spaced; None if the values are no numbers."""
        if value in self.values:
            return self.values.index(value)
        if not self.is_numeric or not is_number(value) or not min(self.values) <= value <= max(self.values):
            return None
        values = np.array(self.values, dtype=float)
        return int((np.abs(np.log(values / value)) if self.is_log else np.abs(values - value)).argmin())


NO_AXIS = Axis("", (None,), None, False, "")
"""In place of an axis that a scenario does not have."""

RATE_FIELDS = ("rate_per_hour", "mean_uptime_hours", "per_iteration_probability", "time_scale")
"""Fields of a failure process that set its rate."""


class ScenarioTemplate:
    """A scenario in which fields can take other values. Raises ScenarioError if the scenario itself is faulty."""

    def __init__(self, source: ScenarioSource, overrides: Overrides = ()) -> None:
        self._document, self.base_folder = document_of(source)
        self.scenario = scenario_of(self._document, self.base_folder, self._document.change(overrides))
        self._document.data.pop("sweep", None)

    def axis(self, name: str, asked: str, num_values: int) -> Axis:
        """The axis of an option (`--x`). Raises ScenarioError or ValueError, with what is wrong with it."""
        option = f"{name} {shortened(asked)}"
        field, equals, text = (part.strip() for part in asked.partition("="))
        try:
            path, own = self._own_value(field, option)
        except AssignmentError as error:
            raise ScenarioError(self._document.source, [Problem(option, "", str(error))]) from None
        own = own.get("name", own) if isinstance(own, dict) else own
        axis = Axis(field, (), own, False, option)
        if equals and ".." not in text:
            values = parse_values(text, option, str(path[-1]))
            return replace(
                axis, values=values, is_log=all(map(is_number, values)) and is_wide(min(values), max(values))
            )
        low, high = parse_range(text, option) if equals else self._range_around(axis, path)
        axis = replace(axis, values=self._spaced(path, low, high, num_values), is_log=is_wide(low, high))
        if equals and len(axis.values) < 2:
            raise ValueError(f"{option}: the field holds whole numbers, and there are not two between these: widen it")
        for value in (axis.values[0], axis.values[-1]):
            self.point([(axis, value)])  # an end that is not allowed is reported as it was given
        return axis

    def around(self, field: str, factors: Sequence[float]) -> Axis:
        """The axis of a numeric field's own value times factors, without values that the field does not allow."""
        _, own = self._own_value(field, field)
        axis = Axis(field, (), own, True, field)
        values = [own if factor == 1.0 else float(f"{own * factor:.{SIGNIFICANT_DIGITS}g}") for factor in factors]
        return replace(axis, values=tuple(value for value in values if value == own or self._admits(axis, value)))

    def failure_rates(self, factors: Sequence[float]) -> Axis:
        """The axis of the scenario's failure rate times factors; none where the failures have no single rate."""
        known = (name for name in RATE_FIELDS if getattr(self.scenario.failures, name, None))
        rate = next(known, None)
        return self.around(f"failures.{rate}", factors) if rate else NO_AXIS

    def point(self, values: Sequence[tuple[Axis, Any]]) -> Point:
        """The scenario with one value for each axis. Raises ScenarioError where they do not fit."""
        document = deepcopy(self._document)
        document.places.update({(axis.option,): axis.option for axis, _ in values})
        assignments = [Assignment(axis.field, value, (axis.option,)) for axis, value in values]
        return point_of(document, assignments, self.base_folder)

    def with_target(self, loss: float | None) -> ScenarioTemplate:
        """The scenario with a target loss in place of `auto`; without one, itself."""
        if loss is None:
            return self
        found = copy(self)
        found._document = deepcopy(self._document)
        found._document.assign("training.target_validation_loss", loss, "")
        training = self.scenario.training.model_copy(update={"target_validation_loss": loss})
        found.scenario = self.scenario.model_copy(update={"training": training})
        return found

    def _own_value(self, field: str, option: str) -> tuple[Location, Any]:
        """The path of a field and the scenario's value there. Raises AssignmentError."""
        path = deepcopy(self._document).assign(field, None, option)
        return path, at(self.scenario.model_dump(mode="json"), path)

    def _range_around(self, axis: Axis, path: Location) -> tuple[float, float]:
        """The ends of a range around the scenario's own value, as wide as the field allows."""
        field, own = axis.field, axis.own
        if not is_number(own) or own <= 0:
            self.point([(axis, own)])  # reports an unknown field
            found = "unset" if own is None else format_value(own)
            example = f"{field}={own},..." if isinstance(own, str) else f"{field}=1,2,3 or {field}=1..100"
            raise ValueError(f"{axis.option}: its value is {found}: say which values, as {example}")
        low, high = own / SPREAD, own * SPREAD
        while low < own and not self._admits(axis, self._spaced(path, low, own, 2)[0]):
            low = own if low > own / 1.01 else (low + own) / 2
        while high > own and not self._admits(axis, self._spaced(path, own, high, 2)[-1]):
            high = own if high < own * 1.01 else (high + own) / 2
        return low, high

    def _admits(self, axis: Axis, value: Any) -> bool:
        try:
            self.point([(axis, value)])
        except ScenarioError:
            return False
        return True

    def _spaced(self, path: Location, low: float, high: float, num_values: int) -> tuple[Any, ...]:
        """Values from low to high, with few digits; distinct whole numbers where the field holds whole numbers."""
        num_values = num_values if high > low else 1
        spaced = np.geomspace(low, high, num_values) if is_wide(low, high) else np.linspace(low, high, num_values)
        if schema_at(path, self._document.data).get("type") == "integer":
            return tuple(dict.fromkeys(map(round, spaced.tolist())))
        inner = (float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in spaced[1:-1].tolist())
        return tuple(dict.fromkeys([low, *inner, high]))


def is_number(value: Any) -> bool:
    """Whether a value is a number, and not a Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_wide(low: float, high: float) -> bool:
    """Whether a range is to be spaced logarithmically."""
    return 0 < low * LOG_RATIO <= high


def parse_values(text: str, option: str, field: str = "") -> tuple[Any, ...]:
    """The values of a comma-separated list, numbers ascending. Raises ValueError if there are fewer than two.

    field: the name of the field that takes them, in whose unit values with a unit are converted.
    """
    try:
        values = with_plain_numbers(read_yaml(f"[{text}]")[0], field)
    except YamlTextError as error:
        raise ValueError(f"{option}: the values are {error}") from None
    values = [value for number, value in enumerate(values) if value not in values[:number]]
    if len(values) < 2:
        raise ValueError(f"{option}: an axis has two values or more: give a list a,b,c or a range a..b")
    return tuple(sorted(values) if all(map(is_number, values)) else values)


def parse_range(text: str, option: str) -> tuple[float, float]:
    """The ends of a range. Raises ValueError."""
    try:
        low, high = map(float, text.split("..", 1))
    except ValueError:
        raise ValueError(f"{option}: a range is LOW..HIGH, two numbers such as 0.01..0.4") from None
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"{option}: a range goes from a number to a greater one")
    return low, high
