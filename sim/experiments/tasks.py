"""Simulations that workers do for a sweep. (Segments of training are `models.segment`.)

Arguments and results can be pickled; a result depends on the arguments alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.spec import TrainingSpec
from models.training import ReplayedLosses, ReplayedTraining, Training
from models.training_plan import DemandRecorder, Demands
from sim.experiments.training import training_without_text
from sim.results.summary import summarise
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, simulate

LONG_SECONDS = 1.0

Outcomes = dict[str, Any]
"""The summary of a run (`sim.results.summary.summarise`)."""


def load_training() -> None:
    """Load the modules that train, which takes a second or two."""
    import models.segment  # noqa: F401


@dataclass(frozen=True)
class SimulationTask:
    """One strategy of a scenario under a pair of seeds. keeps_records: the result is the run, else its outcomes."""

    scenario: Scenario
    strategy_index: int
    failure_seed: int
    training_seed: int
    spec: TrainingSpec
    keeps_records: bool = True

    def run(self, training: Training) -> Run:
        """Simulate the run."""
        strategy = self.scenario.strategies[self.strategy_index]
        return simulate(self.scenario, strategy, self.failure_seed, self.training_seed, training)


def survey(tasks: Sequence[SimulationTask]) -> list[Demands]:
    """The demands of runs on their training, found by simulating them without it."""
    found = []
    for task in tasks:
        training = DemandRecorder(task.spec, task.scenario.iterations_per_step)
        task.run(training)
        found.append(training.demands)
    return found


def time_simulation(task: SimulationTask) -> float:
    """Real seconds of a run without training; a short one is repeated, now with known iteration times."""
    for _ in range(2):
        began = time.perf_counter()
        simulate_task(task)
        seconds = time.perf_counter() - began
        if seconds > LONG_SECONDS:
            break
    return seconds


def simulate_task(task: SimulationTask, losses: ReplayedLosses | None = None) -> Run | Outcomes:
    """A run, or its outcomes alone. losses: those of its training; None where no model is trained."""
    iterations = task.scenario.iterations_per_step
    if losses is None:
        run = task.run(training_without_text(task.scenario.training.learner, task.spec, iterations))
    else:
        run = task.run(ReplayedTraining(task.spec, iterations, losses))
    return run if task.keeps_records else summarise(task.scenario, run)
