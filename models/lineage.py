"""Names of training states: a `Position` is *which* weights, never the weights themselves.

A Position is a training recipe (`TrainingSpec`), the edits made to the weights so far (a stage
rebuilt from its neighbours, say), and how far training has gone. Strategies of the simulated world
return Positions; only the trajectory service (`models/trajectory.py`) turns one into a loss. Equal
Positions are equal training states, to the bit, so that two runs which share a Position share the work
of reaching it. This module loads no torch: the event loop works with names alone.

Life of a Position: `root(spec)` → `.after(iteration)` as iterations complete → `.edited(edit)` when a
stage is rebuilt → and, on a rollback, simply an older Position again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

EMBEDDING_STAGE = 0
"""Stage 0 holds the embedding E, the final norm and the de-embedding E⁻¹; stages 1..s hold the layers."""

Routes = tuple[tuple[int, ...], ...]
"""Orders in which a microbatch visits the layer stages 1..s; microbatch j takes `routes[j % len(routes)]`."""


class Config(BaseModel):
    """A frozen, strict piece of configuration: unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSpec(Config):
    """The proxy model that is really trained."""

    family: Literal["llama", "gpt"] = Field(
        "llama", description="llama: RMSNorm, RoPE, SwiGLU; gpt: LayerNorm, learnt positions, GELU"
    )
    dim: int = Field(64, ge=2, le=10**6, description="width of the residual stream")
    num_heads: int = Field(4, ge=1, le=10**6, description="attention heads; must divide dim")
    num_stages: int = Field(6, ge=2, le=1000, description="layer stages; must equal the workload's")
    layers_per_stage: int = Field(1, ge=1, le=1000, description="residual layers in each stage")
    hidden_dim: int | None = Field(
        None, ge=1, le=10**7, description="feed-forward width; default 8/3 dim (llama), 4 dim (gpt)"
    )


class DataSpec(Config):
    """The text that the proxy learns.

    stdlib: the sources of the running Python's standard library (nothing to download); text: the user's
    files by glob; tokens: flat uint16 files as nanoGPT writes them; huggingface: a dataset by name, streamed
    (needs the extra `churnlab[hf]`). Relative paths start at the scenario file's folder.
    """

    source: Literal["stdlib", "text", "tokens", "huggingface"] = Field("stdlib", description="where the text is from")
    files: tuple[str, ...] = Field((), description="text: globs of the files to learn")
    train_tokens: str | None = Field(None, description="tokens: the training file (.bin, uint16)")
    validation_tokens: str | None = Field(None, description="tokens: the validation file (.bin, uint16)")
    dataset: str | None = Field(None, description="huggingface: name, or folder of a local dataset")
    dataset_config: str | None = Field(None, description="huggingface: configuration of the dataset")
    dataset_split: str = Field("train", description="huggingface: split to stream")
    text_field: str = Field("text", description="huggingface: field that holds the text")
    max_documents: int = Field(10_000, ge=2, le=10**9, description="huggingface: documents to take from the stream")
    tokenizer: Literal["bytes", "bpe"] = Field("bytes", description="bytes, or byte-pair encoding trained on the text")
    vocabulary_size: int = Field(
        512, ge=257, le=65_536, description="bpe: size to train; tokens: size of the files' vocabulary"
    )
    validation_fraction: float = Field(
        0.05, gt=0, lt=1, description="share of the documents held out, chosen by a hash of their names"
    )


class OptimizerSpec(Config):
    """Adam with a learning-rate schedule and a gradient clip, both applied stage by stage as in the paper."""

    kind: Literal["adam"] = Field("adam", description="the optimizer")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the second moment")
    epsilon: float = Field(1e-8, gt=0, description="Adam's denominator term")
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm of one stage; null: no clip")
    warmup_steps: int = Field(0, ge=0, le=10**9, description="linear warm-up of the learning rate")
    decay: Literal["constant", "cosine"] = Field("constant", description="shape after the warm-up")
    decay_steps: int | None = Field(
        None, ge=1, le=10**9, description="step at which the cosine ends; default training.steps"
    )
    final_fraction: float = Field(0.1, ge=0, le=1, description="learning rate after the cosine, as a share of the peak")


class TrainingSpec(Config):
    """Everything that decides the weights at every step: the name of a failure-free training run.

    `corpus` is the content hash of the token streams, so that paths and machines do not matter.
    What a machine adds (torch version, CPU family, this code) is `models.trajectory.environment_key`.
    """

    model: ModelSpec
    optimizer: OptimizerSpec
    corpus: str
    vocabulary_size: int
    sequences_per_batch: int
    num_microbatches: int
    sequence_length: int
    num_validation_sequences: int
    init_seed: int
    data_seed: int
    num_threads: int = 1
    routes: Routes


class GradientNormWeights(Config):
    """Weights of a neighbour average: w_k = (‖g_k‖ [after clipping])^exponent + epsilon.

    CheckFree's text: exponent 2, before clipping, epsilon 0. `exponent=0` is the uniform average.
    """

    exponent: float = Field(2.0, ge=0, description="power of the stage's last gradient norm")
    after_clip: bool = Field(False, description="take the norm after the per-stage clip, as the released code does")
    epsilon: float = Field(0.0, ge=0, description="added to each weight")


@dataclass(frozen=True)
class Edit:
    """A stage rebuilt: what its weights, its optimizer state and its learning rate become.

    rule: `average` of `sources` weighted by `weights`; `copy` of the one source; `fresh`, drawn anew as at
    the start but from another random stream.
    optimizer: `fresh` loses Adam's moments and step count; `average` combines the sources' moments as the
    weights are combined.
    The stage then learns at `learning_rate_factor` × the schedule; the excess over 1 halves every
    `learning_rate_half_life_steps` (None: kept until the stage's next edit).
    """

    stage: int
    rule: Literal["average", "copy", "fresh"]
    sources: tuple[int, ...] = ()
    weights: GradientNormWeights | None = None
    optimizer: Literal["fresh", "average"] = "fresh"
    learning_rate_factor: float = 1.0
    learning_rate_half_life_steps: float | None = None

    def __post_init__(self) -> None:
        """Hold the rule and its sources together."""
        num_sources = {"copy": 1, "fresh": 0}.get(self.rule, len(self.sources))
        if len(self.sources) != num_sources or (self.rule == "average" and not self.sources):
            raise ValueError(f"edit of stage {self.stage}: rule '{self.rule}' does not fit sources {self.sources}")
        if (self.rule == "average") != (self.weights is not None):
            raise ValueError(f"edit of stage {self.stage}: weights go with rule 'average' and only with it")
        if self.stage in self.sources:
            raise ValueError(f"edit of stage {self.stage}: a lost stage cannot be its own source")

    def as_text(self) -> str:
        """A stable text of this edit, for hashing and for logs."""
        weights = self.weights.model_dump_json() if self.weights else "-"
        return (
            f"{self.stage}:{self.rule}:{self.sources}:{weights}:{self.optimizer}"
            f":{self.learning_rate_factor!r}:{self.learning_rate_half_life_steps!r}"
        )


class DivergedError(ValueError):
    """A loss or a gradient is no longer finite."""


def digest(text: str) -> str:
    """The first 32 hex digits of the SHA-256 of a text: the project's one way of naming content."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key_after(key: str, step: int, edit: Edit) -> str:
    """The key of a lineage with one more edit than the one of the given key."""
    return digest(f"{key}|{step}@{edit.as_text()}")


@dataclass(frozen=True, eq=False)
class Lineage:
    """A recipe and the edits made on the way: a line of training states, one for each step.

    Two lineages are equal when their keys are: the key is a hash of all that they hold.

    `edits` are (step, edit) pairs in the order they were made; an edit at step n changes the state that n
    updates have led to.
    """

    spec: TrainingSpec
    edits: tuple[tuple[int, Edit], ...] = ()
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Name the lineage by its content: the recipe, and edit after edit on what it is made to."""
        if self.key:
            return
        key = digest(self.spec.model_dump_json())
        for step, edit in self.edits:
            key = key_after(key, step, edit)
        object.__setattr__(self, "key", key)

    def edited(self, step: int, edit: Edit) -> Lineage:
        """This lineage with one more edit."""
        return Lineage(self.spec, (*self.edits, (step, edit)), key_after(self.key, step, edit))

    def __eq__(self, other: object) -> bool:
        """Equal content."""
        return isinstance(other, Lineage) and self.key == other.key

    def __hash__(self) -> int:
        """Consistent with equality."""
        return hash(self.key)

    @property
    def first_step(self) -> int:
        """The step of the last edit: at and after it, this lineage differs from its parent."""
        return self.edits[-1][0] if self.edits else 0

    def parent(self) -> Lineage | None:
        """The lineage without its last edit, or None at the root."""
        return Lineage(self.spec, self.edits[:-1]) if self.edits else None


@dataclass(frozen=True)
class Position:
    """The name of one training state, reached after `iteration` iterations of the target model.

    One step of the proxy stands for `iterations_per_step` iterations of the target, so the weights are
    those after `step = iteration // iterations_per_step` updates.
    """

    lineage: Lineage
    iteration: int = 0
    iterations_per_step: int = 1

    @property
    def step(self) -> int:
        """Updates made to the proxy's weights so far."""
        return self.iteration // self.iterations_per_step

    def after(self, iteration: int) -> Position:
        """The state of this lineage after `iteration` iterations (not before the last edit)."""
        moved = replace(self, iteration=iteration)
        if moved.step < self.lineage.first_step:
            raise ValueError(
                f"iteration {iteration} lies before the last edit of this lineage "
                f"(step {self.lineage.first_step}): to roll back, keep the older Position"
            )
        return moved

    def edited(self, *edits: Edit) -> Position:
        """This state with stages rebuilt, one edit after the other."""
        lineage = self.lineage
        for edit in edits:
            lineage = lineage.edited(self.step, edit)
        return replace(self, lineage=lineage)


def root(spec: TrainingSpec, iterations_per_step: int = 1) -> Position:
    """The freshly initialised model of `spec`."""
    return Position(Lineage(spec), 0, iterations_per_step)


def plain_routes(num_stages: int) -> Routes:
    """Every microbatch visits S1, S2 … Ss in order."""
    return (tuple(range(1, num_stages + 1)),)


def swapped_routes(num_stages: int) -> Routes:
    """CheckFree+: every other microbatch visits S2, S1, S3 … S(s-2), Ss, S(s-1).

    Raises ValueError below four stages, where the two swapped pairs would overlap.
    """
    if num_stages < 4:
        raise ValueError(f"swapping the first two and the last two stages needs at least 4 stages, found {num_stages}")
    straight = tuple(range(1, num_stages + 1))
    swapped = (2, 1, *straight[2:-2], num_stages, num_stages - 1)
    return (straight, swapped)
