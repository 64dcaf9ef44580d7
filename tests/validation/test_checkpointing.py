"""Checkpointing under failures at a constant rate, against its closed forms. Seeds are fixed.

M = mean uptime = 1 / rate, C = cost of a save, R = restart (during which failures strike), D = time away (during which
none does), W = work between saves. Young 1974 (CACM 17:9); Daly 2006 (Future Generation Computer Systems 22:3).
"""

import math
from functools import cache
from itertools import pairwise

import pytest

from sim.simulation.run import build_world
from sim.strategies.checkpoint import daly_seconds, young_seconds
from support.builders import of_kind, times
from support.closed_forms import a_job, mean_and_error, run, segment_seconds

MINUTE, HOUR = 60.0, 3600.0


def blocking(interval_iterations: int) -> dict[str, object]:
    """Checkpoints during which training stands still."""
    return {"kind": "checkpoint", "interval_iterations": interval_iterations, "blocking_share": 1.0}


def test_a_simulated_segment_takes_its_expected_time():
    """λ = 1/50, W = 20, C = 3, R = 5 (2 to start, 3 to fetch), D = 2, in units of 100 s: 33.566."""
    assert segment_seconds(1 / 50, 20, 3, 5, 2) == pytest.approx(33.566, abs=5e-4)
    unit = 100.0
    seconds = {"save_seconds": 3 * unit, "startup_seconds": 2 * unit, "away_seconds": 2 * unit}
    scenario = a_job(blocking(1), 20_001, 20 * unit, 50 * unit, **seconds)
    durable = times(of_kind(run(scenario), "checkpoint_durable"))
    mean, error = mean_and_error([(end - start) / unit for start, end in pairwise(durable)])
    assert abs(mean - 33.566) < 1.96 * error
    assert error < 0.005 * 33.566


@pytest.mark.parametrize("work", [60.0, 500.0, 3000.0])
def test_the_work_lost_to_a_failure_is_a_truncated_exponential(work):
    """1/λ - T / (e^{λT} - 1), of failures within T."""
    world = build_world(a_job({"kind": "restart"}, 1, 1.0, 500.0, away_seconds=40.0), failure_seed=0)
    lost_seconds = []

    def work_again_and_again():
        while len(lost_seconds) < 4000:
            started_seconds = world.now_seconds
            if (yield from world.attempt(work, "lost_work")):
                lost_seconds.append(world.now_seconds - started_seconds)
                yield from world.attempt(40.0, "provisioning")  # nothing can strike while the node is away

    world.run(work_again_and_again())
    mean, error = mean_and_error(lost_seconds)
    assert abs(mean - (500.0 - work / math.expm1(work / 500.0))) < 3 * error


SAVE, START, UPTIME = 5 * MINUTE, 5 * MINUTE, 6 * HOUR
TOTAL_WORK = 20_000 * MINUTE
YOUNG, DALY = young_seconds(SAVE, UPTIME), daly_seconds(SAVE, UPTIME)
INTERVALS = (DALY / 4, DALY / 2, DALY, YOUNG, 1.5 * DALY, 2 * DALY, 3 * DALY)


@cache
def swept(interval: float, iterations: int = 1) -> tuple[float, float, float]:
    """Time over work: mean and standard error of 24 seeds, and what to expect.

    All intervals meet failures at the same times. There is nothing to fetch in the first segment.
    """
    num_segments = round(TOTAL_WORK / interval)
    scenario = a_job(
        blocking(iterations), iterations * num_segments, interval / iterations, UPTIME, save_seconds=SAVE,
        startup_seconds=START,
    )  # fmt: skip
    work = num_segments * interval
    first = segment_seconds(1 / UPTIME, interval, SAVE, START, 0.0)
    others = (num_segments - 1) * segment_seconds(1 / UPTIME, interval, SAVE, START + SAVE, 0.0)
    mean, error = mean_and_error([run(scenario, seed).wall_clock_seconds / work for seed in range(24)])
    return mean, error, (first + others) / work


def is_as_expected(mean: float, error: float, expected: float) -> bool:
    """Within its own error, which is small, and within 1 %."""
    return error < 0.01 * mean and abs(mean - expected) < min(3 * error, 0.01 * expected)


def test_youngs_and_dalys_intervals_are_within_1_percent_of_best():
    """Saves of 5 minutes, restarts of 10, a failure in 6 hours: 60 and 56.7 minutes, of intervals from 14 to 170.

    At each of these, and with a save every twelfth iteration, the simulated time is the expected one.
    """
    assert YOUNG == 60 * MINUTE
    assert is_as_expected(*swept(YOUNG, iterations=12))
    assert all(is_as_expected(*swept(interval)) for interval in INTERVALS)
    simulated = {interval: swept(interval)[0] for interval in INTERVALS}
    best = min(simulated.values())
    assert simulated[YOUNG] < 1.01 * best
    assert simulated[DALY] < 1.01 * best
    assert simulated[INTERVALS[0]] > 1.1 * best
    assert simulated[INTERVALS[-1]] > 1.1 * best


def expected_seconds_of_work(interval: float) -> float:
    """Time of a second of work, but for the first segment, in which there is nothing to fetch."""
    return segment_seconds(1 / UPTIME, interval, SAVE, START + SAVE, 0.0) / interval


def replicates(interval: dict[str, object]) -> list[float]:
    """Time over work, with saves and failures as above and iterations of 5 minutes, of eight seeds."""
    strategy = {"kind": "checkpoint", "blocking_share": 1.0, **interval}
    scenario = a_job(strategy, 4000, 5 * MINUTE, UPTIME, save_seconds=SAVE, startup_seconds=START)
    return [run(scenario, seed).wall_clock_seconds / (4000 * 5 * MINUTE) for seed in range(8)]


def test_the_strategys_own_interval_beats_half_and_double_of_it():
    """By 4 and 6 % of the work, at the same failures: more than five standard errors of the difference.

    The strategy reckons with the failure process's own mean uptime, and keeps 60 minutes of work and 5 of saving.
    """
    own = replicates({"interval": "young"})
    expected = expected_seconds_of_work(YOUNG)
    assert mean_and_error(own)[0] == pytest.approx(expected, rel=0.01)
    for factor in (0.5, 2.0):
        others = replicates({"interval_seconds": SAVE + factor * YOUNG})
        mean, error = mean_and_error([other - mine for other, mine in zip(others, own, strict=True)])
        assert mean > 5 * error
        assert abs(mean - (expected_seconds_of_work(factor * YOUNG) - expected)) < 3 * error


@pytest.mark.parametrize("interval", [5, 20])
def test_rolling_back_by_iterations_multiplies_the_work(interval):
    """Each iteration's failure is drawn once: its chance, times itself and half the interval, is executed again."""
    chance, steps = 0.05, 40
    failures = {"kind": "bernoulli", "per_iteration_probability": chance, "instant": "start", "immune_stages": (0, 2)}
    scenario = a_job(blocking(interval), steps, 21.0, failures=failures)
    executed = []
    for seed in range(300):
        result = run(scenario, seed)
        executed.append((len(result.iterations) + result.num_failures) / steps)
    mean, error = mean_and_error(executed)
    assert abs(mean - (1 + chance * (interval + 1) / 2)) < 3 * error
