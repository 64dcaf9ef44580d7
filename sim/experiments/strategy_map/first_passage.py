"""First-passage times: when a run first completes an iteration, from simulations without training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from sim.cluster.topology import usd_per_node_hour
from sim.core.records import BUCKETS, EventKind
from sim.experiments.branches.whole_runs import rebuilt_in
from sim.experiments.strategy_map.interpolation import Seeds
from sim.results.healing import Rebuilt
from sim.results.strategy_map import FirstPassages
from sim.results.summary import steady_seconds
from sim.scenario.scenario import Scenario
from sim.simulation.first_times import first_time, first_times, log_of
from sim.simulation.log import kinds_of, num_failures_until
from sim.simulation.run import simulate, time_only
from sim.strategies import answers_lost_nodes
from sim.workload.iteration_time import TIMED


class ToTarget(Protocol):
    """Iterations to the target: predicted, or interpolated between trained runs."""

    @property
    def is_flat(self) -> bool:
        """Whether recoveries never change weights, so that all runs take as many."""

    @property
    def without(self) -> Mapping[Seeds, float]:
        """Iterations without failures, by seeds."""

    def error(self, failures_per_iteration: float, iterations: float) -> float:
        """The possible error, as a share of the mean iterations."""

    def of_run(self, failures_per_iteration: float, rebuilt: Sequence[Rebuilt]) -> tuple[float, ...]:
        """Iterations of a run by training replicate; NaN where it misses the target."""


def first_passages(
    trials: Sequence[tuple[Scenario, int, ToTarget | None]], failure_seeds: Sequence[int]
) -> tuple[list[FirstPassages], int]:
    """First passages of trials: scenario, strategy's index, iterations to the target (None: unknown). A task.

    And the number of iterations that were timed for them.
    """
    before = TIMED.total()
    found = [first_passage(scenario, index, failure_seeds, to_target) for scenario, index, to_target in trials]
    return found, TIMED.total() - before


def first_passage(
    scenario: Scenario, strategy_index: int, failure_seeds: Sequence[int], to_target: ToTarget | None
) -> FirstPassages:
    """First passages of the target of one strategy; costs are NaN where there is no such instant, or no price."""
    config, price = scenario.strategies[strategy_index], usd_per_node_hour(scenario.cluster)
    runs = {seed: simulate(scenario, config, seed, 0, time_only(scenario)) for seed in failure_seeds}
    kinds_counted: list[EventKind] = ["failure", "node_lost"] if answers_lost_nodes(config.kind) else ["failure"]

    def num_lost(seed: int, until_seconds: float) -> int:
        return sum(num_failures_until(runs[seed].events, until_seconds, kind) for kind in kinds_counted)

    rate = math.fsum(num_lost(seed, math.inf) / max(1, run.num_iterations) for seed, run in runs.items()) / len(runs)
    wanted = {seed: to_target.of_run(rate, rebuilt_in(run)) for seed, run in runs.items()} if to_target else {}
    seconds, usd, lost = dict[Seeds, float](), dict[Seeds, float](), dict[Seeds, int]()
    for seed in wanted:
        run = runs[seed]
        times = first_times(run)
        for number, iterations in enumerate(wanted[seed]):
            until = seconds[seed, number] = first_time(times, iterations)
            lost[seed, number] = num_lost(seed, math.inf if math.isnan(until) else until)
            usd[seed, number] = math.nan if price is None or math.isnan(until) else price * run.node_hours_until(until)
    total_seconds = math.fsum(run.wall_clock_seconds for run in runs.values()) or math.inf
    kinds = [kinds_of(run.events) for run in runs.values()]
    return FirstPassages(
        failures_per_iteration=rate,
        is_edited=any(len({stretch.lineage for stretch in log_of(run).stretches}) > 1 for run in runs.values()),
        num_stopped=sum(run.stopped is not None for run in runs.values()),
        iterations=tuple(math.fsum(found) / len(wanted) for found in zip(*wanted.values(), strict=True)),
        seconds=seconds,
        usd=usd,
        lost=lost,
        iteration_seconds=min(run.iteration_seconds for run in runs.values()),
        shares={bucket: math.fsum(run.ledger[bucket] for run in runs.values()) / total_seconds for bucket in BUCKETS},
        num_started=sum(found["checkpoint_started"] for found in kinds),
        num_durable=sum(found["checkpoint_durable"] for found in kinds),
        steady_seconds=math.fsum(steady_seconds(run.ledger, run.num_iterations) for run in runs.values()) / len(runs),
        plain_seconds=min(run.equal_iteration_seconds for run in runs.values()),
    )
