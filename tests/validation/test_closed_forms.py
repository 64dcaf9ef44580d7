"""The simulator against textbook formulas (shared/FORMULAS.md has the sources). Seeds are fixed."""

import itertools
import math

import numpy as np
import pytest
from conftest import a_pipeline, a_scenario, a_strategy, run
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.lineage import plain_routes
from sim.costs import IterationPlan
from sim.scenario import Scenario
from sim.simulation import build_world
from sim.strategies import STRATEGIES, UnrecoverableError

ITERATION = 21.0
seconds = st.floats(0.01, 10.0)
pipeline_shapes = (st.integers(2, 8), st.integers(1, 20), seconds, seconds, st.sampled_from(["gpipe", "1f1b"]))


# ---- the pipeline -----------------------------------------------------------------------------------


@given(*pipeline_shapes)
def test_gpipe_and_1f1b_take_m_plus_p_minus_1_slots(p, m, forward, backward, schedule):
    for max_in_flight in (None, p, p + 1, 2 * p, 3 * p):
        run = a_pipeline(p, m, forward, backward, schedule, max_in_flight=max_in_flight)
        assert run.seconds == pytest.approx((m + p - 1) * (forward + backward))


@given(*pipeline_shapes)
def test_the_bubble_is_p_minus_1_of_them(p, m, forward, backward, schedule):
    run = a_pipeline(p, m, forward, backward, schedule)
    busy_seconds = sum(operation.end_seconds - operation.start_seconds for operation in run.operations)
    assert 1 - busy_seconds / (p * run.seconds) == pytest.approx((p - 1) / (m + p - 1))


@given(st.integers(2, 8), st.integers(1, 20), seconds, st.sampled_from(["gpipe", "1f1b"]))
def test_a_head_as_slow_as_a_stage_is_one_more_stage(p, m, forward, schedule):
    run = a_pipeline(p, m, forward, 2 * forward, schedule, head_seconds=3 * forward)
    assert run.seconds == pytest.approx((m + p) * 3 * forward)


@given(st.integers(2, 8), st.integers(1, 20), st.floats(0.0, 20.0))
def test_gpipe_fills_and_drains_through_every_hop(p, m, hop_seconds):
    run = a_pipeline(p, m, schedule="gpipe", hop_seconds=hop_seconds)
    assert run.seconds == pytest.approx(3 * (m + p - 1) + 2 * (p + 1) * hop_seconds)


def test_redundant_forwards_cost_a_third_at_twice_the_backward():
    def slot_seconds(shadow_forwards: float) -> float:
        plans = (IterationPlan(m, plain_routes(4), shadow_forwards=shadow_forwards) for m in (40, 20))
        more, fewer = (a_pipeline(4, plan.num_microbatches, plan=plan).seconds for plan in plans)
        return (more - fewer) / 20

    assert slot_seconds(1.0) / slot_seconds(0.0) == pytest.approx(4 / 3)


# ---- checkpointing under exponential failures ----------------------------------------------------------


def segment_seconds(rate: float, work: float, save: float, restart: float, down: float) -> float:
    """Expected time of one segment: failures strike work, save and restart, but not while the node is away."""
    return math.exp(rate * restart) * (1 / rate + down) * math.expm1(rate * (work + save))


def test_the_formula_of_a_segment_gives_its_published_value():
    assert segment_seconds(1 / 50, 20, 3, 5, 2) == pytest.approx(33.566, abs=5e-4)


def one_failing_stage(strategy: dict, steps: int, per_hour: float = 0.999, **options: object) -> Scenario:
    """Only stage 1 fails, with P(failure in an hour) = per_hour: 0.999 is one in 521 s."""
    failures = {"kind": "exponential", "rate_per_hour": per_hour, "immune_stages": (0, 2, 3, 4)}
    cluster = {"provisioning_seconds": 40.0, "startup_seconds": 25.0}
    return a_scenario((strategy,), steps=steps, failures=failures, cluster=cluster, **options)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


@pytest.mark.parametrize("interval", [5, 20])
def test_checkpointing_takes_the_expected_time(interval):
    save, num_segments, num_runs = 30.0, 4, 250
    strategy = {"kind": "checkpoint", "interval_iterations": interval, "blocking_share": 1.0}
    scenario = one_failing_stage(strategy, num_segments * interval, upload_seconds=save)
    rate = -math.log(1 - 0.999) / 3600
    fetch = save  # once there is a checkpoint, restarting fetches it
    expected = segment_seconds(rate, interval * ITERATION, save, 25.0, 40.0)
    expected += (num_segments - 1) * segment_seconds(rate, interval * ITERATION, save, 25.0 + fetch, 40.0)
    mean, error = mean_and_error([run(scenario, seed=seed).wall_clock_seconds for seed in range(num_runs)])
    assert abs(mean - expected) < 3 * error
    assert error < 0.05 * expected


@pytest.mark.parametrize("work", [60.0, 500.0, 3000.0])
def test_the_work_lost_to_a_failure_is_a_truncated_exponential(work):
    scenario = one_failing_stage({"kind": "restart"}, steps=1)
    world = build_world(scenario, failure_seed=0)
    rate, lost_seconds = -math.log(1 - 0.999) / 3600, []

    def work_again_and_again():
        while len(lost_seconds) < 4000:
            started_seconds = world.now_seconds
            if (yield from world.attempt(work, "lost_work")):
                lost_seconds.append(world.now_seconds - started_seconds)
                yield from world.attempt(40.0, "provisioning")  # nothing can strike while the node is away

    world.run(work_again_and_again())
    mean, error = mean_and_error(lost_seconds)
    assert abs(mean - (1 / rate - work / math.expm1(rate * work))) < 3 * error


@pytest.mark.parametrize("interval", [5, 20])
def test_rolling_back_by_iterations_multiplies_the_work(interval):
    chance, steps = 0.05, 40
    failures = {
        "kind": "bernoulli",
        "per_iteration_probability": chance,
        "instant": "start",
        "immune_stages": (0, 2, 3, 4),
    }
    strategy = {"kind": "checkpoint", "interval_iterations": interval, "blocking_share": 1.0}
    scenario = a_scenario((strategy,), steps=steps, failures=failures)
    executed = []
    for seed in range(300):
        result = run(scenario, seed=seed)
        executed.append((len(result.iterations) + result.num_failures) / steps)
    mean, error = mean_and_error(executed)
    assert abs(mean - ((1 - chance) ** -interval - 1) / (interval * chance)) < 3 * error


# ---- failures ---------------------------------------------------------------------------------------


def test_n_exponential_stages_are_one_process_of_n_times_the_rate():
    scenario = a_scenario(failures={"kind": "exponential", "rate_per_hour": 0.5}, cluster={})
    world = build_world(scenario, failure_seed=0, heeds_failures=False)

    def wait():
        yield from world.attempt(2000 * 3600.0, "productive_compute")

    world.run(wait())
    gaps = np.diff([event.time_seconds for event in world.events], prepend=0.0)
    mean_seconds = 3600.0 / (5 * math.log(2))
    assert len(gaps) > 5000
    assert stats.kstest(gaps, stats.expon(scale=mean_seconds).cdf).pvalue > 0.01
    assert stats.chisquare(np.bincount([event.stage for event in world.events])).pvalue > 0.01


@pytest.mark.parametrize("num_stages", [4, 6, 9])
@pytest.mark.parametrize("num_lost", [1, 2, 3, 4])
def test_neighbours_are_among_the_lost_as_often_as_counting_says(num_stages, num_lost):
    config = STRATEGIES["checkfree"].Config(end_stages="copy")
    strategy = a_strategy(config, num_stages)

    def is_recovered(lost: tuple[int, ...]) -> bool:
        try:
            return len(strategy.edits(frozenset(lost))) == num_lost
        except UnrecoverableError:
            return False

    recovered = sum(is_recovered(lost) for lost in itertools.combinations(range(1, num_stages + 1), num_lost))
    assert recovered == math.comb(num_stages - num_lost + 1, num_lost)


@pytest.mark.parametrize("chance", [0.02, 0.1])
def test_an_iteration_completes_when_no_stage_fails_in_it(chance):
    """Failures by iteration are independent: completed / executed = (1 - p)^S."""
    failures = {"kind": "bernoulli", "per_iteration_probability": chance, "immune_stages": (0,)}
    scenario = a_scenario(({"kind": "restart"},), steps=200, failures=failures)
    completed = executed = 0
    for seed in range(3):
        result = run(scenario, seed=seed)
        completed += len(result.iterations)
        executed += len(result.iterations) + sum(event.kind == "recovered" for event in result.events)
    expected = (1 - chance) ** scenario.workload.num_stages
    assert abs(completed / executed - expected) < 4 * (expected * (1 - expected) / executed) ** 0.5
