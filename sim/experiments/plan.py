"""What the workers of a sweep do: play runs. (The pieces of training are `models.segment`.)

Every argument and result can be pickled, and depends on nothing but the arguments.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from models.replay import ReplayedLosses, ReplayedTraining
from models.spec import TrainingSpec
from models.training import Training
from models.training_plan import DemandRecorder, Demands, num_steps
from sim.cluster.network import NetworkConfig
from sim.cluster.topology import ClusterConfig
from sim.core.text import shortened, suggestion
from sim.experiments.runner import PlannedRun, ScenarioRunner, Texts
from sim.results import storage as results
from sim.results.summary import summarise
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point
from sim.simulation.run import Run, known_prices, learn_prices, simulate
from sim.strategies import StrategyConfig
from sim.workload.config import WorkloadConfig
from sim.workload.iteration_time import Prices

LONG_SECONDS = 1.0

Outcomes = dict[str, Any]
"""What `sim.results.summary.summarise` gives of a run."""


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
        training = DemandRecorder(play.spec, play.scenario.iterations_per_step)
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


def play_known(play: Play, prices: Prices | None, losses: ReplayedLosses, keeps_records: bool) -> Run | Outcomes:
    """A run whose training is done, or its outcomes alone."""
    learn(play, prices)
    return as_kept(play, ReplayedTraining(play.spec, play.scenario.iterations_per_step, losses), keeps_records)


def play_untrained(play: Play, prices: Prices | None, keeps_records: bool) -> Run | Outcomes:
    """A run in which nothing is really trained, or its outcomes alone."""
    from sim.experiments.runner import training_without_text

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


# Which runs a sweep is made of, and which of them are to be done.


class Kind(NamedTuple):
    """What decides how long it takes to play a run, and which prices it needs, but for rates and seeds."""

    workload: WorkloadConfig
    cluster: ClusterConfig
    network: NetworkConfig
    strategy: StrategyConfig
    learns: bool


@dataclass(frozen=True, eq=False)
class SweepRun:
    """A run of a sweep: at a point, with the swept values that concern it."""

    point: int
    parameters: dict[str, Any]
    planned: PlannedRun
    runner: ScenarioRunner
    keeps_records: bool = True

    @property
    def play(self) -> Play:
        """What a worker needs to know to play it."""
        planned = self.planned
        spec = self.runner.spec(planned.training_seed)
        scenario = self.runner.scenario
        return Play(scenario, planned.strategy_index, planned.failure_seed, planned.training_seed, spec)

    @cached_property
    def kind(self) -> Kind:
        """Of those of equal kind, one is surveyed first."""
        scenario = self.runner.scenario
        strategy = scenario.strategies[self.planned.strategy_index]
        return Kind(scenario.workload, scenario.cluster, scenario.network, strategy, self.learns)

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.planned.folder.name

    @property
    def learns(self) -> bool:
        """Whether a model is really trained in it."""
        return self.runner.corpus is not None

    @property
    def is_finished(self) -> bool:
        """Whether its results are there, with its records if these are to be kept."""
        return results.is_finished(self.planned.folder, self.keeps_records)

    def write(self, result: Run | Outcomes, demands: Demands | None) -> None:
        """Write its folder, whole or not at all. demands: what it asked of its training. OSError if disk refuses."""
        asked = {} if demands is None else {"num_steps_asked": num_steps(demands)}
        self.runner.write(self.planned, result, asked)


def plan_runs(
    points: Sequence[Point], base_folder: Path, results_folder: Path, cache: Path | None, texts: Texts
) -> list[SweepRun]:
    """Every run of every point once, replicates together: a run that two points share is the first one's."""
    runs: dict[str, SweepRun] = {}
    for number, point in enumerate(points):
        runner = ScenarioRunner(point.scenario, base_folder, results_folder, cache, texts)
        for planned in runner.plan():
            parameters = point.parameters_of(planned.strategy_index)
            runs.setdefault(planned.key, SweepRun(number, parameters, planned, runner, point.keeps_records))
    return list(runs.values())


def chosen(runs: Sequence[SweepRun], only: Sequence[str]) -> list[SweepRun]:
    """The runs that `--only` names: by strategy, by the name of the run's folder (with * and ?), or by field=value.

    One of several strategies or folders is enough; every field must have one of its values. ValueError for what names
    nothing.
    """
    names = [name for name in only if "=" not in name]
    wanted: dict[str, set[str]] = {}
    for field, _, value in (condition.partition("=") for condition in only if "=" in condition):
        wanted.setdefault(field, set()).add(value)
    for name in names:
        if not any(is_named(run, name) for run in runs):
            known = list(dict.fromkeys(run.planned.name for run in runs))
            raise ValueError(f"--only {shortened(name)}: no such strategy or run{suggestion(name, known)}")
    for field, values in wanted.items():
        known = list(dict.fromkeys(as_text(run.parameters[field]) for run in runs if field in run.parameters))
        if not known:
            fields = dict.fromkeys(field for run in runs for field in run.parameters)
            raise ValueError(f"--only {shortened(field)}=...: no such swept field{suggestion(field, fields)}")
        for value in values.difference(known):
            raise ValueError(f"--only {shortened(field)}={shortened(value)}: no such value{suggestion(value, known)}")
    return [
        run
        for run in runs
        if (not names or any(is_named(run, name) for name in names))
        and all(
            field in run.parameters and as_text(run.parameters[field]) in values for field, values in wanted.items()
        )
    ]


def is_named(run: SweepRun, name: str) -> bool:
    """Whether a strategy's or a folder's name means the run."""
    return run.planned.name == name or fnmatchcase(run.name, name)


def as_text(value: Any) -> str:
    """A swept value as people write it in YAML."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
