"""A stage whose work another has taken over: iterations that are carried on, and what recoveries do about it."""

import math

import pytest

from sim.simulation.run import Run
from support.builders import CHECKPOINT_BYTES, TICK, a_link, a_scenario, a_world, in_turn, of_kind, times, with_losses
from support.builders import run as run_scenario
from support.churn import lengths, told
from support.churn import run as run_with
from support.failure_processes import Loss

WHERE = ("provisioning_seconds", "placement", "regions")


def run(*losses: Loss, preset: str = "bamboo", **options: object) -> Run:
    """Six stages of one node each, whose shadows carry on."""
    cluster = {"nodes_per_stage": 1, **{key: options.pop(key) for key in WHERE if key in options}}
    return run_with(*losses, strategy={"kind": "redundant", "preset": preset}, num_stages=6, cluster=cluster, **options)


@pytest.mark.parametrize(("preset", "whole", "redone"), [("bamboo", 28.0, 2.0), ("bamboo_lazy", 27.0, 3.0)])
def test_a_continued_iteration_takes_its_remaining_time(preset, whole, redone):
    """None of it is lost work."""
    result = run(Loss(50.0, ((2, 0),)), preset=preset)
    share = (50.0 - whole) / whole
    pause = share * 4 * redone  # what the shadow has not done yet, of four microbatches
    assert times(of_kind(result, "recovered")) == [pytest.approx(60.0 + pause, abs=TICK)]
    covering = lengths(result)[2]
    assert covering > whole
    assert lengths(result)[1] == pytest.approx((1.0 - share) * covering, abs=2 * TICK)
    assert lengths(result)[3:] == [covering, *4 * [whole]]  # the new node joins at the second end after 115 s
    assert (result.ledger["lost_work"], result.ledger["provisioning"]) == (0.0, 0.0)
    assert [kind for _, kind, _ in told(result)] == ["failure", "recovered", "node_joined"]
    useful = sum(result.ledger[bucket] for bucket in ("productive_compute", "bubble_and_communication"))
    in_iterations = sum(lengths(result)) + 50.0 - whole
    assert useful + result.ledger["redundant_compute"] == pytest.approx(in_iterations + pause)


def test_an_iteration_interrupted_again_is_carried_on_or_lost():
    result = run(Loss(50.0, ((2, 0),)), Loss(18.0, ((5, 0),)))
    assert [kind for _, kind, _ in told(result)][:4] == ["failure", "recovered"] * 2
    assert result.ledger["lost_work"] == pytest.approx(0.0, abs=1e-9)
    assert result.ledger["detection"] == 20.0
    first, second = times(of_kind(result, "recovered"))
    done = 22.0 / 28.0
    covering = lengths(run(Loss(50.0, ((2, 0),))))[2]
    done += (1.0 - done) * (68.0 - first) / ((1.0 - done) * covering)
    assert second == pytest.approx(68.0 + 10.0 + done * 4 * 2.0)
    result = run(Loss(50.0, ((2, 0),)), Loss(18.0, ((3, 0),)), fallback="restart")
    first, _ = times(of_kind(result, "recovered"))
    assert told(result)[3] == (68.0, "fallback", 3)
    assert result.ledger["lost_work"] == pytest.approx(28.0 + 22.0 + (68.0 - first))


def test_an_iteration_interrupted_at_its_end_has_nothing_left():
    result = run(Loss(28.0, ((2, 0),)))
    assert result.num_iterations == 8
    assert times(of_kind(result, "recovered")) == [28.0 + 10.0 + 4 * 2.0]  # redone, all of it
    assert lengths(result)[0] == 0.0


def test_a_covered_stage_is_lost_with_its_substitute():
    result = run(Loss(50.0, ((2, 0),)), Loss(40.0, ((1, 0),)), fallback="restart")
    assert told(result)[2:4] == [(90.0, "failure", 1), (90.0, "fallback", 1)]
    (event,) = of_kind(result, "fallback")
    assert "stages 1 and 2 are lost" in event.detail
    assert result.num_iterations == 8


FALLEN_BACK = {"provisioning_seconds": 300.0, "upload_seconds": 14.0, "steps": 20}
THEN_TWO = (Loss(50.0, ((2, 0),)), Loss(100.0, ((4, 0), (5, 0))))
"""S1 covers S2 until 350 s; the fallback waits for S4 and S5 until 450 s, and for their start."""


TWO_SECONDS = {"local_gib_per_s": CHECKPOINT_BYTES / 2 / 2**30}


@pytest.mark.parametrize(
    ("local", "transfer_seconds"),
    [({}, 14.0), (TWO_SECONDS, 3 * 2.0)],  # all seven stages; S2, S4 and S5, while others read their disks
    ids=["downloads", "disks"],
)
def test_a_covered_stage_rolls_back_by_its_holders_download(local, transfer_seconds):
    result = run(*THEN_TWO, fallback={"kind": "checkpoint", "interval_iterations": 1, **local}, **FALLEN_BACK)
    assert times(of_kind(result, "fallback")) == [150.0]
    assert times(of_kind(result, "recovered"))[1] == 455.0 + transfer_seconds
    assert math.isclose(result.ledger["state_transfer"], transfer_seconds)
    assert result.num_iterations == 20


def test_no_wait_for_nodes_of_a_covered_stage():
    network = {"same_region": a_link(), "storage": a_link(), "links": (("a", "b", 0.0, 1e20),)}
    where = {"placement": "by_hand", "regions": tuple("aabaaaa"), "network": network}  # nodes return to their region
    losses = Loss(50.0, ((2, 0),), 1e6), Loss(100.0, ((4, 0), (5, 0)), 300.0)
    result = run(*losses, fallback="restart", **where)
    assert times(of_kind(result, "recovered"))[1] == 450.0 + 5.0
    assert (result.num_iterations, of_kind(result, "node_joined")) == (8, [])


@pytest.mark.parametrize(("leaving", "num_calls"), [(2, 0), (1, 1)])
def test_a_covered_stages_last_holders_are_its_substitutes(leaving, num_calls):
    scenario = a_scenario(cluster={"provisioning_seconds": 5.0})
    losses = with_losses(scenario, Loss(50.0, ((2, 0),)), Loss(50.0, ((leaving, 0),)), notice_seconds=20.0)
    calls: list[float] = []
    world = a_world(losses, on_notice=lambda: calls.append(world.now_seconds))
    in_turn(world, world.attempt(60.0, "productive_compute"))
    world.cover(2, 1)
    world.finish_recovery()
    calls.clear()
    in_turn(world, world.attempt(40.0, "productive_compute"))
    assert calls == num_calls * [80.0]


@pytest.mark.parametrize("struck_seconds", [30.0, 47.0, 55.0, 58.0, 61.0])
@pytest.mark.parametrize("fidelity", ["iteration", "microbatch"])
def test_an_iteration_that_took_long_by_jitter_is_carried_on_too(struck_seconds, fidelity):
    scenario = a_scenario(
        ({"kind": "redundant", "preset": "bamboo"},), num_stages=6, steps=8, fidelity=fidelity, cluster={"jitter": 0.5}
    )
    result = run_scenario(with_losses(scenario, Loss(struck_seconds, ((2, 0),))))
    assert result.stopped is None
    assert math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds)
    assert len(of_kind(result, "recovered")) == 1
