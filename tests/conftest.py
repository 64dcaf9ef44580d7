"""What many tests share: a small scenario whose seconds are round numbers, and failures by script."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
from hypothesis import settings
from pydantic import Field

from models.curve import CurveTraining
from models.lineage import Position, plain_routes
from sim.cluster import Cluster, ClusterConfig
from sim.costs import Costs, IterationPlan, MeasuredSeconds, TargetModel, WorkloadConfig
from sim.failures import PROCESSES, FailureProcess, ProcessConfig
from sim.network import LinkConfig, Network, NetworkConfig
from sim.pipeline import PipelineRun, fastest_run
from sim.records import EventRecord
from sim.scenario import Scenario
from sim.simulation import Run, build_world, simulate
from sim.strategies import STRATEGIES, Strategy, StrategyConfig
from sim.world import World

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

Script = dict[int, tuple[float, ...]]
"""Uptimes of each stage that fails; when the script ends, nothing fails any more."""


class ScriptedConfig(ProcessConfig):
    """Options of `scripted`."""

    kind: Literal["scripted"] = "scripted"
    uptimes: Script = Field(default_factory=dict)
    unit: Literal["seconds", "iterations"] = "seconds"


class ScriptedFailures(FailureProcess):
    """Stages fail when the script says so."""

    kind = "scripted"
    Config = ScriptedConfig

    def __init__(self, config: ScriptedConfig) -> None:
        self.config = config
        self.unit = config.unit

    def uptimes(self, rng: np.random.Generator, stage: int) -> Iterator[float]:
        return iter(self.config.uptimes.get(stage, ()))

    def in_words(self) -> str:
        return "failures by script"


TINY_MODEL = {"dim": 8, "num_heads": 2, "hidden_dim": 16, "vocabulary_size": 32}
INSTANT = {"latency_ms": 0.0, "bandwidth_mbit_per_s": 1e30}


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
) -> Scenario:
    """Forwards of 1 s, backwards of 2 s, no transfer time: an iteration takes 3 (m + s - 1) seconds.

    The default is 4 stages and 4 microbatches: 21 s. Nodes are back 10 s + 5 s after a failure.
    """
    upload = {"latency_ms": upload_seconds * 1e3, "bandwidth_mbit_per_s": 1e30}
    return Scenario.model_validate(
        {
            "name": "test",
            "workload": {
                "model": {**TINY_MODEL, "num_layers": num_stages},
                "num_stages": num_stages,
                "num_microbatches": num_microbatches,
                "schedule": schedule,
                "measured": {"forward_seconds": 1.0, "backward_seconds": 2.0},
            },
            "training": {
                "learner": "curve",
                "model": {"num_stages": num_stages},
                "steps": steps,
                "evaluation": {"interval_steps": evaluation_interval},
            },
            "cluster": cluster or {"detection_seconds": 10.0, "startup_seconds": 5.0},
            "network": network or {"same_region": INSTANT, "storage": upload},
            "failures": failures or {"kind": "never"},
            "strategies": strategies,
            "fallback": fallback,
            "iterations_per_step": iterations_per_step,
        }
    )


def a_pipeline(
    num_stages: int,
    num_microbatches: int,
    forward_seconds: float = 1.0,
    backward_seconds: float = 2.0,
    schedule: str = "1f1b",
    head_seconds: float = 0.0,
    hop_seconds: float = 0.0,
    plan: IterationPlan | None = None,
    max_in_flight: int | None = None,
) -> PipelineRun:
    """One iteration of one pipeline of equal stages."""
    measured = MeasuredSeconds(
        forward_seconds=forward_seconds, backward_seconds=backward_seconds, head_seconds=head_seconds
    )
    workload = WorkloadConfig(
        model=TargetModel(num_layers=num_stages, **TINY_MODEL),
        num_stages=num_stages,
        num_microbatches=num_microbatches,
        schedule=schedule,
        max_in_flight=max_in_flight,
        measured=measured,
    )
    cluster = ClusterConfig()
    link = LinkConfig(latency_ms=hop_seconds * 1e3, bandwidth_mbit_per_s=1e30)
    return fastest_run(
        plan or IterationPlan(num_microbatches, plain_routes(num_stages)),
        Costs(workload, cluster.device),
        Cluster(cluster, num_stages, ("local",)),
        Network(NetworkConfig(same_region=link, storage=link)),
    )


def scripted(scenario: Scenario, script: Script, unit: str = "seconds") -> Scenario:
    """The scenario with failures by script; give it to `run`, which knows the process."""
    return scenario.model_copy(update={"failures": ScriptedConfig(uptimes=script, unit=unit)})


def a_training(scenario: Scenario) -> CurveTraining:
    """The parametric learner for a scenario."""
    num_stages = scenario.workload.num_stages
    spec = scenario.training.spec("curve", 256, init_seed=0, data_seed=0, routes=plain_routes(num_stages))
    return CurveTraining(spec, scenario.iterations_per_step)


def run(scenario: Scenario, index: int = 0, seed: int = 0) -> Run:
    """One strategy of a scenario, from the first step to the last."""
    with patch.dict(PROCESSES, scripted=ScriptedFailures):
        return simulate(scenario, scenario.strategies[index], seed, 0, a_training(scenario))


def a_world(
    scenario: Scenario | None = None, script: Script | None = None, unit: str = "seconds", heeds_failures: bool = True
) -> World:
    """The world of a scenario at time zero, with failures by script."""
    with patch.dict(PROCESSES, scripted=ScriptedFailures):
        return build_world(scripted(scenario or a_scenario(), script or {}, unit), 0, heeds_failures)


def in_turn(world: World, *processes: Generator[Any, Any, Any]) -> list[Any]:
    """Let processes happen one after the other and give what each returns."""
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
    """When they happened."""
    return [event.time_seconds for event in events]
