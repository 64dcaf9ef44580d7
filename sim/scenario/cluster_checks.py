"""What the options of failure processes must agree on, with each other and with the rest of a scenario."""

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
from sim.workload.deployment import pipelines_are_alike

Check = Callable[[Scenario], "Iterator[tuple[str, str]]"]

SPREADING = ("weibull", "lognormal")


def processes(scenario: Scenario) -> Iterator[tuple[str, ProcessConfig]]:
    """The failure process and those it is composed of, with their paths."""
    yield "failures", scenario.failures
    for index, process in enumerate(getattr(scenario.failures, "processes", ())):
        yield f"failures.processes.{index}", process


def immune_stages_exist(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Only stages that are there can be spared."""
    last = scenario.workload.num_stages
    for path, process in processes(scenario):
        for stage in process.immune_stages:
            if not 0 <= stage <= last:
                yield f"{path}.immune_stages", f"no stage {stage}; allowed: 0 (embedding and head) to {last}"


def rates_are_given_once(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A rate is a mean uptime in other words."""
    for path, process in processes(scenario):
        if None not in (getattr(process, "rate_per_hour", None), getattr(process, "mean_uptime_hours", None)):
            yield f"{path}.mean_uptime_hours", "give rate_per_hour or mean_uptime_hours, not both"


def spreads_fit_their_distribution(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Only some distributions have a spread to choose."""
    for path, process in processes(scenario):
        for name, delay in process:
            if isinstance(delay, Delay) and delay.spread is not None and delay.distribution not in SPREADING:
                where = " or ".join(f"'{distribution}'" for distribution in SPREADING)
                message = f"'spread' goes with distribution {where}, found distribution '{delay.distribution}'"
                yield f"{path}.{name}.spread", message


def losses_of_scripts_exist(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Only stages, pipelines and regions that hold nodes can lose some."""
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


def traces_have_a_node_for_every_stage(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Nothing can run where there are never as many nodes as stages."""
    needed = scenario.workload.num_stages + 1
    for path, process in processes(scenario):
        if isinstance(process, TraceConfig) and process.additions == "replay":
            most = max(fleet_counts(process.rows)[1])
            if process.max_nodes is not None and process.max_nodes < most:
                most, path = process.max_nodes, f"{path}.max_nodes"
            if most < needed:
                yield (
                    path,
                    f"found {most} at most at a time; allowed: at least {needed}, a node for each of the stages 0 to "
                    f"{needed - 1}; or choose additions 'ignore'",
                )


def traces_bring_their_spares(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Where the fleet is a trace's, its spares are too."""
    brings = any(
        isinstance(process, TraceConfig) and process.additions == "replay" for _, process in processes(scenario)
    )
    if brings and scenario.cluster.num_spares:
        yield (
            "cluster.num_spares",
            f"found {scenario.cluster.num_spares}, where the trace brings all nodes: leave it out, or choose additions "
            "'ignore'",
        )


FAILURE_CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (immune_stages_exist, ("workload.num_stages",)),
    (rates_are_given_once, ()),
    (spreads_fit_their_distribution, ()),
    (traces_have_a_node_for_every_stage, ("workload.num_stages",)),
    (traces_bring_their_spares, ("cluster.num_spares",)),
    (losses_of_scripts_exist, ("workload.num_stages", "cluster.nodes_per_stage", "cluster.regions", "network")),
)
"""Each with the fields without which it would complain of what is not so: see `sim.scenario.checks.CHECKS`."""


# What a scenario of many nodes, or of nodes that hold shares of a stage's state, must agree on.

MOST_SIMULATED = 1000


def shares_are_restored(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Strategies that rebuild stages from nodes that hold all of them do not go with nodes that hold shares."""
    if scenario.cluster.stage_state != "sharded":
        return
    able = ", ".join(kind for kind, strategy in STRATEGIES.items() if strategy.supports_sharding)
    survivors: list[tuple[str, StrategyConfig]] = [
        (f"strategies.{index}", config) for index, config in enumerate(scenario.strategies)
    ]
    if scenario.fallback.kind != "stop":
        survivors.append(("fallback", scenario.fallback))
    for path, config in survivors:
        if not strategy_class(config.kind).supports_sharding:
            yield (
                path,
                f"'{config.name}' needs nodes that hold whole stages; allowed with stage_state 'sharded': {able}",
            )
        elif getattr(config, "local_gib_per_s", None):
            yield f"{path}.local_gib_per_s", "local copies go with stage_state 'replicated', found 'sharded'"


def many_nodes_are_priced_as_one(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Iterations are simulated node by node unless all pipelines do the same; of many that would take too long."""
    config, network, path = scenario.cluster, scenario.network, "cluster.nodes_per_stage"
    if config.nodes_per_stage <= MOST_SIMULATED:
        return
    found = f"found {config.nodes_per_stage:,}; allowed"
    if config.stage_state != "sharded":
        yield path, f"{found} with stage_state 'replicated': at most {MOST_SIMULATED:,}, or choose 'sharded'"
        return
    regions = config.regions or network.regions
    cluster = Cluster(config, scenario.workload.num_stages, regions)
    if not pipelines_are_alike(cluster, Network(network, cluster.regions_of_nodes)):
        yield (
            path,
            f"{found} where pipelines differ or share links: at most {MOST_SIMULATED:,}; more where each stage is in "
            "one region, no single replica is a straggler, and the network has no 'access' links",
        )
    if config.jitter:
        yield "cluster.jitter", f"goes with nodes_per_stage of at most {MOST_SIMULATED:,}"
    if scenario.fidelity == "microbatch":
        message = f"'microbatch' goes with cluster.nodes_per_stage of at most {MOST_SIMULATED:,}"
        yield "fidelity", message


FLEET_CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (shares_are_restored, ("cluster.stage_state", "strategies", "fallback")),
    (
        many_nodes_are_priced_as_one,
        ("cluster", "workload.num_stages", "network"),
    ),
)
"""Each with the fields without which it would complain of what is not so: see `sim.scenario.checks.CHECKS`."""
