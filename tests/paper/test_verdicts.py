"""The rule for verdicts on the paper's claims."""

import math
from itertools import product

import pandas as pd
import pytest

from benchmarks.paper.extract import COMMITTED
from benchmarks.paper.published import Span
from benchmarks.paper.tables import StudyTables, costs
from benchmarks.paper.verdicts import PairCounts, check, pair_counts, size, verdicts


def pairs(own: list[float], other: list[float]) -> pd.DataFrame:
    """Runs of two strategies, three failure seeds x two training seeds."""
    seeds = list(product(range(3), range(2)))
    rows = [
        {"strategy": name, "outcome": "finished", "failure_seed": a, "training_seed": b, "x": value}
        for name, values in (("own", own), ("other", other))
        for (a, b), value in zip(seeds, values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_order_needs_every_pair_of_seeds():
    found = pair_counts(pairs([1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7]), "x", "own", "other")
    assert found == PairCounts(6, 0, 0)
    assert found.order(is_below=True) == "R"
    assert found.order(is_below=False) == "N"
    assert PairCounts(5, 1, 0).order(is_below=True) == PairCounts(5, 1, 0).order(is_below=False) == "?"
    assert PairCounts(1, 1, 4).count(is_below=True) == "1 of 6, 1 equal"
    assert PairCounts(2, 0, 0).order(is_below=True) == "?"  # few pairs give no order
    nothing = math.nan  # a target not reached is above any value
    found = pair_counts(pairs([1, nothing, 3, 4, 5, nothing], [2, 3, 4, 5, nothing, nothing]), "x", "own", "other")
    assert found == PairCounts(4, 1, 1)


@pytest.mark.parametrize(
    ("paper", "low", "high", "expected"),
    [
        *((0.7, 0.6, 0.9, "R"), (0.7, 0.6, 1.2, "?"), (0.7, 0.8, 0.9, "N"), (0.7, 0.8, 1.2, "N"), (0.7, 1.1, 1.2, "N")),
        *((1.5, 1.2, 1.6, "R"), (1.5, 0.6, 1.6, "?"), (1.5, 1.2, 1.4, "N"), (1.5, 0.6, 1.2, "N")),
        *((1.5, 1.2, 1.47, "R"), (1.5, 1.53, 1.6, "R"), (1.5, math.nan, math.nan, "?")),
    ],
)
def test_size_compares_interval_and_published_range(paper, low, high, expected):
    """N if they do not overlap, ? if the interval contains 1, else R."""
    span = Span(paper, paper - 0.05, paper + 0.05)
    assert size(span, {"low_ratio": low, "high_ratio": high}) == expected


def test_ratios_and_readings_are_compared_with_the_papers():
    own, other = [2.0, 2.1, 2.0, 2.1, 2.0, 2.1], [1.0, 1.05, 1.0, 1.05, 1.0, 1.05]
    runs = pairs(own, other)
    found = check([runs], "x", "own", "other", Span(2.2, 2.1, 2.3))
    assert found.here == "2.00; 6 of 6"
    assert (found.order, found.size) == ("R", "N")
    assert check([runs], "x", "own", "other", Span(0.5, 0.4, 0.6)).order == "N"
    assert check([runs], "x", "own", "other", Span(0.99, 0.9, 1.1)).order == "?"
    one, another = pairs([2.0] * 6, [1.0] * 6), pairs([2.0] * 5 + [0.9], [1.0] * 6)
    found = check([one, another], "x", "own", "other", Span(2.0, 1.9, 2.1))
    assert found.here.startswith("2.00; 6 of 6, by running means 1.82 (")
    assert found.here.endswith("; 5 of 6")
    assert found.order == "?"


def test_every_claim_has_a_verdict():
    rows = list(verdicts(StudyTables(COMMITTED / "full"), list(costs())))
    assert len(rows) > 30
    for row in rows:
        letters = {line.split(": ")[-1] for cell in (row.order, row.size) if cell for line in cell.split("<br>")}
        assert letters, row.claim
        assert letters <= set("RN?"), row.claim
        assert row.paper, row.claim
        assert row.here, row.claim
        assert row.where.startswith("["), row.claim
