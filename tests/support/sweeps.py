"""A tiny scenario with real training, sweeps of it, and comparison of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.shared_training import SharedTraining
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import Executor, InProcess
from sim.experiments.job import SweepJob
from sim.experiments.plan import ScenarioPlan, SweepRun
from sim.experiments.sweep import Observer
from sim.experiments.training import Texts, open_training
from sim.scenario.sweep_points import Point, load_points
from sim.simulation.run import simulate

TINY = """
name: tiny
sweep:
  grid: {failures.rate_per_hour: [0.1, 0.3]}
  replicates: 2
workload: {num_stages: 3, num_microbatches: 4}
training:
  model: {dim: 16, num_heads: 2, num_stages: 3, layers_per_stage: 1}
  data: {source: text, files: ["text/*.txt"]}
  optimizer: {learning_rate: 0.003}
  sequences_per_batch: 4
  num_microbatches: 2
  sequence_length: 16
  steps: 24
  evaluation: {interval_steps: 6, num_sequences: 8}
  target_validation_loss: 4.9
cluster: {device: a100}
network: single_cluster
failures: {kind: exponential, rate_per_hour: 0.3, immune_stages: [0]}
strategies: [none, {kind: checkpoint, interval_iterations: 40}, {kind: checkfree, end_stages: copy}]
iterations_per_step: 40
"""
ALONE = TINY[: TINY.index("sweep:")] + TINY[TINY.index("workload:") :]
"""Without the sweep."""
TIME_ONLY = TINY.replace("training:\n", "training:\n  learner: none\n").replace("  target_validation_loss: 4.9\n", "")


class Notes(Observer):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def noted(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


def write_scenario(folder: Path, text: str = TINY) -> Path:
    """Write a scenario file and its training text to a folder."""
    words = folder / "text"
    words.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        lines = "".join(f"line {i} of {number}: {i * number % 97} bottles\n" for i in range(200))
        (words / f"{number}.txt").write_text(lines)
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def do_sweep(
    path: Path,
    results: Path,
    cache: Path,
    executor: Executor | None = None,
    runs: Sequence[int] | None = None,
    overrides: tuple[str, ...] = (),
    most_steps: int = 7,
) -> SweepJob:
    """Do a sweep, or some of its runs by number, in this process unless an executor is given."""
    job = SweepJob(load_points(path, overrides), path.parent, results, cache)
    store = TrajectoryStore(cache) if job.learns else None
    job.begin(executor or InProcess(), SharedTraining(store, most_steps) if job.learns else None)
    chosen = job.runs if runs is None else [job.runs[number] for number in runs]
    try:
        job.do([run for run in chosen if not run.is_finished])
    finally:
        if store:
            store.close()
    return job


def do_one_by_one(point: Point, base_folder: Path, results: Path) -> int:
    """Do each run of a point by itself, with a trainer in memory that follows the simulation; how many there are."""
    scenario = point.scenario
    plan = ScenarioPlan(point, base_folder, results, Texts(base_folder, None))
    for run in plan.runs():
        training = open_training(scenario, plan.corpus, run.training_seed)
        run.write(simulate(scenario, run.strategy, run.failure_seed, run.training_seed, training))
    return len(plan.runs())


def files_of(folder: Path, but: Sequence[str] = ("run.json",)) -> dict[str, bytes]:
    """Files of all runs in a results folder except run.json, which has times and the machine."""
    runs = sorted(summary.parent for summary in folder.glob("*/summary.json"))
    return {
        f"{run.name}/{file.name}": file.read_bytes()
        for run in runs
        for file in sorted(run.iterdir())
        if file.name not in but
    }


def by_name(job: SweepJob, name: str) -> SweepRun:
    """A run by its folder's name."""
    return next(run for run in job.runs if run.name == name)
