"""churnlab as a library: scenarios, simulation, sweeps, advice, results and figures in Python.

Nothing here prints, and nothing is written unless a folder is named. `docs/library.md` shows each use in a few lines.
Names are loaded when they are first used: importing churnlab takes no time and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.experiments.single_run import simulate_run as simulate
    from sim.reporting.registry import figure_of as figure
    from sim.results.in_memory import SimulatedRun, as_results
    from sim.results.statistics import estimate, paired_difference, replicates_needed, summary
    from sim.results.storage import Results, load_run
    from sim.results.storage import load as load_results
    from sim.scenario.loading import ScenarioError, build_scenario, load_scenario
    from sim.scenario.scenario import Scenario

__all__ = [
    "Results",
    "Scenario",
    "ScenarioError",
    "SimulatedRun",
    "as_results",
    "build_scenario",
    "estimate",
    "figure",
    "load_results",
    "load_run",
    "load_scenario",
    "paired_difference",
    "replicates_needed",
    "simulate",
    "summary",
]

_WHERE = {
    "Results": "sim.results.storage:Results",
    "Scenario": "sim.scenario.scenario:Scenario",
    "ScenarioError": "sim.scenario.loading:ScenarioError",
    "SimulatedRun": "sim.results.in_memory:SimulatedRun",
    "as_results": "sim.results.in_memory:as_results",
    "build_scenario": "sim.scenario.loading:build_scenario",
    "estimate": "sim.results.statistics:estimate",
    "figure": "sim.reporting.registry:figure_of",
    "load_results": "sim.results.storage:load",
    "load_run": "sim.results.storage:load_run",
    "load_scenario": "sim.scenario.loading:load_scenario",
    "paired_difference": "sim.results.statistics:paired_difference",
    "replicates_needed": "sim.results.statistics:replicates_needed",
    "simulate": "sim.experiments.single_run:simulate_run",
    "summary": "sim.results.statistics:summary",
}


def __getattr__(name: str) -> Any:
    """Load a name from its module."""
    if name not in _WHERE:
        raise AttributeError(f"module 'churnlab' has no attribute '{name}'")
    module, _, original = _WHERE[name].partition(":")
    globals()[name] = found = getattr(import_module(module), original)
    return found


def __dir__() -> list[str]:
    """The names to be used."""
    return sorted([*globals(), *__all__])
