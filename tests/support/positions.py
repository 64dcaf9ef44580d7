"""Positions and edits without a corpus: names of training states for tests of their arithmetic."""

from models.spec import ModelSpec, OptimizerSpec, TrainingSpec, plain_routes
from models.training_state import Edit, GradientNormWeights, Moment, Position, Term, root

AVERAGE = Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1)


COPY = Edit(1, "copy", (2,), optimizer="average", learning_rate_factor=1.2, learning_rate_half_life_steps=5.0)


FRESH = Edit(4, "fresh")


def stale(stage: int, moment: Moment) -> Edit:
    return Edit(stage, "sum", terms=(Term(stage, 1.0, moment),), optimizer="older")


def start(iterations_per_step: int = 1, **changes) -> Position:
    values = {
        "model": ModelSpec(),
        "optimizer": OptimizerSpec(),
        "corpus": "c",
        "vocabulary_size": 256,
        "sequences_per_batch": 4,
        "num_microbatches": 4,
        "sequence_length": 16,
        "num_validation_sequences": 8,
        "init_seed": 1,
        "data_seed": 2,
        "routes": plain_routes(6),
    }
    return root(TrainingSpec(**{**values, **changes}), iterations_per_step)
