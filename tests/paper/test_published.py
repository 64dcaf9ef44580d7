"""The paper's published numbers, and what they imply."""

import pytest

from benchmarks.paper.published import FAILURE_FREE_ITERATIONS, TABLE_2, quotient, row_of


def test_implied_iterations_and_headlines_follow_from_the_table():
    """500 iterations is the paper's validation interval."""
    for strategy, rows in TABLE_2.items():
        for row in rows:
            if strategy != "checkpoint":
                assert row.iterations % 500 == pytest.approx(0, abs=4) or row.iterations % 500 > 496
    assert [round(row.iterations, -2) for row in TABLE_2["checkfree"]] == [14_500, 16_000, 22_000]
    assert [round(row.iterations, -2) for row in TABLE_2["checkfree_plus"]] == [14_000, 14_500, 18_000]
    checkpoint, redundant, checkfree, plus = (TABLE_2[name][0].train_hours for name in TABLE_2)
    assert 1 - checkfree / redundant == pytest.approx(0.12, abs=0.005)
    assert checkpoint / plus == pytest.approx(1.6, abs=0.05)
    assert redundant * 3600 / TABLE_2["redundant"][0].iteration_seconds == pytest.approx(FAILURE_FREE_ITERATIONS, abs=1)


def test_what_is_not_in_the_table_has_no_row():
    assert row_of("redundant", 0.05) == TABLE_2["redundant"][0]
    for unpublished in (("none", 0.05), ("checkfree", 0.07)):
        with pytest.raises(KeyError):
            row_of(*unpublished)


def test_validation_interval_gives_a_range_of_ratios():
    redundant, checkfree = (TABLE_2[name][0] for name in ("redundant", "checkfree"))
    iterations = quotient(checkfree, redundant, in_hours=False)
    assert (iterations.value, iterations.low, iterations.high) == pytest.approx((1.45, 1.40, 1.526), abs=1e-3)
    hours = quotient(checkfree, redundant, in_hours=True)
    assert hours.value == pytest.approx(checkfree.train_hours / redundant.train_hours)
    assert hours.is_below_1
    assert quotient(TABLE_2["checkfree"][1], redundant, in_hours=True).is_below_1 is None
    assert quotient(TABLE_2["checkfree_plus"][0], checkfree, in_hours=False).is_below_1 is None
