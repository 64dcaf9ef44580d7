"""Small results of sweeps and of `churnlab run` for tests of reports."""

from __future__ import annotations

from pathlib import Path

from sim.cli.progress import RunDisplay
from sim.experiments.sweep import run_scenario
from sim.reporting.tables import write_comparison
from sim.scenario.loading import load_scenario
from support.sweeps import TINY, do_sweep, write_scenario

CURVE = TINY.replace("training:\n", "training:\n  learner: curve\n")
ONE_FIELD = "grid: {failures.rate_per_hour: [0.1, 0.3]}"
TWO_FIELDS = CURVE.replace(
    ONE_FIELD, "grid: {failures.rate_per_hour: [0.5, 0.9], 'strategies[checkpoint].interval_iterations': [10, 40]}"
)
REPLACED = CURVE.replace("cluster: {device: a100}", "cluster: {device: a100, provisioning_seconds: 600}")
"""Lost nodes are away for ten minutes."""


def a_sweep(folder: Path, text: str = CURVE) -> Path:
    """The results folder of a sweep that is done."""
    path = write_scenario(folder, text)
    do_sweep(path, folder / "results", folder / "cache")
    return folder / "results" / "tiny"


def a_run(folder: Path, text: str = CURVE, overrides: tuple[str, ...] = ()) -> Path:
    """The results folder of a scenario that was run."""
    path = write_scenario(folder, text)
    scenario = load_scenario(path, overrides)
    with RunDisplay(scenario) as display:
        runs = run_scenario(scenario, folder / "results", folder, observer=display).run_files()
    write_comparison(folder / "results" / scenario.name, runs)
    return folder / "results" / scenario.name
