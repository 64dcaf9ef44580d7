"""Who comes first, by how much, and whether that can be told."""

import math

import pytest

from sim.results.ranking import Outcomes, Ranking
from sim.results.ranking import rank as rank_outcomes
from sim.results.statistics import Values

LUCKS = [(f, r) for f in range(3) for r in range(2)]


def taken(*values: float) -> dict[tuple[int, int], float]:
    return dict(zip(LUCKS, values, strict=True))


def rank(taken_by: dict[str, dict[tuple[int, int], float]], errors: dict[str, float]) -> Ranking:
    return rank_outcomes(
        {name: Outcomes(Values.by_seeds(found), error=errors.get(name, 0.0)) for name, found in taken_by.items()}
    )


STEADY = taken(100, 101, 100, 101, 100, 101)


def test_the_best_takes_least_and_the_others_follow():
    slower = {luck: 1.2 * value for luck, value in STEADY.items()}
    slowest = {luck: 2.0 * value for luck, value in STEADY.items()}
    found = rank({"slowest": slowest, "best": STEADY, "slower": slower}, {})
    assert [one.strategy for one in found.standings] == ["best", "slower", "slowest"]
    assert found.best.strategy == "best"
    assert found.lead == pytest.approx(0.2)
    assert found.contenders == ()
    assert found.standings[2].behind == pytest.approx(1.0)


def test_a_difference_within_interval_or_error_is_too_close():
    noisy = taken(90, 120, 112, 98, 121, 85)
    found = rank({"steady": STEADY, "noisy": noisy}, {})
    assert found.best.strategy == "steady"
    assert [one.strategy for one in found.contenders] == ["noisy"]
    slower = {luck: 1.05 * value for luck, value in STEADY.items()}
    assert rank({"a": STEADY, "b": slower}, {"b": 0.02}).contenders == ()
    assert [one.strategy for one in rank({"a": STEADY, "b": slower}, {"b": 0.06}).contenders] == ["b"]
    assert [one.strategy for one in rank({"a": STEADY, "b": slower}, {"a": 0.06}).contenders] == ["b"]
    found = rank({"b": STEADY, "a": dict(STEADY)}, {})
    assert found.best.strategy == "a"
    assert found.lead == 0.0
    assert [one.strategy for one in found.contenders] == ["b"]


def test_strategies_that_miss_the_target_come_last():
    lucky = taken(10, math.nan, 10, 10, 10, 10)
    found = rank({"lucky": lucky, "steady": STEADY}, {})
    assert found.best.strategy == "steady"
    assert found.lead == math.inf
    assert not found.standings[1].may_be_first
    nobody = rank({"lucky": lucky, "never": taken(*[math.nan] * 6)}, {})
    assert nobody.best is None
    assert nobody.contenders == ()
    assert [one.strategy for one in nobody.standings] == ["lucky", "never"]
