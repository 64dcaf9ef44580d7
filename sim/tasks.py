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
from sim.outcomes import summarise
from sim.prices import Prices
from sim.scenario import Scenario
from sim.simulation import Run, known_prices, learn_prices, simulate
from sim.training import Training

LONG_SECONDS = 1.0
Outcomes = dict[str, Any]
"""What `sim.outcomes.summarise` gives of a run."""


@dataclass(frozen=True)
class Play:
    """A run to play: a strategy of a scenario under a pair of seeds, with the name of its training."""

    scenario: Scenario
    strategy_index: int
    failure_seed: int
    training_seed: int
    spec: TrainingSpec


def survey(plays: Sequence[Play], prices: Prices | None) -> tuple[list[Demands], Prices]:
    """What each of some runs of one scenario asks of its training, found by playing it without; and prices found."""
    learn(plays[0], prices)
    found = []
    for play in plays:
        training = Survey(play.spec, play.scenario.iterations_per_step)
        played(play, training)
        found.append(training.demands)
    return found, known_prices(plays[0].scenario)


def rehearse(play: Play, keeps_records: bool) -> tuple[float, Prices]:
    """Real seconds that a run without training takes here now, for estimates; and prices found.

    A run that takes no time is played once more, now that prices are known.
    """
    for _ in range(2):
        began = time.perf_counter()
        play_untrained(play, None, keeps_records)
        seconds = time.perf_counter() - began
        if seconds > LONG_SECONDS:
            break
    return seconds, known_prices(play.scenario)


def play_known(play: Play, prices: Prices | None, losses: KnownLosses, keeps_records: bool) -> Run | Outcomes:
    """A run whose training is done, or its outcomes alone."""
    learn(play, prices)
    return as_kept(play, KnownTraining(play.spec, play.scenario.iterations_per_step, losses), keeps_records)


def play_untrained(play: Play, prices: Prices | None, keeps_records: bool) -> Run | Outcomes:
    """A run in which nothing is really trained, or its outcomes alone."""
    from sim.runner import training_without_text

    learn(play, prices)
    scenario = play.scenario
    training = training_without_text(scenario.training.learner, play.spec, scenario.iterations_per_step)
    return as_kept(play, training, keeps_records)


def learn(play: Play, prices: Prices | None) -> None:
    """Take over prices that another worker has found."""
    if prices is not None:
        learn_prices(play.scenario, prices)


def as_kept(play: Play, training: Training, keeps_records: bool) -> Run | Outcomes:
    """The run, or its outcomes alone: records of long runs are large."""
    run = played(play, training)
    return run if keeps_records else summarise(play.scenario, run)


def played(play: Play, training: Training) -> Run:
    """The run."""
    strategy = play.scenario.strategies[play.strategy_index]
    return simulate(play.scenario, strategy, play.failure_seed, play.training_seed, training)
