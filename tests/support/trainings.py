"""A tiny text and training spec, edits and recipes, and sequences of steps, entries and rollbacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from models.corpus import Corpus, load_corpus
from models.recipe import PLAIN, REST, ApproximateBackward, Recipe
from models.spec import DataSpec, ModelSpec, OptimizerSpec, TrainingSpec, plain_routes
from models.trainer import State, StepResult, Trainer
from models.training_state import Edit, GradientNormWeights, Merge, Moment, Position, Term, root

NUM_STAGES = 4
AVERAGE_2 = Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1)
AVERAGE_3 = Edit(3, "average", (2, 4), GradientNormWeights(exponent=1.0, after_clip=True, epsilon=1e-4))
OWN_3 = Edit(3, "average", (2, 4), GradientNormWeights(exponent=1.0), gradient_norm="own")
COPY_1 = Edit(1, "copy", (2,), optimizer="average", learning_rate_factor=1.2, learning_rate_half_life_steps=5.0)
FRESH_4 = Edit(4, "fresh")
AROUND_3 = Recipe(routes=((1, 2, 4),))
RECIPES = [
    PLAIN,
    Recipe(rows=(0, 1, 3)),
    Recipe(rows=(2,), average_over="batch", rate_factor=0.5),
    AROUND_3,
    Recipe(rows=(0, 1, 2), routes=((1, 2, 4), (2, 3, 1, 4)), validate_on_routes=True),
    Recipe(rate_factor=2.0),
    Recipe(rows=(0, 1, 3), backward=(ApproximateBackward(2, rows=(0, 1), rank=3), ApproximateBackward(4))),
]
NO_TEXT = SimpleNamespace(content_hash="c", vocabulary_size=256)
"""In place of a corpus where only its name matters."""


def a_corpus(folder: Path) -> Corpus:
    """Some thousand bytes of text."""
    for number in range(8):
        text = "".join(f"line {i} of {number}: {i * number % 97} bottles\n" for i in range(300))
        (folder / f"{number}.txt").write_text(text)
    return load_corpus(DataSpec(source="text", files=("*.txt",)), folder, None)


def spec_for(corpus: Any, **changes: Any) -> TrainingSpec:
    """The spec of a fast training."""
    values = {
        "model": ModelSpec(dim=16, num_heads=2, num_stages=NUM_STAGES),
        "optimizer": OptimizerSpec(learning_rate=3e-3, clip_norm=0.5),
        "corpus": corpus.content_hash,
        "vocabulary_size": corpus.vocabulary_size,
        "sequences_per_batch": 4,
        "num_microbatches": 4,
        "sequence_length": 16,
        "num_validation_sequences": 8,
        "init_seed": 1,
        "data_seed": 2,
        "routes": plain_routes(NUM_STAGES),
    }
    return TrainingSpec(**{**values, **changes})


def start(iterations_per_step: int = 1, **changes: Any) -> Position:
    """The first Position of a training with the default model and optimizer in six stages, without a corpus."""
    defaults = {"model": ModelSpec(), "optimizer": OptimizerSpec(), "routes": plain_routes(6)}
    return root(spec_for(NO_TEXT, **{**defaults, **changes}), iterations_per_step)


def bits(trainer: Trainer) -> dict[str, bytes]:
    """Every bit of a state, by tensor."""
    return {name: tensor.numpy().tobytes() for name, tensor in trainer.snapshot().items()}


def as_of(stage: int, moment: Moment) -> Edit:
    """A stage as it was at a moment."""
    return Edit(stage, "sum", terms=(Term(stage, 1.0, moment),), optimizer="older")


def stale(stage: int, *older: Position) -> Edit:
    """A stage as it was: once, or the first Position's gains on the second's carried on."""
    if len(older) == 1:
        return as_of(stage, older[0].moment)
    newer, oldest = older
    terms = (Term(stage, 1.5, newer.moment), Term(stage, -0.5, oldest.moment))
    return Edit(stage, "sum", terms=terms, optimizer="average", learning_rate_factor=1.1)


def by_the_book(position: Position, corpus: Corpus) -> tuple[dict[str, bytes], list[StepResult]]:
    """A Position's bits and the steps of its line to it, by trainers that keep every state on their ways."""
    trainer, results, _ = Book(corpus).read(position)
    return bits(trainer), results


class Book:
    """Reference for any Position: a line is trained from step 0 to its end, after the lines that it merges."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus, self.sources = corpus, dict[Position, State]()

    def read(self, position: Position) -> tuple[Trainer, list[StepResult], dict[Moment, State]]:
        """A trainer at a Position, the steps of its line, and every state on the way."""
        lineage = position.lineage
        trainer, states, results = Trainer(lineage.spec, self.corpus), dict[Moment, State](), list[StepResult]()
        for num_edits, (until, edit) in enumerate((*lineage.edits, (position.step, None))):
            states[Moment(num_edits, trainer.step)] = copied(trainer)
            while trainer.step < until:
                if trainer.recipe.is_rest:
                    trainer.rest_until(trainer.step + 1)
                else:
                    results.append(trainer.train_step())
                states[Moment(num_edits, trainer.step)] = copied(trainer)
            if isinstance(edit, Recipe):
                trainer.enter(edit)
            elif isinstance(edit, Merge):
                trainer.merge(edit, [self.source(source) for source in edit.sources])
            elif edit is not None:
                trainer.apply(edit, states)
        if trainer.recipe.is_rest:  # the one state of the line
            trainer.rest_until(lineage.first_step)
        return trainer, results, states

    def source(self, position: Position) -> State:
        """A state that a merge refers to."""
        if position not in self.sources:
            self.sources[position] = copied(self.read(position)[0])
        return self.sources[position]


def copied(trainer: Trainer) -> State:
    """The state of a trainer, which later steps do not change."""
    return {name: tensor.clone() for name, tensor in trainer.snapshot().items()}


MOVES = st.one_of(
    st.tuples(st.just("train"), st.integers(1, 4), st.just(0)),
    st.tuples(
        st.just("edit"),
        st.sampled_from([AVERAGE_2, AVERAGE_3, OWN_3, COPY_1, FRESH_4, replace(FRESH_4, stage=0)]),
        st.just(0),
    ),
    st.tuples(st.just("enter"), st.sampled_from(RECIPES), st.just(0)),
    st.tuples(st.just("go_back"), st.integers(0, NUM_STAGES), st.integers(0, 99)),
    st.tuples(st.just("extrapolate"), st.integers(0, NUM_STAGES), st.integers(0, 99)),
    st.tuples(st.just("mix"), st.sampled_from([2, 3]), st.integers(0, 99)),
    st.tuples(st.just("roll_back"), st.integers(0, 99), st.just(0)),
    st.tuples(st.just("enter"), st.just(REST), st.just(0)),
    st.tuples(
        st.just("merge"),
        st.fixed_dictionaries(
            {
                "rate": st.sampled_from([1.0, 0.7]),
                "momentum": st.sampled_from([0.0, 0.9]),
                "stages": st.sampled_from([None, (0, 2)]),
                "shares": st.sampled_from([(), (3.0, 1.0)]),
            }
        ),
        st.integers(0, 99),
    ),
)


def travelled(first: Position, moves: list[tuple[str, Any, int]]) -> list[Position]:
    """The Positions that a simulation of these moves asks for."""
    asked = [first]
    for kind, what, which in moves:
        here = asked[-1]
        way = [older for older in asked if here.descends_from(older)]
        older, other = way[which % len(way)], way[which // 3 % len(way)]
        if kind == "train":
            asked += [here.after(here.step + number) for number in range(1, what + 1)]
        elif kind == "edit":
            asked.append(here.edited(what))
        elif kind == "enter":
            asked.append(here.entered(what))
        elif kind == "go_back":
            asked.append(here.edited(stale(what, older)))
        elif kind == "extrapolate":
            asked.append(here.edited(stale(what, older, other)))
        elif kind == "merge":
            before = [other for other in asked if other.step <= here.step]
            sources = before[which % len(before)], before[which // 3 % len(before)]
            asked.append(here.merged(Merge(sources, **what)))
        elif kind == "mix":
            terms = (Term(what - 1, 0.75), Term(what, 0.5, here.moment_of(older)), Term(what + 1, -0.25, other.moment))
            asked.append(here.edited(Edit(what, "sum", terms=terms, learning_rate_factor=1.2)))
        else:
            asked.append(asked[what % len(asked)])
    return asked
