"""A scenario's runs: one strategy under one pair of seeds, from the first step to the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.building import build_site, build_world, known_prices, learn_prices, node_counts, time_only
from sim.clock import SECONDS_PER_HOUR
from sim.fleet import node_seconds
from sim.job import Progress, TrainingJob, Watcher
from sim.records import Bucket, EventRecord, IterationRecord, NodeCount
from sim.renewals import renews_itself
from sim.scenario import Scenario
from sim.strategies import StrategyConfig, strategy_class
from sim.trace import Trace
from sim.training import NoTraining, Training

__all__ = ["Progress", "Run", "Watcher", "build_site", "build_world", "known_prices", "learn_prices"]
__all__ += ["simulate", "time_only"]


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
    trace: Trace | None = None,
    heeds_failures: bool = True,
) -> Run:
    """Run one strategy of a scenario from the first step to the last; or as if failures had no effect.

    Strategies under the same failure seed meet failures at the same simulated times (or, for processes that
    count iterations, in the same executed iterations, unless another failure has ended them). Equal arguments
    give equal runs, to the bit.
    """
    strategy = strategy_class(config.kind)(config, scenario.workload.num_stages)
    heeds_failures = heeds_failures and strategy.heeds_failures
    is_plain = isinstance(training, NoTraining) and trace is None and heeds_failures
    by_renewals = is_plain and renews_itself(scenario, strategy)

    def begun() -> TrainingJob:
        world = build_world(scenario, failure_seed, heeds_failures, trace)
        return TrainingJob(scenario, world, config, strategy, training, watch)

    job = begun()
    if by_renewals and not job.passes_by_renewals(failure_seed):
        job, by_renewals = begun(), False
    if not by_renewals:
        job.world.run(job.process())
    world = job.world
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
