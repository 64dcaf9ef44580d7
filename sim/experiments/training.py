"""The training that a scenario asks for: its text, the name of its training, and the service that gives losses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.spec import DataSpec, Device, TrainingSpec, plain_routes
from models.training import NoTraining, Training
from sim.core.rng import derived_seed
from sim.scenario.loading import DATA, DEVICE, DataError
from sim.scenario.scenario import Scenario

if TYPE_CHECKING:
    from models.corpus import Corpus

CURVE_VOCABULARY = 256

FIELDS_OF_SOURCES = {"text": ("files",), "tokens": ("train_tokens",), "huggingface": ("dataset",)}
"""Where a scenario's `training.data` names what is read."""


class Texts:
    """The texts that scenarios learn, each read once. cache: folder of prepared texts; None keeps none."""

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


def on_this_machine(scenario: Scenario) -> Scenario:
    """The scenario with the device that its training has here in place of `auto`. DataError where there is none."""
    wanted = scenario.training.device
    if wanted == "cpu" or scenario.training.learner != "torch":
        device: Device = "cpu"
    else:
        from models.device import resolved_device

        try:
            device = resolved_device(wanted)
        except ValueError as error:
            raise DataError(str(error), DEVICE) from error
    if device == wanted:
        return scenario
    return scenario.model_copy(update={"training": scenario.training.model_copy(update={"device": device})})


def training_spec(scenario: Scenario, corpus: Corpus | None, training_seed: int) -> TrainingSpec:
    """The name of the training of a scenario's proxy model under a seed."""
    return scenario.training.spec(
        corpus=corpus.content_hash if corpus else "curve",
        vocabulary_size=corpus.vocabulary_size if corpus else CURVE_VOCABULARY,
        init_seed=derived_seed(training_seed, "training_init"),
        data_seed=derived_seed(training_seed, "training_data"),
        routes=plain_routes(scenario.workload.num_stages),
    )


def open_training(scenario: Scenario, corpus: Corpus | None, training_seed: int, cache: Path | None = None) -> Training:
    """The training of a scenario's proxy model under a seed. cache: None keeps training states in memory only."""
    scenario = on_this_machine(scenario)
    spec = training_spec(scenario, corpus, training_seed)
    if corpus is None:
        return training_without_text(scenario.training.learner, spec, scenario.iterations_per_step)
    from models.trajectory import Trajectory
    from models.trajectory_store import TrajectoryStore

    store = TrajectoryStore(cache) if cache else None
    return Trajectory(spec, corpus, store, scenario.iterations_per_step)


def training_without_text(learner: str, spec: TrainingSpec, iterations_per_step: int) -> Training:
    """The training of a learner that reads no text."""
    if learner == "none":
        return NoTraining(spec, iterations_per_step)
    from models.curve import CurveTraining

    return CurveTraining(spec, iterations_per_step)


def default_cache() -> Path:
    """Folder of training states kept between runs: CHURNLAB_CACHE, else one in the user's cache folder."""
    named = os.environ.get("CHURNLAB_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "churnlab"
