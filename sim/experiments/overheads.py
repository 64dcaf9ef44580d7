"""What strategies cost while nothing fails, and what they recover: Table 1 of the CheckFree paper, by experiment.

Memory is what a strategy says that its nodes hold, which is also what the check of a scenario counts. Communication and
computation are measured: all messages and operations of a run in which failures have no effect, less those of the plain
iteration. What it recovers: a short run in which the stages in question are lost at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.spec import EMBEDDING_STAGE
from sim.failures.script import Loss, ScriptConfig
from sim.scenario.memory_check import plan_under
from sim.scenario.scenario import Scenario, StopConfig
from sim.simulation.run import Run, build_site, simulate, time_only
from sim.strategies import StrategyConfig, strategy_class
from sim.workload.config import IterationPlan, WorkloadConfig, plain_plan
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import fastest_run
from sim.workload.schedule import SCHEDULES


@dataclass(frozen=True)
class Overhead:
    """A strategy's cost with no failure, of all nodes together, against training without any strategy.

    memory on devices, in hosts' memory or on their disks, and in storage that does not fail: bytes; sent: bytes an
    iteration; computed_share: nodes' time for computing, beyond the plain iteration's, as a share of that.
    """

    strategy: str
    device_bytes: float
    host_bytes: float
    stored_bytes: float
    sent_bytes: float
    computed_share: float
    iteration_seconds: float


def overheads(scenario: Scenario) -> list[Overhead]:
    """Every strategy's cost with no failure."""
    site = build_site(scenario)
    plain = work_of(site, plain_plan(scenario.workload))
    return [overhead(scenario, config, site, plain) for config in scenario.strategies]


def overhead(scenario: Scenario, config: StrategyConfig, site: Deployment, plain: Work) -> Overhead:
    """A strategy's cost with no failure, beyond the plain iteration's work, measured over the scenario's iterations."""
    strategy, stages, num_replicas = strategy_class(config.kind), site.cluster.stages, len(site.cluster.replicas)
    run = in_peace(scenario, config)
    plan = plan_under(config, scenario.workload)
    with_it = plain if plan == plain_plan(scenario.workload) else work_of(site, plan)
    num_iterations = max(1, run.num_iterations)
    return Overhead(
        strategy=config.name,
        device_bytes=num_replicas * math.fsum(strategy.extra_memory_bytes(config, site.costs, s) for s in stages),
        host_bytes=num_replicas * math.fsum(strategy.host_memory_bytes(config, site.costs, s) for s in stages),
        stored_bytes=strategy.stored_bytes(config, site.costs),
        sent_bytes=with_it.sent_bytes - plain.sent_bytes + run.sent_bytes / num_iterations,
        computed_share=with_it.computed_seconds / plain.computed_seconds - 1.0,
        iteration_seconds=run.wall_clock_seconds / num_iterations,
    )


def in_peace(scenario: Scenario, config: StrategyConfig) -> Run:
    """A strategy's run, without a fallback's costs, in which failures have no effect, though their rate is known."""
    steps = max(scenario.training.steps, math.ceil(LEAST_ITERATIONS / scenario.iterations_per_step))
    training = scenario.training.model_copy(update={"steps": steps})
    alone = scenario.model_copy(update={"fallback": StopConfig(), "training": training})
    return simulate(alone, config, scenario.seeds.failures[0], 0, time_only(alone), stops_on_failures=False)


@dataclass(frozen=True)
class Work:
    """What all nodes of a cluster send and compute in one iteration."""

    sent_bytes: float
    computed_seconds: float


def work_of(site: Deployment, plan: IterationPlan) -> Work:
    """Messages and operations of one iteration."""
    run = fastest_run(site, plan).run
    return Work(math.fsum(message.num_bytes for message in run.messages), math.fsum(run.busy_seconds.values()))


LEAST_ITERATIONS = 1000
"""What is paid now and then is averaged over at least so many."""


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


def recoveries(scenario: Scenario) -> dict[str, dict[str, bool]]:
    """By strategy, which stages it recovers if they are lost at once; without strategies that ignore failures."""
    heeding = (config for config in scenario.strategies if strategy_class(config.kind).stops_on_failures)
    return {config.name: recovers(scenario, config) for config in heeding}


def recovers(scenario: Scenario, config: StrategyConfig) -> dict[str, bool]:
    """Which stages a strategy brings back, if lost at once in the middle of an iteration, without a fallback.

    Not before the third iteration, and where the strategy saves now and then not before it has for the first time.
    """
    small = scenario.model_copy(update={"workload": with_few_microbatches(scenario.workload)})
    quiet = in_peace(small, config)
    saved_seconds = next((event.time_seconds for event in quiet.events if event.kind == "checkpoint_durable"), 0.0)
    later = [record for record in quiet.iterations[2:] if record.started_seconds >= saved_seconds]
    struck = (later or quiet.iterations)[0 if later else -1]
    middle_seconds = (struck.started_seconds + struck.ended_seconds) / 2
    training = scenario.training.model_copy(update={"steps": struck.step + 2})
    to_try = small.model_copy(update={"fallback": StopConfig(), "give_up_after": math.inf, "training": training})

    def survives(stages: tuple[int, ...]) -> bool:
        failures = ScriptConfig(losses=(Loss(at_seconds=middle_seconds, stages=stages),))
        trial = to_try.model_copy(update={"failures": failures})
        return simulate(trial, config, 0, 0, time_only(trial)).stopped is None

    return {name: survives(stages) for name, stages in lost_stages(scenario.workload.num_stages).items()}


def with_few_microbatches(workload: WorkloadConfig) -> WorkloadConfig:
    """The same, with shorter iterations: what is recovered does not depend on them."""
    least = max(2, SCHEDULES[workload.schedule].microbatch_multiple(workload.num_stages))
    return workload.model_copy(update={"num_microbatches": min(least, workload.num_microbatches)})
