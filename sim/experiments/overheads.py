"""Costs of strategies with no failure, and the stages that they recover: Table 1 of the CheckFree paper.

Memory is what a strategy declares, as in the check of a scenario. Communication and computation are measured: all
messages and operations of a run in which failures have no effect, minus those of the plain iteration. Recovery is
tested in a short run in which the stages in question are lost at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from models.spec import EMBEDDING_STAGE
from sim.failures.script import Loss, ScriptConfig
from sim.scenario.memory_check import plan_on
from sim.scenario.scenario import Scenario, StopConfig
from sim.simulation.log import kinds_of
from sim.simulation.run import Run, build_site, simulate, time_only
from sim.strategies import StrategyConfig, strategy_class, trains_apart
from sim.workload.arrays.run import run_fast, sent_bytes
from sim.workload.config import IterationPlan
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import fastest_time
from sim.workload.iteration_work import IterationWork
from sim.workload.schedule import SCHEDULES
from sim.workload.window import plain_plan_on

LEAST_ITERATIONS = 1000
"""Occasional costs are averaged over at least so many."""


@dataclass(frozen=True)
class Overhead:
    """A strategy's cost with no failure, of all nodes together, beyond that of training without any strategy.

    Bytes on devices, in hosts' memory or on their disks, and in storage that does not fail; bytes sent per iteration.
    iteration_seconds: with saves; undisturbed_seconds: without. num_started, num_durable: saves begun and completed.
    computed_share: nodes' additional time for computing, as a share of the plain iteration's.
    """

    strategy: str
    device_bytes: float
    host_bytes: float
    stored_bytes: float
    sent_bytes: float
    computed_share: float
    iteration_seconds: float
    undisturbed_seconds: float
    num_started: int
    num_durable: int


def overheads(scenario: Scenario, part_done: Callable[[], None] = lambda: None) -> list[Overhead]:
    """Every strategy's cost with no failure, measured over the scenario's iterations. part_done: called after each."""
    site = build_site(scenario)
    work = cache(partial(work_of, site))
    plain = plain_plan_on(site)
    plain_bytes, plain_seconds = work(plain)
    num_replicas, found = len(site.cluster.replicas), []
    for config in scenario.strategies:
        strategy = strategy_class(config.kind)
        run = failure_free_run(scenario, config)
        num_bytes, seconds = work(plan_on(scenario, config, site, plain))
        num_iterations = max(1, run.num_iterations)
        num_stored = num_replicas if trains_apart(config.kind) else 1
        device_bytes = (strategy.extra_memory_bytes(config, site.costs, stage) for stage in site.cluster.stages)
        host_bytes = (strategy.host_memory_bytes(config, site.costs, stage) for stage in site.cluster.stages)
        found.append(
            Overhead(
                strategy=config.name,
                device_bytes=num_replicas * math.fsum(device_bytes),
                host_bytes=num_replicas * math.fsum(host_bytes),
                stored_bytes=strategy.stored_bytes(config, site.costs) * num_stored,
                sent_bytes=num_bytes - plain_bytes + run.sent_bytes / num_iterations,
                computed_share=seconds / plain_seconds - 1.0,
                iteration_seconds=run.wall_clock_seconds / num_iterations,
                undisturbed_seconds=run.iteration_seconds,
                num_started=kinds_of(run.events)["checkpoint_started"],
                num_durable=kinds_of(run.events)["checkpoint_durable"],
            )
        )
        part_done()
    return found


def failure_free_run(scenario: Scenario, config: StrategyConfig) -> Run:
    """A strategy's run, without a fallback's costs, in which failures have no effect, though their rate is known."""
    steps = max(scenario.training.steps, math.ceil(LEAST_ITERATIONS / scenario.iterations_per_step))
    training = scenario.training.model_copy(update={"steps": steps})
    alone = scenario.model_copy(update={"fallback": StopConfig(), "training": training})
    return simulate(alone, config, scenario.seeds.failures[0], 0, time_only(alone), stops_on_failures=False)


def work_of(site: Deployment, plan: IterationPlan) -> tuple[float, float]:
    """The bytes that all nodes of a cluster send in one iteration, and their seconds of computing."""
    work = IterationWork(site, plan, fastest_time(site, plan).order)
    run, num_optimizer_steps = run_fast(work), sum(work.placement.num_stages_by_node())
    computed_seconds = run.visit_seconds + run.shadow_seconds + num_optimizer_steps * work.optimizer_seconds
    return sent_bytes(work), computed_seconds


def lost_stages(num_stages: int) -> dict[str, tuple[int, ...]]:
    """Stages to lose at once, as in the paper's table: two apart, two adjacent ones, an end; and stage 0."""
    middle = (num_stages + 1) // 2
    return {
        "apart": (middle - 1, middle + 1),
        "adjacent": (middle, middle + 1),
        "first": (1,),
        "last": (num_stages,),
        "stage 0": (EMBEDDING_STAGE,),
    }


def recoveries(scenario: Scenario, part_done: Callable[[], None] = lambda: None) -> dict[str, dict[str, bool]]:
    """By strategy that stops on failures, the stages that it recovers if they are lost at once.

    part_done: called after each strategy.
    """
    found = {}
    for config in scenario.strategies:
        if strategy_class(config.kind).stops_on_failures:
            found[config.name] = recovers(scenario, config)
        part_done()
    return found


def recovers(scenario: Scenario, config: StrategyConfig) -> dict[str, bool]:
    """The stages that a strategy recovers, if lost at once in an iteration after its first save, without a fallback."""
    workload = scenario.workload  # with few microbatches iterations are short; recovery does not depend on them
    least = max(2, SCHEDULES[workload.schedule].microbatch_multiple(workload.num_stages))
    workload = workload.model_copy(update={"num_microbatches": min(least, workload.num_microbatches)})
    small = scenario.model_copy(update={"workload": workload})
    quiet = failure_free_run(small, config)
    saved_seconds = next((event.time_seconds for event in quiet.events if event.kind == "checkpoint_durable"), 0.0)
    # the third iteration or, if the strategy saves at intervals, the first one after its first save
    later = [record for record in quiet.iterations[2:] if record.started_seconds >= saved_seconds]
    hit = (later or quiet.iterations)[0 if later else -1]
    middle_seconds = (hit.started_seconds + hit.ended_seconds) / 2
    training = scenario.training.model_copy(update={"steps": hit.step + 2})
    to_try = small.model_copy(update={"fallback": StopConfig(), "give_up_after": math.inf, "training": training})

    def survives(stages: tuple[int, ...]) -> bool:
        failures = ScriptConfig(losses=(Loss(at_seconds=middle_seconds, stages=stages),))
        trial = to_try.model_copy(update={"failures": failures})
        return simulate(trial, config, 0, 0, time_only(trial)).stopped is None

    return {name: survives(stages) for name, stages in lost_stages(workload.num_stages).items()}
