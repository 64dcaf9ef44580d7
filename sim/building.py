"""From a scenario to its world, its site, and what is known of their prices."""

from __future__ import annotations

from models.lineage import plain_routes
from sim.cluster import Cluster
from sim.costs import Costs
from sim.failures import process_class
from sim.money import num_nodes
from sim.prices import PriceList, Prices, price_list
from sim.records import NodeCount
from sim.scenario import Scenario
from sim.site import Site
from sim.trace import Trace
from sim.training import NoTraining
from sim.world import World


def node_counts(scenario: Scenario, world: World) -> list[NodeCount]:
    """The nodes that were there; where failures are ignored, a complete cluster, unless a trace brings them."""
    if world.heeds_failures or world.brings_its_nodes:
        return world.fleet.counts
    return [NodeCount(0.0, num_nodes(scenario.cluster, scenario.workload.num_stages))]


def time_only(scenario: Scenario) -> NoTraining:
    """A learner for a scenario's runs of which only the seconds matter: they do not depend on what is learnt."""
    spec = scenario.training.spec("time only", 256, 0, 0, plain_routes(scenario.workload.num_stages))
    return NoTraining(spec, scenario.iterations_per_step)


def build_world(
    scenario: Scenario, failure_seed: int, heeds_failures: bool = True, trace: Trace | None = None
) -> World:
    """The world of a scenario at time zero."""
    site, prices = _site(scenario)
    return World(
        site=site,
        failures=process_class(scenario.failures.kind)(scenario.failures),
        failure_seed=failure_seed,
        heeds_failures=heeds_failures,
        fidelity=scenario.fidelity,
        trace=trace,
        prices=prices,
    )


def build_site(scenario: Scenario) -> Site:
    """The nodes and links of a scenario, and what iterations cost there."""
    return _site(scenario)[0]


def _site(scenario: Scenario) -> tuple[Site, PriceList]:
    """The same, and what is known of its prices."""
    regions = scenario.cluster.regions or scenario.network.regions
    cluster = Cluster(scenario.cluster, scenario.workload.num_stages, regions)
    prices = price_list(scenario.workload, cluster, scenario.network)
    return Site(Costs(scenario.workload, scenario.cluster.device), cluster, prices.network), prices


def known_prices(scenario: Scenario) -> Prices:
    """What this process knows of a scenario's prices: to be sent to another, where `learn_prices` takes it over."""
    return _site(scenario)[1].told()


def learn_prices(scenario: Scenario, prices: Prices) -> None:
    """Take over what another process knows of a scenario's prices; no result changes by it."""
    _site(scenario)[1].learn(prices)
