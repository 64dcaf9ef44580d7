"""What the workers of a sweep do: play runs. (The pieces of training are `models.pieces`.)

Every argument and result can be pickled, and depends on nothing but the arguments.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.known import KnownLosses, KnownTraining
from models.lineage import TrainingSpec
from models.work import Demands, Survey
from sim import results
from sim.scenario import Scenario
from sim.simulation import Run, simulate
from sim.training import Training

Outcomes = dict[str, Any]
"""What `sim.results.summarise` gives of a run."""


@dataclass(frozen=True)
class Play:
    """A run to play: a strategy of a scenario under a pair of seeds, with the name of its training."""

    scenario: Scenario
    strategy_index: int
    failure_seed: int
    training_seed: int
    spec: TrainingSpec


def survey(plays: Sequence[Play]) -> list[Demands]:
    """What each run asks of its training, found by playing it without."""
    found = []
    for play in plays:
        training = Survey(play.spec, play.scenario.iterations_per_step)
        played(play, training)
        found.append(training.demands)
    return found


def play_known(play: Play, losses: KnownLosses, keeps_records: bool) -> Run | Outcomes:
    """A run whose training is done, or its outcomes alone."""
    return as_kept(play, KnownTraining(play.spec, play.scenario.iterations_per_step, losses), keeps_records)


def play_untrained(play: Play, keeps_records: bool) -> Run | Outcomes:
    """A run in which nothing is really trained, or its outcomes alone."""
    from sim.runner import training_without_text

    scenario = play.scenario
    training = training_without_text(scenario.training.learner, play.spec, scenario.iterations_per_step)
    return as_kept(play, training, keeps_records)


def seconds_of_a_play(play: Play, keeps_records: bool) -> float:
    """Real seconds that a run without training takes here now, prices known: for estimates."""
    play_untrained(play, keeps_records)
    began = time.perf_counter()
    play_untrained(play, keeps_records)
    return time.perf_counter() - began


def as_kept(play: Play, training: Training, keeps_records: bool) -> Run | Outcomes:
    """The run, or its outcomes alone: records of long runs are large."""
    run = played(play, training)
    return run if keeps_records else results.summarise(play.scenario, run)


def played(play: Play, training: Training) -> Run:
    """The run."""
    strategy = play.scenario.strategies[play.strategy_index]
    return simulate(play.scenario, strategy, play.failure_seed, play.training_seed, training)
