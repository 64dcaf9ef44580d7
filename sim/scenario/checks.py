"""Consistency checks of a scenario. To add one, write a generator of findings and decorate it with `check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from models.spec import EMBEDDING_STAGE, STACKED_MULTIPLE, odd_sizes
from sim.cluster.network import Network
from sim.cluster.topology import Cluster, first_stage_of, num_nodes
from sim.core.distributions import Delay
from sim.core.text import shortened, suggestion
from sim.failures import ProcessConfig
from sim.failures.script import ScriptConfig
from sim.scenario.memory_check import divisors, impossible, too_little_memory
from sim.scenario.scenario import Scenario, SweepConfig
from sim.strategies import STRATEGIES, StrategyConfig, strategy_class
from sim.workload.deployment import pipelines_are_equal
from sim.workload.schedule import SCHEDULES

Findings = Iterator[tuple[str, str]]  # paths of fields; which values do not fit there, and how to fix it
Check = Callable[[Scenario], Findings]

CHECKS: list[tuple[Check, tuple[str, ...]]] = []
"""All consistency checks, each with the fields that must be valid for it to run; other faulty ones have defaults."""


def check(*fields: str) -> Callable[[Check], Check]:
    """Register a consistency check, which runs where these fields are valid by themselves.

    fields: all that the check compares, also those that its message does not name. A section stands for its fields.
    """

    def register(function: Check) -> Check:
        CHECKS.append((function, fields))
        return function

    return register


SPREADING = ("weibull", "lognormal")  # distributions of a downtime that have a spread
MOST_SIMULATED = 1000  # most nodes of a stage that are simulated one by one
MOST_VISITS = 10_000_000  # forwards and backwards of an iteration; each takes some 400 bytes

FIXED = {
    "name": "it names the folder of all points",
    "sweep": "a sweep has no sweep of its own",
    "seeds": "replicates and training_replicates say how many",
}
"""Fields that cannot be swept, and why."""


@check("cluster.regions", "network.links", "network.preset")
def regions_are_in_the_network(scenario: Scenario) -> Findings:
    """Nodes are placed in regions of the network that are linked to each other."""
    known = scenario.network.regions
    linked = {frozenset(link[:2]) for link in scenario.network.links}
    chosen = dict.fromkeys(scenario.cluster.regions or known)
    for region in chosen:
        if region not in known:
            where = f"in network '{shortened(scenario.network.name)}'{suggestion(region, known)}"
            yield "cluster.regions", f"no region '{shortened(region)}' {where}"
    placed = [region for region in chosen if region in known]
    pairs = [shortened(f"{a}-{b}") for a, b in combinations(placed, 2) if frozenset((a, b)) not in linked]
    if pairs:
        links = ", ".join(pairs[:5]) + (", ..." if len(pairs) > 5 else "")
        message = f"regions that hold nodes lack links: {links}; add rows for them, or choose cluster.regions"
        yield "network.links", message


@check()
def links_differ(scenario: Scenario) -> Findings:
    """Each pair of regions has one link; links within a region are given by `same_region`."""
    seen: set[frozenset[str]] = set()
    for index, (a, b, *_) in enumerate(scenario.network.links):
        row, ends = f"network.links.{index}", f"'{shortened(a)}' and '{shortened(b)}'"
        if a == b:
            yield row, f"a link between {ends}: links within a region are given by 'same_region'"
        elif frozenset((a, b)) in seen:
            yield row, f"a second link between {ends}: links are the same both ways"
        seen.add(frozenset((a, b)))


@check("cluster.nodes_per_stage", "workload.num_stages")
def every_node_placed_by_hand_has_a_region(scenario: Scenario) -> Findings:
    """Placement by hand gives a region for each node."""
    cluster, last = scenario.cluster, scenario.workload.num_stages
    needed, found = num_nodes(cluster, last) - cluster.num_spares, len(cluster.regions or ())
    if cluster.placement == "by_hand" and found != needed:
        stages = f"{first_stage_of(cluster)} to {last}"
        nodes = f"{needed} nodes ({cluster.nodes_per_stage} for each of the stages {stages})"
        yield "cluster.regions", f"placement 'by_hand' needs a region for each of {nodes}, found {found}"


def missing_stages(field: str, stages: tuple[int, ...], scenario: Scenario) -> Findings:
    """A finding for each stage that the scenario does not have."""
    last = scenario.workload.num_stages
    for stage in stages:
        if not 0 <= stage <= last:
            yield field, f"no stage {stage}; allowed: 0 (embedding and head) to {last}"


def missing_replica(field: str, replica: int | None, scenario: Scenario) -> Findings:
    """A finding for a replica that the scenario does not have."""
    last = scenario.cluster.nodes_per_stage - 1
    if replica is not None and replica > last:
        yield field, f"no replica {replica}; allowed: 0 to {last}"


@check("cluster.nodes_per_stage", "workload.num_stages")
def stragglers_exist(scenario: Scenario) -> Findings:
    """Stragglers exist."""
    for index, slow in enumerate(scenario.cluster.stragglers):
        yield from missing_stages(f"cluster.stragglers.{index}", (slow.stage,), scenario)
        yield from missing_replica(f"cluster.stragglers.{index}", slow.replica, scenario)


def processes(scenario: Scenario) -> Iterator[tuple[str, ProcessConfig]]:
    """The failure process and those it is composed of, with their paths."""
    yield "failures", scenario.failures
    for index, process in enumerate(getattr(scenario.failures, "processes", ())):
        yield f"failures.processes.{index}", process


@check("workload.num_stages")
def immune_stages_exist(scenario: Scenario) -> Findings:
    """Immune stages exist."""
    for path, process in processes(scenario):
        yield from missing_stages(f"{path}.immune_stages", process.immune_stages, scenario)


@check("workload.num_stages", "failures")
def branches_are_of_stages_that_can_be_lost(scenario: Scenario) -> Findings:
    """The stages of branches exist and are not immune. Their steps concern `churnlab branches` alone."""
    config = scenario.branches
    stages = {taken for stage in config.stages or () for taken in config.taken_with(stage)} if config else set()
    immune = {stage for _, process in processes(scenario) for stage in process.immune_stages}
    yield from missing_stages("branches.stages", tuple(sorted(stages)), scenario)
    for stage in sorted(immune.intersection(stages)):
        yield "branches.stages", f"stage {stage} is among failures.immune_stages: it cannot be lost"


@check()
def rates_are_given_once(scenario: Scenario) -> Findings:
    """A rate or a mean is given, not both; and a spread goes with a distribution that has one."""
    where = " or ".join(f"'{distribution}'" for distribution in SPREADING)
    for path, process in processes(scenario):
        if None not in (getattr(process, "rate_per_hour", None), getattr(process, "mean_uptime_hours", None)):
            yield f"{path}.mean_uptime_hours", "give rate_per_hour or mean_uptime_hours, not both"
        for name, delay in process:
            if isinstance(delay, Delay) and delay.spread is not None and delay.distribution not in SPREADING:
                message = f"'spread' goes with distribution {where}, found distribution '{delay.distribution}'"
                yield f"{path}.{name}.spread", message


@check("workload.num_stages", "cluster.nodes_per_stage", "cluster.regions", "network")
def losses_of_scripts_exist(scenario: Scenario) -> Findings:
    """Stages, pipelines and regions of scripted losses exist."""
    regions = tuple(dict.fromkeys(scenario.cluster.regions or scenario.network.regions))
    for path, process in processes(scenario):
        for index, loss in enumerate(getattr(process, "losses", ()) if process.kind == "script" else ()):
            field = f"{path}.losses.{index}"
            yield from missing_stages(f"{field}.stages", loss.stages, scenario)
            yield from missing_replica(f"{field}.replica", loss.replica, scenario)
            if loss.region is not None and loss.region not in regions:
                where = f"in this cluster{suggestion(loss.region, regions)}"
                yield f"{field}.region", f"no region '{shortened(loss.region)}' {where}"


def chosen_strategies(scenario: Scenario) -> Iterator[tuple[str, StrategyConfig]]:
    """The strategies, and the fallback unless it is `stop`, with their paths."""
    yield from ((f"strategies.{index}", config) for index, config in enumerate(scenario.strategies))
    if scenario.fallback.kind != "stop":
        yield "fallback", scenario.fallback


@check("cluster.stage_state", "strategies", "fallback")
def strategies_support_sharding(scenario: Scenario) -> Findings:
    """With sharded stages, every strategy works without a node that holds a whole stage."""
    if scenario.cluster.stage_state != "sharded":
        return
    able = ", ".join(kind for kind, strategy in STRATEGIES.items() if strategy.supports_sharding)
    for path, config in chosen_strategies(scenario):
        if not strategy_class(config.kind).supports_sharding:
            needs = f"'{config.name}' needs nodes that hold whole stages"
            yield path, f"{needs}; allowed with stage_state 'sharded': {able}"
        elif getattr(config, "local_gib_per_s", None):
            yield f"{path}.local_gib_per_s", "local copies go with stage_state 'replicated', found 'sharded'"


@check("cluster.embedding_on", "workload.loss_at", "strategies", "fallback")
def embedding_can_be_on_the_first_stage(scenario: Scenario) -> Findings:
    """The embedding is on the nodes of S1 only if the head is elsewhere, and every strategy works with that."""
    if scenario.cluster.embedding_on != "first_stage":
        return
    if scenario.workload.loss_at != "last_stage":
        found = f"found '{scenario.workload.loss_at}'"
        yield "cluster.embedding_on", f"'first_stage' goes with workload.loss_at 'last_stage', {found}"
    able = ", ".join(kind for kind, strategy in STRATEGIES.items() if not strategy.needs_embedding_nodes)
    for path, config in chosen_strategies(scenario):
        if strategy_class(config.kind).needs_embedding_nodes:
            needs = f"'{config.name}' needs the embedding on nodes of its own"
            yield path, f"{needs}; allowed with embedding_on 'first_stage': {able}"
    for path, process in processes(scenario):
        if isinstance(process, ScriptConfig) and any(loss.stages == (EMBEDDING_STAGE,) for loss in process.losses):
            yield path, "a loss of stage 0 alone, which has no nodes with cluster.embedding_on 'first_stage'"
    for index, slow in enumerate(scenario.cluster.stragglers):
        if slow.stage == EMBEDDING_STAGE:
            yield f"cluster.stragglers.{index}.stage", "found 0, which has no nodes with embedding_on 'first_stage'"


@check("cluster", "workload.num_stages", "network")
def large_clusters_have_equal_pipelines(scenario: Scenario) -> Findings:
    """Large clusters have equal pipelines, so that one of them stands for all."""
    config, network, path = scenario.cluster, scenario.network, "cluster.nodes_per_stage"
    if config.nodes_per_stage <= MOST_SIMULATED:
        return
    found = f"found {config.nodes_per_stage:,}; allowed"
    if config.stage_state != "sharded":
        yield path, f"{found} with stage_state 'replicated': at most {MOST_SIMULATED:,}, or choose 'sharded'"
        return
    cluster = Cluster(config, scenario.workload.num_stages, config.regions or network.regions)
    if not pipelines_are_equal(cluster, Network(network, cluster.regions_of_nodes)):
        yield (
            path,
            f"{found} where pipelines differ or share links: at most {MOST_SIMULATED:,}; more where each stage is in "
            "one region, no single replica is a straggler, and the network has no 'access' links",
        )
    if config.jitter:
        yield "cluster.jitter", f"goes with nodes_per_stage of at most {MOST_SIMULATED:,}"
    if scenario.fidelity == "microbatch":
        yield "fidelity", f"'microbatch' goes with cluster.nodes_per_stage of at most {MOST_SIMULATED:,}"


@check("cluster", "workload", "network", "failures")
def iterations_fit_into_memory(scenario: Scenario) -> Findings:
    """An iteration has few enough operations for memory; with missing nodes, no pipeline stands for the others."""
    config, workload = scenario.cluster, scenario.workload
    cluster = Cluster(config, workload.num_stages, config.regions or scenario.network.regions)
    never_lacks_nodes = cluster.is_sharded or scenario.failures.kind == "never"
    one_for_all = never_lacks_nodes and pipelines_are_equal(
        cluster, Network(scenario.network, cluster.regions_of_nodes)
    )
    num_pipelines = 1 if one_for_all else config.nodes_per_stage
    num_visits = 2 * (workload.num_stages * workload.chunks_per_stage + 1) * workload.num_microbatches * num_pipelines
    if num_visits > MOST_VISITS:
        path = "cluster.nodes_per_stage" if num_pipelines > 1 else "workload.num_microbatches"
        yield (
            path,
            f"iterations of {num_visits:,} forwards and backwards ({num_pipelines:,} pipelines, "
            f"{workload.num_microbatches:,} microbatches, {workload.num_stages:,} stages); allowed: at most "
            f"{MOST_VISITS:,}, for the memory that they need with missing nodes",
        )


@check("sweep")
def fields_are_swept_once(scenario: Scenario) -> Findings:
    """A field is swept in one place only, fields that vary together equally often, and fixed ones never."""
    sweep = scenario.sweep or SweepConfig()
    if len({len(values) for values in sweep.zip.values()}) > 1:
        found = ", ".join(f"{shortened(field)}: {len(values)}" for field, values in sweep.zip.items())
        yield "sweep.zip", f"fields that vary together need equally many values, found {found}"
    by_hand = dict.fromkeys(field for point in sweep.list for field in point)
    sections = {"grid": list(sweep.grid), "zip": list(sweep.zip), "list": list(by_hand)}
    for (name, fields), (other, others) in combinations(sections.items(), 2):
        for field in fields:
            if field in others:
                yield f"sweep.{other}", f"'{shortened(field)}' is in the {name} already: each field once"
    for name, fields in sections.items():
        for field in fields:
            head = field.partition(".")[0].partition("[")[0].strip()
            if head in FIXED:
                yield f"sweep.{name}", f"'{shortened(field)}' cannot be swept: {FIXED[head]}"


@check("sweep", "seeds")
def replicates_are_counted_or_listed(scenario: Scenario) -> Findings:
    """Seeds are counted up from the first, or listed, not both, and in one design."""
    seeds, sweep = scenario.seeds, scenario.sweep
    if sweep is None:
        return
    for field, kind in (("replicates", "failures"), ("training_replicates", "training")):
        num_seeds = len(getattr(seeds, kind))
        if getattr(sweep, field) is not None and num_seeds > 1:
            yield f"sweep.{field}", f"seeds.{kind} lists {num_seeds} seeds already: give one of the two"
    if sweep.training_replicates is not None and seeds.design == "pairs":
        yield "sweep.training_replicates", "crosses seeds, but seeds.design is pairs: leave out one of the two"
    if sweep.replicates is None or sweep.training_replicates is not None or seeds.design == "crossed":
        return
    if (num_seeds := len(seeds.training)) > 1:
        message = (
            f"each has a training seed of its own, but seeds.training lists {num_seeds}: give one of the two, "
            "or seeds.design: crossed"
        )
        yield "sweep.replicates", message


@check("seeds")
def listed_seeds_make_pairs(scenario: Scenario) -> Findings:
    """Lists of seeds are equally long, or one has a single seed, unless they are crossed."""
    seeds = scenario.seeds
    num_failure, num_training = len(seeds.failures), len(seeds.training)
    if seeds.design != "crossed" and num_failure != num_training and min(num_failure, num_training) > 1:
        message = (
            f"{num_training} seeds, but seeds.failures lists {num_failure}: pairs need as many of both, or one of "
            "either; seeds.design: crossed combines each with each"
        )
        yield "seeds.training", message


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
            found = f"{stages} stages do not divide num_layers {layers}"
            yield "workload.num_stages", f"{found}; {allowed}, or give layers_per_stage"
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
        where = f"which goes with schedule {interleaved}, found schedule '{schedule.name}'"
        yield "workload.chunks_per_stage", f"found {chunks}, {where}"
    if not schedule.limits_in_flight and workload.max_in_flight is not None:
        fix = "leave it out, or choose schedule '1f1b'"
        yield "workload.max_in_flight", f"schedule '{schedule.name}' has all microbatches in flight: {fix}"


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


@check("training.model", "training.sequence_length", "training.replicates_at_once")
def stacked_replicates_have_aligned_sizes(scenario: Scenario) -> Findings:
    """Replicates trained together have sizes with which all have the same bits, whichever are together."""
    training = scenario.training
    odd = odd_sizes(training.model, training.sequence_length)
    if odd and (training.replicates_at_once or 1) > 1:
        found = ", ".join(f"{field} {size}" for field, size in odd.items())
        yield (
            "training.replicates_at_once",
            f"several at once need sizes that are multiples of {STACKED_MULTIPLE}, found {found}; allowed: 1",
        )


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
    num_stages = scenario.workload.num_stages
    possible = [config for config in scenario.strategies if not impossible(config, scenario.workload)]
    routes = {config.kind: strategy_class(config.kind)(config, num_stages).training_variant() for config in possible}
    for section in ("training", "workload"):
        count = getattr(scenario, section).num_microbatches
        for kind, num_routes in ((kind, len(variant)) for kind, variant in routes.items() if variant):
            if count % num_routes:
                needed = f"sends them along {num_routes} routes in turn: needs a multiple of {num_routes}"
                needed = "swaps half of them: needs an even number" if num_routes == 2 else needed
                yield f"{section}.num_microbatches", f"{kind} {needed}, found {count}"
                break


@check("workload.num_stages", "workload.sequences_per_microbatch", "workload.schedule", "workload.loss_at")
def strategies_fit_the_workload(scenario: Scenario) -> Findings:
    """Each strategy and the fallback accept the workload."""
    for path, config in chosen_strategies(scenario):
        if problem := impossible(config, scenario.workload):
            yield path, f"'{config.name}': {problem}"


@check("cluster", "training", "strategies", "fallback")
def strategies_fit_the_cluster(scenario: Scenario) -> Findings:
    """Every strategy has the pipelines that it needs, and the proxy a row of the batch for each."""
    for path, config in chosen_strategies(scenario):
        strategy, num_rows = strategy_class(config.kind), scenario.training.sequences_per_batch
        if problem := strategy.check_site(config, scenario.cluster, num_rows):
            yield path, f"'{config.name}': {problem}"


@check("workload", "cluster.device", "fallback")
def stages_fit_in_memory(scenario: Scenario) -> Findings:
    """Under every strategy, each stage's state and activations fit in its device's memory."""
    if list(stages_hold_all_layers(scenario)):
        return
    if found := too_little_memory(scenario):
        index, problem = found
        yield f"strategies.{index}", problem


@check()
def strategies_and_seeds_differ(scenario: Scenario) -> Findings:
    """Names of strategies differ, since each has a folder of its own, and seeds, since each counts as a replicate."""
    seen: set[str] = set()
    for index, config in enumerate(scenario.strategies):
        if config.name in seen:
            yield f"strategies.{index}", f"a second strategy named '{config.name}': give it a 'label' of its own"
        seen.add(config.name)
    for field in ("failures", "training"):
        seeds = getattr(scenario.seeds, field)
        for seed in dict.fromkeys(seed for seed in seeds if seeds.count(seed) > 1):
            yield f"seeds.{field}", f"seed {seed} is given {seeds.count(seed)} times: each once"
