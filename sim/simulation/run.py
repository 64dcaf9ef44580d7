"""From a scenario to its world, its site, and what is known of their prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.spec import plain_routes
from models.training import NoTraining, Training
from sim.cluster.membership import node_seconds
from sim.cluster.topology import Cluster, num_nodes
from sim.core.records import Bucket, EventRecord, IterationRecord, NodeCount
from sim.core.units import SECONDS_PER_HOUR
from sim.failures import process_class
from sim.scenario.scenario import Scenario
from sim.simulation.recorder import EventRecorder
from sim.simulation.training_process import TrainingProcess, Watcher
from sim.simulation.world import World
from sim.strategies import StrategyConfig, strategy_class
from sim.workload.costs import Costs
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import IterationTimeCache, Prices, price_list


def node_counts(scenario: Scenario, world: World) -> list[NodeCount]:
    """The nodes that were there; where failures are ignored, a complete cluster, unless a trace brings them."""
    if world.stops_on_failures or world.supplies_nodes:
        return world.fleet.counts
    return [NodeCount(0.0, num_nodes(scenario.cluster, scenario.workload.num_stages))]


def time_only(scenario: Scenario) -> NoTraining:
    """A learner for a scenario's runs of which only the seconds matter: they do not depend on what is learnt."""
    spec = scenario.training.spec("time only", 256, 0, 0, plain_routes(scenario.workload.num_stages))
    return NoTraining(spec, scenario.iterations_per_step)


def build_world(
    scenario: Scenario, failure_seed: int, stops_on_failures: bool = True, trace: EventRecorder | None = None
) -> World:
    """The world of a scenario at time zero."""
    site, prices = _site(scenario)
    return World(
        site=site,
        failures=process_class(scenario.failures.kind)(scenario.failures),
        failure_seed=failure_seed,
        stops_on_failures=stops_on_failures,
        fidelity=scenario.fidelity,
        trace=trace,
        prices=prices,
    )


def build_site(scenario: Scenario) -> Deployment:
    """The nodes and links of a scenario, and what iterations cost there."""
    return _site(scenario)[0]


def _site(scenario: Scenario) -> tuple[Deployment, IterationTimeCache]:
    """The same, and what is known of its prices."""
    regions = scenario.cluster.regions or scenario.network.regions
    cluster = Cluster(scenario.cluster, scenario.workload.num_stages, regions)
    prices = price_list(scenario.workload, cluster, scenario.network)
    return Deployment(Costs(scenario.workload, scenario.cluster.device), cluster, prices.network), prices


def known_prices(scenario: Scenario) -> Prices:
    """What this process knows of a scenario's prices: to be sent to another, where `learn_prices` takes it over."""
    return _site(scenario)[1].told()


def learn_prices(scenario: Scenario, prices: Prices) -> None:
    """Take over what another process knows of a scenario's prices; no result changes by it."""
    _site(scenario)[1].learn(prices)


# A scenario's runs: one strategy under one pair of seeds, from the first step to the last.


@dataclass(frozen=True)
class Run:
    """What happened under one strategy and one pair of seeds. Times are simulated seconds.

    joining_seconds: that training stood still for nodes that joined, and for all to be there at the beginning.
    sent_bytes: in recoveries, checkpoints and copies, beside the iterations' own messages.
    """

    strategy: str
    kind: str
    failure_seed: int
    training_seed: int
    iterations: Sequence[IterationRecord]
    events: Sequence[EventRecord]
    ledger: dict[Bucket, float]
    wall_clock_seconds: float
    iteration_seconds: float
    ideal_iteration_seconds: float
    num_iterations: int
    num_failures: int
    num_nodes_lost: int
    nodes: Sequence[NodeCount]
    joining_seconds: float
    sent_bytes: float
    stopped: str | None

    @property
    def node_hours(self) -> float:
        """Hours of nodes that were there."""
        return self.node_hours_until(self.wall_clock_seconds)

    def node_hours_until(self, seconds: float) -> float:
        """The same until an instant of the run."""
        return node_seconds(self.nodes, seconds) / SECONDS_PER_HOUR


def simulate(
    scenario: Scenario,
    config: StrategyConfig,
    failure_seed: int,
    training_seed: int,
    training: Training,
    watch: Watcher | None = None,
    trace: EventRecorder | None = None,
    stops_on_failures: bool = True,
) -> Run:
    """Run one strategy of a scenario from the first step to the last; or as if failures had no effect.

    Strategies under the same failure seed meet failures at the same simulated times (or, for processes that
    count iterations, in the same executed iterations, unless another failure has ended them). Equal arguments
    give equal runs, to the bit.
    """
    strategy = strategy_class(config.kind)(config, scenario.workload.num_stages)
    stops_on_failures = stops_on_failures and strategy.stops_on_failures
    world = build_world(scenario, failure_seed, stops_on_failures, trace)
    job = TrainingProcess(scenario, world, config, strategy, training, watch)
    world.run(job.process())
    if trace:
        trace.close(world.now_seconds)
    training.flush()
    return Run(
        strategy=config.name,
        kind=config.kind,
        failure_seed=failure_seed,
        training_seed=training_seed,
        iterations=job.iterations,
        events=world.events,
        ledger=world.ledger.buckets(),
        wall_clock_seconds=world.now_seconds,
        iteration_seconds=world.pipeline.split(job.plan).seconds,
        ideal_iteration_seconds=world.pipeline.split(world.plain_plan()).seconds,
        num_iterations=world.execution.num_completed,
        num_failures=world.num_failures,
        num_nodes_lost=world.fleet.num_lost,
        nodes=node_counts(scenario, world),
        joining_seconds=world.joining.seconds,
        sent_bytes=world.messenger.num_bytes_sent,
        stopped=job.stopped,
    )
