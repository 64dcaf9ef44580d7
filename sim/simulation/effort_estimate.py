"""How many events a run will take to simulate, about: to be known before it begins."""

from __future__ import annotations

from collections.abc import Callable

from sim.core.text import format_count
from sim.core.units import EXACT_SECONDS, SECONDS_PER_HOUR
from sim.failures import process_class
from sim.scenario.scenario import Scenario
from sim.simulation.failure_injection import mtbf_seconds
from sim.simulation.run import build_site, simulate, time_only
from sim.strategies import StrategyConfig
from sim.workload.arrays.run import longest_seconds
from sim.workload.config import IterationPlan
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import IterationTimes, cache_of, num_operations, representative_of
from sim.workload.iteration_work import IterationWork
from sim.workload.window import plain_plan_on

EVENTS_PER_FAILURE, EVENTS_PER_OPERATION = 12, 4  # the latter at microbatch fidelity
EVENTS_PER_ITERATION = 6  # at most, without failures, where iterations are simulated one by one
PROBES = 100, 1_000  # iterations of short runs: one for the times of iterations, one to count events
MOST_PROBED = 20_000  # events of a short run, which may have many failures in an iteration
EVENTS_PER_SECOND = 20_000  # of real time
NUM_LOSSES = 300  # simulated for the mean time between failures: a standard error of 6 % if they are random
MOST_MEMBERSHIPS = 200  # for which the time of an iteration is computed
MOST_OPERATIONS = 500_000  # of an iteration whose time is computed for the estimate
WORTH_A_LINE = 1_000_000


def seconds_alone(scenario: Scenario, site: Deployment, plan: IterationPlan) -> float:
    """Seconds of an iteration without other messages."""
    return IterationTimes(site, 0, cache_of(scenario.workload, site.cluster, scenario.network)).alone(plan).seconds


def seconds_at_most(_: Scenario, site: Deployment, plan: IterationPlan) -> float:
    """Seconds that such an iteration does not exceed, known without simulating it."""
    return longest_seconds(IterationWork(representative_of(site, plan) or site, plan, "arrival"))


def expected_events(
    scenario: Scenario, iteration_seconds: Callable[[Scenario, Deployment, IterationPlan], float] = seconds_alone
) -> dict[str, float]:
    """Expected number of events of a run without failures' delays, by cause."""
    site = build_site(scenario)
    plan = plain_plan_on(site)
    operations = num_operations(site, plan)
    num_iterations = scenario.training.steps * scenario.iterations_per_step
    causes: dict[str, float] = {f"{operations:,} operations of an iteration": operations}
    if scenario.fidelity == "microbatch":
        each = f"{operations:,} operations in each of {num_iterations:,} iterations (fidelity: microbatch)"
        causes = {each: float(operations) * num_iterations * EVENTS_PER_OPERATION}
    if operations > MOST_OPERATIONS:
        return causes
    seconds = iteration_seconds(scenario, site, plan)
    failures = process_class(scenario.failures.kind)(scenario.failures)
    total_seconds = min(num_iterations * seconds, EXACT_SECONDS)
    num_failures = total_seconds / mtbf_seconds(site.cluster, failures, max(seconds, 1e-9), NUM_LOSSES)
    cause = f"{num_failures:,.0f} losses in {total_seconds / SECONDS_PER_HOUR:,.3g} h of iterations"
    num_memberships = min(num_failures, MOST_MEMBERSHIPS) if scenario.cluster.nodes_per_stage > 1 else 1.0
    causes[cause] = num_failures * EVENTS_PER_FAILURE + num_memberships * operations
    if scenario.fidelity == "iteration" and num_iterations * EVENTS_PER_ITERATION >= WORTH_A_LINE:
        events = {config.name: _events_per_iteration(scenario, config) for config in scenario.strategies}
        name = max(events, key=lambda name: events[name])
        causes[f"{num_iterations:,} iterations, many of them beside uploads ({name})"] = events[name] * num_iterations
    return causes


def _events_per_iteration(scenario: Scenario, config: StrategyConfig) -> float:
    """Events per iteration of a strategy, from short runs without failures."""
    for steps in PROBES:
        training = scenario.training.model_copy(update={"steps": steps})
        changed = {"training": training, "iterations_per_step": 1, "give_up_after_events": MOST_PROBED}
        short = scenario.model_copy(update=changed)
        run = simulate(short, config, 0, 0, time_only(short), stops_on_failures=False)
    return run.num_events / run.num_iterations if run.num_iterations else 0.0


def foreseen_effort(scenario: Scenario) -> list[str]:
    """A line where a run takes long to simulate, or will be stopped before its end."""
    most = scenario.give_up_after_events
    for iteration_seconds in (seconds_at_most, seconds_alone):  # mostly the former suffices, at once
        causes = expected_events(scenario, iteration_seconds)
        total = sum(causes.values())
        if total < min(WORTH_A_LINE, most):
            return []
    cause = max(causes, key=lambda name: causes[name])
    millions, minutes = total / 1e6, total / EVENTS_PER_SECOND / 60
    took = format_count(round(minutes), "minute") if minutes >= 1 else "less than a minute"
    line = f"A run takes about {millions:,.3g} million events to simulate, some {took}: about {cause}."
    if total > most:
        line += f" That is more than give_up_after_events, {most:,}: it will be stopped before its end."
    return [line]
