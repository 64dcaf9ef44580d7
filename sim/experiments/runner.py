"""Joins the two halves: opens the training a scenario asks for and runs its strategies against it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models.spec import DataSpec, TrainingSpec, plain_routes
from models.training import NoTraining, Training
from sim.core.files import remove_partial_files
from sim.core.rng import derived_seed
from sim.experiments.versions import SOURCE_HASH, plugin_versions
from sim.results import storage as results
from sim.scenario.loading import DATA, DataError, with_absolute_paths
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, simulate
from sim.simulation.training_process import Watcher

if TYPE_CHECKING:
    from models.corpus import Corpus

CURVE_VOCABULARY = 256

FIELDS_OF_SOURCES = {"text": ("files",), "tokens": ("train_tokens",), "huggingface": ("dataset",)}
"""Where a scenario's `training.data` names what is read."""


class Observer(Protocol):
    """Whoever wants to know how the runs come along."""

    def started(self, planned: PlannedRun) -> Watcher:
        """A run begins; gives who watches it."""
        ...

    def finished(self, planned: PlannedRun, reused: bool) -> None:
        """A run's folder is complete."""
        ...


class Silent:
    """Watches runs and says nothing."""

    def started(self, planned: PlannedRun) -> Watcher:  # noqa: ARG002
        """A run begins."""
        return lambda _: None

    def finished(self, planned: PlannedRun, reused: bool) -> None:
        """A run's folder is complete."""


@dataclass(frozen=True)
class PlannedRun:
    """One strategy under one pair of seeds, and the folder its results go to."""

    strategy_index: int
    name: str
    failure_seed: int
    training_seed: int
    folder: Path
    key: str


class ScenarioRunner:
    """All runs of one scenario, one after another. `cache=None` keeps training states in memory only.

    texts: those read already, for many scenarios of the same text. Raises ValueError for text that cannot be learnt and
    for folders that cannot be used.
    """

    def __init__(
        self,
        scenario: Scenario,
        base_folder: Path,
        results_folder: Path,
        cache: Path | None,
        texts: Texts | None = None,
    ) -> None:
        self.scenario = scenario
        self.base_folder = base_folder
        self.results_folder = results_folder
        self.cache = cache
        self.corpus = (texts or Texts(base_folder, cache)).of(scenario)
        self.versions = self._versions()

    @property
    def corpus_description(self) -> str:
        """The text that is learnt, in words."""
        return self.corpus.description if self.corpus else "no text"

    def plan(self) -> list[PlannedRun]:
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

    def run(self, observer: Observer | None = None, force: bool = False) -> Iterator[results.RunFiles]:
        """Run what is not finished yet (all, with `force`) and give every run's results in the order planned."""
        observer = observer or Silent()
        folder = self.results_folder / self.scenario.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial_files(folder)
        except OSError as error:
            raise OSError(results.refusal(folder, error)) from error
        training: Training | None = None
        training_seed: int | None = None
        for planned in self.plan():
            reused = results.is_finished(planned.folder, with_records=True) and not force
            if not reused:
                if training is None or training_seed != planned.training_seed:
                    training_seed = planned.training_seed
                    training = self.open_training(training_seed)
                self._run_one(planned, training, observer.started(planned))
            observer.finished(planned, reused)
            yield results.load_run(planned.folder)

    def spec(self, training_seed: int) -> TrainingSpec:
        """The name of the training of the scenario's proxy model under a seed."""
        return self.scenario.training.spec(
            corpus=self.corpus.content_hash if self.corpus else "curve",
            vocabulary_size=self.corpus.vocabulary_size if self.corpus else CURVE_VOCABULARY,
            init_seed=derived_seed(training_seed, "training_init"),
            data_seed=derived_seed(training_seed, "training_data"),
            routes=plain_routes(self.scenario.workload.num_stages),
        )

    def open_training(self, training_seed: int) -> Training:
        """The training of the scenario's proxy model under a seed."""
        scenario, spec = self.scenario, self.spec(training_seed)
        if self.corpus is None:
            return training_without_text(scenario.training.learner, spec, scenario.iterations_per_step)
        from models.trajectory import Trajectory
        from models.trajectory_store import TrajectoryStore

        store = TrajectoryStore(self.cache) if self.cache else None
        return Trajectory(spec, self.corpus, store, scenario.iterations_per_step)

    def about(self, planned: PlannedRun) -> dict[str, Any]:
        """What `run.json` says of a run whoever makes it: what decides its bits, and on what it was made."""
        config = self.scenario.strategies[planned.strategy_index]
        return {
            "run_hash": planned.key,
            "strategy": config.model_dump(mode="json"),
            "failure_seed": planned.failure_seed,
            "training_seed": planned.training_seed,
            "versions": self.versions | plugin_versions(self.scenario, config),
            "corpus": self.corpus_description,
            "num_threads": self.scenario.training.num_threads,
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        }

    def write(self, planned: PlannedRun, run: Run | dict[str, Any], about: dict[str, Any]) -> None:
        """Write a run's folder, whole or not at all; `about` comes into its run.json. OSError if the disk refuses."""
        scenario, resolved = self._as_written
        results.write_run(planned.folder, scenario, run, self.about(planned) | about, resolved)

    @cached_property
    def _as_written(self) -> tuple[Scenario, str]:
        """The scenario as every run's folder has it, and as YAML."""
        scenario = with_absolute_paths(self.scenario, self.base_folder)
        return scenario, results.resolved_yaml(scenario)

    def _run_one(self, planned: PlannedRun, training: Training, watch: Watcher) -> None:
        config = self.scenario.strategies[planned.strategy_index]
        began, trained = time.monotonic(), training.num_trained_steps
        run = simulate(self.scenario, config, planned.failure_seed, planned.training_seed, training, watch)
        about = {
            "num_trained_steps": training.num_trained_steps - trained,
            "real_seconds": round(time.monotonic() - began, 3),
        }
        self.write(planned, run, about)

    def _versions(self) -> dict[str, str]:
        """What decides a result besides the scenario and the seeds."""
        versions = {name: version(name) for name in ("churnlab", "numpy", "simpy")} | {"source": SOURCE_HASH}
        if self.corpus is not None:
            from models.trajectory import environment_key

            versions |= {"training": environment_key(), "corpus": self.corpus.content_hash}
        return versions


class Texts:
    """The texts that scenarios learn, each read once."""

    def __init__(self, base_folder: Path, cache: Path | None) -> None:
        self.base_folder, self.cache = base_folder, cache
        self._read: dict[DataSpec, Corpus] = {}

    def of(self, scenario: Scenario) -> Corpus | None:
        """The text of a scenario; None for a learner that reads none. DataError if it is missing or too short."""
        training = scenario.training
        if training.learner != "torch":
            return None
        if training.data not in self._read:
            from models.corpus import load_corpus

            try:
                self._read[training.data] = load_corpus(training.data, self.base_folder, self.cache)
            except ValueError as error:
                raise DataError(str(error), (*DATA, *FIELDS_OF_SOURCES.get(training.data.source, ()))) from error
        corpus = self._read[training.data]
        try:
            corpus.require(training.sequence_length, training.evaluation.num_sequences)
        except ValueError as error:
            raise DataError(str(error), DATA) from error
        return corpus


def training_without_text(learner: str, spec: TrainingSpec, iterations_per_step: int) -> Training:
    """The training of a learner that learns from nothing."""
    if learner == "none":
        return NoTraining(spec, iterations_per_step)
    from models.curve import CurveTraining

    return CurveTraining(spec, iterations_per_step)


def default_cache() -> Path:
    """Where training states are kept between runs: CHURNLAB_CACHE, else the user's cache folder."""
    named: Any = os.environ.get("CHURNLAB_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "churnlab"
