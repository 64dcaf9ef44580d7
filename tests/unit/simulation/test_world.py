"""Work races failure in one place only, and the failure wins ties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.records import Failure
from sim.core.units import EXACT_SECONDS, to_ticks
from sim.simulation.run import build_world
from sim.strategies.base import STORE, Transfer
from support.builders import BYTES_PER_SECOND, a_link, a_scenario, a_world, in_turn, of_kind, run, times, with_losses
from support.failure_processes import Loss


def test_work_takes_its_seconds_or_those_until_a_failure():
    world = a_world()
    assert in_turn(world, world.attempt(12.5, "detection")) == [None]
    assert world.now_seconds == world.ledger.buckets()["detection"] == 12.5
    world = a_world(script={2: (4.0,)})
    assert in_turn(world, world.attempt(10.0, "state_transfer")) == [Failure(4.0, 2)]
    assert world.now_seconds == world.ledger.buckets()["state_transfer"] == 4.0
    assert world.lost_stages == {2}


def test_a_failure_wins_ties_with_deadlines_and_iterations():
    world = a_world(script={1: (4.0, 0.0, 6.0)})  # strikes at 4 s, 4 s and 10 s
    failures = in_turn(world, *(world.attempt(seconds, "detection") for seconds in (9.0, 6.0, 6.0, 6.0)))
    assert failures == [Failure(4.0, 1), Failure(4.0, 1), Failure(10.0, 1), None]
    world = a_world(script={3: (21.0,)})
    plan = world.plain_plan()
    assert world.iteration_times.split(plan).seconds == 21.0
    assert in_turn(world, world.run_iteration(plan)) == [Failure(21.0, 3)]
    assert world.iterations.num_completed == 0
    assert world.ledger.buckets()["lost_work"] == 21.0


def test_failures_arrive_in_order_also_during_a_recovery():
    world = a_world(script={4: (5.0,), 1: (5.0,), 3: (5.0,)}, scope="stage")  # a process for each stage
    waits = (7.0, 7.0, 0.0, 7.0)
    failures = in_turn(world, *(world.attempt(seconds, "detection") for seconds in waits))
    assert failures == [Failure(5.0, 1), Failure(5.0, 3), Failure(5.0, 4), None]
    assert world.now_seconds == 12.0
    world = a_world(script={1: (5.0,), 2: (5.0,)})
    assert in_turn(world, world.attempt(7.0, "detection")) == [Failure(5.0, 1)]
    assert world.lost_stages == {1, 2}
    world.finish_recovery()
    assert world.lost_stages == {2}
    world = a_world(script={1: (5.0,), 2: (12.0,), 3: (24.0,)})
    recovery = [world.bring_back_nodes() for _ in range(3)]  # 10 s to detect, 5 s to start
    failures = in_turn(world, world.attempt(9.0, "detection"), *recovery)
    assert failures == [Failure(5.0, 1), Failure(12.0, 2), Failure(24.0, 3), None]
    buckets = world.ledger.buckets()
    assert (buckets["detection"], buckets["provisioning"]) == (5.0 + 7.0 + 10.0 + 10.0, 2.0 + 5.0)
    assert world.lost_stages == {1, 2, 3}


def test_nodes_are_ordered_at_the_failure_and_spares_take_over():
    cluster = {"detection_seconds": 10.0, "provisioning_seconds": 60.0, "startup_seconds": 5.0}
    world = a_world(a_scenario(cluster=cluster), {1: (100.0,)})
    in_turn(world, world.attempt(500.0, "detection"), world.bring_back_nodes())
    assert world.now_seconds == 165.0
    assert world.ledger.buckets()["provisioning"] == 55.0
    cluster = {"num_spares": 1, "provisioning_seconds": 60.0}
    world = a_world(a_scenario(cluster=cluster), {1: (100.0,), 2: (110.0,)})
    in_turn(world, world.attempt(500.0, "detection"), world.bring_back_nodes())
    assert world.now_seconds == 100.0
    in_turn(world, world.attempt(500.0, "detection"), world.bring_back_nodes())
    assert world.now_seconds == 160.0  # the node that was ordered at 100 s


def test_vacant_places_and_immune_stages_are_not_lost():
    world = a_world(a_scenario(cluster={"provisioning_seconds": 60.0}), {1: (100.0, 59.0, 1.0)})
    in_turn(world, *(world.attempt(500.0, "detection") for _ in range(3)))
    assert times(of_kind(world, "failure")) == [100.0, 160.0]
    assert world.num_failures == 2
    failures = {"kind": "exponential", "rate_per_hour": 0.9, "immune_stages": (0, 2)}
    world = build_world(a_scenario(failures=failures), 0, stops_on_failures=False)
    in_turn(world, world.attempt(1e5, "productive_compute"))
    assert {event.stage for event in of_kind(world, "failure")} == {1, 3, 4}


def test_without_stopping_failures_are_counted_only():
    world = a_world(script={1: (5.0, 5.0), 2: (5.0,)}, stops_on_failures=False)
    assert in_turn(world, world.attempt(100.0, "detection")) == [None]
    assert world.num_failures == 3
    assert times(of_kind(world, "failure")) == [5.0, 5.0, 10.0]
    assert not world.lost_stages


# ---- work in the background: 8160 bytes at 272 bytes a second take 30 s -----------------------------

UPLOAD = (Transfer(1, STORE, 8160.0, "checkpoint"),)


def a_world_with_a_store(script=None, **cluster):
    network = {"same_region": a_link(), "storage": a_link(bytes_per_second=272.0)}
    return a_world(a_scenario(network=network, cluster=cluster or None), script)


@pytest.mark.parametrize(("strike_seconds", "outcome"), [(29.75, "lost"), (30.0, "lost"), (30.25, "done")])
def test_background_work_ends_unless_a_failure_came_by_then(strike_seconds, outcome):
    world = a_world_with_a_store({1: (strike_seconds,)})
    seen = []
    activity = world.background(UPLOAD, lambda: seen.append("done"), lambda: seen.append("lost"))
    assert activity.under_way
    in_turn(world, *(world.attempt(100.0, "productive_compute") for _ in range(2)))
    assert seen == [outcome]
    assert not activity.under_way


def test_background_work_ends_with_a_failure_and_frees_links():
    # struck at 5 s and at 35 s; at 15 s the place is still vacant
    world = a_world_with_a_store({1: (5.0, 10.0, 20.0)}, provisioning_seconds=20.0)
    seen = []
    in_turn(world, world.attempt(100.0, "productive_compute"))
    world.background(UPLOAD, lambda: seen.append("done"), lambda: seen.append("lost"))
    in_turn(world, world.attempt(100.0, "productive_compute"))
    assert (seen, world.now_seconds) == (["lost"], 35.0)
    world = a_world_with_a_store({1: (5.0, 1.0)})
    seen = []
    for name in "ab":
        world.background(UPLOAD, lambda: seen.append("done"), lambda name=name: seen.append(name))
    in_turn(world, world.attempt(100.0, "productive_compute"))
    assert (seen, world.now_seconds) == (["a", "b"], 5.0)
    in_turn(world, world.attempt(100.0, "productive_compute"), world.transfer(UPLOAD, "state_transfer"))
    assert seen == ["a", "b"]
    assert world.now_seconds == 6.0 + 30.0  # alone on the link


@pytest.mark.parametrize(
    ("lost", "left"), [(((2, 1),), ["any"]), (((3, 0),), ["own", "any"]), (((2, 0), (2, 1)), ["own", "other", "any"])]
)
def test_background_work_of_some_nodes_ends_with_their_loss(lost, left):
    """Or with that of a whole stage; work of no nodes in particular ends with any loss."""
    network = {"same_region": a_link(), "storage": a_link(bytes_per_second=1.0)}
    world = a_world(with_losses(a_scenario(network=network, cluster={"nodes_per_stage": 2}), Loss(20.0, lost)))
    ended, slots = [], {"own": [world.cluster.slot(3, 0)], "other": [world.cluster.slot(3, 1)], "any": None}
    for name, of in slots.items():
        world.background(UPLOAD, lambda: None, lambda name=name: ended.append(name), of)
    in_turn(world, world.attempt(100.0, "productive_compute"))
    assert ended == left


def test_background_messages_share_links_and_can_be_awaited():
    world = a_world_with_a_store()
    seen = []
    activity = world.background(UPLOAD, lambda: seen.append("done"), lambda: seen.append("lost"))
    waits = [world.wait_for(activity, "checkpoint_save") for _ in range(2)]
    assert in_turn(world, world.attempt(9.5, "productive_compute"), *waits) == [None, None, None]
    assert (seen, world.now_seconds) == (["done"], 30.0)
    assert world.ledger.buckets()["checkpoint_save"] == 20.5
    world = a_world_with_a_store()
    done = []
    world.background(UPLOAD, lambda: done.append(world.now_seconds), lambda: None)
    in_turn(world, world.attempt(10.0, "productive_compute"), world.transfer(UPLOAD, "checkpoint_save"))
    assert done == [50.0]  # a third alone, the rest at half the rate
    assert world.now_seconds == 60.0


@pytest.mark.parametrize("strike_seconds", [20.0, 30.0])
def test_a_wait_for_background_work_returns_its_failure(strike_seconds):
    world = a_world_with_a_store({2: (strike_seconds,)})
    activity = world.background(UPLOAD, lambda: None, lambda: None)
    assert in_turn(world, world.wait_for(activity, "checkpoint_save")) == [Failure(strike_seconds, 2)]
    assert (world.now_seconds, activity.under_way) == (strike_seconds, False)


# ---- transfers --------------------------------------------------------------------------------------
def test_simultaneous_transfers_take_as_long_as_the_slowest():
    network = {"same_region": a_link(0.5, 1e6), "storage": a_link(2.0, 1e7)}
    world = a_world(a_scenario(network=network))
    assert in_turn(world, world.transfer([], "state_transfer")) == [None]
    assert world.now_seconds == 0.0
    assert in_turn(world, world.transfer([Transfer(1, 2, 3e6), Transfer(3, 2, 1e6)], "state_transfer")) == [None]
    assert world.now_seconds == 3.5
    assert in_turn(world, world.transfer([Transfer(STORE, 2, 1e7)], "state_transfer")) == [None]
    assert world.now_seconds == world.ledger.buckets()["state_transfer"] == 6.5
    world = a_world(a_scenario(network={"same_region": a_link(0.0, 100.0), "storage": a_link()}), {4: (3.0,)})
    transfer = [Transfer(1, 2, 1000.0)]
    first, second = (world.transfer(transfer, "state_transfer") for _ in range(2))
    assert in_turn(world, first, second) == [Failure(3.0, 4), None]
    assert world.now_seconds == 3.0 + 10.0


@pytest.mark.parametrize(("access", "seconds"), [(None, 10.0), (50.0, 20.0), (5.0, 200.0)])
def test_what_a_node_receives_from_two_shares_its_access_link(access, seconds):
    network = {"same_region": a_link(0.0, 100.0), "storage": a_link()}
    if access:
        rates = {"up_mbit_per_s": 100 * BYTES_PER_SECOND, "down_mbit_per_s": 2 * access * BYTES_PER_SECOND}
        network["access"] = rates
    world = a_world(a_scenario(network=network))
    in_turn(world, world.transfer([Transfer(1, 2, 1000.0), Transfer(3, 2, 1000.0)], "state_transfer"))
    assert world.now_seconds == seconds


def test_replicas_transfer_in_parallel_and_store_once():
    network = {"same_region": a_link(), "storage": a_link(0.0, 100.0)}
    world = a_world(a_scenario(network=network, cluster={"nodes_per_stage": 3}))
    in_turn(world, world.transfer([Transfer(1, STORE, 1000.0)], "checkpoint_save"))
    assert world.now_seconds == 10.0
    in_turn(world, world.transfer([Transfer(STORE, 1, 1000.0)], "state_transfer"))
    assert world.now_seconds == 10.0 + 30.0
    slow, fast = 1.0 / 2**30, 10.0 / 2**30  # 1 and 10 bytes a second
    network = {
        "same_region": a_link(),
        "storage": a_link(),
        "links": (("a", "b", 0.0, fast), ("b", "c", 0.0, slow), ("a", "c", 0.0, fast)),
    }
    world = a_world(a_scenario(network=network, cluster={"nodes_per_stage": 2}))
    # stages 0..4 × replicas 0, 1 in regions ab ca bc ab ca
    in_turn(world, world.transfer([Transfer(0, 1, 100.0)], "state_transfer"))  # a→c, b→a
    assert world.now_seconds == 10.0
    in_turn(world, world.transfer([Transfer(2, 3, 100.0)], "state_transfer"))  # b→a, c→b
    assert world.now_seconds == 10.0 + 100.0


def test_errors_are_told_from_an_empty_event_queue():
    world = a_world(script={3: (7.0,)})

    def waits_for_ever():
        yield from world.attempt(7.0, "detection")
        yield world.work.env.event()

    with pytest.raises(RuntimeError, match=r"empty at 7 s after 0 iterations .*lost stages: \[3\]"):
        world.run(waits_for_ever())
    world = a_world()

    def fails():
        yield from world.attempt(1.0, "detection")
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        world.run(fails())


def test_iteration_processes_fail_once_in_each_iteration():
    script = {1: (2.25,), 2: (0.5, 1.5)}  # stage 2 at 0.5 and 2.0
    world = a_world(a_scenario(cluster={"detection_seconds": 0.0}), script, unit="iterations")

    def begun_anew():
        failure = yield from world.run_iteration(world.plain_plan())
        yield from world.bring_back_nodes()
        world.finish_recovery()
        return failure

    assert in_turn(world, *(begun_anew() for _ in range(6))) == [
        Failure(0.5 * 21, 2),
        None,  # the first again
        None,
        Failure(2.5 * 21, 2),  # at the start of the third
        Failure(2.75 * 21, 1),  # due a quarter into the third, which had ended by then
        None,
    ]
    assert world.iterations.num_executed == 6
    assert world.iterations.num_completed == 3
    world = a_world(script={1: (2.5,), 2: (2.25,)}, unit="iterations")
    iterations = [world.run_iteration(world.plain_plan()) for _ in range(3)]
    struck = Failure(2.25 * 21, 2)
    assert in_turn(world, *iterations, world.attempt(100.0, "detection")) == [None, None, struck, None]


def test_a_resumed_iteration_has_the_failures_of_its_rest():
    world = a_world(a_scenario(cluster={"detection_seconds": 0.0}), {1: (0.5,), 2: (0.75,)}, unit="iterations")

    def resumed():
        failure = yield from world.run_iteration(world.plain_plan())
        yield from world.bring_back_nodes()
        world.resume_iteration()
        world.finish_recovery()
        return failure

    assert in_turn(world, *(resumed() for _ in range(3))) == [Failure(0.5 * 21, 1), Failure(0.75 * 21, 2), None]
    assert world.now_seconds == 21.0


def test_iterations_after_a_rollback_are_not_drawn_again():
    """Stage 2 is due in the third, which stage 1 ends; they are executed from the first again, up to that failure."""
    world = a_world(a_scenario(cluster={"detection_seconds": 0.0}), {1: (2.25,), 2: (2.5,)}, unit="iterations")

    def from_the_start():
        failure = yield from world.run_iteration(world.plain_plan())
        if failure:
            yield from world.bring_back_nodes()
            world.finish_recovery()
            world.ledger.roll_back(0)
        return failure and (failure.stage, failure.time_seconds / 21)

    runs = in_turn(world, *(from_the_start() for _ in range(9)))
    assert runs == [None, None, (1, 2.25), None, None, (2, 4.75), None, None, None]


strikes = st.lists(st.tuples(st.integers(0, 4), st.floats(0.0, 50.0)), max_size=6)


@given(strikes, st.lists(st.floats(0.0, 30.0), max_size=8))
def test_failures_are_returned_once_and_all_seconds_booked(strikes, durations):
    script = {}
    for stage, uptime in strikes:
        script[stage] = (*script.get(stage, ()), uptime)
    world = a_world(script=script)
    waits = [*durations, *[1e4] * (len(strikes) + 1)]
    failures = [f for f in in_turn(world, *(world.attempt(wait, "detection") for wait in waits)) if f]
    assert [(f.time_seconds, f.stage) for f in failures] == [
        (event.time_seconds, event.stage) for event in of_kind(world, "failure")
    ]
    assert len(failures) == len(strikes)
    assert world.ledger.buckets()["detection"] == world.now_seconds  # sums of ticks are exact


def test_a_run_ends_where_time_is_no_longer_exact():
    scenario = a_scenario(cluster={"stragglers": ({"stage": 1, "slowdown": 1e6},)}, steps=200)
    result = run(scenario)
    assert result.wall_clock_seconds > EXACT_SECONDS
    assert "4.2 years" in result.stopped


@pytest.mark.parametrize("seconds", [0.0, 1e-300, 1e299, 1.7e308, float("inf")])
def test_no_duration_is_too_long_to_be_rounded(seconds):
    assert to_ticks(seconds) == seconds or seconds < 1e-9
