"""Consistency checks of the `training:` section alone: its text, its target and its optimizer."""

from __future__ import annotations

import math

from models.spec import LARGEST_OF_2_BYTES, DataSpec
from sim.scenario.checks import Findings, check
from sim.scenario.scenario import AUTO_TARGET_SHARE, Scenario


@check("training.data.source")
def data_options_fit_the_source(scenario: Scenario) -> Findings:
    """Fields of the data go with its source."""
    data, fields = scenario.training.data, DataSpec.model_fields
    own = {
        "text": ("files",),
        "tokens": ("train_tokens", "validation_tokens", "token_bytes"),
        "huggingface": ("dataset", "dataset_config", "dataset_split", "text_field", "max_documents"),
    }
    for source, (required, *others) in own.items():
        if data.source == source and not getattr(data, required):
            what = str(fields[required].description).removeprefix(f"{source}: ")
            yield f"training.data.{required}", f"source '{source}' needs this key: {what}"
        for field in (required, *others):
            if data.source != source and getattr(data, field) != fields[field].default:
                yield f"training.data.{field}", f"'{field}' goes with source '{source}', found source '{data.source}'"
    if data.source == "tokens" and data.tokenizer != "bytes":
        yield "training.data.tokenizer", f"tokens are encoded already: leave out tokenizer '{data.tokenizer}'"
    if data.vocabulary_size > LARGEST_OF_2_BYTES and (data.source, data.token_bytes) != ("tokens", 4):
        allowed = f"at most {LARGEST_OF_2_BYTES:,}, or source 'tokens' with token_bytes 4"
        yield "training.data.vocabulary_size", f"found {data.vocabulary_size:,}; allowed: {allowed}"


@check("training.target_validation_loss", "training.steps", "training.evaluation.interval_steps")
def auto_targets_are_validated(scenario: Scenario) -> Findings:
    """The loss that `auto` stands for is measured."""
    training, interval_steps = scenario.training, scenario.training.evaluation.interval_steps
    if training.target_validation_loss == "auto" and not training.auto_target_step:
        field, fewest = "training.target_validation_loss", math.ceil(interval_steps / AUTO_TARGET_SHARE)
        yield (
            field,
            (
                f"auto is the loss without failures after 5/12 of the steps, and in {training.steps} steps none is "
                f"measured by then: at least {fewest} training.steps, or a smaller training.evaluation.interval_steps "
                f"({interval_steps})"
            ),
        )


@check("training.optimizer.warmup_steps", "training.steps")
def warmup_ends_before_the_training(scenario: Scenario) -> Findings:
    """The warm-up ends before the training does."""
    warmup, steps = scenario.training.optimizer.warmup_steps, scenario.training.steps
    if warmup >= steps:
        message = f"{warmup} warm-up steps leave none of the {steps} steps; allowed: at most {steps - 1}"
        yield "training.optimizer.warmup_steps", message


@check("training.optimizer")
def cosine_ends_after_the_warmup(scenario: Scenario) -> Findings:
    """`decay_steps` goes with a cosine decay, which ends after the warm-up."""
    optimizer, field = scenario.training.optimizer, "training.optimizer.decay_steps"
    if optimizer.decay_steps is None:
        return
    if optimizer.decay == "constant":
        yield field, "'decay_steps' goes with decay 'cosine', found decay 'constant'"
    elif optimizer.decay_steps <= optimizer.warmup_steps:
        yield field, f"found {optimizer.decay_steps}; allowed: above warmup_steps, {optimizer.warmup_steps}"
