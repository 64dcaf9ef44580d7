"""One run of a scenario: one strategy under one pair of seeds, from the first iteration to the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from models.spec import plain_routes
from models.training import NoTraining, Training
from models.training_state import Edits
from sim.cluster.flows import Flows
from sim.cluster.membership import Membership, node_seconds
from sim.cluster.topology import Cluster, num_nodes
from sim.core.effort import Effort
from sim.core.ledger import Ledger
from sim.core.records import Bucket, EventRecord, IterationRecord, NodeCount, Synchronisation
from sim.core.rng import stream
from sim.core.units import EXACT_SECONDS, SECONDS_PER_HOUR
from sim.failures import process_class
from sim.scenario.scenario import Scenario
from sim.simulation.event_loop import EventLoop
from sim.simulation.failure_injection import FailureInjector
from sim.simulation.interruptible import InterruptibleWork
from sim.simulation.iterations import IterationExecutor
from sim.simulation.log import EventLog
from sim.simulation.recorder import EventRecorder
from sim.simulation.state_placement import StatePlacement
from sim.simulation.training_process import TrainingProcess, Watcher
from sim.simulation.transfers import StateTransfers
from sim.simulation.world import World
from sim.strategies import StrategyConfig, strategy_class
from sim.workload.costs import Costs
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import IterationTimes, cache_of
from sim.workload.window import plain_plan_on


@dataclass(frozen=True)
class Run:
    """What happened under one strategy and one pair of seeds. Times are simulated seconds.

    equal_iteration_seconds: of a plain iteration with the strategy's microbatches, of microbatch_size × the workload's.
    joining_seconds: that training waited for nodes. batch_share: of the batch that counted, as a mean over iterations.
    sent_bytes: apart from the messages of iterations. edits: that rebuilt stages, and recipes, with their steps, on the
    way to the last state; none of replicas that train apart. num_events: that the simulation took.
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
    equal_iteration_seconds: float
    microbatch_size: float
    num_iterations: int
    num_failures: int
    num_nodes_lost: int
    nodes: Sequence[NodeCount]
    joining_seconds: float
    batch_share: float
    synchronisations: Sequence[Synchronisation]
    sent_bytes: float
    stopped: str | None
    edits: Edits
    num_events: int = field(default=0, compare=False)

    @property
    def node_hours(self) -> float:
        """Hours of all nodes, spares among them."""
        return self.node_hours_until(self.wall_clock_seconds)

    def node_hours_until(self, seconds: float) -> float:
        """The node-hours up to an instant of the run."""
        return node_seconds(self.nodes, seconds) / SECONDS_PER_HOUR


def simulate(
    scenario: Scenario,
    config: StrategyConfig,
    failure_seed: int,
    training_seed: int,
    training: Training,
    watch: Watcher | None = None,
    recorder: EventRecorder | None = None,
    stops_on_failures: bool = True,
) -> Run:
    """Run one strategy of a scenario from the first iteration to the last.

    Equal arguments give equal runs, to the bit; equal failure seeds give failures at equal times (or iterations).
    stops_on_failures: false for a run in which failures have no effect.
    """
    strategy = strategy_class(config.kind)(config, scenario.workload.num_stages)
    process = TrainingProcess(scenario, strategy, training, watch)
    stops = stops_on_failures and strategy.stops_on_failures
    bytes_of_joining = partial(joining_bytes, scenario, config)
    world = build_world(scenario, failure_seed, stops, recorder, process.on_notice, bytes_of_joining)
    times, plain_plan = world.iteration_times, world.plain_plan()
    most_iterations = scenario.give_up_after * process.num_iterations
    world.iterations.most_executed = most_iterations
    world.work.deadline_seconds = min(most_iterations * times.split(plain_plan).seconds, EXACT_SECONDS)
    world.limit_events(scenario.give_up_after_events)
    world.run(process.train(world))
    if recorder:
        recorder.close(world.now_seconds)
    training.flush()
    nodes = world.membership.counts
    if not (stops or world.failures.supplies_nodes):  # failures have no effect
        nodes = [NodeCount(0.0, num_nodes(scenario.cluster, scenario.workload.num_stages))]
    return Run(
        strategy=config.name,
        kind=config.kind,
        failure_seed=failure_seed,
        training_seed=training_seed,
        iterations=process.iterations,
        events=world.events,
        ledger=world.ledger.buckets(),
        wall_clock_seconds=world.now_seconds,
        iteration_seconds=iteration_seconds(process, times),
        ideal_iteration_seconds=times.split(plain_plan).seconds,
        equal_iteration_seconds=times.split(plain_plan_on(times.deployment, process.plan)).seconds,
        microbatch_size=process.plan.microbatch_size,
        num_iterations=world.iterations.num_completed,
        num_failures=world.num_failures,
        num_nodes_lost=world.membership.num_lost,
        nodes=nodes,
        joining_seconds=world.joining.waited_seconds,
        batch_share=process.batch_share,
        synchronisations=world.synchronisations,
        sent_bytes=world.transfers.num_bytes_sent,
        stopped=process.stopped,
        edits=process.edits,
        num_events=times.effort.num_events,
    )


def iteration_seconds(process: TrainingProcess, times: IterationTimes) -> float:
    """Seconds of an iteration of a run: on all nodes and alone; with jitter, the mean over those of the run."""
    if not (process.scenario.cluster.jitter and process.iterations):
        return times.split(process.plan).seconds
    return fmean(record.ended_seconds - record.started_seconds for record in process.iterations)


def joining_bytes(scenario: Scenario, config: StrategyConfig, costs: Costs, stage: int) -> float:
    """Bytes that are sent to a node that joins others of its stage: its state, and what the strategies store there."""
    num_bytes = costs.checkpoint_bytes(stage)
    for used in (config, scenario.fallback):
        if used.kind != "stop":
            num_bytes += strategy_class(used.kind).joining_bytes(used, costs, stage)
    return num_bytes


def build_world(
    scenario: Scenario,
    failure_seed: int,
    stops_on_failures: bool = True,
    recorder: EventRecorder | None = None,
    on_notice: Callable[[], None] = lambda: None,
    bytes_of_joining: Callable[[Costs, int], float] = Costs.checkpoint_bytes,
) -> World:
    """Build the world of a scenario at time zero, from the event loop up.

    on_notice: called at a preemption notice that concerns the last nodes with a stage's state.
    bytes_of_joining: what a node is sent that joins others of a stage.
    """
    deployment = build_site(scenario)
    cluster, failures = deployment.cluster, process_class(scenario.failures.kind)(scenario.failures)
    cache = cache_of(scenario.workload, cluster, scenario.network)
    effort = Effort()
    env, events = EventLoop(effort), EventLog()
    work, flows = InterruptibleWork(env, Ledger(), recorder), Flows(env)
    membership = Membership(
        cluster, failures.num_initial_nodes, stream(failure_seed, "places"), failures.initial_regions
    )
    placement = StatePlacement(cluster)
    gives_notice = any(part.config.notice_seconds for _, part in failures.parts)
    transfers = StateTransfers(work, flows, placement, cache, gives_notice)
    times = IterationTimes(deployment, failure_seed, cache, effort)
    parts = work, events, membership, placement, transfers, times
    world = World(failures, *parts, stops_on_failures, on_notice, bytes_of_joining)
    world.injector = FailureInjector(env, membership, failures, failure_seed, world)
    world.iterations = IterationExecutor(times, work, flows, world.injector, scenario.fidelity)
    return world


def build_site(scenario: Scenario) -> Deployment:
    """The nodes and links of a scenario, and what iterations cost there."""
    regions = scenario.cluster.regions or scenario.network.regions
    cluster = Cluster(scenario.cluster, scenario.workload.num_stages, regions)
    network = cache_of(scenario.workload, cluster, scenario.network).network
    return Deployment(Costs(scenario.workload, scenario.cluster.device), cluster, network)


def time_only(scenario: Scenario) -> NoTraining:
    """A learner that trains nothing, for runs of which only the times matter: these do not depend on losses."""
    nothing_of_a_machine = {"device": "cpu", "compile": "off", "num_threads": 1}
    training = scenario.training.model_copy(update=nothing_of_a_machine)
    spec = training.spec("time only", 256, 0, 0, plain_routes(scenario.workload.num_stages))
    return NoTraining(spec, scenario.iterations_per_step)
