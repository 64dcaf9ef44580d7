"""Training cut into pieces that any process can do: a stretch of one line, from a state to a later one.

A piece is a pure function of its description and of the states it starts from, which come as bytes: who does it, and
where, moves no bit. Whoever hands pieces out (`sim.experiments.scheduler`) keeps what comes back.
"""

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
from models.trajectory_store import Stretch

NUM_STEPS_TIMED = 8


@dataclass
class TrainedSegment:
    """What a piece gave: results by step, and the state at its end.

    invalid: what there is to say of states whose validation loss is not finite, by step. dead_end: of the step that
    could not be made; there is no state then, and the results are those before it.
    """

    stretch: Stretch = field(default_factory=Stretch)
    state: bytes | None = None
    invalid: dict[int, str] = field(default_factory=dict)
    dead_end: str | None = None


def train_piece(
    piece: Segment, corpus: Corpus, start: bytes | None, older: Mapping[Position, bytes], environment: str
) -> TrainedSegment:
    """Train a piece.

    start: the state of `piece.start`, None where that is None. older: the states of `piece.older`. environment: what
    decides the last bits where the results are to go; RuntimeError if this process computes otherwise.
    """
    if (here := environment_key()) != environment:
        raise RuntimeError(f"this worker would compute other bits: it has {here}, the sweep {environment}")
    done = TrainedSegment()
    trainer = Trainer(piece.lineage.spec, corpus)
    if start is not None:
        trainer.restore(load(start))
    for lineage in piece.entered:
        states = {moment: load(older[state]) for moment, state in older_states(lineage).items()}
        trainer.apply(lineage.edits[-1][1], states)
    validate(trainer, piece, done)
    try:
        while trainer.step < piece.last_step:
            result = trainer.train_step()
            done.stretch.steps[trainer.step] = result
            validate(trainer, piece, done)
    except DivergedError as error:
        done.dead_end = str(error)
        return done
    done.state = save(trainer.snapshot())
    return done


def validate(trainer: Trainer, piece: Segment, done: TrainedSegment) -> None:
    """Validate the present state, where the piece asks for it."""
    if trainer.step in piece.validations:
        try:
            done.stretch.validations[trainer.step] = trainer.validation_loss()
        except DivergedError as error:
            done.invalid[trainer.step] = str(error)


def seconds_of_a_step(spec: TrainingSpec, corpus: Corpus) -> float:
    """Real seconds that a step takes here now, of a few: for estimates."""
    trainer = Trainer(spec, corpus)
    seconds = []
    for _ in range(NUM_STEPS_TIMED):
        began = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[len(seconds) // 2 :])
