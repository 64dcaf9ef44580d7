"""Hashes of the code that decides a run's numbers."""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path

from models.training_state import digest
from sim.failures import process_class, processes
from sim.scenario.scenario import Scenario
from sim.strategies import StrategyConfig, strategy_class


def code_hash(component: type) -> str:
    """A hash of the code of a class from outside: of its module, or of all Python files of its package.

    For a class of a notebook: of the methods of the class and its bases there. ValueError where these cannot be read.
    """
    top = component.__module__.partition(".")[0]
    package = getattr(sys.modules.get(top), "__path__", None)
    file = getattr(sys.modules.get(component.__module__), "__file__", None)
    if file is not None or package:
        files = (
            sorted(file for folder in package for file in Path(folder).rglob("*.py")) if package else [Path(file or "")]
        )
        return digest("\n".join(file.read_text("utf-8", "replace") for file in files if file.is_file()))
    bases = [base for base in component.__mro__ if base.__module__ == component.__module__]
    members = [item for base in bases for item in vars(base).values()]
    plain = [getattr(item, "__func__", getattr(item, "fget", item)) for item in members]
    try:
        return digest("\n".join(inspect.getsource(function) for function in plain if inspect.isfunction(function)))
    except OSError:
        where = f"{component.__module__}:{component.__qualname__}"
        raise ValueError(f"the code of '{where}' cannot be read: write the class into a file") from None


def components(scenario: Scenario, strategy: StrategyConfig) -> dict[str, type]:
    """The classes of the failure processes and strategies that a run uses, by kind."""
    used: dict[str, type] = {config.kind: process_class(config.kind) for config in processes(scenario.failures)}
    used[strategy.kind] = strategy_class(strategy.kind)
    if scenario.fallback.kind != "stop":
        used[scenario.fallback.kind] = strategy_class(scenario.fallback.kind)
    return used


def plugin_versions(scenario: Scenario, strategy: StrategyConfig) -> dict[str, str]:
    """Hashes of the code from outside that a run uses, by kind."""
    used = components(scenario, strategy)
    return {kind: code_hash(found) for kind, found in used.items() if not found.__module__.startswith("sim.")}


DECIDING = (
    *("core", "cluster", "workload", "failures", "strategies", "scenario", "simulation"),
    *("experiments/training.py", "results/summary.py"),
)
"""Packages and modules of `sim` that decide a run's numbers: not what does many runs, reads results or draws them."""


def source_hash(root: Path = Path(__file__).parents[2]) -> str:
    """A hash of the sources and presets that decide a run's numbers: `models` and the `DECIDING` parts of `sim`."""
    places = [root / "models", *(root / "sim" / name for name in DECIDING)]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    content = b"".join(file.read_bytes() for file in sorted(files) if file.suffix in (".py", ".yaml"))
    return hashlib.sha256(content).hexdigest()[:16]


SOURCE_HASH = source_hash()
"""Taken when the code is loaded: what is edited afterwards does not run."""
