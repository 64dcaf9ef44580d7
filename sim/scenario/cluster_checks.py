"""Consistency checks of network, cluster and failure processes; and the decorator that registers a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sim.cluster.network import Network
from sim.cluster.topology import Cluster
from sim.core.distributions import Delay
from sim.core.text import shortened, suggestion
from sim.failures import ProcessConfig
from sim.failures.trace import TraceConfig
from sim.failures.trace_formats import fleet_counts
from sim.scenario.scenario import Scenario
from sim.strategies import STRATEGIES, StrategyConfig, strategy_class
from sim.workload.deployment import pipelines_are_equal

Findings = Iterator[tuple[str, str]]
"""Paths of fields, and what is wrong there: which values do not fit, and how to mend it."""

Check = Callable[[Scenario], Findings]

CHECKS: list[tuple[Check, tuple[str, ...]]] = []
"""All consistency checks, here and in `checks.py`, each with the fields that must be valid for it to run.

Other fields that are faulty by themselves are replaced by their defaults (faulty strategies by `none`).
"""


def check(*fields: str) -> Callable[[Check], Check]:
    """Register a consistency check, which runs where these fields are valid by themselves.

    fields: all that the check compares, also those that its message does not name: it would see the default of a faulty
    one. A section, such as "sweep", stands for all its fields.
    """

    def register(function: Check) -> Check:
        CHECKS.append((function, fields))
        return function

    return register


SPREADING = ("weibull", "lognormal")
"""Distributions of a downtime that have a spread."""

MOST_SIMULATED = 1000
"""Most nodes of a stage that are simulated one by one."""


# ---- network and places ----------------------------------------------------------------------------


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
    pairs = [(a, b) for i, a in enumerate(placed) for b in placed[i + 1 :] if frozenset((a, b)) not in linked]
    if pairs:
        links = ", ".join(shortened(f"{a}-{b}") for a, b in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
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
    cluster = scenario.cluster
    if cluster.placement == "by_hand":
        last, each = scenario.workload.num_stages, cluster.nodes_per_stage
        needed, found = (last + 1) * each, len(cluster.regions or ())
        if found != needed:
            nodes = f"{needed} nodes ({each} for each of the stages 0 to {last})"
            yield "cluster.regions", f"placement 'by_hand' needs a region for each of {nodes}, found {found}"


@check("cluster.nodes_per_stage", "workload.num_stages")
def stragglers_exist(scenario: Scenario) -> Findings:
    """Stragglers exist."""
    last_stage, last_replica = scenario.workload.num_stages, scenario.cluster.nodes_per_stage - 1
    for index, slow in enumerate(scenario.cluster.stragglers):
        field = f"cluster.stragglers.{index}"
        if slow.stage > last_stage:
            yield field, f"no stage {slow.stage}; allowed: 0 (embedding and head) to {last_stage}"
        if slow.replica is not None and slow.replica > last_replica:
            yield field, f"no replica {slow.replica}; allowed: 0 to {last_replica}"


def chosen_strategies(scenario: Scenario) -> Iterator[tuple[str, StrategyConfig]]:
    """The strategies, and the fallback unless it is `stop`, with their paths."""
    yield from ((f"strategies.{index}", config) for index, config in enumerate(scenario.strategies))
    if scenario.fallback.kind != "stop":
        yield "fallback", scenario.fallback


# ---- failure processes -----------------------------------------------------------------------------


def processes(scenario: Scenario) -> Iterator[tuple[str, ProcessConfig]]:
    """The failure process and those it is composed of, with their paths."""
    yield "failures", scenario.failures
    for index, process in enumerate(getattr(scenario.failures, "processes", ())):
        yield f"failures.processes.{index}", process


@check("workload.num_stages")
def immune_stages_exist(scenario: Scenario) -> Findings:
    """Immune stages exist."""
    last = scenario.workload.num_stages
    for path, process in processes(scenario):
        for stage in process.immune_stages:
            if not 0 <= stage <= last:
                yield f"{path}.immune_stages", f"no stage {stage}; allowed: 0 (embedding and head) to {last}"


@check()
def rates_are_given_once(scenario: Scenario) -> Findings:
    """A rate or a mean is given, not both."""
    for path, process in processes(scenario):
        if None not in (getattr(process, "rate_per_hour", None), getattr(process, "mean_uptime_hours", None)):
            yield f"{path}.mean_uptime_hours", "give rate_per_hour or mean_uptime_hours, not both"


@check()
def spreads_fit_their_distribution(scenario: Scenario) -> Findings:
    """A spread goes with a distribution that has one."""
    for path, process in processes(scenario):
        for name, delay in process:
            if isinstance(delay, Delay) and delay.spread is not None and delay.distribution not in SPREADING:
                where = " or ".join(f"'{distribution}'" for distribution in SPREADING)
                message = f"'spread' goes with distribution {where}, found distribution '{delay.distribution}'"
                yield f"{path}.{name}.spread", message


@check("workload.num_stages", "cluster.nodes_per_stage", "cluster.regions", "network")
def losses_of_scripts_exist(scenario: Scenario) -> Findings:
    """Stages, pipelines and regions of scripted losses exist."""
    last_stage, last_replica = scenario.workload.num_stages, scenario.cluster.nodes_per_stage - 1
    regions = tuple(dict.fromkeys(scenario.cluster.regions or scenario.network.regions))
    for path, process in processes(scenario):
        for index, loss in enumerate(getattr(process, "losses", ()) if process.kind == "script" else ()):
            field = f"{path}.losses.{index}"
            for stage in loss.stages:
                if not 0 <= stage <= last_stage:
                    yield f"{field}.stages", f"no stage {stage}; allowed: 0 (embedding and head) to {last_stage}"
            if loss.replica is not None and loss.replica > last_replica:
                yield f"{field}.replica", f"no replica {loss.replica}; allowed: 0 to {last_replica}"
            if loss.region is not None and loss.region not in regions:
                where = f"in this cluster{suggestion(loss.region, regions)}"
                yield f"{field}.region", f"no region '{shortened(loss.region)}' {where}"


def replayed_traces(scenario: Scenario) -> Iterator[tuple[str, TraceConfig]]:
    """The traces that supply the nodes, with their paths."""
    for path, process in processes(scenario):
        if isinstance(process, TraceConfig) and process.additions == "replay":
            yield path, process


@check("workload.num_stages")
def traces_have_a_node_for_every_stage(scenario: Scenario) -> Findings:
    """A replayed trace has, at some time, a node for every stage."""
    needed = scenario.workload.num_stages + 1
    for path, process in replayed_traces(scenario):
        most = max(fleet_counts(process.rows)[1])
        if process.max_nodes is not None and process.max_nodes < most:
            most, path = process.max_nodes, f"{path}.max_nodes"
        if most < needed:
            allowed = f"at least {needed}, a node for each of the stages 0 to {needed - 1}"
            message = f"the trace has at most {most} nodes at a time; allowed: {allowed}; or choose additions 'ignore'"
            yield path, message


@check("cluster.num_spares")
def traces_supply_the_spares(scenario: Scenario) -> Findings:
    """Spares are not given where a trace supplies all nodes."""
    if scenario.cluster.num_spares and any(replayed_traces(scenario)):
        found = f"found {scenario.cluster.num_spares}, but the trace supplies all nodes"
        yield "cluster.num_spares", f"{found}: leave it out, or choose additions 'ignore'"


# ---- sharded stages, large clusters ----------------------------------------------------------------


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
    regions = config.regions or network.regions
    cluster = Cluster(config, scenario.workload.num_stages, regions)
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
