"""The training that a scenario asks for: its text, the name of its training, and the service that gives losses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.spec import STEPS_WORTH_COMPILING, Compile, DataSpec, Device, TrainingSpec, plain_routes
from models.training import NoTraining, Training
from sim.core.files import user_cache
from sim.core.rng import derived_seed
from sim.scenario.loading import COMPILE, DATA, DEVICE, DataError
from sim.scenario.scenario import Scenario, TrainingConfig

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
    """The scenario with what its training has here in place of `auto`. DataError for what this machine cannot do."""
    device = device_here(scenario)
    num_threads = scenario.training.num_threads
    found = {"device": device, "num_threads": 1 if num_threads == "auto" else num_threads}  # a worker on each core
    on_device = scenario.training.model_copy(update=found)
    training = on_device.model_copy(update={"compile": compile_here(on_device)})
    return scenario if training == scenario.training else scenario.model_copy(update={"training": training})


def device_here(scenario: Scenario) -> Device:
    """The device of the training on this machine."""
    wanted = scenario.training.device
    if wanted == "cpu" or scenario.training.learner != "torch":
        return "cpu"
    from models.device import resolved_device

    try:
        return resolved_device(wanted)
    except ValueError as error:
        raise DataError(str(error), DEVICE) from error


def compile_here(training: TrainingConfig) -> Compile:
    """Whether steps are compiled on this machine; auto: where that pays, whatever else is trained beside.

    It depends on the scenario and the machine alone, so that a resumed or extended sweep decides as it began.
    """
    is_worth_it = training.steps >= STEPS_WORTH_COMPILING
    if training.compile == "off" or training.learner != "torch" or (training.compile == "auto" and not is_worth_it):
        return "off"
    if training.is_stacked:
        if training.compile == "auto":
            return "off"
        message = "found 'on', but only single replicates on the CPU in fp32 are compiled; allowed: 'off', 'auto'"
        raise DataError(message, COMPILE)
    from models.compiled import compiler_name

    try:
        compiler_name()
    except ValueError as error:
        if training.compile == "auto":
            return "off"
        raise DataError(
            f"found 'on', but {error}: install one, such as g++; allowed: 'off', 'auto'", COMPILE
        ) from error
    return "on"


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

    if cache:
        keep_compiled_code(scenario, cache)
    store = TrajectoryStore(cache) if cache else None
    return Trajectory(spec, corpus, store, scenario.iterations_per_step)


def training_without_text(learner: str, spec: TrainingSpec, iterations_per_step: int) -> Training:
    """The training of a learner that reads no text."""
    if learner == "none":
        return NoTraining(spec, iterations_per_step)
    from models.curve import CurveTraining

    return CurveTraining(spec, iterations_per_step)


def keep_compiled_code(scenario: Scenario, cache: Path) -> None:
    """Keep compiled code of a scenario's training in a folder of a cache, for this process and its workers."""
    if scenario.training.compile != "off":
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache.resolve() / "compiled")


def default_cache() -> Path:
    """Folder of training states kept between runs: CHURNLAB_CACHE, else one in the user's cache folder."""
    if named := os.environ.get("CHURNLAB_CACHE"):
        return Path(named)
    if (folder := user_cache()) is None:
        raise ValueError(
            "there is no home folder for the cache of training states: name a folder with --cache, or use --no-cache"
        )
    return folder / "churnlab"
