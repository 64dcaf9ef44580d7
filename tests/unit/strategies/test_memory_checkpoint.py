"""Checkpoints in other stages' memory: how far everybody goes back, what is sent, and what holders take with them.

An iteration takes 21 s, detection 10 s, a start 5 s; copies of a stage take `copy_seconds`, activations no time.
"""

from typing import Any

import pytest

from sim.simulation.run import Run
from sim.strategies import UnrecoverableError
from sim.strategies.memory_checkpoint import NeighbourCheckpoint, NeighbourCheckpointConfig
from sim.workload.costs import Costs
from support.builders import CHECKPOINT_BYTES, INSTANT, a_link, a_scenario, of_kind, run, scripted, start_of, times
from support.on_paper import WorldOnPaper, keep, rebuild, result_of, strategy_of


def struck(
    script: dict[int, tuple[float, ...]], copy_seconds: float = 10.0, fallback: str = "stop", **more: Any
) -> Run:
    """Twenty iterations in which stages are lost by script."""
    rate = CHECKPOINT_BYTES / copy_seconds
    network = {"same_region": a_link(bytes_per_second=rate), "storage": INSTANT, "negligible_seconds": 1e6}
    scenario = a_scenario(({"kind": "neighbour_checkpoint", **more},), network=network, fallback=fallback)
    return run(scripted(scenario, script))


def recovered(result: Run) -> list[tuple[float, int]]:
    """When and to which iteration."""
    return [(event.time_seconds, event.iteration) for event in of_kind(result, "recovered")]


def at(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-5)


def test_copies_travel_in_background_and_count_once_all_arrived():
    result = struck({})
    assert times(of_kind(result, "checkpoint_started")) == [at(21 * k) for k in range(1, 21)]
    assert times(of_kind(result, "checkpoint_durable")) == [at(21 * k + 10) for k in range(1, 20)]
    assert result.wall_clock_seconds == at(20 * 21)
    world, strategy = WorldOnPaper(), strategy_of("neighbour_checkpoint")
    assert result_of(strategy.after_iteration(world, start_of(strategy).after(1))) is None
    assert (world.now_seconds, world.attempted_seconds) == (0.0, [])


@pytest.mark.parametrize(("copy_seconds", "every"), [(20.9, 1), (30.0, 2), (62.9, 3)])
def test_the_next_checkpoint_waits_for_the_last(copy_seconds, every):
    """1/f is the iterations that the copies take, rounded up."""
    started = [event.iteration for event in of_kind(struck({}, copy_seconds), "checkpoint_started")]
    assert started == list(range(1, 21, every))


def test_an_interval_counts_from_the_last_checkpoint_or_rollback():
    started = [event.iteration for event in of_kind(struck({}, interval_iterations=4), "checkpoint_started")]
    assert started == [4, 8, 12, 16, 20]
    slow = [event.iteration for event in of_kind(struck({}, 90.0, interval_iterations=4), "checkpoint_started")]
    assert slow == [4, 9, 14, 19]
    # The 8th is sent from 168 on, when a loss ends that: back to the 4th, and the 8th is due again.
    result = struck({2: (170.0,)}, interval_iterations=4)
    assert recovered(result) == [(at(170 + 15 + 10), 4)]
    assert [event.iteration for event in of_kind(result, "checkpoint_started")] == [4, 8, 8, 12, 16, 20]


@pytest.mark.parametrize(("lost_at", "iteration", "lost_work"), [(100.0, 4, 16.0), (90.0, 3, 27.0), (94.0, 3, 31.0)])
def test_all_roll_back_to_the_last_complete_checkpoint(lost_at, iteration, lost_work):
    """The 4th is sent from 84 to 94, where at an exact tie the failure wins. Fetching takes 10 s once more."""
    result = struck({2: (lost_at,)})
    assert recovered(result) == [(at(lost_at + 15 + 10), iteration)]
    assert result.ledger["lost_work"] == at(lost_work)
    assert result.ledger["state_transfer"] == at(10)
    assert result.wall_clock_seconds == at(lost_at + 25 + (20 - iteration) * 21)


def test_before_a_checkpoint_the_first_state_is_drawn_again():
    assert recovered(struck({2: (30.0,)})) == [(at(45), 0)]


@pytest.mark.parametrize("num_copies", [1, 2, 3])
def test_a_lost_stage_is_sent_its_state_and_the_copies_it_held(num_copies):
    """All at once, each from another node: 10 s."""
    result = struck({2: (100.0,)}, num_copies=num_copies)
    assert recovered(result) == [(at(125), 4)]
    num_saved = len(of_kind(result, "checkpoint_started"))
    num_sent = num_saved * 5 * num_copies + 1 + num_copies
    assert result.sent_bytes == pytest.approx(num_sent * CHECKPOINT_BYTES)


def test_transfers_to_lost_stages_come_from_holders_of_copies():
    """Stage 3's own from a holder, 4; stage 2's, of which 3 held a copy, from 2 itself."""
    strategy, world = strategy_of("neighbour_checkpoint"), WorldOnPaper()
    keep(strategy, world, start_of(strategy).after(1))
    assert [(t.source, t.target) for t in world.transfers] == [(s, (s + 1) % 7) for s in range(7)]
    world.lose(3)
    assert rebuild(strategy, world, start_of(strategy).after(1)) == start_of(strategy).after(1)
    sent = [(transfer.source, transfer.target, transfer.what) for transfer in world.transfers]
    assert sent == [(2, 3, "checkpoint of stage 2"), (4, 3, "checkpoint of stage 3")]
    assert {transfer.num_bytes for transfer in world.transfers} == {CHECKPOINT_BYTES}
    strategy, world = strategy_of("neighbour_checkpoint", num_copies=2), WorldOnPaper()
    keep(strategy, world, start_of(strategy).after(1))
    world.lose(3)
    world.lose(4)
    rebuild(strategy, world, start_of(strategy).after(1))
    sent = {(transfer.source, transfer.target, transfer.what[-1]) for transfer in world.transfers}
    assert sent == {(1, 3, "1"), (2, 3, "2"), (2, 4, "2"), (5, 3, "3"), (5, 4, "3"), (5, 4, "4")}


def test_a_stage_lost_with_its_holder_needs_the_fallback():
    result = struck({2: (100.0,), 3: (100.0,)}, fallback="restart")
    (told,) = of_kind(result, "fallback")
    assert "stages 2, 3 are lost, which held all copies of stage 2" in told.detail
    assert recovered(result) == [(at(115), 0)]
    stopped = struck({2: (100.0,), 3: (100.0,)}).stopped
    assert stopped is not None
    assert "stages 2, 3 are lost" in stopped
    # Both at 100: from the beginning at 115, where the first iteration's copies are sent at its end.
    result = struck({2: (100.0,), 3: (100.0,)}, fallback="restart")
    started = [(event.time_seconds, event.iteration) for event in of_kind(result, "checkpoint_started")]
    assert next(event for event in started if event[0] > 100) == (at(115 + 21), 1)
    again = struck({2: (100.0, 89.0), 3: (100.0,)}, fallback="restart")  # at 189, in the 4th
    assert recovered(again)[1] == (at(189 + 25), 3)


@pytest.mark.parametrize("first", [2, 3])
@pytest.mark.parametrize(("after_seconds", "is_helped"), [(0.0, False), (24.9, False), (25.0, False), (25.1, True)])
def test_a_holder_may_be_lost_once_copies_were_sent_again(first, after_seconds, is_helped):
    """Lost at 100, everything is in place again at 125; whichever of stage and holder goes first."""
    second = 5 - first
    result = struck({first: (100.0,), second: (100.0 + after_seconds,)}, fallback="restart")
    assert (of_kind(result, "fallback") == []) == is_helped
    if is_helped:
        assert recovered(result) == [(at(125), 4), (at(125.1 + 25), 4)]


def test_copies_lost_with_their_holders_need_a_new_save():
    strategy, world = strategy_of("neighbour_checkpoint"), WorldOnPaper()
    position = start_of(strategy).after(1)
    keep(strategy, world, position)
    for stage in (2, 3):
        world.lose(stage)
    assert isinstance(rebuild(strategy, world, position), UnrecoverableError)
    world.lost_stages = frozenset({5})
    assert isinstance(rebuild(strategy, world, position), UnrecoverableError)
    keep(strategy, world, position.after(2))
    assert rebuild(strategy, world, position.after(2)) == position.after(2)


def test_a_node_holds_two_checkpoints_each_of_itself_and_peers():
    """One complete, one under way."""
    costs = Costs(a_scenario().workload, a_scenario().cluster.device)
    for num_copies, parts in ((1, 4), (2, 6)):
        config = NeighbourCheckpointConfig(num_copies=num_copies)
        assert NeighbourCheckpoint.host_memory_bytes(config, costs, 1) == parts * CHECKPOINT_BYTES
        assert NeighbourCheckpoint.extra_memory_bytes(config, costs, 1) == 0.0
        assert NeighbourCheckpoint.stored_bytes(config, costs) == 0.0
