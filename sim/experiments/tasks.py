"""Simulations that workers do for a sweep. (Segments of training are `models.segment`.)

Arguments and results can be pickled; a result depends on the arguments alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.replay import ReplayedLosses, ReplayedTraining
from models.spec import TrainingSpec
from models.training import Training
from models.training_plan import DemandRecorder, Demands
from sim.experiments.training import training_without_text
from sim.results.summary import summarise
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, simulate

LONG_SECONDS = 1.0

Outcomes = dict[str, Any]
"""What `sim.results.summary.summarise` gives of a run."""


def load_training() -> None:
    """Load the modules that train, which takes a second or two."""
    import models.segment  # noqa: F401


@dataclass(frozen=True)
class SimulationTask:
    """One strategy of a scenario under a pair of seeds, with the name of its training."""

    scenario: Scenario
    strategy_index: int
    failure_seed: int
    training_seed: int
    spec: TrainingSpec


def survey(tasks: Sequence[SimulationTask]) -> list[Demands]:
    """What runs ask of their training, found by simulating them without it."""
    found = []
    for task in tasks:
        training = DemandRecorder(task.spec, task.scenario.iterations_per_step)
        simulated(task, training)
        found.append(training.demands)
    return found


def time_simulation(task: SimulationTask, keeps_records: bool) -> float:
    """Real seconds that a run without training takes here, for estimates.

    A short run is repeated, so that its time does not include that of pricing iterations.
    """
    for _ in range(2):
        began = time.perf_counter()
        simulate_untrained(task, keeps_records)
        seconds = time.perf_counter() - began
        if seconds > LONG_SECONDS:
            break
    return seconds


def simulate_trained(task: SimulationTask, losses: ReplayedLosses, keeps_records: bool) -> Run | Outcomes:
    """A run whose losses are known, or its outcomes alone."""
    return kept(task, ReplayedTraining(task.spec, task.scenario.iterations_per_step, losses), keeps_records)


def simulate_untrained(task: SimulationTask, keeps_records: bool) -> Run | Outcomes:
    """A run in which no model is trained, or its outcomes alone."""
    scenario = task.scenario
    training = training_without_text(scenario.training.learner, task.spec, scenario.iterations_per_step)
    return kept(task, training, keeps_records)


def kept(task: SimulationTask, training: Training, keeps_records: bool) -> Run | Outcomes:
    """The run, or its outcomes alone: records of long runs are large."""
    run = simulated(task, training)
    return run if keeps_records else summarise(task.scenario, run)


def simulated(task: SimulationTask, training: Training) -> Run:
    """The run."""
    strategy = task.scenario.strategies[task.strategy_index]
    return simulate(task.scenario, strategy, task.failure_seed, task.training_seed, training)
