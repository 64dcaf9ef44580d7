"""A scenario with a parametric loss, and maps of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sim.experiments.executors import InProcess
from sim.experiments.strategy_map.grid import Grid
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.trained import TrainingJob
from sim.experiments.sweep import Observer
from sim.scenario.axes import NO_AXIS, Axis, ScenarioTemplate
from sim.scenario.scenario import SeedsConfig

TEXT = """
name: mapped
workload: {num_stages: 3, num_microbatches: 16}
training:
  learner: curve
  model: {num_stages: 3}
  steps: 60
  evaluation: {interval_steps: 5, num_sequences: 8}
  target_validation_loss: 3.5
cluster: {device: a100}
network: {preset: spot_cluster}
failures: {kind: exponential, rate_per_hour: 0.3, immune_stages: [0]}
strategies:
  - none
  - {kind: checkpoint, interval_iterations: 10}
  - {kind: redundant, microbatch_size_factor: 1, microbatch_count_factor: 1}
  - {kind: checkfree, end_stages: copy}
fallback: {kind: checkpoint, interval_iterations: 25}
iterations_per_step: 10
"""
RATES, FACTORS = "failures.rate_per_hour=0.05,0.15,0.3,0.6", "network.bandwidth_factor=0.25,1,4"


def write(folder: Path, text: str = TEXT) -> Path:
    """A scenario file."""
    path = folder / "mapped.yaml"
    path.write_text(text)
    return path


def evaluated(
    path: Path,
    x: str = RATES,
    y: str | None = FACTORS,
    seeds: Sequence[int] = (0, 1, 2),
    time_seeds: Sequence[int] = (0, 1, 2),
    overrides: Sequence[str] = (),
    objective: str = "time",
    num_samples: int = 3,
) -> MapJob:
    """A map whose cells have been evaluated, in this process."""
    template = ScenarioTemplate(path, overrides)
    axes: tuple[Axis, Axis] = template.axis("--x", x, 5), template.axis("--y", y, 5) if y else NO_AXIS
    grid = Grid(template, axes, SeedsConfig(failures=tuple(seeds), training=(0,)), "mapped-map")
    training = TrainingJob(path.parent, path.parent / "results", path.parent, InProcess(), Observer())
    job = MapJob(grid, training, time_seeds, objective, num_samples)
    job.survey()
    job.train()
    job.evaluate()
    return job
