"""Strategies that never save: their interval is no shorter than the job."""

from __future__ import annotations

import math

from sim.scenario.scenario import Scenario
from sim.strategies import legend_label, strategy_class
from sim.workload.costs import Costs


def strategies_that_save_on_nodes(scenario: Scenario) -> set[str]:
    """Names of strategies that keep their saves on other nodes, not in the store."""
    costs = Costs(scenario.workload, scenario.cluster.device)
    return {
        config.name
        for config in scenario.strategies
        if "interval_iterations" in type(config).model_fields
        and not strategy_class(config.kind).stored_bytes(config, costs)
    }


def unused_saves(scenario: Scenario, iteration_seconds: float = math.nan) -> list[str]:
    """Name strategies whose interval between saves is longer than the job, so that they never save.

    iteration_seconds: of a plain iteration, for intervals in seconds.
    """
    num_iterations = scenario.training.steps * scenario.iterations_per_step
    chosen = {legend_label(config.name): config for config in scenario.strategies}
    if scenario.fallback.kind != "stop":
        chosen[f"{legend_label(scenario.fallback.name)} (fallback)"] = scenario.fallback
    job = {"iterations": float(num_iterations), "seconds": num_iterations * iteration_seconds}
    lines = []
    for name, config in chosen.items():
        instance = strategy_class(config.kind)(config, scenario.workload.num_stages)
        for unit, length in job.items():
            owner = instance if unit == "iterations" else config
            interval = getattr(owner, f"interval_{unit}", None)
            if interval and interval >= length:
                no_shorter = f"its interval of {interval:,.0f} {unit} is no shorter than the job of {length:,.0f}"
                lines.append(f"{name} never saves: {no_shorter}; lower interval_{unit}.")
    return lines
