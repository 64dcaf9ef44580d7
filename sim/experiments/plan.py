"""The runs that a scenario or a sweep is made of, and the selection of those to do."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from models.spec import TrainingSpec
from models.training_plan import Demands, num_steps
from sim.cluster.network import NetworkConfig
from sim.cluster.topology import ClusterConfig
from sim.core.text import shortened, suggestion
from sim.experiments.tasks import Outcomes, SimulationTask
from sim.experiments.training import Texts, training_spec
from sim.experiments.versions import SOURCE_HASH, plugin_versions
from sim.results import storage as results
from sim.scenario.loading import with_absolute_paths
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point
from sim.simulation.run import Run
from sim.strategies import StrategyConfig
from sim.workload.config import WorkloadConfig


@dataclass(frozen=True)
class PlannedRun:
    """One strategy under one pair of seeds, and the folder its results go to."""

    strategy_index: int
    name: str
    failure_seed: int
    training_seed: int
    folder: Path
    key: str


class ScenarioPlan:
    """The runs of one scenario: their seeds, folders, keys and training, and how they are written.

    texts: those read already, for many scenarios of the same text. DataError for text that cannot be learnt.
    """

    def __init__(self, scenario: Scenario, base_folder: Path, results_folder: Path, texts: Texts) -> None:
        self.scenario, self.base_folder, self.results_folder = scenario, base_folder, results_folder
        self.corpus = texts.of(scenario)
        self.versions = self._versions()

    @property
    def corpus_description(self) -> str:
        """The text that is learnt, for captions."""
        return self.corpus.description if self.corpus else "no text"

    def runs(self) -> list[PlannedRun]:
        """Every run, replicate after replicate, strategies in the scenario's order."""
        scenario, planned = self.scenario, []
        versions = [self.versions | plugin_versions(scenario, config) for config in scenario.strategies]
        for training_seed in scenario.seeds.training:
            for failure_seed in scenario.seeds.failures:
                for index, config in enumerate(scenario.strategies):
                    key = results.run_hash(scenario, index, failure_seed, training_seed, versions[index])
                    folder = results.run_folder(
                        self.results_folder, scenario, config.name, failure_seed, training_seed, key
                    )
                    planned.append(PlannedRun(index, config.name, failure_seed, training_seed, folder, key))
        return planned

    def spec(self, training_seed: int) -> TrainingSpec:
        """The name of the training of the scenario's proxy model under a seed."""
        return training_spec(self.scenario, self.corpus, training_seed)

    def write(self, planned: PlannedRun, run: Run | Outcomes, about: dict[str, Any]) -> None:
        """Write a run's folder, whole or not at all; `about` is added to its run.json. OSError if the disk refuses."""
        config = self.scenario.strategies[planned.strategy_index]
        scenario, resolved = self._as_written
        content = {
            "run_hash": planned.key,
            "strategy": config.model_dump(mode="json"),
            "failure_seed": planned.failure_seed,
            "training_seed": planned.training_seed,
            "versions": self.versions | plugin_versions(scenario, config),
            "corpus": self.corpus_description,
            "num_threads": scenario.training.num_threads,
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        }
        results.write_run(planned.folder, scenario, run, content | about, resolved)

    @cached_property
    def _as_written(self) -> tuple[Scenario, str]:
        """The scenario as every run's folder has it, and as YAML."""
        scenario = with_absolute_paths(self.scenario, self.base_folder)
        return scenario, results.resolved_yaml(scenario)

    def _versions(self) -> dict[str, str]:
        """What decides a result besides the scenario and the seeds."""
        versions = {name: version(name) for name in ("churnlab", "numpy", "simpy")} | {"source": SOURCE_HASH}
        if self.corpus is not None:
            from models.trajectory import environment_key

            versions |= {"training": environment_key(), "corpus": self.corpus.content_hash}
        return versions


class RunKind(NamedTuple):
    """What decides the real seconds of a simulation and its iteration times, except rates and seeds."""

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
    plan: ScenarioPlan
    keeps_records: bool = True

    @property
    def task(self) -> SimulationTask:
        """What a worker needs to simulate it."""
        planned, scenario = self.planned, self.plan.scenario
        spec = self.plan.spec(planned.training_seed)
        return SimulationTask(scenario, planned.strategy_index, planned.failure_seed, planned.training_seed, spec)

    @property
    def strategy(self) -> StrategyConfig:
        """Its strategy."""
        return self.plan.scenario.strategies[self.planned.strategy_index]

    @cached_property
    def kind(self) -> RunKind:
        """Runs of equal kind are surveyed together."""
        scenario = self.plan.scenario
        return RunKind(scenario.workload, scenario.cluster, scenario.network, self.strategy, self.learns)

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.planned.folder.name

    @property
    def title(self) -> str:
        """Its strategy and seeds."""
        return f"{self.planned.name} f{self.planned.failure_seed} t{self.planned.training_seed}"

    @property
    def learns(self) -> bool:
        """Whether it trains a model."""
        return self.plan.corpus is not None

    @property
    def is_finished(self) -> bool:
        """Whether its results are there, with its records if these are to be kept."""
        return results.is_finished(self.planned.folder, self.keeps_records)

    def write(self, result: Run | Outcomes, demands: Demands | None) -> None:
        """Write its folder, whole or not at all. demands: what it asked of its training. OSError if disk refuses."""
        asked = {} if demands is None else {"num_steps_asked": num_steps(demands)}
        self.plan.write(self.planned, result, asked)


def plan_runs(points: Sequence[Point], base_folder: Path, results_folder: Path, texts: Texts) -> list[SweepRun]:
    """Every run of every point once, replicates together: a run that two points share is the first one's."""
    runs: dict[str, SweepRun] = {}
    for number, point in enumerate(points):
        plan = ScenarioPlan(point.scenario, base_folder, results_folder, texts)
        for planned in plan.runs():
            parameters = point.parameters_of(planned.strategy_index)
            runs.setdefault(planned.key, SweepRun(number, parameters, planned, plan, point.keeps_records))
    return list(runs.values())


def selected(runs: Sequence[SweepRun], only: Sequence[str]) -> list[SweepRun]:
    """The runs that `--only` names: by strategy, by the name of the run's folder (with * and ?), or by field=value.

    One of several strategies or folders is enough; every field must have one of its values. ValueError for what names
    nothing.
    """
    names = [name for name in only if "=" not in name]
    for name in names:
        if not any(has_name(run, name) for run in runs):
            known = list(dict.fromkeys(run.planned.name for run in runs))
            raise ValueError(f"--only {shortened(name)}: no such strategy or run{suggestion(name, known)}")
    has_values = values_filter(runs, [condition for condition in only if "=" in condition])
    return [run for run in runs if has_values(run) and (not names or any(has_name(run, name) for name in names))]


def values_filter(runs: Sequence[SweepRun], conditions: Sequence[str]) -> Callable[[SweepRun], bool]:
    """Whether a run has the swept values that `field=value` conditions give. ValueError for what no run has."""
    wanted: dict[str, set[str]] = {}
    for field, _, value in (condition.partition("=") for condition in conditions):
        wanted.setdefault(field, set()).add(value)
    for field, values in wanted.items():
        known = list(dict.fromkeys(format_value(run.parameters[field]) for run in runs if field in run.parameters))
        if not known:
            fields = dict.fromkeys(field for run in runs for field in run.parameters)
            raise ValueError(f"--only {shortened(field)}=...: no such swept field{suggestion(field, fields)}")
        for value in values.difference(known):
            raise ValueError(f"--only {shortened(field)}={shortened(value)}: no such value{suggestion(value, known)}")
    return lambda run: all(
        field in run.parameters and format_value(run.parameters[field]) in values for field, values in wanted.items()
    )


def has_name(run: SweepRun, name: str) -> bool:
    """Whether a strategy's or a folder's name means the run."""
    return run.planned.name == name or fnmatchcase(run.name, name)


def format_value(value: Any) -> str:
    """A swept value as it is written in YAML."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
