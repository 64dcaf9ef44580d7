"""A scenario: one YAML file, frozen and resolved. It composes the components' own configurations.

What one field may hold, its component says; what several fields must agree on, the checks at the end of this
file say, one sentence each. `sim.loading` reads YAML and tells all problems at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from models.lineage import Config, DataSpec
from sim.cluster import ClusterConfig
from sim.costs import WorkloadConfig
from sim.failures import PROCESSES, ProcessConfig
from sim.names import FOLDER_NAME, shortened, suggestion
from sim.network import NetworkConfig
from sim.presets import or_preset, presets
from sim.strategies import STRATEGIES, StrategyConfig
from sim.training import TrainingConfig

PRESET_FIELDS = {("workload", "model"): "models", ("cluster", "device"): "devices", ("network",): "networks"}
"""Fields that a preset's name can stand for, and the kind of preset."""


class StopConfig(StrategyConfig):
    """The fallback that gives up: the run ends where it is, and says so."""

    kind: Literal["stop"] = "stop"


def _kind_alone(value: Any) -> Any:
    """`checkpoint` is short for `{kind: checkpoint}`."""
    return {"kind": value} if isinstance(value, str) else value


def _choice(configs: list[Any]) -> Any:
    kinds: Any = Literal[tuple(config.model_fields["kind"].default for config in configs)]
    choice: Any = Annotated[Union[tuple(configs)], Field(discriminator="kind")]  # noqa: UP007
    return Annotated[choice, BeforeValidator(_kind_alone, json_schema_input_type=Union[kinds, choice])]  # noqa: UP007


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

    name: str = Field(pattern=FOLDER_NAME, max_length=100, description="folder below results/, and title of figures")
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
    give_up_after: float = Field(
        20.0, ge=1, description="a run stops, and says so, after this many times the time or number of plain iterations"
    )
    seeds: SeedsConfig = Field(default_factory=SeedsConfig, description="replicates")
    iterations_per_step: int = Field(
        1,
        ge=1,
        le=10**6,
        description="iterations of the target that one step of the proxy stands for; not neutral where not 1",
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's schema, which knows nothing of presets: their names can stand for some fields."""
        schema = handler(core_schema)
        for path, kind in PRESET_FIELDS.items():
            properties = handler.resolve_ref_schema(schema)["properties"]
            for part in path[:-1]:
                properties = handler.resolve_ref_schema(properties[part])["properties"]
            field, names = properties[path[-1]], {"enum": list(presets(kind))}
            changed = {"type": "object", "properties": {"preset": names}, "required": ["preset"]}
            field["anyOf"] = [names, {"$ref": field.pop("$ref")}, changed]
        return schema


Check = Callable[[Scenario], "Iterator[tuple[str, str]]"]
CHECKS: list[tuple[Check, tuple[str, ...]]] = []
"""Consistency checks: each gives paths of fields and what is wrong there.

When fields are faulty by themselves, checks see those fields at their defaults (faulty strategies: as `none`).
Each check comes with the fields without which it would then complain of what is not so.
"""


def _needs(*paths: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS.append((check, paths))
        return check

    return register


def _divisors(number: int, least: int = 1) -> str:
    """What divides a number, in words: the few smallest and the number itself."""
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    allowed = [n for n in sorted({*small, *(number // n for n in small)}) if n >= least]
    words = [str(n) for n in (allowed if len(allowed) <= 12 else [*allowed[:10], "...", allowed[-1]])]
    return f"allowed: {', '.join(words)}" if words else f"no number from {least} on does"


@_needs("workload.model.num_layers", "workload.num_stages")
def stages_divide_the_layers(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Every stage of the target holds the same number of layers."""
    layers, stages = scenario.workload.model.num_layers, scenario.workload.num_stages
    if layers % stages:
        yield "workload.num_stages", f"{stages} stages do not divide num_layers {layers}; {_divisors(layers, least=2)}"


@_needs("workload.num_stages", "training.model.num_stages")
def target_and_proxy_have_equal_stages(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A stage lost in the target is a stage lost in the proxy."""
    proxy, target = scenario.training.model.num_stages, scenario.workload.num_stages
    if proxy != target:
        yield "training.model.num_stages", f"the proxy has {proxy} stages, the workload {target}: make them equal"


@_needs("training.model.dim", "training.model.num_heads", "training.model.family")
def heads_divide_the_width(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each attention head gets an equal share of the width, an even one where positions rotate."""
    model, field = scenario.training.model, "training.model.num_heads"
    if model.dim % model.num_heads:
        yield field, f"{model.num_heads} heads do not divide dim {model.dim}; {_divisors(model.dim)}"
    elif model.family == "llama" and (width := model.dim // model.num_heads) % 2:
        even = _divisors(model.dim // 2) if model.dim % 2 == 0 else "choose an even dim"
        yield (
            field,
            f"rotary positions need heads of even width, found {model.dim} / {model.num_heads} = {width}; {even}",
        )


@_needs("training.sequences_per_batch", "training.num_microbatches")
def microbatches_divide_the_batch(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Microbatches of the proxy are equal."""
    batch, count = scenario.training.sequences_per_batch, scenario.training.num_microbatches
    if batch % count:
        message = f"{count} microbatches do not divide the batch of {batch} sequences; {_divisors(batch)}"
        yield "training.num_microbatches", message


@_needs()
def swapped_routes_take_half_the_microbatches(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Half of the microbatches can take the swapped route only if their number is even."""
    if any(strategy.kind == "checkfree_plus" for strategy in scenario.strategies):
        counts = {"training": scenario.training.num_microbatches, "workload": scenario.workload.num_microbatches}
        for section, count in counts.items():
            if count % 2:
                message = f"checkfree_plus swaps half of them: needs an even number, found {count}"
                yield f"{section}.num_microbatches", message


@_needs("workload.num_stages", "workload.sequences_per_microbatch")
def strategies_fit_the_workload(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each strategy says what it needs."""
    for index, config in enumerate(scenario.strategies):
        if problem := STRATEGIES[config.kind].check(config, scenario.workload):
            yield f"strategies.{index}", f"'{config.name}': {problem}"


@_needs("workload.num_stages", "workload.sequences_per_microbatch")
def fallback_fits_the_workload(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The fallback is a strategy like the others."""
    config = scenario.fallback
    if config.kind != "stop" and (problem := STRATEGIES[config.kind].check(config, scenario.workload)):
        yield "fallback", f"'{config.name}': {problem}"


@_needs()
def names_of_strategies_differ(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Two entries of one name would share a folder and a curve."""
    seen: set[str] = set()
    for index, config in enumerate(scenario.strategies):
        if config.name in seen:
            yield f"strategies.{index}", f"a second strategy named '{config.name}': give it a 'label' of its own"
        seen.add(config.name)


@_needs("cluster.regions", "network.links", "network.preset")
def regions_are_in_the_network(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Nodes are placed in regions that the network links to each other."""
    known = scenario.network.regions
    linked = {frozenset(link[:2]) for link in scenario.network.links}
    chosen = dict.fromkeys(scenario.cluster.regions or known)
    for region in chosen:
        if region not in known:
            where = f"in network '{shortened(scenario.network.name)}'{suggestion(region, known)}"
            yield "cluster.regions", f"no region '{shortened(region)}' {where}"
    placed = [region for region in chosen if region in known]
    pairs = [(a, b) for i, a in enumerate(placed) for b in placed[i + 1 :] if frozenset((a, b)) not in linked]
    if pairs:
        links = ", ".join(shortened(f"{a}-{b}") for a, b in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
        message = f"regions that hold nodes lack links: {links}; add rows for them, or choose cluster.regions"
        yield "network.links", message


@_needs()
def links_differ(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """One row for each pair of regions; within a region, `same_region` tells."""
    seen: set[frozenset[str]] = set()
    for index, (a, b, *_) in enumerate(scenario.network.links):
        row, ends = f"network.links.{index}", f"'{shortened(a)}' and '{shortened(b)}'"
        if a == b:
            yield row, f"a link between {ends}: within a region, 'same_region' tells"
        elif frozenset((a, b)) in seen:
            yield row, f"a second link between {ends}: links are the same both ways"
        seen.add(frozenset((a, b)))


@_needs("workload.num_stages")
def immune_stages_exist(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Only stages that are there can be spared."""
    last = scenario.workload.num_stages
    for stage in scenario.failures.immune_stages:
        if not 0 <= stage <= last:
            yield "failures.immune_stages", f"no stage {stage}; allowed: 0 (embedding and head) to {last}"


@_needs()
def seeds_differ(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A seed given twice would count one replicate as two."""
    for field in ("failures", "training"):
        seeds = getattr(scenario.seeds, field)
        for seed in dict.fromkeys(seed for seed in seeds if seeds.count(seed) > 1):
            yield f"seeds.{field}", f"seed {seed} is given {seeds.count(seed)} times: each once"


@_needs("training.data.source")
def data_options_fit_the_source(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each source has its own fields; those of another would be ignored."""
    data, fields = scenario.training.data, DataSpec.model_fields
    own = {
        "text": ("files",),
        "tokens": ("train_tokens", "validation_tokens"),
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


@_needs("training.optimizer.warmup_steps", "training.steps")
def warmup_ends_before_the_training(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Some steps are learnt at the full learning rate."""
    warmup, steps = scenario.training.optimizer.warmup_steps, scenario.training.steps
    if warmup >= steps:
        message = f"{warmup} warm-up steps leave none of the {steps} steps; allowed: at most {steps - 1}"
        yield "training.optimizer.warmup_steps", message


@_needs("training.optimizer")
def cosine_ends_after_the_warmup(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """`decay_steps` is where the cosine ends, so there must be a cosine, and it follows the warm-up."""
    optimizer, field = scenario.training.optimizer, "training.optimizer.decay_steps"
    if optimizer.decay_steps is None:
        return
    if optimizer.decay == "constant":
        yield field, "'decay_steps' goes with decay 'cosine', found decay 'constant'"
    elif optimizer.decay_steps <= optimizer.warmup_steps:
        yield field, f"found {optimizer.decay_steps}; allowed: above warmup_steps, {optimizer.warmup_steps}"
