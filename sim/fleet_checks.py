"""What a scenario of many nodes, or of nodes that hold shares of a stage's state, must agree on."""

from __future__ import annotations

from collections.abc import Iterator

from sim.cluster import Cluster
from sim.failure_checks import Check
from sim.network import Network
from sim.scenario import Scenario
from sim.site import pipelines_are_alike
from sim.strategies import STRATEGIES, StrategyConfig, strategy_class

MOST_SIMULATED = 1000


def shares_are_restored(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Strategies that rebuild stages from nodes that hold all of them do not go with nodes that hold shares."""
    if scenario.cluster.stage_state != "sharded":
        return
    able = ", ".join(kind for kind, strategy in STRATEGIES.items() if strategy.restores_shares)
    survivors: list[tuple[str, StrategyConfig]] = [
        (f"strategies.{index}", config) for index, config in enumerate(scenario.strategies)
    ]
    if scenario.fallback.kind != "stop":
        survivors.append(("fallback", scenario.fallback))
    for path, config in survivors:
        if not strategy_class(config.kind).restores_shares:
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
"""Each with the fields without which it would complain of what is not so: see `sim.checks.CHECKS`."""
