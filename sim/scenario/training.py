"""The `training:` section of a scenario: the proxy model that is trained, and for how long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.spec import Config, DataSpec, ModelSpec, OptimizerSpec, Routes, TrainingSpec


class EvaluationConfig(Config):
    """How often, and on how many held-out sequences, the validation loss is measured."""

    interval_steps: int = Field(25, ge=1, le=10**9, description="steps between two validations")
    num_sequences: int = Field(64, ge=1, le=10**6, description="held-out sequences per validation")


class TrainingConfig(Config):
    """The `training:` section of a scenario: the small proxy model that is trained, and for how long."""

    learner: Literal["torch", "curve", "none"] = Field(
        "torch",
        description="torch: train the model; curve: a parametric loss curve, for dry runs; none: time only",
    )
    model: ModelSpec = Field(default_factory=ModelSpec, description="the proxy model")
    data: DataSpec = Field(default_factory=DataSpec, description="the text it learns")
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec, description="how it learns")
    sequences_per_batch: int = Field(16, ge=1, le=10**6, description="sequences in a batch (one step)")
    num_microbatches: int = Field(4, ge=1, le=10**6, description="microbatches in a batch; each takes one route")
    sequence_length: int = Field(64, ge=2, le=10**6, description="tokens in a sequence")
    steps: int = Field(1000, ge=1, le=10**9, description="steps to train")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="validation")
    target_validation_loss: float | None = Field(
        None, gt=0, description="time and iterations until the validation loss is first this low are reported"
    )
    num_threads: int = Field(1, ge=1, le=64, description="threads of the training; part of what decides the bits")

    def spec(self, corpus: str, vocabulary_size: int, init_seed: int, data_seed: int, routes: Routes) -> TrainingSpec:
        """The specification of this training. Its states do not depend on `steps` and the evaluation interval."""
        optimizer = self.optimizer
        if optimizer.decay == "cosine" and optimizer.decay_steps is None:
            optimizer = optimizer.model_copy(update={"decay_steps": self.steps})
        return TrainingSpec(
            model=self.model,
            optimizer=optimizer,
            corpus=corpus,
            vocabulary_size=vocabulary_size,
            sequences_per_batch=self.sequences_per_batch,
            num_microbatches=self.num_microbatches,
            sequence_length=self.sequence_length,
            num_validation_sequences=self.evaluation.num_sequences,
            init_seed=init_seed,
            data_seed=data_seed,
            num_threads=self.num_threads,
            routes=routes,
        )
