"""The rule for verdicts on the paper's claims."""

import math
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from benchmarks.paper.extract import COMMITTED
from benchmarks.paper.published import Span
from benchmarks.paper.tables import StudyTables, seconds_by_network
from benchmarks.paper.verdicts import Contrast, claims, compared, pairs_needed


def pairs(own: list[float], other: list[float]) -> Contrast:
    """Runs of two strategies, three failure seeds x two training seeds."""
    seeds = list(product(range(3), range(2)))
    rows = [
        {"strategy": name, "outcome": "finished", "failure_seed": a, "training_seed": b, "x": value}
        for name, values in (("own", own), ("other", other))
        for (a, b), value in zip(seeds, values, strict=True)
    ]
    return Contrast(pd.DataFrame(rows), "x", "own", "other")


ONE = [1.0, 1.05, 1.0, 1.05, 1.0, 1.05]
TWICE = [2.0, 2.1, 2.0, 2.11, 2.0, 2.1]


def test_an_order_holds_if_the_interval_excludes_no_difference():
    assert pairs(TWICE, ONE).verdict(is_below=False) == "holds"
    assert pairs(TWICE, ONE).verdict(is_below=True) == "the opposite"
    wide = pairs([1.1, 9.0, 1.2, 9.0, 1.1, 9.0], [1.0] * 6)
    assert wide.verdict(is_below=False).startswith("undecided: ")
    mixed = pairs([2.0, 2.0, 2.0, 2.0, 2.0, 0.9], [1.0] * 6)
    assert mixed.count(is_below=False) == (5, 6)


def test_a_target_not_reached_is_above_any_value():
    nothing = math.nan
    found = pairs([1, nothing, 3, 4, 5, nothing], [2, 3, 4, 5, nothing, nothing])
    assert (found.count(is_below=True), found.count(is_below=False)) == ((4, 6), (1, 6))
    assert found.verdict(is_below=True) == "undecided: a longer training"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.9, 2.1, "holds"),
        (2.2, 2.4, "holds; smaller here"),
        (1.1, 1.5, "holds; larger here"),
        (0.9, 1.1, "no order published; larger here"),
        (0.4, 0.6, "the opposite; larger here"),
    ],
)
def test_ratios_are_compared_with_the_published_range(low, high, expected):
    found, paper, here = compared(pairs(TWICE, ONE), Span((low + high) / 2, low, high))
    assert (found, paper) == (expected, f"{(low + high) / 2:.2f}")
    assert here.startswith("2.00")


def test_the_number_of_pairs_is_that_of_a_t_test():
    """Against tables of the power of a t test (Cohen, 1988): effects of 0.5 and 0.8 need 34 and 15 pairs."""
    assert [pairs_needed(effect, 1.0) for effect in (0.5, -0.8, 0.01)] == [34, 15, None]
    mixed = [0.9, 1.2, 1.3, 0.8, 1.2, 1.1]
    found = pairs(mixed, [1.0] * 6)
    assert found.needed == f"{pairs_needed(np.log(mixed).mean(), deviation_by_hand(np.log(mixed)))} pairs"


def deviation_by_hand(values: np.ndarray) -> float:
    """Of an independent pair: of runs (0, 0), (0, 1), (1, 0) and so on half the mean squared differences by what they
    share; components of less than nothing are nothing."""
    cells = dict(zip(product(range(3), range(2)), values, strict=True))
    halves: dict[tuple[bool, bool], list[float]] = {}
    for (a, one), (b, other) in combinations(cells.items(), 2):
        halves.setdefault((a[0] == b[0], a[1] == b[1]), []).append((one - other) ** 2 / 2)
    none, failure, training = (np.mean(halves[key]) for key in ((False, False), (True, False), (False, True)))
    return math.sqrt(max(0, none - failure) + max(0, none - training) + max(0, failure + training - none))


def test_every_claim_has_a_verdict():
    rows = list(claims(StudyTables(COMMITTED / "full")))
    words = (
        "holds",
        "the opposite",
        "undecided: ",
        "by construction",
        "no order published",
        "depends on the plac",
    )
    for row in rows:
        for line in row.verdict.split("<br>"):
            assert line.split(" %: ")[-1].startswith(words), row.claim
        assert row.paper, row.claim
        assert row.here, row.claim
        assert row.where.startswith("["), row.claim
    assert len({row.claim for row in rows}) == len(rows) > 20


def test_swapped_routes_take_longer_or_shorter_by_the_placement():
    longer = [plus > plain for plain, plus in seconds_by_network().values()]
    assert longer == [True, False, False]
