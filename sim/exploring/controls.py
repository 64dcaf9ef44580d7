"""Sliders of the page: adjustable fields of the scenario, their values, and the scenario for a position."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sim.scenario.axes import RATE_FIELDS, Axis, ScenarioTemplate, is_number
from sim.scenario.document import ScenarioError
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

FACTORS_OF_RATE = tuple(2.0 ** (power / 4) for power in range(-12, 9))
FACTORS_OF_BANDWIDTH = tuple(2.0 ** (power / 2) for power in range(-4, 5))
NUM_INTERVALS, SPREAD_OF_INTERVALS, MOST_INTERVALS = 25, 32, 3
MOST_SPARES = 8

RATES = {
    "rate_per_hour": "chance of a failure within an hour",
    "mean_uptime_hours": "mean time between failures (hours)",
    "per_iteration_probability": "chance of a failure in an iteration",
    "time_scale": "time scale of the trace",
}


@dataclass(frozen=True)
class Control:
    """A slider: its field, its label, and its values in ascending order, including the scenario's own."""

    axis: Axis
    label: str

    @property
    def field(self) -> str:
        """Path of the field in the scenario."""
        return self.axis.field


def controls_of(template: ScenarioTemplate) -> list[Control]:
    """Return the sliders that a scenario has: failure rate, bandwidth, checkpoint intervals, spares."""
    scenario, found = template.scenario, list[Control]()
    rate = template.failure_rates(FACTORS_OF_RATE)
    if len(rate.values) > 1:
        found.append(Control(rate, RATES[rate.field.rpartition(".")[2]]))
    assert set(RATES) == set(RATE_FIELDS)
    bandwidth = template.around("network.bandwidth_factor", FACTORS_OF_BANDWIDTH)
    found.append(Control(bandwidth, "bandwidth, as a multiple of the scenario's"))
    for config in scenario.strategies:
        own = getattr(config, "interval_iterations", None)
        if isinstance(own, int) and len(found) < 2 + MOST_INTERVALS:
            field = f"strategies[{config.name}].interval_iterations"
            label = f"{legend_label(config.name)}: iterations between saves"
            found.append(Control(_intervals(template, field, own), label))
    if scenario.cluster.num_spares or scenario.cluster.provisioning_seconds:
        own = scenario.cluster.num_spares
        values = ",".join(map(str, range(max(MOST_SPARES, 2 * own) + 1)))
        found.append(Control(template.axis("--", f"cluster.num_spares={values}", 2), "spare nodes"))
    return found


def _intervals(template: ScenarioTemplate, field: str, own: int) -> Axis:
    last = template.scenario.training.steps * template.scenario.iterations_per_step
    low, high = max(1, own // SPREAD_OF_INTERVALS), min(max(own + 1, last), own * SPREAD_OF_INTERVALS)
    axis = template.axis("--", f"{field}={low}..{high}", NUM_INTERVALS)
    return replace(axis, values=tuple(sorted({*axis.values, own})))


def scenario_at(template: ScenarioTemplate, controls: list[Control], values: Mapping[str, Any]) -> Scenario:
    """Return the scenario with new values of some fields. ValueError for an unknown field or an invalid value."""
    known = {control.field: control for control in controls}
    for field, value in values.items():
        if field not in known:
            raise ValueError(f"{field}: not a slider of this page")
        if not is_number(value) or not math.isfinite(value):
            raise ValueError(f"{known[field].label}: give a number")
    try:
        return template.point([(known[field].axis, value) for field, value in values.items()]).scenario
    except ScenarioError as error:
        labels = {_path(template.scenario, field): control.label for field, control in known.items()}
        problems = [f"{labels.get(each.path, each.path)}: {each.message}" for each in error.problems]
        raise ValueError("; ".join(problems)) from None


def _path(scenario: Scenario, field: str) -> str:
    """Path of a field as in messages: 'strategies.1.x' for 'strategies[checkpoint].x'."""
    numbers = {
        f"strategies[{config.name}]": f"strategies.{number}" for number, config in enumerate(scenario.strategies)
    }
    start = next((name for name in numbers if field.startswith(f"{name}.")), "")
    return numbers[start] + field.removeprefix(start) if start else field
