"""`iteration` prices an iteration once, `microbatch` plays its every event: the same seconds to the last bit.

Where operations jitter the two draw otherwise, and their means agree.
"""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.units import to_ticks
from sim.scenario.scenario import Scenario
from sim.simulation.recorder import EventRecorder
from sim.simulation.run import Run
from sim.strategies.base import STORE, Transfer
from sim.workload.iteration_time import IterationTimes
from support.builders import (
    BYTES_PER_SECOND,
    CHECKPOINT_BYTES,
    a_link,
    a_scenario,
    a_strategy,
    a_world,
    in_turn,
    no_training,
    of_kind,
    run,
    scripted,
    times,
)
from support.examples import examples

BOTH = ("iteration", "microbatch")
FAST = settings(max_examples=examples(20, 60))
INTERVALS = {
    "checkpoint": 1,
    "neighbour_checkpoint": 1,
    "two_tier_checkpoint": 2,
    "stale_stage": 2,
    "checkfree_hybrid": 2,
}
"""Iterations between saves inside a replica, by the ways that save."""


def runs(scenario: Scenario, script: dict | None = None, unit: str = "seconds", seed: int = 0, index: int = 0) -> tuple:
    """A strategy's run in either fidelity."""
    if script is not None:
        scenario = scripted(scenario, script, unit)
    each = (scenario.model_copy(update={"fidelity": fidelity}) for fidelity in BOTH)
    return tuple(run(one, index, seed, no_training(one)) for one in each)


def assert_equal(one: Run, other: Run) -> None:
    """Wall clock, ledger and every record, to the last bit; but not the events that the simulation takes."""
    assert [record.ended_seconds for record in one.iterations] == [record.ended_seconds for record in other.iterations]
    assert asdict(replace(one, num_events=0)) == asdict(replace(other, num_events=0))


# ---- whatever the scenario ------------------------------------------------------------------------------

SHARING = st.sampled_from(["node_pair", "region_pair", "none"])
RATES = st.sampled_from([4e3, 8192.0, 2e4, 1e5, 1e7])


@st.composite
def networks(draw) -> dict:
    """Two regions; links slow enough for messages to matter, and a store that uploads keep busy for a while."""
    upload = a_link(draw(st.sampled_from([0.0, 0.15])), draw(st.sampled_from([500.0, 3000.0, 2e4, 1e6])))
    network = {
        "same_region": a_link(draw(st.sampled_from([0.0, 0.01, 0.3])), draw(RATES)),
        "storage": {**upload, "node_mbit_per_s": draw(st.sampled_from([None, 700 * BYTES_PER_SECOND]))},
        "links": (("a", "b", draw(st.sampled_from([0.0, 130.0])), draw(RATES) / 2**30),),
        "sharing": draw(SHARING),
        "parallel_streams": draw(st.sampled_from([1, 4])),
        "negligible_seconds": draw(st.sampled_from([0.0, 0.0, 0.2])),
        "software_seconds_per_hop": draw(st.sampled_from([0.0, 0.013])),
    }
    if draw(st.booleans()):
        up, down = draw(st.sampled_from([2e3, 8192.0, 5e4])), draw(st.sampled_from([8192.0, 1e5]))
        network["access"] = {
            "up_mbit_per_s": up * BYTES_PER_SECOND,
            "down_mbit_per_s": down * BYTES_PER_SECOND,
            "latency_ms": 15.0,
        }
    return network


STRATEGIES = st.one_of(
    st.just({"kind": "none"}),
    st.just({"kind": "restart"}),
    st.just({"kind": "checkfree", "preset": "reference_code"}),
    st.builds(
        lambda interval, share: {"kind": "checkpoint", "interval_iterations": interval, "blocking_share": share},
        st.integers(1, 6),
        st.sampled_from([0.0, 0.3, 1.0]),
    ),
    st.builds(
        lambda seconds, share: {"kind": "checkpoint", "interval_seconds": seconds, "blocking_share": share},
        st.sampled_from([30.0, 100.0]),
        st.sampled_from([0.0, 0.3]),
    ),
    st.builds(
        lambda shadow, synchronisation: {"kind": "redundant", "shadow": shadow, "synchronisation": synchronisation},
        st.sampled_from(["with_forward", "eager", "lazy"]),
        st.sampled_from(["none", "gradients", "weights", "gradients_and_weights"]),
    ),
    st.builds(
        lambda cut, dealing: {"kind": "constant_batch", "cut_iteration": cut, "dealing": dealing},
        st.sampled_from(["kept", "run_again"]),
        st.sampled_from(["by_stage", "by_pipeline"]),
    ),
    st.builds(
        lambda size, pipelines: {"kind": "elastic", "world_size": size, "pipelines": pipelines},
        st.sampled_from(["dynamic", "fixed_with_spares"]),
        st.sampled_from(["as_placed", "formed_anew"]),
    ),
    st.builds(
        lambda steps, overlap, timeout, lost: {
            "kind": "diloco",
            "inner_steps": steps,
            "lost_stage": lost,
            "interval_iterations": INTERVALS.get(lost),
            "overlap_iterations": overlap,
            "join_timeout_seconds": timeout,
        },
        st.integers(2, 5),
        st.integers(0, 1),
        st.sampled_from([0.0, 30.0]),
        st.sampled_from(["leave", "global", "checkfree", "reinit", "neighbour_copy", *INTERVALS]),
    ),
    st.builds(
        lambda steps, fragments: {
            "kind": "diloco",
            "inner_steps": steps * fragments,
            "fragments": fragments,
            "partners": "pairs",
            "outer_learning_rate": 1.0,
            "outer_momentum": 0.0,
        },
        st.integers(1, 3),
        st.integers(1, 2),
    ),
    st.builds(
        lambda of: {"kind": "neighbour_takeover", "approximate": of}, st.sampled_from(["both_stages", "lost_stage"])
    ),
    st.builds(
        lambda returns, most: {"kind": "skip", "returns": returns, "most_skipped": most},
        st.sampled_from(["rebuilt", "stale"]),
        st.integers(1, 2),
    ),
    st.builds(
        lambda copy: {"kind": "checkfree_plus", "embedding_copy": copy}, st.sampled_from(["beside", "blocking", "free"])
    ),
)
FAILURES = st.one_of(
    st.just({"kind": "never"}),
    st.builds(lambda rate: {"kind": "exponential", "rate_per_hour": rate}, st.sampled_from([0.3, 0.9, 0.999])),
    st.builds(
        lambda hours: {"kind": "exponential", "mean_uptime_hours": hours, "scope": "node"},
        st.sampled_from([0.02, 0.1, 1.0]),
    ),
    st.builds(
        lambda chance, instant: {"kind": "bernoulli", "per_iteration_probability": chance, "instant": instant},
        st.sampled_from([0.01, 0.05]),
        st.sampled_from(["uniform", "start"]),
    ),
)
FALLBACKS = st.sampled_from(["restart", {"kind": "checkpoint", "interval_iterations": 4}])


@st.composite
def scenarios(draw) -> Scenario:
    strategy = draw(STRATEGIES)
    plain, unshadowed = strategy["kind"] not in ("checkfree", "checkfree_plus"), strategy["kind"] != "redundant"
    any_head = plain and strategy["kind"] != "neighbour_takeover"
    interleaves = plain and strategy["kind"] != "skip"  # which changes the number of stages
    schedule = draw(
        st.sampled_from(["gpipe", "1f1b", "fifo", *["interleaved_1f1b"] * interleaves, *["zero_bubble"] * unshadowed])
    )
    workload = {
        "loss_at": "embedding_stage" if not any_head else draw(st.sampled_from(["embedding_stage", "last_stage"])),
        "gradient_exchange": draw(st.sampled_from(["ring", "all_to_all"])),
        "overlap_gradient_exchange": draw(st.booleans()),
        "pause_seconds": draw(st.sampled_from([0.0, 0.4])),
        "optimizer_seconds": draw(st.sampled_from([0.0, 0.3])),
        "sequence_length": 32,  # an activation has 8192 bytes, a stage's checkpoint 8160
        "measured": {
            "forward_seconds": draw(st.sampled_from([0.1, 1.0])),
            "backward_seconds": draw(st.sampled_from([0.2, 0.37])),
            "head_seconds": draw(st.sampled_from([0.0, 0.1])),
        },
    }
    if schedule == "interleaved_1f1b":
        workload["chunks_per_stage"] = 2
    if schedule != "gpipe":
        workload["max_in_flight"] = draw(st.sampled_from([None, 2, 8]))
    return a_scenario(
        (strategy,),
        num_stages=4,
        steps=12,
        num_microbatches=4,
        schedule=schedule,
        network=draw(networks()),
        cluster={
            "detection_seconds": draw(st.sampled_from([0.0, 3.3])),
            "startup_seconds": draw(st.sampled_from([0.0, 5.0])),
            "provisioning_seconds": draw(st.sampled_from([0.0, 20.0])),
            "nodes_per_stage": draw(st.sampled_from([1, 1, 2, 3])),
            "joining": draw(st.sampled_from(["standstill", "beside"])),
            "placement": draw(st.sampled_from(["round_robin", "stage_per_region"])),
            "stragglers": draw(st.sampled_from([(), ({"stage": 2, "slowdown": 1.3},)])),
        },
        failures=draw(FAILURES),
        fallback=draw(FALLBACKS),
        iterations_per_step=draw(st.sampled_from([1, 3])),
        **workload,
    )


@st.composite
def scripts(draw) -> tuple[dict, str]:
    """Up to three strikes of up to three stages; of processes that count iterations, one in each at most."""
    unit = draw(st.sampled_from(["seconds", "iterations"]))
    uptimes = st.one_of(st.integers(0, 60).map(float), st.floats(0.0, 60.0))
    if unit == "iterations":
        uptimes = st.floats(1.0, 6.0)
    lives = st.lists(uptimes, min_size=1, max_size=3).map(tuple)
    return draw(st.dictionaries(st.integers(0, 4), lives, max_size=3)), unit


@settings(max_examples=examples(15, 120))
@given(scenarios(), st.one_of(st.just((None, "seconds")), scripts()), st.integers(0, 1000))
def test_both_fidelities_give_the_same_run_to_the_last_bit(scenario, script_and_unit, seed):
    """With the scenario's failures, and with failures by script."""
    assert_equal(*runs(scenario, *script_and_unit, seed=seed))


@settings(max_examples=examples(10, 30))
@given(scenarios())
def test_recording_changes_nothing(scenario):
    traced = EventRecorder(start_seconds=20.0, end_seconds=60.0)
    assert_equal(run(scenario, training=no_training(scenario)), run(scenario, 0, 0, no_training(scenario), traced))


# ---- at the very same instant ---------------------------------------------------------------------------

# Four uploads of 8160 bytes from S1..S4 and one from stage 0 fill the store's link for 50 s; activations of a second
# share the nodes' way up with them.
WAY = {"up_mbit_per_s": 262144 * BYTES_PER_SECOND, "down_mbit_per_s": 262144 * BYTES_PER_SECOND}
BUSY = {"same_region": a_link(), "storage": a_link(0.0, 5 * CHECKPOINT_BYTES / 50), "access": WAY}
ITERATION = 21.0
CHECKPOINT = {"kind": "checkpoint", "interval_iterations": 2}


def moments(result: Run) -> list[float]:
    """When anything happened in a run."""
    records = [record.ended_seconds for record in result.iterations]
    return sorted({*records, *(event.time_seconds for event in result.events)})


@pytest.mark.parametrize("strategy", [CHECKPOINT, {**CHECKPOINT, "blocking_share": 0.5}, {"kind": "checkfree"}])
@pytest.mark.parametrize("network", [None, BUSY], ids=["free", "busy"])
def test_failures_at_the_instant_at_which_something_ends(strategy, network):
    scenario = a_scenario((strategy,), steps=9, network=network, upload_seconds=50.0)
    undisturbed, _ = runs(scenario, {})
    assert len(moments(undisturbed)) >= 9
    for instant in moments(undisturbed)[:: examples(2, 1)]:
        for seconds in (instant, instant - 2.0**-26, instant + 2.0**-26):
            one, other = runs(scenario, {2: (seconds,)})
            assert_equal(one, other)
            if seconds <= undisturbed.wall_clock_seconds:
                assert times(of_kind(one, "failure")) == [seconds]


@pytest.mark.parametrize("upload_seconds", [ITERATION, 2 * ITERATION])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_upload_ending_at_a_failure_is_lost(upload_seconds, share):
    config = {"kind": "checkpoint", "interval_iterations": 4, "blocking_share": share}
    scenario = a_scenario((config,), steps=12, upload_seconds=upload_seconds)
    beside = (1 - share) * upload_seconds / ITERATION
    for at in range(1, 11):
        one, other = runs(scenario, {2: (float(at),)}, "iterations")
        assert_equal(one, other)
        if at == 4 + beside:
            (failure,) = of_kind(one, "failure")
            assert failure.time_seconds == 4 * ITERATION + upload_seconds
            assert times(of_kind(one, "checkpoint_lost")) == [failure.time_seconds]
            assert one.iterations[at].iteration == 1


def test_a_failure_at_an_iterations_very_end_loses_it_in_both():
    scenario = a_scenario(({"kind": "checkfree"},), steps=4, network=BUSY)
    end = runs(scenario, {})[0].iterations[2].ended_seconds
    for result in runs(scenario, {2: (end,)}):
        lost = result.ledger["lost_work"]
        assert lost == pytest.approx(result.iteration_seconds)
        assert result.iterations[2].started_seconds > end


# ---- uploads beside the training --------------------------------------------------------------------------
@pytest.mark.parametrize("fidelity", BOTH)
def test_an_upload_slows_training_only_on_shared_links(fidelity):
    # Activations take a second of a node's way up, and so does every 32nd part of the upload.
    big = {"storage": a_link(0.0, 1e9), "same_region": a_link(0.0, 1e9)}
    way = {"up_mbit_per_s": 200 * BYTES_PER_SECOND, "down_mbit_per_s": 1e9}
    small = {"sequence_length": 1, "sequences_per_microbatch": 2}  # activations of 64 bytes: 0.32 s at 200 a second
    slowed = {}
    for sharing in ("node_pair", "region_pair", "none"):
        network = {**big, "access": way, "sharing": sharing}
        saving, plain = (
            run(a_scenario((strategy,), steps=8, network=network, fidelity=fidelity, **small))
            for strategy in ({"kind": "checkpoint", "interval_iterations": 4}, {"kind": "none"})
        )
        seconds = [record.ended_seconds - record.started_seconds for record in saving.iterations]
        assert seconds[:4] == [plain.iteration_seconds] * 4  # nothing to save yet
        slowed[sharing] = [duration > plain.iteration_seconds for duration in seconds[4:]]
        assert all(duration >= plain.iteration_seconds for duration in seconds)
        (durable, *_) = times(of_kind(saving, "checkpoint_durable"))
        alone = saving.iterations[3].ended_seconds + CHECKPOINT_BYTES / 200
        assert (durable > alone) == (sharing != "none")
    assert slowed["node_pair"] == slowed["region_pair"] == [True, True, False, False]
    assert slowed["none"] == [False] * 4


def test_an_upload_over_links_of_its_own_slows_nothing():
    (saving, same), (plain, _) = (
        runs(a_scenario((strategy,), steps=8, upload_seconds=50.0)) for strategy in (CHECKPOINT, {"kind": "none"})
    )
    assert_equal(saving, same)
    assert [r.ended_seconds - r.started_seconds for r in saving.iterations] == [plain.iteration_seconds] * 8


# ---- the price ----------------------------------------------------------------------------------------------
@FAST
@given(scenarios())
def test_the_iteration_time_is_what_the_clock_advances_by(scenario):
    for fidelity in BOTH:
        world = a_world(scenario.model_copy(update={"fidelity": fidelity}))
        plan = a_strategy(scenario.strategies[0]).adapt_plan(world.plain_plan())
        price = world.iteration_times.alone(plan)
        assert in_turn(world, *(world.run_iteration(plan) for _ in range(3))) == [None] * 3
        assert world.now_seconds == 3 * price.seconds == to_ticks(world.now_seconds)
        booked = math.fsum(world.ledger.buckets().values())
        assert booked == pytest.approx(world.now_seconds, rel=1e-14)


def test_a_plan_of_iteration_time_advances_the_clock_by_ticks():
    """Shares of nodes are no whole ticks, so that their sum may be off by a bit: the clock must not go by it."""
    off = 0
    for number in range(12):
        measured = {"forward_seconds": 0.1 + number / 7, "backward_seconds": 0.3 + number / 11, "head_seconds": 0.7}
        world = a_world(a_scenario(num_stages=6, schedule="gpipe", measured=measured))
        plan = replace(world.plain_plan(), shadow_forwards=1.0, shadow="lazy")
        price = world.iteration_times.alone(plan)
        off += price.split.seconds != price.seconds
        in_turn(world, world.run_iteration(plan))
        assert world.now_seconds == price.seconds
    assert off > 0
    clocks = []
    for fidelity in BOTH:
        world = a_world(a_scenario(network=BUSY, fidelity=fidelity))
        world.background((Transfer(1, STORE, 1e4), Transfer(2, STORE, 3e4)), lambda: None, lambda: None)
        in_turn(world, *(world.run_iteration(world.plain_plan()) for _ in range(3)))
        clocks.append(world.now_seconds)
    assert clocks[0] == clocks[1] > 3 * world.iteration_times.alone(world.plain_plan()).seconds


# ---- with jitter ----------------------------------------------------------------------------------------------
def durations(result: Run) -> np.ndarray:
    return np.array([record.ended_seconds - record.started_seconds for record in result.iterations])


def test_jitter_lengthens_iterations_with_equal_first_samples():
    scenario = a_scenario(steps=100, cluster={"jitter": 0.2})
    sampled, played = (durations(result) for result in runs(scenario))
    num_samples = IterationTimes.NUM_SAMPLES
    assert len(set(played)) == 100
    assert len(set(sampled)) == num_samples
    assert list(sampled[:num_samples]) == list(played[:num_samples])
    assert set(sampled[num_samples:]) <= set(sampled[:num_samples])
    usual, jittering = (durations(run(a_scenario(steps=64, cluster={"jitter": sigma}))).mean() for sigma in (0.0, 0.3))
    assert usual == 21.0
    assert 1.02 * usual < jittering < 1.5 * usual


@pytest.mark.parametrize("network", [None, BUSY], ids=["free", "busy"])
def test_with_jitter_the_means_agree(network):
    strategy = CHECKPOINT if network else {"kind": "none"}
    scenario = a_scenario((strategy,), steps=examples(200, 1000), cluster={"jitter": 0.2}, network=network)
    sampled, played = (durations(result) for result in runs(scenario))
    of_samples, of_all = (
        np.std(each, ddof=1) / math.sqrt(number) for each, number in ((sampled[:64], 64), (played, len(played)))
    )
    assert abs(sampled.mean() - played.mean()) < 3 * math.hypot(of_samples, of_all)


@settings(max_examples=examples(6, 15))
@given(scenarios(), st.integers(0, 100))
def test_equal_seeds_give_equal_runs_with_jitter_too(scenario, seed):
    cluster = scenario.cluster.model_copy(update={"jitter": 0.2})
    scenario = scenario.model_copy(update={"cluster": cluster})
    first, again = (run(scenario, 0, seed, no_training(scenario)) for _ in range(2))
    assert_equal(first, again)
