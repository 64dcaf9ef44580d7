"""Every simulated second of every run is in exactly one bucket."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.ledger import IterationSplit, Ledger
from sim.core.records import BUCKETS

split_seconds = st.floats(0.0, 1e6)
splits = st.builds(IterationSplit, split_seconds, split_seconds, split_seconds)


def test_iterations_are_booked_by_their_split_or_as_lost_work():
    ledger = Ledger()
    ledger.complete_iteration(IterationSplit(5.0, 2.0, 1.0))
    booked = {"productive_compute": 5.0, "bubble_and_communication": 2.0, "redundant_compute": 1.0}
    assert ledger.buckets() == {**dict.fromkeys(BUCKETS, 0.0), **booked}
    for _ in range(2):
        ledger.complete_iteration(IterationSplit(5.0, 2.0, 1.0))
    ledger.roll_back(1)
    ledger.roll_back(1)
    assert ledger.buckets() == {**dict.fromkeys(BUCKETS, 0.0), **booked, "lost_work": 16.0}
    with pytest.raises(AssertionError):
        ledger.roll_back(2)
    with pytest.raises(AssertionError):
        ledger.spend("detection", -1.0)


def test_a_continued_iteration_is_no_lost_work():
    ledger, split = Ledger(), IterationSplit(6.0, 2.0, 2.0)
    ledger.spend("lost_work", 5.0)
    ledger.spend("lost_work", 4.0)
    ledger.take_back("lost_work", 4.0)
    ledger.complete_iteration(split.lasting(12.0))
    booked = {"productive_compute": 7.2, "bubble_and_communication": 2.4, "redundant_compute": 2.4, "lost_work": 5.0}
    assert ledger.buckets() == pytest.approx({**dict.fromkeys(BUCKETS, 0.0), **booked})


some_seconds = st.floats(1e-3, 1e6)


@given(st.builds(IterationSplit, some_seconds, split_seconds, split_seconds), split_seconds)
def test_a_split_of_another_length_adds_up_to_it(split, seconds):
    lasting = split.lasting(seconds)
    assert lasting.seconds == pytest.approx(seconds, rel=1e-9)
    assert min(lasting.productive_seconds, lasting.bubble_seconds, lasting.redundant_seconds) >= 0.0


@given(st.lists(st.one_of(splits, st.tuples(st.sampled_from(BUCKETS), split_seconds), st.floats(0.0, 1.0))))
def test_no_booking_creates_or_destroys_time(bookings):
    ledger, kept, spent_seconds = Ledger(), 0, []
    for booking in bookings:
        if isinstance(booking, IterationSplit):
            ledger.complete_iteration(booking)
            kept += 1
            spent_seconds.append(booking.seconds)
        elif isinstance(booking, tuple):
            ledger.spend(*booking)
            spent_seconds.append(booking[1])
        else:
            kept = int(booking * kept)
            ledger.roll_back(kept)
    assert math.fsum(ledger.buckets().values()) == pytest.approx(math.fsum(spent_seconds), rel=1e-9)
