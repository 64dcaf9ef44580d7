"""Checkpoints in a store: how often, what a notice or a disk of one's own saves, what a failure costs to the second.

An iteration takes 21 s, detection 10 s and a start 5 s where nothing else is said; all uploads together, or all
downloads, fill the store's link for `upload_seconds`.
"""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.units import BYTES_PER_GIB
from sim.simulation.run import Run, simulate
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig, daly_seconds, observed_mtbf_seconds, young_seconds
from sim.workload.costs import Costs
from support.builders import CHECKPOINT_BYTES, TICK, a_scenario, no_training, of_kind, run, scripted, start_of, times
from support.on_paper import WorldOnPaper, result_of, strategy_of

MINUTE, HOUR = 60.0, 3600.0


# ---- the interval that is kept ----------------------------------------------------------------------------
def checkpoint(**options: Any) -> dict[str, Any]:
    return {"kind": "checkpoint", **options}


def started(options: dict[str, Any], upload_seconds: float = 2.0, **others: Any) -> list[float]:
    """When the checkpoints of 20 iterations begin, if failures have no effect."""
    scenario = a_scenario((options,), upload_seconds=upload_seconds, **others)
    quiet = simulate(scenario, scenario.strategies[0], 0, 0, no_training(scenario), stops_on_failures=False)
    return times(of_kind(quiet, "checkpoint_started"))


def about(*seconds: float) -> Any:
    return pytest.approx(list(seconds), abs=20 * TICK)


ON_DISK = {"local_gib_per_s": CHECKPOINT_BYTES / 2 / BYTES_PER_GIB}
HOURLY = {"kind": "exponential", "mean_uptime_hours": 4.0, "immune_stages": (0,)}
"""Four stages that fail every four hours: once an hour."""


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({"mtbf_hours": 1.0, "blocking_share": 1.0}, {}),
        ({"mtbf_hours": 1.0, "blocking_share": 0.5}, {"upload_seconds": 4.0}),  # half of 4 s: the same 2 s
        ({"mtbf_hours": 1.0, **ON_DISK}, {}),
        ({"blocking_share": 1.0}, {"failures": HOURLY}),
    ],
    ids=["blocking", "half blocking", "own disk", "mtbf of the failure process"],
)
def test_young_counts_between_starts_and_saves_at_iteration_ends(options, others):
    """√(2 · 2 · 3600) = 120, and 2 of standing still: after the 6th iteration from zero, and 128 s later each time."""
    assert started(checkpoint(interval="young", **options), **others) == about(126, 254, 382)


def test_given_and_daly_intervals_are_kept_from_start_to_start():
    """3.0275 h: Young 208.8 + 2, more than ten iterations; Daly 207.5 + 2, less."""
    assert daly_seconds(2.0, 3.0275 * HOUR) == pytest.approx(207.4653, abs=1e-4)
    options = checkpoint(mtbf_hours=3.0275, blocking_share=1.0)
    assert started({**options, "interval": "young"}) == about(231)
    assert started({**options, "interval": "daly"}) == about(210, 422)
    assert started(checkpoint(interval_seconds=42.0), 0.0, steps=8) == about(42, 84, 126, 168)
    assert started(checkpoint(interval_seconds=42.5), 0.0, steps=8) == about(63, 126)


@pytest.mark.parametrize("formula", ["young", "daly"])
def test_what_costs_nothing_is_done_as_often_as_uploads_allow(formula):
    """Uploads of 50 s, nobody stands still: 63 is the first end of an iteration after 50, and so on."""
    options = checkpoint(interval=formula, mtbf_hours=1.0)
    assert started(options, 50.0) == about(*range(63, 21 * 20 + 1, 63))
    assert started(options, 0.0) == about(*range(21, 21 * 20 + 1, 21))
    assert started(checkpoint(interval=formula, blocking_share=1.0)) == []  # without failures nothing that costs


def test_adaptive_is_young_for_what_has_been_seen():
    """A quarter of an hour believed: 2 + √(4 (900 + 63)) = 64 > 63 s, so after the 4th iteration, when it is 64.7.

    An hour, if nothing is said.
    """
    young = started(checkpoint(interval="young", mtbf_hours=0.25, blocking_share=1.0))
    adaptive = started(checkpoint(interval="adaptive", mtbf_hours=0.25, blocking_share=1.0))
    assert young == about(63, 128, 193, 258, 323, 388)
    assert adaptive == about(84, 170, 256, 342, 428)
    assert started(checkpoint(interval="adaptive", blocking_share=1.0))[0] == pytest.approx(126)
    strategy, world = Checkpoint(CheckpointConfig(interval="adaptive", blocking_share=1.0), 6), WorldOnPaper()
    save = world.seconds_of(strategy._uploads(world, 1.0))
    world.now_seconds = 3 * HOUR
    assert strategy.seconds_between_saves(world) == save + young_seconds(save, 4 * HOUR)
    world.num_failures = 15
    assert strategy.seconds_between_saves(world) == save + young_seconds(save, HOUR / 4)


# ---- just in time ---------------------------------------------------------------------------------------
def struck(
    options: dict[str, Any], script: dict[int, tuple[float, ...]], notice: float = 0.0, upload: float = 4.0, **more: Any
) -> Run:
    """Twenty iterations in which stages are lost by script, a while after a notice of it."""
    scenario = a_scenario((options,), upload_seconds=upload, **more)
    return run(scripted(scenario, script, notice_seconds=notice))


def recovered(result: Run) -> list[tuple[float, int]]:
    """When and to which iteration."""
    return [(event.time_seconds, event.iteration) for event in of_kind(result, "recovered")]


def test_notices_of_any_length_lose_what_was_done_since():
    """Lost at 100, in the 5th, known at 90: no detection, 5 s to start, 4 s to fetch the 4th, then 16 × 21 s."""
    result = struck(checkpoint(just_in_time=True), {2: (100.0,)}, notice=10.0)
    assert times(of_kind(result, "checkpoint_started", "checkpoint_durable")) == about(90, 94)
    assert recovered(result) == [(pytest.approx(109), 4)]
    assert result.ledger["lost_work"] == pytest.approx(16)
    assert result.ledger["detection"] == 0.0
    assert result.wall_clock_seconds == pytest.approx(109 + 16 * 21)
    # Known at 50, in the 3rd: two that complete between notice and loss run again, with the one under way.
    result = struck(checkpoint(just_in_time=True), {2: (100.0,)}, notice=50.0)
    assert recovered(result) == [(pytest.approx(109), 2)]
    assert result.ledger["lost_work"] == pytest.approx(42 + 16)


@pytest.mark.parametrize("notice", [3.9, 4.0])
def test_with_a_short_notice_the_older_checkpoint_counts(notice):
    """At an exact tie the failure wins. The 3rd is up since 67: 100 + 5 + 4, and the 4th runs again."""
    result = struck(checkpoint(just_in_time=True, interval_iterations=3), {2: (100.0,)}, notice)
    assert times(of_kind(result, "checkpoint_lost")) == about(100)
    assert recovered(result) == [(pytest.approx(109), 3)]
    assert result.ledger["lost_work"] == pytest.approx(21 + 16)
    nothing_older = struck(checkpoint(just_in_time=True), {2: (100.0,)}, notice)
    assert recovered(nothing_older) == [(pytest.approx(105), 0)]


def test_without_just_in_time_or_disk_a_loss_costs_more():
    result = struck(checkpoint(), {2: (100.0,)}, notice=10.0)
    assert of_kind(result, "checkpoint_started") == []
    assert recovered(result) == [(pytest.approx(105), 0)]
    result = struck(checkpoint(interval_iterations=2), {2: (80.0,)}, upload=10.0)
    assert recovered(result) == [(pytest.approx(80 + 15 + 10), 2)]


def test_a_notice_repeats_no_stored_or_ongoing_upload():
    options = checkpoint(just_in_time=True, interval_iterations=4)  # begins at 84
    for upload, notice in ((4.0, 10.0), (10.0, 14.0), (15.9, 10.0)):
        result = struck(options, {2: (100.0,)}, notice, upload)
        assert times(of_kind(result, "checkpoint_started"))[0] == pytest.approx(84)
        assert recovered(result) == [(pytest.approx(105 + upload), 4)]
        assert len([at for at in times(of_kind(result, "checkpoint_started")) if at < 100]) == 1
    options = checkpoint(just_in_time=True, interval_iterations=4, blocking_share=1.0)
    result = struck(options, {2: (100.0,)}, notice=13.0, upload=10.0)
    assert times(of_kind(result, "checkpoint_started"))[:1] == about(84)
    assert times(of_kind(result, "checkpoint_durable"))[:1] == about(94)
    assert [event.detail for event in of_kind(result, "checkpoint_started")].count("just in time") == 0


def test_a_checkpoint_is_begun_again_only_if_it_was_lost():
    strategy, world = strategy_of("checkpoint", interval_iterations=4, just_in_time=True), WorldOnPaper()
    fourth = start_of(strategy).after(4)
    result_of(strategy.after_iteration(world, fourth))
    strategy.on_notice(world, fourth)
    assert len(world.begun) == 1
    for _ in range(2):
        strategy.on_notice(world, fourth.after(5))
        assert len(world.begun) == 2
    world.begun[0].when_done()
    assert strategy.durable == fourth
    strategy.on_notice(world, fourth.after(5))
    assert len(world.begun) == 2
    world.begun[1].when_lost()
    strategy.on_notice(world, fourth.after(5))
    assert len(world.begun) == 3
    # Its position can be begun again, just in time.
    strategy = strategy_of("checkpoint", interval_iterations=1, blocking_share=1.0, just_in_time=True)
    position, world = start_of(strategy).after(1), WorldOnPaper(failures={2: 3})
    assert result_of(strategy.after_iteration(world, position)) is not None
    strategy.on_notice(world, position)
    assert len(world.begun) == 1
    world.begun[0].when_done()
    assert strategy.durable == position


# ---- a disk of one's own ------------------------------------------------------------------------------------
def on_disk(seconds: float, **options: Any) -> dict[str, Any]:
    """A checkpoint after every second iteration; each node writes its stage in so many seconds, and reads it again."""
    return checkpoint(interval_iterations=2, local_gib_per_s=CHECKPOINT_BYTES / seconds / BYTES_PER_GIB, **options)


@pytest.mark.parametrize(("disk", "fetching"), [(1.0, 2.0), (3.0, 3.0)])
def test_survivors_read_disks_during_the_lost_stages_download(disk, fetching):
    """All uploads take 10 s, so one stage's download 2 s; the 2nd is up at 42 + disk + 10."""
    result = struck(on_disk(disk), {2: (80.0,)}, upload=10.0)
    assert times(of_kind(result, "checkpoint_durable"))[0] == pytest.approx(52 + disk)
    assert recovered(result) == [(pytest.approx(80 + 15 + fetching), 2)]
    assert result.ledger["state_transfer"] == pytest.approx(fetching)
    assert result.ledger["checkpoint_save"] == pytest.approx(disk * len(of_kind(result, "checkpoint_started")))


def test_a_checkpoint_on_the_disks_alone_is_not_durable():
    """The 2nd is on all disks at 45, up at 55: a loss before that brings everybody back to the beginning."""
    assert recovered(struck(on_disk(3.0), {2: (54.0,)}, upload=10.0)) == [(pytest.approx(69), 0)]
    assert recovered(struck(on_disk(3.0), {2: (44.0,)}, upload=10.0)) == [(pytest.approx(59), 0)]
    assert recovered(struck(on_disk(3.0), {2: (56.0,)}, upload=10.0)) == [(pytest.approx(74), 2)]


def test_stages_lost_again_or_together_are_downloaded_as_needed():
    """Again at 96, one second into the download, and again at 120, in an iteration: 2 s each time, 3 s on disks."""
    result = struck(on_disk(3.0), {2: (80.0, 16.0, 24.0)}, upload=10.0)
    assert recovered(result) == [(pytest.approx(96 + 15 + 3), 2), (pytest.approx(120 + 15 + 3), 2)]
    uploaded = len(of_kind(result, "checkpoint_started")) * 5 * CHECKPOINT_BYTES
    lost = len(of_kind(result, "checkpoint_lost"))
    assert lost == 0
    assert result.sent_bytes == pytest.approx(uploaded + 3 * CHECKPOINT_BYTES)
    # Stage 3 is lost after stage 2 has come back: only stage 3 downloads. Both at once: both do, 4 s.
    result = struck(on_disk(3.0), {2: (80.0,), 3: (110.0,)}, upload=10.0)
    assert recovered(result)[1] == (pytest.approx(110 + 15 + 3), 2)
    both = struck(on_disk(3.0), {2: (80.0,), 3: (80.0,)}, upload=10.0)
    assert recovered(both) == [(pytest.approx(80 + 15 + 4), 2)]
    everybody = struck(on_disk(3.0), dict.fromkeys(range(5), (80.0,)), upload=10.0)
    assert recovered(everybody) == [(pytest.approx(80 + 15 + 10), 2)]


def test_what_nodes_and_store_hold():
    costs = Costs(a_scenario().workload, a_scenario().cluster.device)
    assert Checkpoint.stored_bytes(CheckpointConfig(), costs) == 5 * CHECKPOINT_BYTES
    assert Checkpoint.host_memory_bytes(CheckpointConfig(), costs, 1) == 0.0
    assert Checkpoint.host_memory_bytes(CheckpointConfig(local_gib_per_s=1.0), costs, 1) == 2 * CHECKPOINT_BYTES


# ---- uploads lost to failures -------------------------------------------------------------------------------
def test_an_interrupted_save_is_not_lost_work_nor_durable():
    """Of every second iteration, up 15 s later: the 4th begins at 84, the loss at 98 ends it, the 2nd counts."""
    result = struck(checkpoint(interval_iterations=2), {2: (98.0,)}, upload=15.0)
    assert [(event.time_seconds, event.iteration) for event in of_kind(result, "checkpoint_lost")] == [(98.0, 4)]
    assert recovered(result) == [(pytest.approx(98 + 15 + 15), 2)]
    assert result.ledger["lost_work"] == pytest.approx(2 * 21 + 14)
    # 10 s of standing still of which 4 pass, then all iterations again.
    result = struck(checkpoint(interval_iterations=2, blocking_share=1.0), {2: (46.0,)}, upload=10.0, steps=3)
    assert times(of_kind(result, "checkpoint_lost")) == about(46)
    assert recovered(result) == [(pytest.approx(61), 0)]
    assert result.ledger["checkpoint_save"] == pytest.approx(4 + 10)
    assert result.ledger["lost_work"] == pytest.approx(42)
    assert result.wall_clock_seconds == pytest.approx(61 + 42 + 10 + 21)


# ---- formulas of intervals -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("formula", "mtbf", "minutes"),
    [
        (daly_seconds, 24 * HOUR, 116.69),
        (daly_seconds, 6 * HOUR, 56.71),
        (daly_seconds, 15 * MINUTE, 9.14),
        (young_seconds, 24 * HOUR, 120.0),
        (young_seconds, 6 * HOUR, 60.0),
        (young_seconds, 90 * MINUTE, 30.0),
    ],
)
def test_intervals_have_their_published_values(formula, mtbf, minutes):
    """Of saves of 5 minutes. Young: the root of twice the save times the MTBF."""
    assert formula(5 * MINUTE, mtbf) / MINUTE == pytest.approx(minutes, abs=0.0 if formula is young_seconds else 5e-3)


def test_intervals_at_their_limits_and_of_observed_failures():
    assert daly_seconds(200.0, 100.0) == daly_seconds(1e9, 100.0) == 100.0  # one uptime for saves of two and more
    assert daly_seconds(199.9, 100.0) == pytest.approx(100.0, rel=0.5)
    assert young_seconds(0.0, HOUR) == young_seconds(0.0, math.inf) == daly_seconds(0.0, HOUR) == 0.0
    assert young_seconds(1.0, math.inf) == daly_seconds(1.0, math.inf) == math.inf
    assert observed_mtbf_seconds(HOUR, 0.0, 0) == HOUR
    assert observed_mtbf_seconds(HOUR, 3 * HOUR, 0) == 4 * HOUR
    assert observed_mtbf_seconds(HOUR, 3 * HOUR, 3) == HOUR


@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e8))
def test_the_longer_the_uptime_the_longer_both_intervals(save, mtbf):
    for formula in (young_seconds, daly_seconds):
        assert 0 <= formula(save, mtbf) <= formula(save, 2 * mtbf)


@given(st.floats(1.0, 1e6), st.integers(1, 50), st.floats(1.0, 1e6))
def test_the_observed_mtbf_forgets_what_was_believed(prior, num_failures, mtbf):
    found = observed_mtbf_seconds(prior, num_failures * mtbf, num_failures)
    assert min(prior, mtbf) * (1 - 1e-9) <= found <= max(prior, mtbf) * (1 + 1e-9)
    assert abs(found - mtbf) <= abs(prior - mtbf) / (1 + num_failures) * (1 + 1e-9) + 1e-6
