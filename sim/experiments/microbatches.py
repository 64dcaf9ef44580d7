"""Smaller microbatches: whether they make a plain iteration faster, and a comparison of strategies at equal size."""

from __future__ import annotations

from sim.results.microbatches import SmallerMicrobatches
from sim.scenario.memory_check import plan_under
from sim.scenario.scenario import Scenario
from sim.simulation.run import build_site
from sim.strategies import StrategyConfig
from sim.workload.config import equal_plan, plain_plan
from sim.workload.iteration_time import IterationTimes, cache_of
from sim.workload.window import plain_plan_on


def smaller_microbatches(scenario: Scenario) -> SmallerMicrobatches | None:
    """The fastest for a plain iteration of the microbatch sizes that strategies use; None if it is the workload's."""
    workload = scenario.workload
    under = (equal_plan(plain_plan(workload), plan_under(config, workload)) for config in scenario.strategies)
    smaller = [plan for plan in under if plan.microbatch_size < 1.0]
    if not smaller:
        return None
    site = build_site(scenario)
    plans = {plan.num_microbatches // workload.num_microbatches: plain_plan_on(site, plan) for plan in smaller}
    times = IterationTimes(site, 0, cache_of(workload, site.cluster, scenario.network))
    given_seconds = times.alone(plain_plan_on(site)).seconds
    seconds, factor = min((times.alone(plan).seconds, factor) for factor, plan in plans.items())
    found = SmallerMicrobatches(factor, seconds, given_seconds)
    return found if found.are_faster else None


def at_equal_size(scenario: Scenario, config: StrategyConfig, smaller: SmallerMicrobatches | None) -> Scenario:
    """The scenario with smaller microbatches, if the strategy has the workload's; else as it is."""
    workload = scenario.workload
    if smaller is None or plan_under(config, workload).microbatch_size != 1.0:
        return scenario
    measured = workload.measured
    if measured:
        seconds = {name: value / smaller.factor for name, value in measured}
        measured = measured.model_copy(update=seconds)
    changes = {
        "num_microbatches": workload.num_microbatches * smaller.factor,
        "sequences_per_microbatch": workload.sequences_per_microbatch // smaller.factor,
        "measured": measured,
    }
    return scenario.model_copy(update={"workload": workload.model_copy(update=changes)})
