"""A scenario: one YAML file, frozen and resolved, composed of the configurations of its components."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from models.spec import (
    EMBEDDING_STAGE,
    REPLICATES_ON_GPU,
    Config,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    Precision,
    Routes,
    TrainingSpec,
    WantedCompile,
    WantedDevice,
    odd_sizes,
)
from sim.cluster.network import NetworkConfig
from sim.cluster.topology import ClusterConfig
from sim.core.plugins import choice
from sim.core.presets import OrPreset
from sim.core.text import FOLDER_NAME
from sim.failures import PROCESSES, ProcessConfig, process_choice, processes, with_default_scope
from sim.strategies import PLUGINS, STRATEGIES, StrategyConfig, strategy_class
from sim.workload.config import WorkloadConfig

MAX_THREADS = 64

AUTO_TARGET_SHARE = Fraction(5, 12)
"""Share of the steps after which failure-free training has the target loss of `auto`: runs have 2.4 times as many."""


class EvaluationConfig(Config):
    """How often, and on how many held-out sequences, the validation loss is measured."""

    interval_steps: int = Field(25, ge=1, le=10**9, description="steps between two validations")
    num_sequences: int = Field(64, ge=1, le=10**6, description="held-out sequences per validation")


class TrainingConfig(Config):
    """The `training:` section of a scenario: the small proxy model that is trained, and for how long."""

    learner: Literal["torch", "curve", "none"] = Field(
        "torch", description="torch: train the model; curve: a parametric loss curve, for dry runs; none: time only"
    )
    model: ModelSpec = Field(default_factory=ModelSpec, description="the proxy model")
    data: DataSpec = Field(default_factory=DataSpec, description="the text it learns")
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec, description="how it learns")
    sequences_per_batch: int = Field(16, ge=1, le=10**6, description="sequences in a batch (one step)")
    num_microbatches: int = Field(4, ge=1, le=10**6, description="microbatches in a batch; each takes one route")
    sequence_length: int = Field(64, ge=2, le=10**6, description="tokens in a sequence")
    steps: int = Field(1000, ge=1, le=10**9, description="steps to train")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="validation")
    target_validation_loss: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="time and iterations until the validation loss is first this low are reported; auto: the mean loss "
        "of training without failures after 5/12 of the steps, which is trained first",
    )
    num_threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] | Literal["auto"] = Field(
        1,
        description="training threads of a worker; they affect the last bits; auto: the fastest, measured once",
    )
    device: WantedDevice = Field(
        "cpu", description="cpu; cuda or mps: a GPU of this machine; auto: cuda if it has one, else mps, else cpu"
    )
    precision: Precision = Field(
        "fp32", description="fp32; bf16: forward pass in bfloat16 by autocast, weights and optimizer in fp32"
    )
    replicates_at_once: int | None = Field(
        None,
        ge=1,
        le=256,
        description="replicates trained together, stacked; default 1, on a GPU 8 if sizes are multiples of 16",
    )
    compile: WantedCompile = Field(
        "off",
        description="on: steps compiled by torch.compile, with other bits; auto: on from 10,000 steps, if possible",
    )

    @field_validator("num_threads", mode="before")
    @classmethod
    def _is_a_number_or_auto(cls, value: Any) -> Any:
        """One message in place of one for each member of the union."""
        if value != "auto" and not (type(value) is int and 1 <= value <= MAX_THREADS):
            raise ValueError(f"it must be a whole number from 1 to {MAX_THREADS}, or 'auto'")
        return value

    @field_validator("target_validation_loss", mode="before")
    @classmethod
    def _is_a_loss_or_auto(cls, value: Any) -> Any:
        """One message in place of one for each member of the union."""
        is_loss = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        if value not in (None, "auto") and not is_loss:
            raise ValueError("it must be a number above 0, 'auto', or null")
        return value

    @property
    def target_loss(self) -> float | None:
        """The target as a number; None where there is none, or where it is `auto` and not known yet."""
        return None if self.target_validation_loss == "auto" else self.target_validation_loss

    @property
    def evaluated_steps(self) -> tuple[int, ...]:
        """The steps at which a run is validated: every interval, and the last."""
        return tuple(
            dict.fromkeys(
                [*range(self.evaluation.interval_steps, self.steps + 1, self.evaluation.interval_steps), self.steps]
            )
        )

    @property
    def auto_target_step(self) -> int:
        """The step whose failure-free loss is the target of `auto`: the last one validated by then; 0 if none is."""
        interval_steps = self.evaluation.interval_steps
        return int(self.steps * AUTO_TARGET_SHARE) // interval_steps * interval_steps

    @property
    def num_replicates_at_once(self) -> int:
        """Slots of a stack; 1: replicates are trained one after another."""
        if self.replicates_at_once is not None:
            return self.replicates_at_once
        return 1 if self.device == "cpu" or odd_sizes(self.model, self.sequence_length) else REPLICATES_ON_GPU

    @property
    def is_stacked(self) -> bool:
        """Whether replicates are trained stacked, on a GPU, in bf16 or several at once; not on a CPU by default."""
        return (self.device, self.precision, self.num_replicates_at_once) != ("cpu", "fp32", 1)

    def spec(self, corpus: str, vocabulary_size: int, init_seed: int, data_seed: int, routes: Routes) -> TrainingSpec:
        """The specification of this training. Its states do not depend on `steps` and the evaluation interval.

        Nothing may be `auto` (`sim.experiments.training.on_this_machine`).
        """
        assert self.device != "auto"
        assert self.compile != "auto"
        assert self.num_threads != "auto"
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
            device=self.device,
            precision=self.precision,
            replicates_at_once=self.num_replicates_at_once,
            compile=self.compile,
        )


Values = Annotated[tuple[Any, ...], Field(min_length=1)]  # what a swept field takes in turn


class SweepConfig(Config):
    """Points of a sweep: each of `list`, with each of `zip`, with every combination of `grid`.

    Fields are named as for `--set`: `failures.rate_per_hour`, `strategies[checkpoint].interval_iterations`.
    """

    grid: dict[str, Values] = Field(
        default_factory=dict, description="values for each field: every combination is a point; the last varies fastest"
    )
    zip: dict[str, Values] = Field(
        default_factory=dict,
        description="values for each field, the same number of each: the first values together, and so on",
    )
    list: tuple[dict[str, Any], ...] = Field((), description="single points, each a mapping of fields to values")
    replicates: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="independent pairs of a failure and a training seed, counted up from those of seeds; failure seeds "
        "where training_replicates or seeds.design cross them",
    )
    training_replicates: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="training seeds, counted up from the one of seeds.training, each with every failure seed",
    )
    keep: Literal["records", "outcomes"] = Field(
        "records",
        description="records: every iteration and event of each run; outcomes: summaries, for thousands of runs",
    )


class StopConfig(StrategyConfig):
    """The fallback that ends the run and records the reason."""

    kind: Literal["stop"] = "stop"


class BranchesConfig(Config):
    """What `churnlab branches` measures: one failure at a time, at some steps of training without failures."""

    steps: tuple[Annotated[int, Field(ge=1, le=10**9)], ...] | None = Field(
        None,
        description="steps at which a stage is lost; default: a quarter, half and three quarters of training.steps",
    )
    after_steps: tuple[Annotated[int, Field(ge=0, le=10**9)], ...] = Field(
        (0, 10, 20, 40, 60),
        min_length=1,
        description="steps after a loss at which the validation loss is compared; 0: the rebuilt stage, untrained",
    )
    stages: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="stages that are lost, one at a time; default: all that are not immune"
    )
    lost_at_once: int = Field(
        1,
        ge=1,
        le=1000,
        description="consecutive stages that one failure takes: a stage of `stages`, and those after it",
    )
    replicates: int = Field(6, ge=1, le=10**4, description="training seeds, counted up from the first")

    def taken_with(self, stage: int) -> range:
        """The stages that a failure takes, from a stage on."""
        return range(stage, stage + self.lost_at_once)


if TYPE_CHECKING:
    StrategyChoice = StrategyConfig
    FallbackChoice = StrategyConfig
    FailureChoice = ProcessConfig
else:
    StrategyChoice = choice([strategy.Config for strategy in STRATEGIES.values()], PLUGINS)
    FallbackChoice = choice(
        [StopConfig, *(s.Config for s in STRATEGIES.values() if s.serves_as_fallback)],
        replace(PLUGINS, needs="serves_as_fallback"),
    )
    FailureChoice = process_choice(tuple(PROCESSES.values()))

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class SeedsConfig(Config):
    """Seeds: a replicate of every strategy is a pair of a failure seed and a training seed."""

    failures: tuple[Seed, ...] = Field((0,), min_length=1, description="seeds of the churn")
    training: tuple[Seed, ...] = Field((0,), min_length=1, description="seeds of initial weights and data order")
    design: Literal["pairs", "crossed"] | None = Field(
        None,
        description="pairs: first failure seed with first training seed, second with second, ..., or one seed with "
        "all of the other kind; crossed: every combination; default: pairs, unless sweep.training_replicates is given",
    )

    @property
    def are_pairs(self) -> bool:
        """Whether no two replicates share a seed; also of a single replicate, unless it is to be crossed."""
        return self.design != "crossed" and len(self.failures) == len(self.training)

    @property
    def replicates(self) -> tuple[tuple[int, int], ...]:
        """The failure seed and the training seed of each replicate."""
        if self.are_pairs:
            return tuple(zip(self.failures, self.training, strict=True))
        return tuple((failure, training) for training in self.training for failure in self.failures)

    def counted(self, replicates: int | None, training_replicates: int | None = None) -> SeedsConfig:
        """So many seeds, counted up from the first: pairs, or crossed if so designed or training seeds have a number.

        None: those that are listed.
        """
        if replicates is None and training_replicates is None:
            return self
        failures, training = self.failures, self.training
        is_crossed = self.design == "crossed" or training_replicates is not None
        if replicates is not None:
            failures = tuple(range(failures[0], failures[0] + replicates))
        number = training_replicates if is_crossed else replicates
        if number is not None:
            training = tuple(range(training[0], training[0] + number))
        return SeedsConfig(failures=failures, training=training, design="crossed" if is_crossed else "pairs")

    def extended(self, number: int) -> SeedsConfig:
        """So many pairs more, or failure seeds where these are crossed; counted up from the highest."""
        first, first_training = max(self.failures) + 1, max(self.training) + 1
        failures = (*self.failures, *range(first, first + number))
        if not self.are_pairs:
            return SeedsConfig(failures=failures, training=self.training, design="crossed")
        training = (*self.training, *range(first_training, first_training + number))
        return SeedsConfig(failures=failures, training=training, design=self.design)


class Scenario(Config):
    """A scenario: workload, training, cluster, network, failures and the strategies to compare."""

    name: str = Field(pattern=FOLDER_NAME, max_length=100, description="folder below results/, and title of figures")
    description: str = Field("", description="in words, for people")
    workload: WorkloadConfig = Field(default_factory=WorkloadConfig, description="the target model: gives the seconds")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="the proxy model: gives the loss")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="nodes, spares, recovery delays")
    network: Annotated[NetworkConfig, OrPreset("networks")] = Field(
        "spot_cluster", validate_default=True, description="links between nodes and to storage: a preset or figures"
    )
    failures: FailureChoice = Field(
        default_factory=PROCESSES["exponential"].Config,
        description="when nodes fail: a kind and its options, or a preset",
    )
    strategies: tuple[StrategyChoice, ...] = Field(
        min_length=1, description="recovery strategies to compare: kinds, or kinds with options"
    )
    fallback: FallbackChoice = Field(
        default_factory=STRATEGIES["restart"].Config, description="takes over when a strategy cannot recover"
    )
    give_up_after: float = Field(
        20.0, ge=1, description="a run stops, and records why, at this multiple of the plain iterations' time or number"
    )
    give_up_after_events: int = Field(
        5_000_000,
        ge=1000,
        le=10**12,
        description="a run stops, and records why, after so many events of its simulation; the operations of computed "
        "iterations count as events; a million take about a minute",
    )
    fidelity: Literal["iteration", "microbatch"] = Field(
        "iteration",
        description="iteration: each is one event; microbatch: every forward, backward and message is; the same "
        "seconds to the last bit, unless operations jitter",
    )
    seeds: SeedsConfig = Field(default_factory=SeedsConfig, description="replicates")
    iterations_per_step: int = Field(
        1,
        ge=1,
        le=10**6,
        description="iterations of the target per step of the proxy; values other than 1 bias the comparison",
    )
    sweep: SweepConfig | None = Field(
        None, description="what `churnlab sweep` varies; all points share the rest of the scenario"
    )
    branches: BranchesConfig | None = Field(None, description="what `churnlab branches` measures")

    @model_validator(mode="after")
    def _proxy_has_the_stages_of_the_target(self) -> Self:
        """Give the proxy as many stages as the target has, unless its number is given."""
        model, num_stages = self.training.model, self.workload.num_stages
        if "num_stages" not in model.model_fields_set and model.num_stages != num_stages:
            model = model.model_copy(update={"num_stages": num_stages})
            self.__dict__["training"] = self.training.model_copy(update={"model": model})  # of a frozen model
        return self

    @model_validator(mode="after")
    def _scope_follows_nodes_per_stage(self) -> Self:
        """Let nodes fail one by one where a stage has several, unless the scope of the failures is given."""
        if self.cluster.nodes_per_stage > 1:
            self.__dict__["failures"] = with_default_scope(self.failures)  # of a frozen model
        return self

    @model_validator(mode="after")
    def _embedding_is_where_published_systems_have_it(self) -> Self:
        """Put the embedding on S1 where the head is on Ss, unless given otherwise, immune, or needed apart."""
        has_default = "embedding_on" not in self.cluster.model_fields_set
        is_immune = any(EMBEDDING_STAGE in part.immune_stages for part in processes(self.failures))
        is_needed = any(strategy_class(config.kind).needs_embedding_nodes for config in self.strategies)
        if has_default and self.workload.loss_at == "last_stage" and not (is_immune or is_needed):
            self.__dict__["cluster"] = self.cluster.model_copy(update={"embedding_on": "first_stage"})
        return self
