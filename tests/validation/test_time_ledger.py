"""Every simulated second of every run is in exactly one bucket of the ledger, whatever a scenario asks for."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.records import BUCKETS, Bucket
from sim.scenario.scenario import Scenario
from sim.simulation.recorder import EventRecorder
from sim.simulation.run import Run
from sim.strategies import STRATEGIES
from sim.workload.schedule import SCHEDULES
from support.builders import TINY_MODEL, a_link, a_scenario, no_training, run
from support.examples import examples
from support.iterations import options_of
from support.strategy_options import CHECKPOINTS, STRATEGY_OPTIONS

SPENT: tuple[Bucket, ...] = ("checkpoint_save", "detection", "provisioning", "state_transfer", "waiting_for_nodes")

FALLBACKS = ["stop", "restart", *CHECKPOINTS, {"kind": "checkpoint", "interval_iterations": 7, "blocking_share": 0.3}]
NETWORKS = [None, None, "spot_cluster", "gcp", "gcp_paper", "home_us"]
"""Slow links, or a preset."""
SHARING = ["node_pair", "region_pair", "none"]
OPTIONS_OF_SCHEDULES = [
    *map(options_of, SCHEDULES),
    {"schedule": "1f1b", "max_in_flight": 2, "loss_at": "last_stage"},
    {"schedule": "fifo", "max_in_flight": 3},
]
FAILURES = [
    {"kind": "exponential", "rate_per_hour": 0.5},
    {"kind": "exponential", "rate_per_hour": 0.99},
    {"kind": "bernoulli", "per_iteration_probability": 0.02},
    {"kind": "weibull", "rate_per_hour": 0.9, "scope": "node", "notice_seconds": 17.0},
    {"kind": "weibull", "rate_per_hour": 0.5, "scope": "node", "notice_seconds": 4.0, "downtime": {"mean_hours": 0.1}},
]
CLUSTERS: list[dict[str, Any]] = [
    {"detection_seconds": 10.0, "startup_seconds": 5.0},
    {"nodes_per_stage": 2, "provisioning_seconds": 70.0, "num_spares": 1, "startup_seconds": 5.0, "jitter": 0.2},
    {"nodes_per_stage": 3, "provisioning_seconds": 60.0, "provisioning_sigma": 1.0, "regroup_seconds": 7.0},
]
ACCESS = [None, {"up_mbit_per_s": 0.01, "down_mbit_per_s": 0.04, "latency_ms": 20.0}]


@st.composite
def scenarios(draw) -> Scenario:
    """Small models over links so slow that uploads, hops and exchanges take seconds and meet each other."""
    network = {
        "same_region": a_link(0.05, 5000.0),
        "links": (("a", "b", 100.0, 4e-6), ("b", "c", 30.0, 1e-5), ("a", "c", 200.0, 2e-6)),
        "storage": a_link(0.15, draw(st.sampled_from([500.0, 5000.0]))),
        "sharing": draw(st.sampled_from(SHARING)),
        "access": draw(st.sampled_from(ACCESS)),
    }
    workload = {
        "model": {**TINY_MODEL, "num_layers": 8},
        "sequence_length": 1,
        "measured": {
            "forward_seconds": 1.0,
            "backward_seconds": 2.0,
            "head_seconds": draw(st.sampled_from([0.0, 0.6])),
        },
        "pause_seconds": draw(st.sampled_from([0.0, 3.3])),
        "optimizer_seconds": 0.7,
        "gradient_exchange": draw(st.sampled_from(["ring", "all_to_all"])),
        **draw(st.sampled_from(OPTIONS_OF_SCHEDULES)),
    }
    return a_scenario(
        (draw(st.sampled_from(STRATEGY_OPTIONS)),),
        steps=draw(st.sampled_from([10, 10, 60])),
        cluster=draw(st.sampled_from(CLUSTERS)),
        network=draw(st.sampled_from(NETWORKS)) or network,
        failures=draw(st.sampled_from(FAILURES)),
        fallback=draw(st.sampled_from(FALLBACKS)),
        fidelity=draw(st.sampled_from(["iteration", "microbatch"])),
        **workload,
    )


def is_possible(scenario: Scenario) -> bool:
    config = scenario.strategies[0]
    return STRATEGIES[config.kind].check(config, scenario.workload) is None


def adds_up(result: Run) -> bool:
    return math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-9)


def test_all_strategies_are_among_the_examples():
    assert {options["kind"] for options in STRATEGY_OPTIONS} == set(STRATEGIES)


@settings(max_examples=examples(14, 100))
@given(scenarios().filter(is_possible), st.integers(0, 1000))
def test_every_second_is_in_exactly_one_bucket(scenario, seed):
    """Completed iterations and whatever else took time follow each other without a gap.

    Lost work is what failures cut and rollbacks undo, less what was resumed.
    """
    trace = EventRecorder()
    result = run(scenario, seed=seed, training=no_training(scenario), trace=trace)
    for one in (result, run(scenario, seed=seed, training=no_training(scenario))):  # untraced in leaps
        assert set(one.ledger) == set(BUCKETS)
        assert min(one.ledger.values()) >= 0.0
        assert adds_up(one)
    spans = [(span.start_seconds, span.end_seconds) for span in trace.spans]
    iterations = [(record.started_seconds, record.ended_seconds) for record in result.iterations]
    booked = sorted(spans + iterations)
    assert all(end <= start for (_, end), (start, _) in pairwise(booked))
    for bucket in SPENT:
        seen = math.fsum(span.end_seconds - span.start_seconds for span in trace.spans if span.bucket == bucket)
        assert result.ledger[bucket] == pytest.approx(seen, rel=1e-9, abs=1e-9)
    assert math.fsum(end - start for start, end in booked) == pytest.approx(result.wall_clock_seconds, rel=1e-9)
    cut = math.fsum(span.end_seconds - span.start_seconds for span in trace.spans if span.bucket == "lost_work")
    resumed = cut + undone(result) - result.ledger["lost_work"]
    assert resumed == pytest.approx(0.0, abs=1e-6) or (carries_on(scenario) and -1e-6 <= resumed <= cut + 1e-6)


def carries_on(scenario: Scenario) -> bool:
    """Whether what a failure cut can become part of a completed iteration."""
    config = scenario.strategies[0]
    is_kept = getattr(config, "on_failure", "") == "carry_on" or getattr(config, "cut_iteration", "") == "kept"
    return is_kept or config.kind == "diloco"  # other pipelines train on


def undone(result: Run) -> float:
    """Seconds of completed iterations that a rollback made lost work: all but those that still count at the end."""
    kept = {record.iteration: record for record in result.iterations if record.iteration <= result.num_iterations}
    every = math.fsum(record.ended_seconds - record.started_seconds for record in result.iterations)
    return every - math.fsum(record.ended_seconds - record.started_seconds for record in kept.values())


@pytest.mark.parametrize("kind", ["none", "redundant", "checkfree", "checkfree_plus", "restart"])
def test_without_failures_wall_clock_is_the_iterations(kind):
    result = run(a_scenario(({"kind": kind},), steps=200, failures={"kind": "never"}))
    assert result.wall_clock_seconds == 200 * result.iteration_seconds
    overheads = set(BUCKETS) - {"productive_compute", "bubble_and_communication", "redundant_compute"}
    assert all(result.ledger[bucket] == 0.0 for bucket in overheads)
    assert adds_up(result)
