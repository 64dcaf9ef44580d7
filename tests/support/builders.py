"""Small scenarios, iterations, worlds and runs whose seconds are round numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from models.curve import CurveTraining
from models.spec import plain_routes
from models.training import Training
from models.training_state import Position
from sim.cluster.network import Network, NetworkConfig
from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.records import EventRecord, Message, Operation
from sim.failures.script import ScriptConfig
from sim.scenario.scenario import Scenario
from sim.simulation.recorder import EventRecorder
from sim.simulation.run import Run, build_world, simulate
from sim.simulation.run import time_only as no_training  # noqa: F401
from sim.simulation.world import World
from sim.strategies import STRATEGIES, Strategy, StrategyConfig
from sim.workload.config import IterationPlan, TargetModel, WorkloadConfig, plain_plan
from sim.workload.costs import Costs
from sim.workload.deployment import Deployment
from support.failure_processes import Loss, LossesConfig, Script, ScriptedConfig
from support.simpy_iteration import FinishedIteration, fastest_run

TINY_MODEL = {"dim": 8, "num_heads": 2, "hidden_dim": 17, "vocabulary_size": 42}
"""With one layer per stage, all stages have 680 parameters, stage 0 too: 8160 bytes of checkpoint each."""
CHECKPOINT_BYTES = 8160.0
INSTANT = {"latency_ms": 0.0, "bandwidth_mbit_per_s": 1e30}
BYTES_PER_SECOND = 1 / 125_000
"""A byte a second, in Mbit/s."""
TICK = 2.0**-26


def a_link(latency_seconds: float = 0.0, bytes_per_second: float = 1.25e35) -> dict[str, float]:
    """A link, by default without cost."""
    return {"latency_ms": latency_seconds * 1e3, "bandwidth_mbit_per_s": bytes_per_second * BYTES_PER_SECOND}


def a_scenario(
    strategies: tuple[dict[str, Any], ...] = ({"kind": "none"},),
    *,
    num_stages: int = 4,
    steps: int = 20,
    num_microbatches: int = 4,
    schedule: str = "1f1b",
    upload_seconds: float = 0.0,
    network: dict[str, Any] | str | None = None,
    cluster: dict[str, Any] | None = None,
    failures: dict[str, Any] | None = None,
    fallback: dict[str, Any] | str = "stop",
    iterations_per_step: int = 1,
    evaluation_interval: int = 5,
    fidelity: str = "iteration",
    **workload: Any,
) -> Scenario:
    """Forwards of 1 s, backwards of 2 s, no transfer time: an iteration takes 3 (m + s - 1) seconds.

    The default is 4 stages and 4 microbatches: 21 s. Nodes are back 10 s + 5 s after a failure. All stages' uploads
    together fill the store's link for `upload_seconds`, and so do their downloads.
    """
    to_store = a_link(bytes_per_second=(num_stages + 1) * CHECKPOINT_BYTES / upload_seconds) if upload_seconds else None
    chunks = workload.get("chunks_per_stage", 1)
    return Scenario.model_validate(
        {
            "name": "test",
            "workload": {
                "model": {**TINY_MODEL, "num_layers": num_stages * chunks},
                "num_stages": num_stages,
                "num_microbatches": num_microbatches,
                "schedule": schedule,
                "measured": {"forward_seconds": 1.0, "backward_seconds": 2.0},
                **workload,
            },
            "training": {
                "learner": "curve",
                "model": {"num_stages": num_stages},
                "steps": steps,
                "evaluation": {"interval_steps": evaluation_interval},
            },
            "cluster": cluster or {"detection_seconds": 10.0, "startup_seconds": 5.0},
            "network": network or {"same_region": INSTANT, "storage": to_store or INSTANT},
            "failures": failures or {"kind": "never"},
            "strategies": strategies,
            "fallback": fallback,
            "fidelity": fidelity,
            "iterations_per_step": iterations_per_step,
        }
    )


@dataclass(frozen=True)
class GivenSeconds(Costs):
    """Costs with the (forward, backward) seconds of each layer stage as given."""

    stages: tuple[tuple[float, float], ...] = ()

    def forward_seconds(self, stage: int, microbatch_size: float = 1.0) -> float:
        return microbatch_size * self.stages[stage - 1][0] if stage else super().forward_seconds(0, microbatch_size)

    def backward_seconds(self, stage: int, microbatch_size: float = 1.0) -> float:
        return microbatch_size * self.stages[stage - 1][1] if stage else super().backward_seconds(0, microbatch_size)


def a_site(
    num_stages: int,
    num_microbatches: int,
    forward_seconds: float = 1.0,
    backward_seconds: float = 2.0,
    schedule: str = "1f1b",
    head_seconds: float = 0.0,
    hop_seconds: float = 0.0,
    *,
    stages: Sequence[tuple[float, float]] | None = None,
    network: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    **workload: Any,
) -> Deployment:
    """A deployment of equal stages, or of `stages` of given seconds; `network` and `cluster` as in a scenario."""
    measured = {"forward_seconds": forward_seconds, "backward_seconds": backward_seconds, "head_seconds": head_seconds}
    config = WorkloadConfig(
        model=TargetModel(num_layers=num_stages * workload.get("chunks_per_stage", 1), **TINY_MODEL),
        num_stages=num_stages,
        num_microbatches=num_microbatches,
        schedule=schedule,
        measured=measured,
        **workload,
    )
    where = ClusterConfig.model_validate(cluster or {})
    links = {"same_region": a_link(hop_seconds), "storage": a_link(hop_seconds), **(network or {})}
    net = NetworkConfig.model_validate(links)
    nodes = Cluster(where, num_stages, where.regions or net.regions)
    costs = GivenSeconds(config, where.device, tuple(stages)) if stages else Costs(config, where.device)
    return Deployment(costs, nodes, Network(net, nodes.regions_of_nodes))


@dataclass(frozen=True)
class PricedIteration(FinishedIteration):
    """An iteration simulated by itself, with its operations and messages."""

    @property
    def operations(self) -> list[Operation]:
        return self.run.operations

    @property
    def messages(self) -> list[Message]:
        return self.run.messages

    @property
    def plan(self) -> IterationPlan:
        return self.run.plan

    @property
    def deployment(self) -> Deployment:
        return self.run.work.deployment


def an_iteration(site: Deployment, plan: IterationPlan | None = None) -> PricedIteration:
    """One iteration in its faster order."""
    found = fastest_run(site, plan or plain_plan(site.costs.workload))
    return PricedIteration(found.seconds, found.split, found.order, found.run)


def a_pipeline(*shape: Any, plan: IterationPlan | None = None, **options: Any) -> PricedIteration:
    """One iteration of equal stages; `shape` and `options` are those of `a_site`, and nodes_per_stage."""
    if "nodes_per_stage" in options:
        options["cluster"] = {"nodes_per_stage": options.pop("nodes_per_stage"), **options.get("cluster", {})}
    return an_iteration(a_site(*shape, **options), plan)


def scripted(scenario: Scenario, script: Script, unit: str = "seconds", **options: Any) -> Scenario:
    """The scenario with failures of stages by script; those of one instant in order of stages."""
    if options.keys() <= {"notice_seconds", "immune_stages"} and unit == "seconds":
        times = sorted((seconds, stage) for stage, uptimes in script.items() for seconds in accumulate(uptimes))
        losses = tuple({"at_seconds": seconds, "stages": (stage,)} for seconds, stage in times)
        return scenario.model_copy(update={"failures": ScriptConfig(losses=losses, **options)})
    return scenario.model_copy(update={"failures": ScriptedConfig(uptimes=script, unit=unit, **options)})


def with_losses(scenario: Scenario, *losses: Loss, **options: Any) -> Scenario:
    """The scenario with losses of any nodes by script."""
    return scenario.model_copy(update={"failures": LossesConfig(losses=losses, **options)})


def a_training(scenario: Scenario) -> CurveTraining:
    """The parametric learner for a scenario."""
    num_stages = scenario.workload.num_stages
    spec = scenario.training.spec("curve", 256, init_seed=0, data_seed=0, routes=plain_routes(num_stages))
    return CurveTraining(spec, scenario.iterations_per_step)


def run(
    scenario: Scenario,
    index: int = 0,
    seed: int = 0,
    training: Training | None = None,
    trace: EventRecorder | None = None,
) -> Run:
    """One strategy of a scenario, from the first step to the last."""
    return simulate(scenario, scenario.strategies[index], seed, 0, training or a_training(scenario), recorder=trace)


def a_world(
    scenario: Scenario | None = None,
    script: Script | None = None,
    unit: str = "seconds",
    stops_on_failures: bool = True,
    trace: EventRecorder | None = None,
    on_notice: Callable[[], None] = lambda: None,
    **options: Any,
) -> World:
    """The world of a scenario at time zero, with failures by script; or with the scenario's own, if these are."""
    scenario = scenario or a_scenario()
    if script is not None or not isinstance(scenario.failures, ScriptConfig | ScriptedConfig | LossesConfig):
        scenario = scripted(scenario, script or {}, unit, **options)
    return build_world(scenario, 0, stops_on_failures, trace, on_notice=on_notice)


def in_turn(world: World, *processes: Generator[Any, Any, Any]) -> list[Any]:
    """Run processes in sequence and return their values."""
    results = []

    def job() -> Generator[Any, Any, None]:
        for process in processes:
            results.append((yield from process))

    world.run(job())
    return results


def a_strategy(config: StrategyConfig, num_stages: int = 4) -> Strategy:
    """A strategy as the training process makes it."""
    return STRATEGIES[config.kind](config, num_stages)


def start_of(strategy: Strategy, scenario: Scenario | None = None) -> Position:
    """The first Position of a strategy's training."""
    return a_training(scenario or a_scenario(num_stages=strategy.num_stages)).root(strategy.training_variant())


def of_kind(run_or_world: Run | World, *kinds: str) -> list[EventRecord]:
    """Events of some kinds, in order."""
    return [event for event in run_or_world.events if event.kind in kinds]


def times(events: list[EventRecord]) -> list[float]:
    """Times of events, in seconds."""
    return [event.time_seconds for event in events]
