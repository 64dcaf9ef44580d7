"""The textbook's optimal checkpoint intervals, against their published values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.strategies.checkpoint import daly_seconds, observed_mtbf_seconds, young_seconds

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(("mtbf", "minutes"), [(24 * HOUR, 116.69), (6 * HOUR, 56.71), (15 * MINUTE, 9.14)])
def test_dalys_interval_has_its_published_values(mtbf, minutes):
    assert daly_seconds(5 * MINUTE, mtbf) / MINUTE == pytest.approx(minutes, abs=5e-3)


@pytest.mark.parametrize(("mtbf", "minutes"), [(24 * HOUR, 120.0), (6 * HOUR, 60.0), (90 * MINUTE, 30.0)])
def test_youngs_interval_is_the_root_of_twice_save_times_mtbf(mtbf, minutes):
    assert young_seconds(5 * MINUTE, mtbf) == minutes * MINUTE


def test_dalys_interval_is_one_uptime_for_saves_of_two_and_more():
    assert daly_seconds(200.0, 100.0) == daly_seconds(1e9, 100.0) == 100.0
    assert daly_seconds(199.9, 100.0) == pytest.approx(100.0, rel=0.5)


def test_saves_that_cost_nothing_can_go_on_all_the_time():
    assert young_seconds(0.0, HOUR) == young_seconds(0.0, math.inf) == daly_seconds(0.0, HOUR) == 0.0


def test_nobody_saves_where_nothing_fails():
    assert young_seconds(1.0, math.inf) == daly_seconds(1.0, math.inf) == math.inf


@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e8))
def test_the_longer_the_uptime_the_longer_both_intervals(save, mtbf):
    for formula in (young_seconds, daly_seconds):
        assert 0 <= formula(save, mtbf) <= formula(save, 2 * mtbf)


def test_the_observed_mtbf_starts_from_one_prior_failure():
    assert observed_mtbf_seconds(HOUR, 0.0, 0) == HOUR
    assert observed_mtbf_seconds(HOUR, 3 * HOUR, 0) == 4 * HOUR
    assert observed_mtbf_seconds(HOUR, 3 * HOUR, 3) == HOUR


@given(st.floats(1.0, 1e6), st.integers(1, 50), st.floats(1.0, 1e6))
def test_the_observed_mtbf_forgets_what_was_believed(prior, num_failures, mtbf):
    found = observed_mtbf_seconds(prior, num_failures * mtbf, num_failures)
    assert min(prior, mtbf) * (1 - 1e-9) <= found <= max(prior, mtbf) * (1 + 1e-9)
    assert abs(found - mtbf) <= abs(prior - mtbf) / (1 + num_failures) * (1 + 1e-9) + 1e-6
