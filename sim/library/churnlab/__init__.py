"""churnlab as a library: scenarios, simulation, sweeps, advice, results and figures in Python.

Nothing here prints, and nothing is written unless a folder is named. `docs/library.md` shows each use in a few lines.
Names are loaded when they are first used: importing churnlab takes no time and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.results.statistics import estimate, paired_difference, replicates_needed, summary
    from sim.results.storage import Results, load_run
    from sim.results.storage import load as load_results
    from sim.scenario.loading import ScenarioError, build_scenario, load_scenario
    from sim.scenario.scenario import Scenario

__all__ = [
    "Results",
    "Scenario",
    "ScenarioError",
    "build_scenario",
    "estimate",
    "load_results",
    "load_run",
    "load_scenario",
    "paired_difference",
    "replicates_needed",
    "summary",
]

_MODULES = {
    "sim.results.statistics": ("estimate", "paired_difference", "replicates_needed", "summary"),
    "sim.results.storage": ("Results", "load_run"),
    "sim.scenario.loading": ("ScenarioError", "build_scenario", "load_scenario"),
    "sim.scenario.scenario": ("Scenario",),
}
_WHERE = {name: (module, name) for module, names in _MODULES.items() for name in names} | {
    "load_results": ("sim.results.storage", "load")
}


def __getattr__(name: str) -> Any:
    """Load a name from its module."""
    if name not in _WHERE:
        raise AttributeError(f"module 'churnlab' has no attribute '{name}'")
    module, original = _WHERE[name]
    globals()[name] = found = getattr(import_module(module), original)
    return found


def __dir__() -> list[str]:
    """The names to be used."""
    return sorted([*globals(), *__all__])
