"""Iterations to the target by failures per iteration: through the real runs, straight between them, honest beyond."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.experiments.strategy_map.interpolation import IterationsToTarget, SamplePoint, next_rate

SEEDS = ((0, 0), (1, 0))


def sample(rate: float, *iterations: float, most: int = 1000) -> SamplePoint:
    return SamplePoint(rate, dict(zip(SEEDS, iterations, strict=True)), most)


def through(*samples: SamplePoint) -> IterationsToTarget:
    return IterationsToTarget(samples, 1000)


FREE = sample(0.0, 100.0, 100.0)


@given(st.lists(st.tuples(st.floats(1e-3, 1.0), st.floats(100, 999), st.floats(100, 999)), min_size=1, max_size=5))
def test_at_a_sample_point_each_seed_pair_has_its_real_value(rows):
    samples = [sample(rate, a, b) for rate, a, b in {row[0]: row for row in sorted(rows)}.values()]
    penalty = through(FREE, *samples)
    for each in (FREE, *samples):
        assert penalty.iterations_at(each.failures_per_iteration) == pytest.approx(each.iterations)


@given(st.floats(0.0, 1.0))
def test_between_knots_and_beyond_the_last_it_goes_straight_on(share):
    penalty = through(FREE, sample(0.1, 200.0, 140.0), sample(0.2, 400.0, 160.0))
    at = penalty.iterations_at(0.1 + 0.1 * share)
    assert at[0, 0] == pytest.approx(200 + 200 * share)
    assert at[1, 0] == pytest.approx(140 + 20 * share)
    beyond = penalty.iterations_at(0.2 * (1 + share))
    assert beyond[0, 0] == pytest.approx(100 + 300 * (1 + share))
    assert beyond[1, 0] == pytest.approx(100 + 60 * (1 + share))


def test_missed_targets_bound_the_rates_above_and_below():
    penalty = through(FREE, sample(0.1, 400.0, 150.0), sample(0.2, math.nan, 200.0), sample(0.3, 500.0, 250.0))
    for rate in (0.2, 0.25, 0.3, 0.9):
        assert math.isnan(penalty.iterations_at(rate)[0, 0])
    assert penalty.iterations_at(0.15)[0, 0] == pytest.approx(700.0)  # halfway to the 1000 iterations that were too few
    assert penalty.iterations_at(0.6)[1, 0] == pytest.approx(400.0)
    assert math.isnan(penalty.iterations_at(2.0)[1, 0])  # would take 1100
    nowhere = through(sample(0.0, math.nan, 100.0), sample(0.1, 400.0, 150.0))
    assert math.isnan(nowhere.iterations_at(0.1)[0, 0])
    penalty = through(FREE, sample(0.1, math.nan, math.nan))
    assert penalty.iterations_at(0.0) == FREE.iterations
    assert penalty.iterations_at(0.05)[0, 0] == pytest.approx(550.0)
    assert penalty.error_at(0.05) == pytest.approx(2.25)  # half of what is added: nothing is sure
    assert all(map(math.isnan, penalty.iterations_at(0.1).values()))


def test_the_error_is_that_of_leaving_a_sample_point_out():
    bent = through(FREE, sample(0.1, 200.0, 200.0), sample(0.2, 220.0, 220.0))  # straight would be 160 at 0.1
    assert bent.error_at(0.15) == pytest.approx(0.2)
    straight = through(FREE, sample(0.1, 150.0, 150.0), sample(0.2, 200.0, 200.0))
    assert straight.error_at(0.15) == pytest.approx(0.0)
    # With few sample points it is half the penalty.
    one = through(FREE, sample(0.1, 150.0, 150.0))
    assert one.error_at(0.05) == pytest.approx(0.125)  # a quarter more iterations there
    assert one.error_at(0.2) == pytest.approx(0.5)
    assert through(FREE).error_at(0.3) == 0.0
    unchanged = IterationsToTarget((FREE,), 1000, is_flat=True)  # no weights change: exact everywhere
    assert unchanged.iterations_at(0.7) == FREE.iterations
    assert unchanged.error_at(0.7) == 0.0


@given(st.floats(0.0, 1.0))
def test_the_error_is_zero_at_sample_points_and_largest_halfway(share):
    bent = through(FREE, sample(0.1, 200.0, 200.0), sample(0.2, 220.0, 220.0))
    for each in bent.samples:
        assert bent.error_at(each.failures_per_iteration) == 0.0
    assert bent.error_at(0.1 + 0.1 * share) <= bent.error_at(0.15) + 1e-12
    half = 0.6 * (1 + share)  # of what failures add there
    assert bent.error_at(0.2 + 0.2 * share) == pytest.approx(half * min(1.0, 2 * share))


def test_beside_a_missed_target_the_error_is_as_outside():
    missed = through(FREE, sample(0.1, 200.0, 200.0), sample(0.2, math.nan, 400.0))
    alone = through(FREE, sample(0.1, 200.0, 200.0))
    assert missed.error_at(0.12) == pytest.approx(mean_penalty(missed, 0.12) / 2 * 0.4)
    assert alone.error_at(0.12) == pytest.approx(0.6 * 0.4)


def mean_penalty(penalty: IterationsToTarget, rate: float) -> float:
    return sum(penalty.iterations_at(rate).values()) / 200.0 - 1.0


RATES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30, unique=True)


@given(RATES, st.integers(1, 8), st.floats(0.0, 1.1))
def test_sample_points_close_in_on_where_the_target_is_missed(rates, num_samples, misses_from):
    tried: dict[float, bool] = {}
    while (rate := next_rate(rates, tried, num_samples)) is not None:
        assert rate in rates
        assert rate > 0.0
        assert rate not in tried
        reached = [known for known, is_reached in tried.items() if is_reached]
        missed = [known for known, is_reached in tried.items() if not is_reached]
        assert max(reached, default=0.0) < rate < min(missed, default=math.inf)
        tried[rate] = rate < misses_from
    assert len(tried) <= num_samples


def test_sample_points_end_at_the_highest_failure_rate():
    rates, tried = [n / 100 for n in range(1, 101)], {}
    while (rate := next_rate(rates, tried, 4)) is not None:
        tried[rate] = True
    assert list(tried) == pytest.approx([0.06, 0.25, 0.56, 1.0], abs=0.01)
