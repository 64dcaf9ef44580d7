"""Every simulated second of every run is in exactly one bucket."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.ledger import IterationSplit, Ledger
from sim.core.records import BUCKETS
from sim.strategies import STRATEGIES
from support.builders import a_scenario, run

split_seconds = st.floats(0.0, 1e6)
splits = st.builds(IterationSplit, split_seconds, split_seconds, split_seconds)


def test_a_completed_iteration_is_booked_by_its_split():
    ledger = Ledger()
    ledger.complete_iteration(IterationSplit(5.0, 2.0, 1.0))
    booked = {"productive_compute": 5.0, "bubble_and_communication": 2.0, "redundant_compute": 1.0}
    assert ledger.buckets() == {**dict.fromkeys(BUCKETS, 0.0), **booked}


def test_a_rollback_turns_whole_iterations_into_lost_work():
    ledger = Ledger()
    for _ in range(3):
        ledger.complete_iteration(IterationSplit(5.0, 2.0, 1.0))
    ledger.roll_back(1)
    ledger.roll_back(1)
    assert ledger.buckets()["lost_work"] == 16.0
    assert ledger.buckets()["productive_compute"] == 5.0


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


def test_a_rollback_goes_back_and_time_does_not():
    ledger = Ledger()
    with pytest.raises(AssertionError):
        ledger.roll_back(1)
    with pytest.raises(AssertionError):
        ledger.spend("detection", -1.0)


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


def adds_up(result):
    return math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-9)


FALLBACKS = ("stop", "restart", {"kind": "checkpoint", "interval_iterations": 7, "blocking_share": 0.3})
CLUSTERS = (
    {"detection_seconds": 10.0, "startup_seconds": 5.0},
    {"provisioning_seconds": 300.0, "num_spares": 1, "nodes_per_stage": 2, "startup_seconds": 5.0},
    {"provisioning_seconds": 60.0, "provisioning_sigma": 1.0, "nodes_per_stage": 3, "regroup_seconds": 7.0},
)


@settings(max_examples=60)
@given(
    which=st.integers(0, len(STRATEGIES) - 1),
    rate=st.sampled_from([0.0, 0.16, 0.5, 0.9]),
    kind=st.sampled_from(["exponential", "bernoulli", "weibull"]),
    seed=st.integers(0, 1000),
    fallback=st.sampled_from(FALLBACKS),
    cluster=st.sampled_from(CLUSTERS),
    network=st.sampled_from([None, "spot_cluster", "gcp", "gcp_paper", "home_us"]),
    blocking_share=st.sampled_from([0.0, 0.4, 1.0]),
    embedding_copy=st.sampled_from(["beside", "blocking", "free"]),
)
def test_the_buckets_of_every_run_add_up_to_its_wall_clock(
    which, rate, kind, seed, fallback, cluster, network, blocking_share, embedding_copy
):
    failures = {"kind": "exponential", "rate_per_hour": rate}
    if kind == "weibull":
        downtime = {"mean_hours": 0.1} if seed % 2 else None
        failures = {**failures, "kind": kind, "scope": "node", "downtime": downtime, "notice_seconds": seed % 30}
    if kind == "bernoulli":
        failures = {"kind": "bernoulli", "per_iteration_probability": rate / 50}
    strategies = (
        {"kind": "none"},
        {"kind": "checkpoint", "interval_iterations": 10, "blocking_share": blocking_share},
        {"kind": "neighbour_checkpoint", "num_copies": 2},
        {"kind": "redundant", "preset": "bamboo"},
        {"kind": "checkfree", "preset": "reference_code"},
        {"kind": "checkfree_plus", "embedding_copy": embedding_copy},
        {"kind": "checkfree_hybrid", "interval_iterations": 10, "blocking_share": blocking_share},
        {"kind": "reinit"},
        {"kind": "peer"},
        {"kind": "restart"},
    )
    assert {strategy["kind"] for strategy in strategies} == set(STRATEGIES)
    scenario = a_scenario(
        strategies,
        num_stages=6,
        steps=60,
        failures=failures,
        fallback=fallback,
        cluster=cluster,
        network=network,
        upload_seconds=100.0,
    )
    assert adds_up(run(scenario, which, seed))


@pytest.mark.parametrize("index", range(5))
def test_without_failures_wall_clock_is_the_iterations(index):
    kinds = ("none", "redundant", "checkfree", "checkfree_plus", "restart")
    scenario = a_scenario(tuple({"kind": kind} for kind in kinds), steps=200, failures={"kind": "never"})
    result = run(scenario, index)
    assert result.wall_clock_seconds == 200 * result.iteration_seconds
    overheads = set(BUCKETS) - {"productive_compute", "bubble_and_communication", "redundant_compute"}
    assert all(result.ledger[bucket] == 0.0 for bucket in overheads)
    assert adds_up(result)
