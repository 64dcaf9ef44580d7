"""Training of one segment of a line, in any process: a pure function of the segment and the states it starts from."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors.torch import load, save

from models.corpus import Corpus
from models.device import device_name
from models.entries import make_last_entry
from models.spec import TrainingSpec
from models.stacked import divergence_at, is_finite, open_trainer, stack_of
from models.trainer import StepResult, Trainer, divergence
from models.training_plan import Segment
from models.training_state import DivergedError, Position
from models.trajectory import environment_of
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


SegmentWithStates = tuple[Segment, bytes | None, Mapping[Position, bytes]]
"""A segment, the state at its start (None: the initial one) and the states that its entries refer to."""


def train_segments(segments: Sequence[SegmentWithStates], corpus: Corpus, environment: str) -> list[TrainedSegment]:
    """Train segments of one spec and recipe, together where they are stacked; seeds, steps and edits may differ.

    environment: `environment_of` the spec where the store is; RuntimeError if this process has another. MemoryError
    where a stack does not fit on its device.
    """
    spec = segments[0][0].lineage.spec
    if (here := environment_of(spec)) != environment:
        raise RuntimeError(f"this worker would compute other bits: it has {here}, the sweep {environment}")
    if not spec.is_stacked:
        return [train_alone(*one, corpus) for one in segments]
    try:
        return train_stack(segments, corpus)
    except torch.OutOfMemoryError as error:
        stack = f"a stack of {spec.replicates_at_once} on {device_name(spec.device)}"
        raise MemoryError(f"no memory for {stack}: lower training.replicates_at_once ({error})") from error


def train_alone(
    segment: Segment, start: bytes | None, used: Mapping[Position, bytes], corpus: Corpus
) -> TrainedSegment:
    """Train a segment from the state at `segment.start` and the states that its entries refer to."""
    done = TrainedSegment()
    trainer = entered(segment, corpus, start, used)
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


def entered(segment: Segment, corpus: Corpus, start: bytes | None, used: Mapping[Position, bytes]) -> Trainer:
    """The state at the beginning of a segment, after its entries, with its recipe in force."""
    trainer = Trainer(segment.lineage.spec, corpus)
    if start is not None:
        trainer.restore(load(start))
    states = {state: load(used[state]) for state in segment.used}
    for lineage in segment.entered:
        make_last_entry(trainer, lineage, states)
    trainer.enter(segment.lineage.recipe)
    return trainer


def train_stack(segments: Sequence[SegmentWithStates], corpus: Corpus) -> list[TrainedSegment]:
    """Train segments of one spec and recipe together, each as `train_alone` does up to rounding."""
    specs = [segment.lineage.spec for segment, _, _ in segments]
    stack = stack_of(specs[0].without_seeds, corpus)
    states = [  # most begin with a stored state
        entered(segment, corpus, start, used).snapshot() if segment.entered or start is None else load(start)
        for segment, start, used in segments
    ]
    stack.load(list(zip(specs, states, strict=True)))
    recipes = {segment.lineage.recipe for segment, _, _ in segments}
    if len(recipes) > 1:
        raise ValueError(f"a stack trains by one recipe, found {len(recipes)}")
    stack.enter(recipes.pop())
    training = [StackedSegment(segment, TrainedSegment()) for segment, _, _ in segments]
    for num_steps in range(max(segment.num_steps for segment, _, _ in segments) + 1):
        if num_steps:
            stack.train_step()
        ending = [one.segment.num_steps == num_steps for one in training]
        validating = [one.segment.first_step + num_steps in one.segment.validations for one in training]
        if not any(ending) and not any(validating):
            continue
        for one, results in zip(training, stack.collect(), strict=True):
            one.add(results)
        losses = stack.validation_losses() if any(validating) else []
        for one, loss in zip(training, losses, strict=False):
            one.validate(num_steps, loss)
        for slot, one in enumerate(training):
            if ending[slot] and one.done.divergence is None:
                one.done.state = save(stack.snapshot(slot))
    return [one.done for one in training]


@dataclass
class StackedSegment:
    """A segment in a stack, and its results so far; other segments may be longer."""

    segment: Segment
    done: TrainedSegment

    def add(self, results: Sequence[StepResult]) -> None:
        """Add results of further steps, up to the end of the segment or its divergence."""
        for result in results:
            step = self.segment.first_step + len(self.done.results.steps) + 1
            if step > self.segment.last_step or self.done.divergence is not None:
                return
            if is_finite(result):
                self.done.results.steps[step] = result
            else:
                self.done.divergence = str(divergence_at(step, result))

    def validate(self, num_steps: int, loss: float) -> None:
        """Add a validation loss after a number of steps, if it is due."""
        step = self.segment.first_step + num_steps
        if step not in self.segment.validations or len(self.done.results.steps) != num_steps:
            return
        if math.isfinite(loss):
            self.done.results.validations[step] = loss
        else:
            self.done.invalid[step] = str(divergence(step + 1, "validation loss", loss))


def validate(trainer: Trainer, segment: Segment, done: TrainedSegment) -> None:
    """Validate the current state if the segment requires it."""
    if trainer.step in segment.validations:
        try:
            done.results.validations[trainer.step] = trainer.validation_loss()
        except DivergedError as error:
            done.invalid[trainer.step] = str(error)


def measure_step_seconds(spec: TrainingSpec, corpus: Corpus) -> float:
    """Median seconds of a training step on this machine, for estimates; uncompiled, since compiling takes a minute."""
    trainer = open_trainer(spec.model_copy(update={"compile": "off"}), corpus)
    seconds = []
    for _ in range(NUM_STEPS_TIMED):
        began = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[len(seconds) // 2 :])


def measure_threads(spec: TrainingSpec, numbers: Sequence[int]) -> dict[int, float]:
    """Median seconds of a step on random text by number of threads, in turn, so that load affects all alike."""
    num_tokens = max(spec.num_validation_sequences + spec.sequence_length, 4 * spec.sequence_length) + 1
    tokens = np.random.default_rng(0).integers(spec.vocabulary_size, size=num_tokens).astype("<u2")
    corpus = Corpus(tokens, tokens, spec.vocabulary_size, "none", "random tokens")
    trainers = {number: Trainer(spec.model_copy(update={"num_threads": number}), corpus) for number in numbers}
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    before = torch.get_num_threads()
    for _ in range(NUM_STEPS_TIMED):
        for number, trainer in trainers.items():
            torch.set_num_threads(number)
            trainer.train_step()  # the first one after a change starts threads
            began = time.perf_counter()
            trainer.train_step()
            seconds[number].append(time.perf_counter() - began)
    torch.set_num_threads(before)
    return {number: statistics.median(values) for number, values in seconds.items()}
