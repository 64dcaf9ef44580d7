"""What can decide an order: enough failures, and replicates that are not copies of one run."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.reporting.verdict import least_overhead
from sim.results.ranking import FEWEST_FAILURES, Outcomes, rank
from sim.results.statistics import Values
from sim.results.strategy_map import FirstPassages

SEEDS = range(5)


def outcomes(seconds, lost, steady_seconds=math.nan):
    values, counts = ({(seed, 0): each for seed, each in zip(SEEDS, found, strict=True)} for found in (seconds, lost))
    return Outcomes(Values.by_seeds(values), Values.by_seeds(counts), steady_seconds)


def test_nothing_is_first_where_no_stage_was_lost():
    """Five copies of one run differ from five copies of another by an interval of zero width: no certainty."""
    found = rank({"a": outcomes([100.0] * 5, [0] * 5, 1.0), "b": outcomes([150.0] * 5, [0] * 5, 1.5)})
    assert (found.best, found.contenders, found.is_tested) == (None, (), False)
    assert all(math.isnan(end) for one in found.standings for end in (one.takes.low, one.takes.high))
    assert math.isnan(found.standings[1].behind_low)
    assert [one.strategy for one in found.by_overhead] == ["a", "b"]
    assert found.by_overhead[1].overhead == pytest.approx(0.5)


@given(st.lists(st.integers(0, 4), min_size=5, max_size=5), st.floats(0.01, 1.0))
def test_an_order_needs_ten_failures_whatever_the_interval(lost, lead):
    seconds = [100.0 + number for number in range(5)]
    slower = [each * (1 + lead) + 0.01 * number for number, each in enumerate(seconds)]
    found = rank({"slow": outcomes(slower, lost), "fast": outcomes(seconds, lost)})
    assert (found.best is not None) == (sum(lost) >= FEWEST_FAILURES)
    assert found.best is None or found.best.strategy == "fast"


def test_scripted_failures_count_once():
    """The same losses under every seed are one sample: first is only said of that."""
    few = rank({"a": outcomes([100.0] * 5, [9] * 5), "b": outcomes([150.0] * 5, [9] * 5)})
    many = rank({"a": outcomes([100.0] * 5, [12] * 5), "b": outcomes([150.0] * 5, [12] * 5)})
    assert (few.is_tested, many.is_tested, many.has_one_sample) == (False, True, True)
    assert [one.strategy for one in many.contenders] == ["b"]


def test_scripted_failures_count_once_under_crossed_training_seeds():
    """Each training seed has its own time, whatever the failure seed."""
    pairs = [(failure, training) for failure in range(5) for training in range(2)]
    values = Values.by_seeds({pair: 100.0 + pair[1] for pair in pairs})
    assert Outcomes(values, Values.by_seeds(dict.fromkeys(pairs, 4))).num_lost == 4
    values = Values.by_seeds({pair: 100.0 + pair[1] + pair[0] for pair in pairs})
    assert Outcomes(values, Values.by_seeds(dict.fromkeys(pairs, 4))).num_lost == 20


def test_failures_in_either_run_count_for_a_pair():
    """A strategy that is slow because of thirty failures is behind one that had finished before they came."""
    quick, slow = outcomes([100, 101, 102, 103, 104], [0] * 5), outcomes([300, 310, 320, 330, 340], [6] * 5)
    assert rank({"quick": quick, "slow": slow}).best.strategy == "quick"
    alike = outcomes([110, 111, 113, 114, 115], [0] * 5)
    assert rank({"quick": quick, "slow": slow, "alike": alike}).best is None


def test_the_least_overhead_is_of_those_not_far_behind():
    """A strategy without overhead that loses everything at a failure is no recommendation."""
    lost = [1, 0, 0, 0, 0]
    found = rank(
        {
            "restart": outcomes([190, 100, 100, 100, 100], lost, 1.0),
            "checkpoint": outcomes([105, 102, 102, 102, 102], lost, 1.02),
        }
    )
    assert [one.strategy for one in found.by_overhead] == ["checkpoint", "restart"]


def test_faster_iterations_by_chance_are_no_recommendation():
    """Of another order of work under jitter, say; where all are faster, nodes are missing, and they are compared."""
    few = [0] * 5
    found = {
        "lucky": replace(outcomes([90] * 5, few, 0.9), plain_seconds=1.0),
        "sound": replace(outcomes([101] * 5, few, 1.01), plain_seconds=1.0),
        "slow": replace(outcomes([120] * 5, few, 1.2), plain_seconds=1.0),
    }
    assert [one.strategy for one in rank(found).by_overhead] == ["sound", "slow", "lucky"]
    said = least_overhead(rank(found))
    assert said == "sound (slow 19 % more)"
    shorter = {name: replace(each, plain_seconds=2.0) for name, each in found.items()}
    assert [one.strategy for one in rank(shorter).by_overhead] == ["lucky", "sound", "slow"]


@given(st.lists(st.floats(100.0, 1e5), min_size=2, max_size=6))
def test_no_interval_goes_below_the_time_without_failures(seconds):
    """Skewed times of few replicates have wide intervals; a run cannot be faster than one without failures."""
    by_seeds = {(seed, 0): each for seed, each in enumerate(seconds)}
    nothing = dict.fromkeys(by_seeds, 0)
    passed = FirstPassages(0.0, False, 0, (50.0,), by_seeds, by_seeds, nothing, 2.0, 2.0, 2.0, {}, 0, 0)
    found = passed.means()
    assert min(100.0, found["hours"] * 3600) / 3600 <= found["hours_low"] <= found["hours"] <= found["hours_high"]
    assert 0.0 <= found["usd_low"] <= found["usd"]
