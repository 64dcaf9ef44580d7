"""Checkpoints in memory and in the store: which of them a failure leaves, and how far everybody goes back.

An iteration takes 21 s, detection 10 s, a start 5 s, copies of a stage in memory 10 s, uploads 2 s.
"""

from typing import Any

import pytest

from sim.simulation.run import Run
from sim.strategies.base import STORE
from sim.strategies.two_tier_checkpoint import TwoTierCheckpoint, TwoTierCheckpointConfig
from sim.workload.costs import Costs
from support.builders import CHECKPOINT_BYTES, a_link, a_scenario, of_kind, run, scripted, start_of
from support.on_paper import WorldOnPaper, keep, rebuild, result_of, strategy_of

NETWORK = {
    "same_region": a_link(bytes_per_second=CHECKPOINT_BYTES / 10),
    "storage": a_link(bytes_per_second=5 * CHECKPOINT_BYTES / 2),
    "negligible_seconds": 1e6,
}


def struck(script: dict[int, tuple[float, ...]], **options: Any) -> Run:
    """Twenty iterations in which stages are lost by script; every fourth is stored."""
    scenario = a_scenario(({"kind": "two_tier_checkpoint", "interval_iterations": 4, **options},), network=NETWORK)
    return run(scripted(scenario, script))


def recovered(result: Run) -> list[tuple[float, int]]:
    return [(event.time_seconds, event.iteration) for event in of_kind(result, "recovered")]


def at(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-5)


def test_both_tiers_save_and_say_which():
    started = [(event.iteration, event.detail) for event in of_kind(struck({}), "checkpoint_started")]
    assert [iteration for iteration, where in started if where == "in memory"] == list(range(1, 21))
    assert [iteration for iteration, where in started if where == ""] == [4, 8, 12, 16, 20]
    assert struck({}).ledger["checkpoint_save"] == 0.0
    blocking = struck({}, blocking_share=1.0)
    assert blocking.ledger["checkpoint_save"] == at(5 * 2)


def test_a_stage_returns_from_memory_and_with_its_holder_from_the_store():
    """Lost at 215: memory has the 9th complete and the 10th, sent from 210 to 220, not; the store the 8th."""
    assert recovered(struck({2: (215.0,)})) == [(at(215 + 15 + 10), 9)]
    both = struck({2: (215.0,), 3: (215.0,)})
    assert recovered(both) == [(at(215 + 15 + 2), 8)]
    assert both.stopped is None
    assert of_kind(both, "fallback") == []
    assert both.ledger["lost_work"] == at(215 - 8 * 21)
    assert recovered(struck({2: (70.0,), 3: (70.0,)})) == [(at(85), 0)], "nothing is stored yet"


def test_memory_serves_again_once_its_next_checkpoint_is_complete():
    """All is lost at 215 and back at 232 as of the 8th; the 9th is complete in memory at 232 + 21 + 10."""
    first = {2: (215.0,), 3: (215.0,)}
    for more, iteration in ((40.0, 8), (50.0, 9)):
        result = struck({**first, 2: (215.0, more)})
        assert recovered(result)[1] == (at(215 + more + 15 + (2 if iteration == 8 else 10)), iteration)


def test_the_later_checkpoint_serves():
    """Memory has the 5th and then the 10th, the store also the 8th."""
    options = {"memory_interval_iterations": 5}
    assert recovered(struck({2: (180.0,)}, **options)) == [(at(180 + 15 + 2), 8)]
    assert recovered(struck({2: (225.0,)}, **options)) == [(at(225 + 15 + 10), 10)]


def test_an_upload_that_a_failure_cut_is_begun_again():
    """The 8th is uploaded from 168 on; the others go back to the 7th in memory, or to the 8th once it is there."""
    result = struck({2: (169.0,)})
    assert recovered(result) == [(at(169 + 25), 7)]
    stored = [event.iteration for event in of_kind(result, "checkpoint_started") if not event.detail]
    assert stored == [4, 8, 8, 12, 16, 20]
    slow = {**NETWORK, "storage": a_link(bytes_per_second=5 * CHECKPOINT_BYTES / 15)}
    scenario = a_scenario(({"kind": "two_tier_checkpoint", "interval_iterations": 4},), network=slow)
    result = run(scripted(scenario, {2: (180.0,)}))
    assert recovered(result) == [(at(180 + 25), 8)]
    stored = [event.iteration for event in of_kind(result, "checkpoint_started") if not event.detail]
    assert stored == [4, 8, 9, 12, 16, 20]


def test_a_second_failure_in_a_recovery_from_memory_may_need_the_store():
    """The holder of stage 2's copy is lost while it sends it."""
    result = struck({2: (215.0,), 3: (215.0 + 20.0,)})
    assert recovered(result) == [(at(235 + 15 + 2), 8)]
    strategy, world = strategy_of("two_tier_checkpoint", interval_iterations=100), WorldOnPaper(failures={2: 4})
    position = start_of(strategy).after(100)
    keep(strategy, world, position)
    keep(strategy, world, position.after(101))
    world.lose(3)
    assert rebuild(strategy, world, position.after(102)) == position
    assert {transfer.source for transfer in world.transfers} == {STORE}


def test_rollbacks_edit_nothing():
    strategy, world = strategy_of("two_tier_checkpoint"), WorldOnPaper()
    position = start_of(strategy).after(7)
    keep(strategy, world, position)
    world.lose(3)
    assert rebuild(strategy, world, position.after(9)) == position
    assert result_of(strategy.after_iteration(world, position.after(8))) is None


def test_what_is_kept_is_that_of_both_tiers():
    costs = Costs(a_scenario().workload, a_scenario().cluster.device)
    config = TwoTierCheckpointConfig(num_copies=2)
    assert TwoTierCheckpoint.host_memory_bytes(config, costs, 1) == 6 * CHECKPOINT_BYTES
    assert TwoTierCheckpoint.joining_bytes(config, costs, 1) == 3 * CHECKPOINT_BYTES
    assert TwoTierCheckpoint.stored_bytes(config, costs) == 5 * CHECKPOINT_BYTES
    assert TwoTierCheckpoint.host_memory_bytes(TwoTierCheckpointConfig(local_gib_per_s=1.0), costs, 1) == (
        6 * CHECKPOINT_BYTES
    )


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("num_copies 9 needs as many other stages; allowed: at most 4", {"num_copies": 9}),
        ("give one of interval_iterations", {"interval_iterations": 9, "interval": "young"}),
    ],
)
def test_either_tier_may_be_impossible(message, options):
    found = TwoTierCheckpoint.check(TwoTierCheckpointConfig(**options), a_scenario().workload)
    assert found is not None
    assert message in found
