"""Sums of ticks are exact, so their order does not matter."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from sim.core.units import TICKS_PER_SECOND, to_ticks


@given(st.floats(0.0, 1e8))
def test_seconds_are_rounded_to_the_nearest_tick(seconds):
    ticks = to_ticks(seconds) * TICKS_PER_SECOND
    assert ticks == int(ticks)
    assert abs(ticks - seconds * TICKS_PER_SECOND) <= 0.5
    assert to_ticks(to_ticks(seconds)) == to_ticks(seconds)
    assert to_ticks(math.inf) == math.inf


@given(st.lists(st.floats(0.0, 1e5), min_size=2, max_size=50), st.integers())
def test_sums_of_ticks_are_exact_in_any_order(durations, seed):
    ticks = [to_ticks(duration) for duration in durations]
    shuffled = random.Random(seed).sample(ticks, len(ticks))
    assert sum(ticks) == sum(shuffled) == math.fsum(ticks)
