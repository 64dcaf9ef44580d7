"""Training of one segment of a line, in any process: a pure function of the segment and the states it starts from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from safetensors.torch import load, save

from models.corpus import Corpus
from models.spec import TrainingSpec
from models.trainer import Trainer
from models.training_plan import Segment
from models.training_state import DivergedError, Position, older_states
from models.trajectory import environment_key
from models.trajectory_store import LineResults

NUM_STEPS_TIMED = 8


@dataclass
class TrainedSegment:
    """Results of a segment by step and the state at its end; if training diverged, None, and `divergence` says why.

    invalid: messages of states whose validation loss is not finite, by step.
    """

    results: LineResults = field(default_factory=LineResults)
    state: bytes | None = None
    invalid: dict[int, str] = field(default_factory=dict)
    divergence: str | None = None


def train_segment(
    segment: Segment, corpus: Corpus, start: bytes | None, older: Mapping[Position, bytes], environment: str
) -> TrainedSegment:
    """Train a segment from the state at `segment.start` (None: the initial one) and the older states of its edits.

    environment: `environment_key` of the store that the results are for; RuntimeError if this process has another.
    """
    if (here := environment_key()) != environment:
        raise RuntimeError(f"this worker would compute other bits: it has {here}, the sweep {environment}")
    done = TrainedSegment()
    trainer = Trainer(segment.lineage.spec, corpus)
    if start is not None:
        trainer.restore(load(start))
    for lineage in segment.entered:
        states = {moment: load(older[state]) for moment, state in older_states(lineage).items()}
        trainer.apply(lineage.edits[-1][1], states)
    validate(trainer, segment, done)
    try:
        while trainer.step < segment.last_step:
            result = trainer.train_step()
            done.results.steps[trainer.step] = result
            validate(trainer, segment, done)
    except DivergedError as error:
        done.divergence = str(error)
        return done
    done.state = save(trainer.snapshot())
    return done


def validate(trainer: Trainer, segment: Segment, done: TrainedSegment) -> None:
    """Validate the current state if the segment requires it."""
    if trainer.step in segment.validations:
        try:
            done.results.validations[trainer.step] = trainer.validation_loss()
        except DivergedError as error:
            done.invalid[trainer.step] = str(error)


def measure_step_seconds(spec: TrainingSpec, corpus: Corpus) -> float:
    """Median seconds of a training step on this machine, for estimates."""
    trainer = Trainer(spec, corpus)
    seconds = []
    for _ in range(NUM_STEPS_TIMED):
        began = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[len(seconds) // 2 :])
