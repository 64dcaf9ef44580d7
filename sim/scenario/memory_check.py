"""Whether every stage fits in device memory under a strategy and, if not, which single change would make it fit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from typing import Any, NamedTuple

from models.spec import EMBEDDING_STAGE
from sim.cluster.devices import Device
from sim.cluster.topology import first_stage_of, num_shares_of
from sim.core.presets import presets
from sim.core.text import format_list, shortened
from sim.core.units import BYTES_PER_GIB
from sim.scenario.scenario import Scenario
from sim.strategies import StrategyConfig, strategy_class
from sim.workload.config import IterationPlan, WorkloadConfig, plain_plan
from sim.workload.costs import Costs
from sim.workload.deployment import Deployment
from sim.workload.memory import needed_bytes
from sim.workload.schedule import SCHEDULES
from sim.workload.window import embedding_bytes, window_that_fits

LISTED_DEVICES = 3


class Need(NamedTuple):
    """The memory that a stage needs."""

    num_bytes: float
    stage: int

    def fits(self, device: Device) -> bool:
        """Whether it fits in a device."""
        return self.num_bytes <= device.memory_gib * BYTES_PER_GIB


def impossible(config: StrategyConfig, workload: WorkloadConfig) -> str | None:
    """Why a strategy is impossible for a workload, or None."""
    return strategy_class(config.kind).check(config, workload)


def greatest_need(scenario: Scenario, config: StrategyConfig, workload: WorkloadConfig) -> Need:
    """The greatest need of a stage under a strategy, with what the scenario's fallback also holds."""
    costs, plan = Costs(workload, scenario.cluster.device), plan_under(config, workload)
    num_shares = num_shares_of(scenario.cluster)
    extra_bytes = enumerate(kept_bytes(scenario, config, costs))
    needs = [Need(needed_bytes(costs, plan, stage, extra, num_shares), stage) for stage, extra in extra_bytes]
    return max(needs, key=lambda need: need.num_bytes)


def kept_bytes(scenario: Scenario, config: StrategyConfig, costs: Costs) -> list[float]:
    """Bytes kept on the devices of each stage by a strategy and the fallback, and on S1's by an embedding there."""
    both = [(each, strategy_class(each.kind)) for each in (config, scenario.fallback) if each.kind != "stop"]
    stages = range(costs.workload.num_stages + 1)
    kept = [sum(strategy.extra_memory_bytes(own, costs, stage) for own, strategy in both) for stage in stages]
    if host := first_stage_of(scenario.cluster):
        kept[host] += kept[EMBEDDING_STAGE]
    return [own + embedding for own, embedding in zip(kept, embedding_bytes(costs, scenario.cluster), strict=True)]


def plan_on(scenario: Scenario, config: StrategyConfig, deployment: Deployment, plain: IterationPlan) -> IterationPlan:
    """The plan of an iteration under a strategy on a deployment. plain: that without a strategy (`plain_plan_on`).

    A default window is that of the plain plan, or the largest that fits beside what the strategy keeps in memory.
    """
    costs = deployment.costs
    plan = strategy_class(config.kind)(config, costs.workload.num_stages).adapt_plan(plain)
    if plain.max_in_flight is None or plan.max_in_flight != plain.max_in_flight:
        return plan
    extra_bytes = kept_bytes(scenario, config, costs)
    fitting = window_that_fits(costs, plan, extra_bytes, deployment.cluster.num_shares)
    least = costs.schedule(replace(plan, max_in_flight=None)).in_flight_limit
    return replace(plan, max_in_flight=max(least, min(plain.max_in_flight, fitting)))


def plan_under(config: StrategyConfig, workload: WorkloadConfig) -> IterationPlan:
    """The plan of an iteration under a strategy."""
    return strategy_class(config.kind)(config, workload.num_stages).adapt_plan(plain_plan(workload))


def too_little_memory(scenario: Scenario) -> tuple[int, str] | None:
    """The first strategy that does not fit in memory, and one sentence about all of them; None if all fit.

    The sentence says how much memory the most demanding one lacks, and which single changes would make all fit.
    """
    device = scenario.cluster.device
    needs = {
        index: greatest_need(scenario, config, scenario.workload)
        for index, config in enumerate(scenario.strategies)
        if not impossible(config, scenario.workload)
    }
    lacking = {index: need for index, need in needs.items() if not need.fits(device)}
    if not lacking:
        return None
    most = max(lacking, key=lambda index: lacking[index].num_bytes)
    need, needed_gib = lacking[most], lacking[most].num_bytes / BYTES_PER_GIB
    found = ", or ".join(remedies(scenario, [scenario.strategies[index] for index in lacking], need))
    remedy = f"would fit: {found}" if found else "no single change of schedule, microbatches or device makes it fit"
    others = [f"'{scenario.strategies[index].name}'" for index in lacking if index != most]
    beside = f" ({format_list(others)} {'does' if len(others) == 1 else 'do'} not fit either)" if others else ""
    return next(iter(lacking)), (
        f"'{scenario.strategies[most].name}' needs {in_gib(needed_gib)} on stage {need.stage}, "
        f"{in_gib(needed_gib - device.memory_gib)} more than the {device.memory_gib:g} GiB of device "
        f"'{shortened(device.name)}'{beside}; {remedy}"
    )


def in_gib(gib: float) -> str:
    """A number of GiB, never rounded to zero."""
    return f"{gib:,.1f} GiB" if gib >= 0.05 else "less than 0.1 GiB"


def remedies(scenario: Scenario, configs: Sequence[StrategyConfig], need: Need) -> list[str]:
    """Changes of single fields, each of which makes all of some strategies fit; need: the greatest of them."""
    workload = scenario.workload

    def fits(**changes: Any) -> bool:
        changed = workload.model_copy(update=changes)
        return all(greatest_need(scenario, config, changed).fits(scenario.cluster.device) for config in configs)

    def largest(field: str, candidates: Sequence[int]) -> list[str]:
        """The largest of ascending candidates that fits, if all below it fit too."""
        num_fitting = bisect_left(candidates, True, key=lambda number: not fits(**{field: number}))
        return [f"{field} {candidates[num_fitting - 1]}"] if num_fitting else []

    def stays_possible(number: int) -> bool:
        changed = workload.model_copy(update={"sequences_per_microbatch": number})
        return not any(impossible(each, changed) and not impossible(each, workload) for each in scenario.strategies)

    found, schedule = [], SCHEDULES[workload.schedule]
    if schedule.limits_in_flight and not schedule.is_interleaved:
        costs = Costs(workload, scenario.cluster.device)
        now = max(costs.schedule(plan_under(config, workload)).in_flight_limit for config in configs)
        found += largest("max_in_flight", range(1, now))
    if not schedule.limits_in_flight and fits(schedule="1f1b"):
        found.append("schedule 1f1b")
    if not workload.recompute_activations and fits(recompute_activations=True):
        found.append("recompute_activations true")
    smaller = divisors(workload.sequences_per_microbatch)[:-1]
    found += largest("sequences_per_microbatch", [number for number in smaller if stays_possible(number)])
    devices = sorted((Device(**figures) for figures in presets("devices").values()), key=lambda each: each.memory_gib)
    if large := [device.name for device in devices if need.fits(device)]:
        found.append(f"device {', '.join(large[:LISTED_DEVICES])}{', ...' if len(large) > LISTED_DEVICES else ''}")
    return found


def divisors(number: int) -> list[int]:
    """The divisors of a number, ascending."""
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
