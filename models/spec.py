"""Training spec: everything that determines a failure-free training run, as frozen configuration, without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

EMBEDDING_STAGE = 0
"""Stage 0 holds the embedding E, the final norm and the de-embedding E⁻¹; stages 1..s hold the layers."""

Routes = tuple[tuple[int, ...], ...]
"""Orders in which a microbatch visits the layer stages 1..s; microbatch j takes `routes[j % len(routes)]`."""


Device = Literal["cpu", "cuda", "mps"]
WantedDevice = Literal["cpu", "cuda", "mps", "auto"]
Precision = Literal["fp32", "bf16"]
Compile = Literal["off", "on"]
WantedCompile = Literal["auto", "off", "on"]

LARGEST_OF_2_BYTES = 2**16
"""Largest vocabulary whose token ids fit in 2 bytes."""

STEPS_WORTH_COMPILING = 10_000
"""Compiling a route takes some 35 s of CPU, and saves a fifth of a step of the quickstart's proxy, of some 15 ms."""

STACKED_MULTIPLE = 16
"""Sizes of stacked replicates are multiples of it: slots begin at equal alignments, so that all have the same bits."""

REPLICATES_ON_GPU = 8


class Config(BaseModel):
    """Frozen, strict configuration: unknown keys and wrong types are errors."""

    # A schema is built when it is first used: most commands use few of all strategies and failure processes.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class ModelSpec(Config):
    """The proxy model, which is trained."""

    family: Literal["llama", "gpt"] = Field(
        "llama", description="llama: RMSNorm, RoPE, SwiGLU; gpt: LayerNorm, learnt positions, GELU"
    )
    dim: int = Field(64, ge=2, le=10**6, description="width of the residual stream")
    num_heads: int = Field(4, ge=1, le=10**6, description="attention heads; must divide dim")
    num_stages: int = Field(6, ge=2, le=1000, description="layer stages; default: the workload's, which it must equal")
    layers_per_stage: int = Field(1, ge=1, le=1000, description="residual layers in each stage")
    hidden_dim: int | None = Field(
        None, ge=1, le=10**7, description="feed-forward width; default 8/3 dim (llama), 4 dim (gpt)"
    )

    @property
    def width_of_feed_forward(self) -> int:
        """`hidden_dim`, or its default."""
        if self.family == "gpt":
            return self.hidden_dim or 4 * self.dim
        return self.hidden_dim or -(-8 * self.dim // 3 // 16) * 16  # 8/3 of dim, rounded up to a multiple of 16


class DataSpec(Config):
    """The text that the proxy is trained on.

    stdlib: the sources of the running Python's standard library (nothing to download); text: the user's
    files by glob; tokens: flat files of uint16 as nanoGPT writes them, or of uint32; huggingface: a dataset
    by name, streamed (needs the extra `churnlab[hf]`). Relative paths start at the scenario file's folder.
    """

    source: Literal["stdlib", "text", "tokens", "huggingface"] = Field("stdlib", description="where the text is from")
    files: tuple[str, ...] = Field((), description="text: globs of the files to learn")
    train_tokens: str | None = Field(None, description="tokens: the training file (.bin, ids without a header)")
    validation_tokens: str | None = Field(None, description="tokens: the validation file (.bin, ids without a header)")
    token_bytes: Literal[2, 4] = Field(
        2, description="tokens: bytes of a token id in the files: 2 (uint16) or 4 (uint32)"
    )
    dataset: str | None = Field(None, description="huggingface: name, or folder of a local dataset")
    dataset_config: str | None = Field(None, description="huggingface: configuration of the dataset")
    dataset_split: str = Field("train", description="huggingface: split to stream")
    text_field: str = Field("text", description="huggingface: field that holds the text")
    max_documents: int = Field(10_000, ge=2, le=10**9, description="huggingface: documents to take from the stream")
    tokenizer: Literal["bytes", "bpe"] = Field("bytes", description="bytes, or byte-pair encoding trained on the text")
    vocabulary_size: int = Field(
        512,
        ge=257,
        le=2**20,
        description="bpe: size to train; tokens: size of the files' vocabulary; above 65,536 only with token_bytes 4",
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
    """Everything that determines the weights at every step of a failure-free training run.

    `corpus`: content hash of the token streams. Versions and hardware are in `models.trajectory.environment_of`.
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
    device: Device = "cpu"
    precision: Precision = "fp32"
    replicates_at_once: int = 1
    compile: Compile = "off"

    @property
    def is_stacked(self) -> bool:
        """Whether `models.stacked` trains it; if not, `models.trainer` does: one replicate on the CPU in fp32."""
        return (self.device, self.precision, self.replicates_at_once) != ("cpu", "fp32", 1)

    @property
    def without_seeds(self) -> TrainingSpec:
        """The same training with seeds 0: replicates that differ in seeds alone can be trained together."""
        return self.model_copy(update={"init_seed": 0, "data_seed": 0})

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields at their defaults, so that names of states, hashes of this, stay as they were."""
        fields: dict[str, Any] = serialize(self)
        later = ("device", "precision", "replicates_at_once", "compile")
        defaults = type(self).model_fields
        return {name: value for name, value in fields.items() if name not in later or value != defaults[name].default}


def odd_sizes(model: ModelSpec, sequence_length: int) -> dict[str, int]:
    """Sizes with which replicates cannot be stacked, by field."""
    sizes = {"model.dim": model.dim, "model.hidden_dim": model.width_of_feed_forward}
    sizes["sequence_length"] = sequence_length
    return {field: size for field, size in sizes.items() if size % STACKED_MULTIPLE}


def plain_routes(num_stages: int) -> Routes:
    """Every microbatch visits S1, S2 … Ss in order."""
    return (tuple(range(1, num_stages + 1)),)


def swapped_routes(num_stages: int) -> Routes:
    """CheckFree+: every other microbatch visits S2, S1, S3 … S(s-2), Ss, S(s-1). ValueError below four stages."""
    if num_stages < 4:
        raise ValueError(f"swapping the first two and the last two stages needs at least 4 stages, found {num_stages}")
    straight = tuple(range(1, num_stages + 1))
    swapped = (2, 1, *straight[2:-2], num_stages, num_stages - 1)
    return (straight, swapped)
