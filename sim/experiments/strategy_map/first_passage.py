"""When a run comes to an iteration for the first time: the seconds of the world, without anything being learnt.

A task of workers: depends on its arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import usd_per_node_hour
from sim.experiments.strategy_map.interpolation import IterationsToTarget, Seeds
from sim.results.comparison import SeedPair
from sim.scenario.scenario import Scenario
from sim.simulation.log import IterationLog
from sim.simulation.run import Run, simulate, time_only


@dataclass(frozen=True)
class FirstPassages:
    """What a strategy meets in a cell, and when it comes to the target there.

    failures_per_iteration: stages lost a completed iteration, mean over failure seeds. is_edited: whether weights were
    changed by a recovery under any seed. num_stopped: failure seeds under which it came to no end. iterations: to the
    target, by replicate of learning. seconds, usd: to the target, by pairs of a failure seed and a replicate of
    learning, each with each: two lucks that are crossed as the two kinds of seeds of a sweep are. NaN where the target
    is not reached.
    """

    failures_per_iteration: float
    is_edited: bool
    num_stopped: int
    iterations: tuple[float, ...]
    seconds: Mapping[SeedPair, float]
    usd: Mapping[SeedPair, float]


def passages(
    plays: Sequence[tuple[Scenario, int]], failure_seeds: Sequence[int], penalties: Sequence[IterationsToTarget | None]
) -> list[FirstPassages]:
    """For each of some scenarios, with the index of a strategy: its runs under failure seeds, to the target.

    penalties: how many iterations the target takes each of them; None where that is not known yet.
    """
    return [
        passage(scenario, index, failure_seeds, penalty)
        for (scenario, index), penalty in zip(plays, penalties, strict=True)
    ]


def passage(
    scenario: Scenario, strategy_index: int, failure_seeds: Sequence[int], penalty: IterationsToTarget | None
) -> FirstPassages:
    """The same of one."""
    config = scenario.strategies[strategy_index]
    runs = {seed: simulate(scenario, config, seed, 0, time_only(scenario)) for seed in failure_seeds}
    rates = [run.num_failures / max(1, run.num_iterations) for run in runs.values()]
    rate = math.fsum(rates) / len(rates)
    wanted = replicates(penalty.iterations_at(rate)) if penalty else ()
    times = {seed: first_times(run) for seed, run in runs.items()} if wanted else {}
    seconds = {
        (seed, number): first_time(own, iterations)
        for seed, own in times.items()
        for number, iterations in enumerate(wanted)
    }
    return FirstPassages(
        failures_per_iteration=rate,
        is_edited=any(is_edited(run) for run in runs.values()),
        num_stopped=sum(run.stopped is not None for run in runs.values()),
        iterations=wanted,
        seconds=seconds,
        usd={luck: usd_until(scenario, runs[luck[0]], until) for luck, until in seconds.items()},
    )


def replicates(iterations: Mapping[Seeds, float]) -> tuple[float, ...]:
    """Iterations by replicate of learning: a churn each, or with several training seeds, one of these each.

    Runs of one training seed under several churns are not independent, as runs of several are; so their mean counts.
    """
    by_training: dict[int, list[float]] = {}
    for (_, training), found in iterations.items():
        by_training.setdefault(training, []).append(found)
    if len(by_training) == 1:
        return tuple(iterations.values())
    return tuple(math.fsum(found) / len(found) for found in by_training.values())


def is_edited(run: Run) -> bool:
    """Whether a recovery changed weights: iterations were run on more than one line."""
    assert isinstance(run.iterations, IterationLog)
    return len({stretch.lineage for stretch in run.iterations.stretches}) > 1


def first_time(times: npt.NDArray[np.float64], iteration: float) -> float:
    """Of `first_times` that of an iteration; between two, in proportion. NaN if it never is complete."""
    if math.isnan(iteration) or iteration > len(times) - 1:
        return math.nan
    return float(np.interp(iteration, np.arange(len(times)), times))


def first_times(run: Run) -> npt.NDArray[np.float64]:
    """(iterations + 1,) seconds until each is complete for the first time, the 0th at 0."""
    assert isinstance(run.iterations, IterationLog)
    columns = run.iterations.columns()
    is_first = np.asarray(columns["execution"]) == 1
    ended: npt.NDArray[np.float64] = np.asarray(columns["ended_seconds"], dtype=np.float64)[is_first]
    return np.concatenate([[0.0], ended])


def usd_until(scenario: Scenario, run: Run, seconds: float) -> float:
    """Money spent until then; NaN where there is no such instant, or no price."""
    price = usd_per_node_hour(scenario.cluster)
    return math.nan if price is None or math.isnan(seconds) else price * run.node_hours_until(seconds)
