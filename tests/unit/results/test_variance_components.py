"""Variance components of finished runs, and the widths of intervals that designs let expect."""

import math

import numpy as np
import pytest
from scipy import stats

from sim.results.crossed_design import Cells
from sim.results.statistics import Values
from sim.results.variance_components import Components, expected_half_width

UNIT = {"failure": (1.0, 0.0, 0.0), "training": (0.0, 1.0, 0.0), "rest": (0.0, 0.0, 1.0)}


def diagonal(number: int) -> np.ndarray:
    return np.column_stack([np.arange(number)] * 2)


def block(num_failure: int, num_training: int) -> np.ndarray:
    return np.array([(i, j) for i in range(num_failure) for j in range(num_training)])


def t(freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom))


@pytest.mark.parametrize("variances", UNIT.values(), ids=UNIT)
def test_pairs_have_students_width_whatever_varies(variances):
    assert expected_half_width(diagonal(3), variances) == pytest.approx(t(2) / math.sqrt(3))
    assert expected_half_width(diagonal(6), variances) == pytest.approx(1.049, abs=1e-3)


def test_crossed_designs_have_the_width_of_the_seed_that_matters():
    assert expected_half_width(block(3, 2), UNIT["failure"]) == pytest.approx(t(2) / math.sqrt(3))
    assert expected_half_width(block(3, 2), UNIT["training"]) == pytest.approx(t(1) / math.sqrt(2))
    assert expected_half_width(block(3, 2), UNIT["rest"]) == pytest.approx(math.sqrt((t(2) ** 2 + t(1) ** 2) / 6))
    assert math.isnan(expected_half_width(diagonal(1), UNIT["rest"]))


@pytest.mark.parametrize(
    "seeds",
    [diagonal(5), block(3, 2), block(4, 1), np.array([*block(3, 2), [7, 7], [8, 8]])],
    ids=lambda found: str(len(found)),
)
def test_expected_widths_are_those_of_simulated_designs(seeds):
    rng = np.random.default_rng(len(seeds))
    variances = 1.0, 0.5, 0.25
    churn, learning = rng.standard_normal((2, 2000, 10))
    values = (
        churn[:, seeds[:, 0]]
        + math.sqrt(0.5) * learning[:, seeds[:, 1]]
        + 0.5 * rng.standard_normal((2000, len(seeds)))
    )
    cells = Cells.at(seeds, values[0][:, None])
    rests = values - values.mean(axis=1, keepdims=True)
    squares = [cells.squared_reach(rest, rest, 0.95) for rest in rests]
    assert math.sqrt(np.mean(squares)) == pytest.approx(expected_half_width(seeds, variances), rel=0.05)


def test_components_of_many_runs_are_those_that_made_them():
    rng = np.random.default_rng(3)
    churn, learning = 2.0 * rng.standard_normal(20), rng.standard_normal(20)
    values = churn[:, None] + learning + 0.5 * rng.standard_normal((20, 20))
    (variances,) = Components.of(Values(block(20, 20), values.ravel())).possible
    assert variances == pytest.approx((churn.var(ddof=1), learning.var(ddof=1), 0.25), rel=0.15)


def test_what_runs_do_not_say_of_a_design_is_a_range():
    values = np.array([1.0, 2.0, 4.0])
    half_width = t(2) * stats.sem(values)
    of_pairs, of_one = (Components.of(Values(seeds, values)) for seeds in (diagonal(3), block(3, 1)))
    assert of_pairs.expected(diagonal(3)) == pytest.approx((half_width, half_width))
    low, high = of_pairs.expected(block(3, 2))
    assert low < high < math.inf
    assert of_one.expected(block(3, 1)) == pytest.approx((half_width, half_width))
    assert of_one.expected(diagonal(3)) == pytest.approx((half_width, math.inf))
    assert Components.of(Values(block(1, 3), values)).expected(block(1, 3)) == pytest.approx((half_width, half_width))
    for nothing in (Values(diagonal(1), values[:1]), Values(diagonal(3), np.array([1.0, math.nan, math.nan]))):
        assert not Components.of(nothing).is_known
