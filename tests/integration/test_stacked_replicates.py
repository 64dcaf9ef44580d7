"""Replicates stacked along a leading axis (benchmarks/stacked_replicates.py) learn what the trainer learns.

Failure-free training only: edits are out of its scope.
"""

import pytest
import torch

from benchmarks.stacked_replicates import TOLERANCE, StackedTrainer
from models.spec import ModelSpec, OptimizerSpec, TrainingSpec, plain_routes, swapped_routes
from models.trainer import Trainer
from support.trainings import a_corpus, spec_for

NUM_STEPS = 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return a_corpus(tmp_path_factory.mktemp("text"))


def specs_for(corpus, family="llama", routes=None, **optimizer) -> list[TrainingSpec]:
    common = spec_for(
        corpus,
        model=ModelSpec(family=family, dim=16, num_heads=2, num_stages=4),
        optimizer=OptimizerSpec(learning_rate=0.01, **optimizer),
        num_validation_sequences=4,
        routes=routes or plain_routes(4),
    )
    return [common.model_copy(update={"init_seed": seed, "data_seed": seed + 10}) for seed in range(3)]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    ("family", "routes", "optimizer"),
    [
        ("llama", None, {"clip_norm": 0.05, "warmup_steps": 4}),
        ("llama", swapped_routes(4), {"clip_norm": 0.5, "beta2": 0.95}),
        ("gpt", None, {"clip_norm": None, "decay": "cosine", "decay_steps": 8}),
    ],
)
def test_stacked_replicates_have_the_losses_of_one_after_another(corpus, family, routes, optimizer):
    specs = specs_for(corpus, family, routes, **optimizer)
    stacked = StackedTrainer(specs, corpus, torch.device("cpu"))
    together = [stacked.train_step() for _ in range(NUM_STEPS)]
    for number, spec in enumerate(specs):
        trainer = Trainer(spec, corpus)
        alone = [trainer.train_step().train_loss for _ in range(NUM_STEPS)]
        assert [losses[number] for losses in together] == pytest.approx(alone, rel=TOLERANCE)
        assert alone[-1] < alone[0] - 0.1, "it has learnt something"
    assert len(set(together[0])) == 3


def test_replicates_of_different_recipes_do_not_stack(corpus):
    specs = [*specs_for(corpus), *specs_for(corpus, clip_norm=0.3)]
    with pytest.raises(ValueError, match="only in init_seed"):
        StackedTrainer(specs, corpus, torch.device("cpu"))
