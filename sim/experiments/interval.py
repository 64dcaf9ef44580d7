"""The best interval between checkpoints: by Young's and Daly's formulas, exactly for constant rates, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from sim.scenario.scenario import Scenario
from sim.simulation.run import build_world, simulate, time_only
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig, daly_seconds, young_seconds

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Intervals that are simulated, as multiples of Daly's; those between the best and its neighbours follow."""


@dataclass(frozen=True)
class Intervals:
    """Seconds between two saves by each method. best_seconds: exact, or simulated where a scenario is given.

    save_seconds: for which training stands still; mtbf_seconds: mean time between failures. simulated: intervals in
    seconds with the mean hours of the job; empty without a scenario.
    """

    save_seconds: float
    mtbf_seconds: float
    young_seconds: float
    daly_seconds: float
    best_seconds: float
    simulated: tuple[tuple[float, float], ...] = ()


def intervals_for(mtbf_seconds: float, save_seconds: float) -> Intervals:
    """Seconds of work between two saves that each take some seconds, at a constant failure rate. Raises ValueError.

    The exact optimum minimises the expected time for a second of work, M / τ · (e^((τ + δ) / M) - 1) (Daly 2006; the
    time of a restart is a factor): τ = M · (1 + W(-e^(-1 - δ / M))), with Lambert's W.
    """
    for name, value in (("mtbf", mtbf_seconds), ("save", save_seconds)):
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name}: found {value:g} s; allowed: a time above 0")
    young, daly = young_seconds(save_seconds, mtbf_seconds), daly_seconds(save_seconds, mtbf_seconds)
    best = mtbf_seconds * (1.0 + float(special.lambertw(-math.exp(-1.0 - save_seconds / mtbf_seconds)).real))
    return Intervals(save_seconds, mtbf_seconds, young, daly, best)


def intervals_of(
    scenario: Scenario, failure_seeds: Sequence[int] = range(8), part_done: Callable[[], None] = lambda: None
) -> Intervals:
    """Seconds from the start of one save to the next for a scenario's first `checkpoint`, or one with its defaults.

    By the formulas of `interval: young` and `daly`; and the best of simulated jobs, times only, over some failure
    seeds. Intervals are at least an iteration's and an upload's time.
    """
    given = next((each for each in scenario.strategies if isinstance(each, CheckpointConfig)), CheckpointConfig())
    young, daly = (seconds_by(scenario, given, formula) for formula in ("young", "daly"))
    world = build_world(scenario, scenario.seeds.failures[0])
    least = world.iteration_times.split(world.plain_plan()).seconds
    base = max(daly, least)
    found: dict[float, float] = {}

    def hours_at(seconds: float) -> float:
        if seconds not in found:
            found[seconds] = mean_hours(scenario, given, seconds, failure_seeds)
            part_done()
        return found[seconds]

    for factor in FACTORS:
        hours_at(max(least, base * factor))
    best = min(found, key=hours_at)
    for step in (2**0.5, 2**0.25):
        for near in (best / step, best * step):
            hours_at(max(least, near))
        best = min(found, key=hours_at)
    save = still_seconds(scenario, given)
    return Intervals(save, world.mtbf_seconds, young, daly, best, tuple(sorted(found.items())))


def with_interval(given: CheckpointConfig, **interval: Any) -> CheckpointConfig:
    """The options of a strategy with another interval."""
    none: dict[str, Any] = dict.fromkeys(("interval_iterations", "interval_seconds", "interval"))
    return given.model_copy(update={**none, **interval})


def seconds_by(scenario: Scenario, given: CheckpointConfig, formula: str) -> float:
    """The interval of a formula in the world of a scenario."""
    strategy = Checkpoint(with_interval(given, interval=formula), scenario.workload.num_stages)
    return strategy.seconds_between_saves(build_world(scenario, scenario.seeds.failures[0]))


def still_seconds(scenario: Scenario, given: CheckpointConfig) -> float:
    """Seconds for which training stands still at a save."""
    strategy = Checkpoint(given, scenario.workload.num_stages)
    return strategy.seconds_of_save(build_world(scenario, scenario.seeds.failures[0]))


def mean_hours(scenario: Scenario, given: CheckpointConfig, seconds: float, failure_seeds: Sequence[int]) -> float:
    """Mean hours of the scenario's job with an interval; infinite if a run does not finish."""
    config = with_interval(given, interval_seconds=seconds)
    runs = [simulate(scenario, config, seed, 0, time_only(scenario)) for seed in failure_seeds]
    if any(run.stopped for run in runs):
        return math.inf
    return float(np.mean([run.wall_clock_seconds for run in runs])) / 3600.0
