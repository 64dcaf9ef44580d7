"""Consistency checks of a scenario: a named function for each, which says what is wrong and how to mend it.

To add one, write a generator of findings and decorate it with `check`, here or, for the cluster and its failure
processes, in `cluster_checks.py`.
"""

from __future__ import annotations

from models.spec import DataSpec
from sim.core.text import shortened
from sim.scenario.cluster_checks import CHECKS, Findings, check, chosen_strategies
from sim.scenario.memory_check import divisors, impossible, too_little_memory
from sim.scenario.scenario import Scenario
from sim.strategies import strategy_class
from sim.workload.schedule import SCHEDULES

__all__ = ["CHECKS"]

FIXED = {"name": "it names the folder of all points", "sweep": "a sweep has no sweep of its own"}
"""Fields that cannot be swept, and why."""


# ---- sweep ----------------------------------------------------------------------------------------


@check("sweep")
def zipped_fields_have_equally_many_values(scenario: Scenario) -> Findings:
    """Fields that vary together have equally many values."""
    columns = scenario.sweep.zip if scenario.sweep else {}
    counts = {field: len(values) for field, values in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{shortened(field)}: {count}" for field, count in counts.items())
        yield "sweep.zip", f"fields that vary together need equally many values, found {found}"


@check("sweep")
def fields_are_swept_once(scenario: Scenario) -> Findings:
    """A field is swept in one place only."""
    if scenario.sweep is None:
        return
    sections = {"grid": scenario.sweep.grid, "zip": scenario.sweep.zip}
    by_hand = {field for point in scenario.sweep.list for field in point}
    for field in sections["grid"]:
        if field in sections["zip"]:
            yield "sweep.zip", f"'{shortened(field)}' is in the grid already: each field once"
    for name, section in sections.items():
        for field in section:
            if field in by_hand:
                yield "sweep.list", f"'{shortened(field)}' is in the {name} already: each field once"


@check("sweep")
def fixed_fields_are_not_swept(scenario: Scenario) -> Findings:
    """The name, the sweep and the seeds are the same at every point."""
    if scenario.sweep is None:
        return
    sections = {"grid": [scenario.sweep.grid], "zip": [scenario.sweep.zip], "list": scenario.sweep.list}
    for name, points in sections.items():
        for field in dict.fromkeys(field for point in points for field in point):
            head = field.partition(".")[0].partition("[")[0].strip()
            why = FIXED.get(head) or ("replicates and training_replicates say how many" if head == "seeds" else None)
            if why:
                yield f"sweep.{name}", f"'{shortened(field)}' cannot be swept: {why}"


@check("sweep", "seeds")
def replicates_are_counted_or_listed(scenario: Scenario) -> Findings:
    """Seeds are counted up from the first, or listed, not both."""
    if scenario.sweep is None:
        return
    for field, seeds, kind in (
        ("replicates", scenario.seeds.failures, "failures"),
        ("training_replicates", scenario.seeds.training, "training"),
    ):
        if getattr(scenario.sweep, field) is not None and len(seeds) > 1:
            yield f"sweep.{field}", f"seeds.{kind} lists {len(seeds)} seeds already: give one of the two"


# ---- model, training, strategies, network, seeds ------------------------------------------------------


def _divisors(number: int, least: int = 1) -> str:
    """The divisors of a number in words: the smallest ones and the number itself."""
    allowed = [n for n in divisors(number) if n >= least]
    words = [str(n) for n in (allowed if len(allowed) <= 12 else [*allowed[:10], "...", allowed[-1]])]
    return f"allowed: {', '.join(words)}" if words else f"no number from {least} on does"


@check("workload.model.num_layers", "workload.num_stages", "workload.layers_per_stage")
def stages_hold_all_layers(scenario: Scenario) -> Findings:
    """The stages of the target model hold all its layers, equally many unless `layers_per_stage` is given."""
    layers, stages = scenario.workload.model.num_layers, scenario.workload.num_stages
    shares, field = scenario.workload.layers_per_stage, "workload.layers_per_stage"
    if shares is None:
        if layers % stages:
            allowed = _divisors(layers, least=2)
            yield "workload.num_stages", f"{stages} stages do not divide num_layers {layers}; {allowed}"
    elif len(shares) != stages:
        yield field, f"found {len(shares)} numbers of layers; allowed: one for each of num_stages, {stages}"
    elif sum(shares) != layers:
        yield field, f"found {sum(shares)} layers in all; allowed: num_layers, {layers}"


@check("workload.schedule", "workload.chunks_per_stage", "workload.max_in_flight")
def options_fit_the_schedule(scenario: Scenario) -> Findings:
    """Chunks require an interleaved schedule and vice versa; some schedules have no limit in flight."""
    workload = scenario.workload
    schedule, chunks = SCHEDULES[workload.schedule], workload.chunks_per_stage
    if schedule.is_interleaved and chunks < 2:
        yield "workload.chunks_per_stage", f"found {chunks}; allowed with schedule '{schedule.name}': at least 2"
    if not schedule.is_interleaved and chunks > 1:
        interleaved = " or ".join(f"'{name}'" for name, other in SCHEDULES.items() if other.is_interleaved)
        message = f"found {chunks}, which goes with schedule {interleaved}, found schedule '{schedule.name}'"
        yield "workload.chunks_per_stage", message
    if not schedule.limits_in_flight and workload.max_in_flight is not None:
        message = f"schedule '{schedule.name}' has all microbatches in flight: leave it out, or choose schedule '1f1b'"
        yield "workload.max_in_flight", message


@check("workload")
def interleaving_divides_the_work(scenario: Scenario) -> Findings:
    """Interleaved, every stage holds the same number of equal chunks, and microbatches pass in groups of num_stages."""
    workload = scenario.workload
    schedule = SCHEDULES[workload.schedule]
    if not schedule.is_interleaved or list(stages_hold_all_layers(scenario)):
        return
    layers, stages, chunks = workload.layers_per_stage, workload.num_stages, workload.chunks_per_stage
    if layers and len(set(layers)) > 1:
        message = f"found {min(layers)} to {max(layers)} layers; allowed with '{schedule.name}': equal numbers"
        yield "workload.layers_per_stage", message
    elif (each := workload.model.num_layers // stages) % chunks:
        message = f"{chunks} chunks do not divide the {each} layers of a stage; {_divisors(each, least=2)}"
        yield "workload.chunks_per_stage", message
    if left := workload.num_microbatches % schedule.microbatch_multiple(stages):
        above = workload.num_microbatches - left + stages
        near = f"{above - stages} or {above}" if above > stages else str(above)
        message = f"'{schedule.name}' needs a multiple of num_stages {stages}, found {workload.num_microbatches}"
        yield "workload.num_microbatches", f"{message}; nearest: {near}"


@check("workload.num_stages", "training.model.num_stages")
def target_and_proxy_have_equal_stages(scenario: Scenario) -> Findings:
    """A stage lost in the target is a stage lost in the proxy."""
    proxy, target = scenario.training.model.num_stages, scenario.workload.num_stages
    if proxy != target and scenario.training.learner != "none":
        yield "training.model.num_stages", f"the proxy has {proxy} stages, the workload {target}: make them equal"


@check("training.model.dim", "training.model.num_heads", "training.model.family")
def heads_divide_the_width(scenario: Scenario) -> Findings:
    """Attention heads divide the width of the proxy; rotary positions need heads of even width."""
    model, field = scenario.training.model, "training.model.num_heads"
    if model.dim % model.num_heads:
        yield field, f"{model.num_heads} heads do not divide dim {model.dim}; {_divisors(model.dim)}"
    elif model.family == "llama" and (width := model.dim // model.num_heads) % 2:
        even = _divisors(model.dim // 2) if model.dim % 2 == 0 else "choose an even dim"
        found = f"found {model.dim} / {model.num_heads} = {width}"
        yield field, f"rotary positions need heads of even width, {found}; {even}"


@check("training.sequences_per_batch", "training.num_microbatches")
def microbatches_divide_the_batch(scenario: Scenario) -> Findings:
    """Microbatches of the proxy have equal size."""
    batch, count = scenario.training.sequences_per_batch, scenario.training.num_microbatches
    if batch % count:
        message = f"{count} microbatches do not divide the batch of {batch} sequences; {_divisors(batch)}"
        yield "training.num_microbatches", message


@check()
def routes_take_equal_shares_of_the_microbatches(scenario: Scenario) -> Findings:
    """Equally many microbatches take each of a strategy's routes."""
    counts = {"training": scenario.training.num_microbatches, "workload": scenario.workload.num_microbatches}
    for section, count in counts.items():
        for kind, num_routes in routed(scenario).items():
            if count % num_routes:
                needed = f"sends them along {num_routes} routes in turn: needs a multiple of {num_routes}"
                needed = "swaps half of them: needs an even number" if num_routes == 2 else needed
                yield f"{section}.num_microbatches", f"{kind} {needed}, found {count}"
                break


def routed(scenario: Scenario) -> dict[str, int]:
    """Kinds of strategies that send microbatches along several routes in turn, and how many."""
    num_stages = scenario.workload.num_stages
    possible = [config for config in scenario.strategies if not impossible(config, scenario.workload)]
    routes = {config.kind: strategy_class(config.kind)(config, num_stages).training_variant() for config in possible}
    return {kind: len(variant) for kind, variant in routes.items() if len(variant) > 1}


@check("workload.num_stages", "workload.sequences_per_microbatch", "workload.schedule", "workload.loss_at")
def strategies_fit_the_workload(scenario: Scenario) -> Findings:
    """Each strategy and the fallback accept the workload."""
    for path, config in chosen_strategies(scenario):
        if problem := impossible(config, scenario.workload):
            yield path, f"'{config.name}': {problem}"


@check("workload", "cluster.device", "fallback")
def stages_fit_in_memory(scenario: Scenario) -> Findings:
    """Under every strategy, each stage's state and activations fit in its device's memory."""
    if list(stages_hold_all_layers(scenario)):
        return
    for index, config in enumerate(scenario.strategies):
        if not impossible(config, scenario.workload) and (problem := too_little_memory(scenario, config)):
            yield f"strategies.{index}", problem


@check()
def names_of_strategies_differ(scenario: Scenario) -> Findings:
    """Names of strategies differ, since each has a folder and a curve of its own."""
    seen: set[str] = set()
    for index, config in enumerate(scenario.strategies):
        if config.name in seen:
            yield f"strategies.{index}", f"a second strategy named '{config.name}': give it a 'label' of its own"
        seen.add(config.name)


@check()
def seeds_differ(scenario: Scenario) -> Findings:
    """No seed is given twice, which would count one replicate as two."""
    for field in ("failures", "training"):
        seeds = getattr(scenario.seeds, field)
        for seed in dict.fromkeys(seed for seed in seeds if seeds.count(seed) > 1):
            yield f"seeds.{field}", f"seed {seed} is given {seeds.count(seed)} times: each once"


@check("training.data.source")
def data_options_fit_the_source(scenario: Scenario) -> Findings:
    """Fields of the data go with its source."""
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
