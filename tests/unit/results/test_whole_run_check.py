"""When the whole runs that check a prediction agree with it."""

from __future__ import annotations

import math

import pytest

from sim.results.strategy_map import WholeRunCheck

MISSED = math.nan


@pytest.mark.parametrize(
    ("real", "predicted", "agrees"),
    [
        ((600.0, 700.0), (650.0, 650.0), True),  # means are compared, not single runs
        ((600.0, 700.0), (500.0, 500.0), True),
        ((600.0, 700.0), (480.0, 480.0), False),
        ((600.0, 700.0), (900.0, 900.0), False),
        ((600.0, MISSED), (MISSED, 900.0), True),
        ((MISSED,), (600.0,), False),
        ((600.0,), (MISSED,), False),
    ],
)
def test_means_agree_within_a_share_and_as_many_runs_miss(real, predicted, agrees):
    assert WholeRunCheck("checkfree", real, predicted).agrees(0.25) is agrees
