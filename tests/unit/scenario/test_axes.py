"""From --x and --y to values of a field, or to what is wrong with them."""

import re
from pathlib import Path

import pytest

from sim.scenario.axes import ScenarioTemplate
from sim.scenario.loading import ScenarioError

TEXT = """
name: axes
training: {learner: curve}
network: single_cluster
failures: {kind: exponential, rate_per_hour: 0.2}
strategies: [none, {kind: checkpoint, interval_iterations: 40}]
sweep: {grid: {failures.rate_per_hour: [0.1, 0.3]}}
"""


@pytest.fixture
def ground(tmp_path: Path) -> ScenarioTemplate:
    path = tmp_path / "axes.yaml"
    path.write_text(TEXT)
    return ScenarioTemplate(path)


def test_lists_are_sorted_and_ranges_spaced_by_ratio_or_evenly(ground):
    axis = ground.axis("--x", "failures.rate_per_hour=0.3,0.1,0.2,0.1", 20)
    assert (axis.values, axis.own, axis.is_log) == ((0.1, 0.2, 0.3), 0.2, False)
    names = ground.axis("--x", "workload.model=small,medium", 20)
    assert (names.values, names.is_numeric, names.is_log) == (("small", "medium"), False, False)
    assert names.nearest(names.own) == 1
    wide = ground.axis("--x", "failures.rate_per_hour=0.01..0.16", 5)
    assert wide.is_log
    assert wide.values == pytest.approx((0.01, 0.02, 0.04, 0.08, 0.16))
    narrow = ground.axis("--x", "failures.rate_per_hour=0.1..0.3", 5)
    assert not narrow.is_log
    assert narrow.values == pytest.approx((0.1, 0.15, 0.2, 0.25, 0.3))
    assert ground.axis("--x", "strategies[checkpoint].interval_iterations=1..4", 20).values == (1, 2, 3, 4)


def test_a_bare_field_ranges_around_its_value_within_its_limits(ground):
    factor = ground.axis("--x", "network.bandwidth_factor", 5)
    assert factor.values == pytest.approx((0.25, 0.5, 1.0, 2.0, 4.0))
    rate = ground.axis("--x", "failures.rate_per_hour", 5)
    assert rate.values[0] == pytest.approx(0.05)
    assert 0.2 < rate.values[-1] < 1.0  # four times 0.2 is allowed, a chance of 1 would not be
    high = ScenarioTemplate(ground.base_folder / "axes.yaml", ["failures.rate_per_hour=0.6"]).axis(
        "--x", "failures.rate_per_hour", 5
    )
    assert 0.6 < high.values[-1] < 1.0
    axis = ground.around("failures.rate_per_hour", (0.5, 1.0, 2.0, 10.0))
    assert axis.values == (0.1, 0.2, 0.4)
    assert axis.nearest(axis.own) == 1


@pytest.mark.parametrize(
    ("value", "place"), [(0.01, 0), (0.0139, 0), (0.0145, 1), (0.16, 4), (0.2, None), (None, None)]
)
def test_the_nearest_value_is_nearest_by_ratio_and_inside(ground, value, place):
    assert ground.axis("--x", "failures.rate_per_hour=0.01..0.16", 5).nearest(value) == place


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("failures.rate_per_hour=a..b", "--x failures.rate_per_hour=a..b: a range is LOW..HIGH, two numbers"),
        ("failures.rate_per_hour=0.5..2", "--x failures.rate_per_hour=0.5..2, failures.rate_per_hour: found 2"),
        ("failures.rate_per_hour=0.3..0.1", "a range goes from a number to a greater one"),
        ("failures.rate_per_hour=0.3", "an axis has two values or more"),
        ("failures.rate_per_hour=[", "--x failures.rate_per_hour=[: the values are"),
        ("cluster.device", "its value is 'l4': say which values, as cluster.device=l4,..."),
        ("failures.mean_uptime_hours", "its value is unset: say which values"),
        ("strategies[chekpoint].interval_iterations=1..2", "no entry 'chekpoint' in 'strategies'; nearest: checkpoint"),
        ("=1..2", "write a field as section.field"),
    ],
)
def test_what_is_no_axis_says_why(ground, asked, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ground.axis("--x", asked, 5)


def test_a_point_has_the_values_of_known_fields_and_no_sweep(ground):
    axis = ground.axis("--x", "failures.rate_per_hour=0.1,0.5", 5)
    point = ground.point([(axis, 0.5)])
    assert point.scenario.failures.rate_per_hour == 0.5
    assert point.parameters == {"failures.rate_per_hour": 0.5}
    assert point.scenario.sweep is None
    assert ground.scenario.failures.rate_per_hour == 0.2
    axis = ground.axis("--x", "network.bandwith_factor=1,2", 5)
    with pytest.raises(ScenarioError, match=r"--x network\.bandwith_factor=1,2.*nearest: bandwidth_factor"):
        ground.point([(axis, 1)])
    with pytest.raises(ScenarioError, match="nearest: bandwidth_factor"):
        ground.axis("--x", "network.bandwith_factor", 5)
