"""Strategies that rely on end stages which may fail in a scenario."""

from __future__ import annotations

from sim.failures import processes
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label
from sim.strategies.checkfree import EndOptions


def ends_that_fail(scenario: Scenario) -> list[str]:
    """Name strategies that follow the released code's first commit although the first or last stage may fail."""
    ends = {1, scenario.workload.num_stages}
    exposed = set().union(*(ends - set(process.immune_stages) for process in processes(scenario.failures)))
    with_ends = [config for config in scenario.strategies if isinstance(config, EndOptions)]
    names = [config.name for config in with_ends if config.preset == "reference_code_first_commit"]
    if not exposed or not names or scenario.failures.kind == "never":
        return []
    whose, stages = ", ".join(map(legend_label, names)), sorted({0} | ends)
    return [
        f"{whose}: at the released code's first commit stages 1 and {max(ends)} never fail; here they may: set "
        f"failures.immune_stages: {stages}."
    ]
