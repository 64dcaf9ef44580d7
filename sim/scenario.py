"""A scenario: one YAML file, frozen and resolved. It composes the components' own configurations.

What one field may hold, its component says; what several fields must agree on, the checks at the end of this
file say, one sentence each. `sim.loading` reads YAML and tells all problems at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field

from models.lineage import Config
from sim.cluster import ClusterConfig
from sim.costs import WorkloadConfig
from sim.failures import PROCESSES, ProcessConfig
from sim.names import suggestion
from sim.network import NetworkConfig
from sim.presets import or_preset
from sim.strategies import STRATEGIES, StrategyConfig
from sim.training import TrainingConfig

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"


class StopConfig(StrategyConfig):
    """The fallback that gives up: the run ends where it is, and says so."""

    kind: Literal["stop"] = "stop"


def _kind_alone(value: Any) -> Any:
    """`checkpoint` is short for `{kind: checkpoint}`."""
    return {"kind": value} if isinstance(value, str) else value


def _choice(configs: list[Any]) -> Any:
    return Annotated[Union[tuple(configs)], Field(discriminator="kind"), BeforeValidator(_kind_alone)]  # noqa: UP007


if TYPE_CHECKING:
    StrategyChoice = StrategyConfig
    FallbackChoice = StrategyConfig
    FailureChoice = ProcessConfig
else:
    StrategyChoice = _choice([strategy.Config for strategy in STRATEGIES.values()])
    FallbackChoice = _choice([StopConfig, *(s.Config for s in STRATEGIES.values() if s.serves_as_fallback)])
    FailureChoice = _choice([process.Config for process in PROCESSES.values()])

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class SeedsConfig(Config):
    """Seeds: every pair of a failure seed and a training seed is one replicate of every strategy."""

    failures: tuple[Seed, ...] = Field((0,), min_length=1, description="seeds of the churn")
    training: tuple[Seed, ...] = Field((0,), min_length=1, description="seeds of initial weights and data order")


class Scenario(Config):
    """Everything one `churnlab run` needs to know."""

    name: str = Field(pattern=FOLDER_NAME, description="folder below results/, and title of figures")
    description: str = Field("", description="in words, for people")
    workload: WorkloadConfig = Field(default_factory=WorkloadConfig, description="the target model: gives the seconds")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="the proxy model: gives the loss")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="nodes, spares, recovery delays")
    network: Annotated[NetworkConfig, or_preset("networks")] = Field(
        "spot_cluster",
        validate_default=True,
        description="links between nodes and to storage: a preset's name or figures",
    )
    failures: FailureChoice = Field(
        default_factory=PROCESSES["exponential"].Config, description="when stages fail: a kind and its options"
    )
    strategies: tuple[StrategyChoice, ...] = Field(
        min_length=1, description="recovery strategies to compare: kinds, or kinds with options"
    )
    fallback: FallbackChoice = Field(
        default_factory=STRATEGIES["restart"].Config, description="takes over when a strategy cannot recover"
    )
    seeds: SeedsConfig = Field(default_factory=SeedsConfig, description="replicates")
    iterations_per_step: int = Field(
        1, ge=1, description="iterations of the target that one step of the proxy stands for; not neutral where not 1"
    )


Check = Callable[[Scenario], "Iterator[tuple[str, str]]"]
CHECKS: list[tuple[Check, tuple[str, ...]]] = []
"""Consistency checks, each with the fields it reads: it is skipped where one of them is faulty by itself."""


def _reads(*paths: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS.append((check, paths))
        return check

    return register


@_reads("workload.model", "workload.num_stages")
def stages_divide_the_layers(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Every stage of the target holds the same number of layers."""
    layers, stages = scenario.workload.model.num_layers, scenario.workload.num_stages
    if layers % stages:
        divisors = ", ".join(str(n) for n in range(2, layers + 1) if layers % n == 0)
        yield "workload.num_stages", f"{stages} stages do not divide {layers} layers; allowed: {divisors}"


@_reads("workload.num_stages", "training.model.num_stages")
def target_and_proxy_have_equal_stages(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A stage lost in the target is a stage lost in the proxy."""
    proxy, target = scenario.training.model.num_stages, scenario.workload.num_stages
    if proxy != target:
        yield "training.model.num_stages", f"the proxy has {proxy} stages, the workload {target}: make them equal"


@_reads("training.model.dim", "training.model.num_heads", "training.model.family")
def heads_divide_the_width(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each attention head gets an equal share of the width, an even one where positions rotate."""
    model = scenario.training.model
    if model.dim % model.num_heads:
        yield "training.model.num_heads", f"{model.num_heads} heads do not divide dim {model.dim}"
    elif model.family == "llama" and (model.dim // model.num_heads) % 2:
        yield (
            "training.model.num_heads",
            f"rotary positions need an even dim / num_heads, found {model.dim}/{model.num_heads}",
        )


@_reads("training.sequences_per_batch", "training.num_microbatches")
def microbatches_divide_the_batch(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Microbatches of the proxy are equal."""
    batch, count = scenario.training.sequences_per_batch, scenario.training.num_microbatches
    if batch % count:
        yield "training.num_microbatches", f"{count} microbatches do not divide a batch of {batch} sequences"


@_reads("strategies", "training.num_microbatches", "workload.num_microbatches")
def swapped_routes_take_half_the_microbatches(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Half of the microbatches can take the swapped route only if their number is even."""
    if any(strategy.kind == "checkfree_plus" for strategy in scenario.strategies):
        counts = {"training": scenario.training.num_microbatches, "workload": scenario.workload.num_microbatches}
        for section, count in counts.items():
            if count % 2:
                yield (
                    f"{section}.num_microbatches",
                    f"checkfree_plus swaps half of them: needs an even number, found {count}",
                )


@_reads("strategies", "workload")
def strategies_fit_the_workload(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each strategy says what it needs."""
    for index, config in enumerate(scenario.strategies):
        if problem := STRATEGIES[config.kind].check(config, scenario.workload):
            yield f"strategies.{index}", problem


@_reads("fallback", "workload")
def fallback_fits_the_workload(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The fallback is a strategy like the others."""
    if scenario.fallback.kind != "stop":
        problem = STRATEGIES[scenario.fallback.kind].check(scenario.fallback, scenario.workload)
        if problem:
            yield "fallback", problem


@_reads("strategies")
def names_of_strategies_differ(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Two entries of one name would share a folder and a curve."""
    seen: set[str] = set()
    for index, config in enumerate(scenario.strategies):
        if config.name in seen:
            yield f"strategies.{index}", f"a second strategy named '{config.name}': give it a label of its own"
        seen.add(config.name)


@_reads("cluster.regions", "network")
def regions_are_in_the_network(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Nodes are placed in regions that the network links to each other."""
    known = scenario.network.regions
    linked = {frozenset(link[:2]) for link in scenario.network.links}
    chosen = dict.fromkeys(scenario.cluster.regions or ())
    for region in chosen:
        if region not in known:
            yield (
                "cluster.regions",
                f"no region '{region}' in network '{scenario.network.name}'{suggestion(region, known)}",
            )
    placed = [region for region in (chosen or known) if region in known]
    for i, a in enumerate(placed):
        for b in placed[i + 1 :]:
            if frozenset((a, b)) not in linked:
                yield "network.links", f"no link between regions '{a}' and '{b}', both hold nodes"


@_reads("failures", "workload.num_stages")
def immune_stages_exist(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Only stages that are there can be spared."""
    last = scenario.workload.num_stages
    for stage in scenario.failures.immune_stages:
        if not 0 <= stage <= last:
            yield "failures.immune_stages", f"no stage {stage}; allowed: 0 (embedding and head) to {last}"


@_reads("seeds")
def seeds_differ(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A seed given twice would count one replicate as two."""
    for field in ("failures", "training"):
        seeds = getattr(scenario.seeds, field)
        if len(set(seeds)) < len(seeds):
            yield f"seeds.{field}", "a seed is given twice"


@_reads("training.data")
def data_options_fit_the_source(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each source has one field that says where the text is; the others' would be ignored."""
    data = scenario.training.data
    needs = {"text": "files", "tokens": "train_tokens", "huggingface": "dataset"}
    for source, field in needs.items():
        given = bool(getattr(data, field))
        if data.source == source and not given:
            yield "training.data", f"source '{source}' needs the key '{field}'"
        if data.source != source and given:
            yield f"training.data.{field}", f"'{field}' goes with source '{source}', found source '{data.source}'"


@_reads("training.optimizer", "training.steps")
def schedule_fits_the_steps(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A warm-up ends before the training does, and a cosine after its warm-up."""
    optimizer, steps = scenario.training.optimizer, scenario.training.steps
    if optimizer.warmup_steps >= steps:
        yield "training.optimizer.warmup_steps", f"{optimizer.warmup_steps} warm-up steps leave none of {steps} steps"
    if optimizer.decay_steps is not None and optimizer.decay == "constant":
        yield "training.optimizer.decay_steps", "decay_steps goes with decay 'cosine', found 'constant'"
    if optimizer.decay_steps is not None and optimizer.decay_steps <= optimizer.warmup_steps:
        yield "training.optimizer.decay_steps", f"the cosine must end after {optimizer.warmup_steps} warm-up steps"
