"""The runs of a scenario or a sweep, and the selection of those to do."""

from __future__ import annotations

import platform
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.spec import TrainingSpec
from models.training_plan import Demands, num_steps
from sim.core.text import shortened, suggestion
from sim.experiments.tasks import Outcomes, SimulationTask
from sim.experiments.training import Texts, on_this_machine, training_spec
from sim.experiments.versions import SOURCE_HASH, plugin_versions
from sim.results import storage as results
from sim.scenario.loading import with_absolute_paths
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point
from sim.simulation.run import Run
from sim.strategies import StrategyConfig

RUN_NAME = re.compile(r"-f\d+-t\d+-(?:.*-)?([0-9a-f]{8})$")
MOST_VALUES_NAMED, MOST_CHARACTERS = 3, 40


class ScenarioPlan:
    """The runs of a scenario at one point, with text and versions. DataError for a missing text or device."""

    def __init__(self, point: Point, base_folder: Path, results_folder: Path, texts: Texts, number: int = 0) -> None:
        self.point, self.number, self.scenario = point, number, on_this_machine(point.scenario)
        self.base_folder, self.results_folder = base_folder, results_folder
        self.corpus = texts.of(self.scenario)
        self.versions = {name: version(name) for name in ("churnlab", "numpy", "simpy")} | {"source": SOURCE_HASH}
        if self.corpus is not None:
            from models.trajectory import environment_of

            environment = environment_of(training_spec(self.scenario, self.corpus, 0))
            self.versions |= {"training": environment, "corpus": self.corpus.content_hash}

    @property
    def corpus_description(self) -> str:
        """The text that is learnt, for captions."""
        return self.corpus.description if self.corpus else "no text"

    def runs(self, known: Mapping[str, str] | None = None) -> list[SweepRun]:
        """Every run, replicate after replicate, strategies in the scenario's order. known: names by hash."""
        scenario, planned, known = self.scenario, [], known or {}
        parent = self.results_folder / scenario.name
        versions = [self.versions | plugin_versions(scenario, config) for config in scenario.strategies]
        for failure_seed, training_seed in scenario.seeds.replicates:
            for index, config in enumerate(scenario.strategies):
                key = results.run_hash(scenario, index, failure_seed, training_seed, versions[index])
                seeds = failure_seed, training_seed
                parameters = self.point.parameters_of(index)
                named = "-".join([f"{config.name}-f{failure_seed}-t{training_seed}", *values_in_name(parameters)])
                name = known.get(key[:8], f"{named}-{key[:8]}")
                planned.append(SweepRun(self, index, *seeds, key, parent / name, parameters))
        return planned

    @cached_property
    def as_written(self) -> tuple[Scenario, str]:
        """The scenario as every run's folder has it, and as YAML."""
        scenario = with_absolute_paths(self.scenario, self.base_folder)
        return scenario, results.resolved_yaml(scenario)


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One strategy under a pair of seeds, its folder, and the swept values that concern it. key: hash of its inputs."""

    plan: ScenarioPlan
    strategy_index: int
    failure_seed: int
    training_seed: int
    key: str
    folder: Path
    parameters: dict[str, Any]

    @property
    def point(self) -> int:
        """The number of its point."""
        return self.plan.number

    @property
    def keeps_records(self) -> bool:
        """Whether its iterations and events are kept, or its outcomes alone."""
        return self.plan.point.keeps_records

    @property
    def spec(self) -> TrainingSpec:
        """The name of its training."""
        return training_spec(self.plan.scenario, self.plan.corpus, self.training_seed)

    @property
    def task(self) -> SimulationTask:
        """What a worker needs to simulate it."""
        seeds = self.failure_seed, self.training_seed
        return SimulationTask(self.plan.scenario, self.strategy_index, *seeds, self.spec, self.keeps_records)

    @property
    def strategy(self) -> StrategyConfig:
        """Its strategy."""
        return self.plan.scenario.strategies[self.strategy_index]

    @cached_property
    def kind(self) -> Hashable:
        """All that decides the real seconds of a simulation and its iteration times, except rates and seeds."""
        scenario = self.plan.scenario
        return scenario.workload, scenario.cluster, scenario.network, self.strategy, self.learns

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def identity(self) -> dict[str, Any]:
        """Its strategy and seeds, as columns."""
        seeds = {"failure_seed": self.failure_seed, "training_seed": self.training_seed}
        return {"strategy": self.strategy.name, **seeds}

    @property
    def learns(self) -> bool:
        """Whether it trains a model."""
        return self.plan.corpus is not None

    @property
    def is_finished(self) -> bool:
        """Whether its results exist, with its records if these are to be kept."""
        return results.is_finished(self.folder, self.keeps_records)

    def write(self, result: Run | Outcomes, demands: Demands | None = None) -> None:
        """Write its folder, whole or not at all. demands: on its training. OSError if the disk refuses."""
        plan = self.plan
        scenario, resolved = plan.as_written
        about = {
            "run_hash": self.key,
            **self.identity,
            "strategy": self.strategy.model_dump(mode="json"),
            "versions": plan.versions | plugin_versions(plan.scenario, self.strategy),
            "corpus": plan.corpus_description,
            "num_threads": scenario.training.num_threads,
            "device": device_of(scenario),
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        }
        if demands is not None:
            about["num_steps_asked"] = num_steps(demands)
        results.write_run(self.folder, scenario, result, about, resolved)


def device_of(scenario: Scenario) -> str:
    """The device of the training; precision, replicates at once and compilation where they are not the default."""
    training = scenario.training
    assert training.device != "auto"
    name, count = "cpu", training.num_replicates_at_once
    if training.device != "cpu":
        from models.device import device_name

        name = device_name(training.device)
    others = [training.precision] * (training.precision != "fp32") + [f"{count} replicates at once"] * (count > 1)
    others += ["compiled"] * (training.compile == "on")
    return ", ".join([name, *others])


def plan_runs(points: Sequence[Point], base_folder: Path, results_folder: Path, texts: Texts) -> list[SweepRun]:
    """Every run of every point once, replicates together: a run that two points share is the first one's."""
    runs: dict[str, SweepRun] = {}
    known = names_by_hash(results_folder / points[0].scenario.name)
    for number, point in enumerate(points):
        for run in ScenarioPlan(point, base_folder, results_folder, texts, number).runs(known):
            runs.setdefault(run.key, run)
    return list(runs.values())


def names_by_hash(folder: Path) -> dict[str, str]:
    """Names of the run folders that exist, by the hash at their end: a run keeps its name in every sweep."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    return {found[1]: name for name in names if (found := RUN_NAME.search(name))}


def values_in_name(parameters: Mapping[str, Any]) -> list[str]:
    """The swept values in a run folder's name: the last part of each field, and a short value."""
    parts = []
    for field, value in parameters.items():
        text = f"{value:.4g}" if isinstance(value, float) else format_value(value)
        if not isinstance(value, dict | list):
            parts.append(re.sub(r"[^\w.+-]+", "_", f"{field.rpartition('.')[2]}_{text}")[:MOST_CHARACTERS])
    return parts[:MOST_VALUES_NAMED]


def swept_fields(runs: Sequence[SweepRun]) -> list[str]:
    """The fields that some runs' sweep varies."""
    return list(dict.fromkeys(name for run in runs for name in run.parameters))


def selected(runs: Sequence[SweepRun], only: Sequence[str]) -> list[SweepRun]:
    """The runs that `--only` names: by strategy, by the name of the run's folder (with * and ?), or by field=value.

    One of several strategies or folders is enough; every field must have one of its values. ValueError for what names
    nothing.
    """
    names = [name for name in only if "=" not in name]
    wanted: dict[str, set[str]] = {}
    for field, _, value in (condition.partition("=") for condition in only if "=" in condition):
        wanted.setdefault(field, set()).add(value)
    named = {name: {run for run in runs if run.strategy.name == name or fnmatchcase(run.name, name)} for name in names}
    for name in (name for name, found in named.items() if not found):
        known = dict.fromkeys(run.strategy.name for run in runs)
        raise ValueError(f"--only {shortened(name)}: no such strategy or run{suggestion(name, known)}")
    for field, values in wanted.items():
        known = dict.fromkeys(format_value(run.parameters[field]) for run in runs if field in run.parameters)
        if not known:
            suggested = suggestion(field, swept_fields(runs))
            raise ValueError(f"--only {shortened(field)}=...: no such swept field{suggested}")
        for value in values.difference(known):
            raise ValueError(f"--only {shortened(field)}={shortened(value)}: no such value{suggestion(value, known)}")

    def has_values(run: SweepRun) -> bool:
        given = {field: format_value(value) for field, value in run.parameters.items()}
        return all(field in given and given[field] in values for field, values in wanted.items())

    by_name = set().union(*named.values()) if names else set(runs)
    return [run for run in runs if run in by_name and has_values(run)]


def format_value(value: Any) -> str:
    """A swept value as it is written in YAML."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
