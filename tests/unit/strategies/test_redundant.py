"""Redundant computation: what is sent, what a pause takes to the second, who works for whom in the meantime.

Forwards take 1 s, backwards 2 s; four stages, four microbatches. A failure is detected in 10 s; a start takes 5 s.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import plain_routes
from sim.simulation.run import Run
from sim.simulation.world import World
from sim.strategies import STRATEGIES, UnrecoverableError
from sim.strategies.redundant import Redundant, RedundantConfig
from sim.workload.config import IterationPlan
from sim.workload.costs import Costs
from sim.workload.deployment import assign_slots
from support.builders import (
    CHECKPOINT_BYTES,
    INSTANT,
    TICK,
    a_link,
    a_scenario,
    a_strategy,
    a_world,
    of_kind,
    run,
    scripted,
    start_of,
    times,
)
from support.on_paper import WorldOnPaper, rebuild, strategy_of

LEFT = {"bamboo_lazy": 3.0, "bamboo": 2.0, "bamboo_forward_and_backward": 0.0}
"""Seconds of a microbatch at a stage that its shadow has not computed: forward and backward, backward, nothing."""
BAMBOO = pytest.mark.parametrize("preset", LEFT)


def seconds(expected: float) -> Any:
    return pytest.approx(expected, abs=20 * TICK)


# ---- what an iteration is to do ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("preset", "count", "size", "forwards", "backwards", "shadow", "sent"),
    [
        ("paper_text", 8, 0.5, 1.0, 0.0, "with_forward", 2),
        ("paper_table2", 8, 1.0, 1.0, 0.0, "with_forward", 0),
        ("bamboo", 4, 1.0, 1.0, 0.0, "eager", 0),
        ("bamboo_lazy", 4, 1.0, 0.0, 0.0, "eager", 0),
        ("bamboo_forward_and_backward", 4, 1.0, 1.0, 1.0, "eager", 0),
    ],
)
def test_a_preset_says_what_an_iteration_has_to_do(preset, count, size, forwards, backwards, shadow, sent):
    planned = strategy_of("redundant", 4, preset=preset).adapt_plan(IterationPlan(4, plain_routes(4)))
    assert (planned.num_microbatches, planned.microbatch_size) == (count, size)
    assert (planned.shadow_forwards, planned.shadow_backwards, planned.shadow) == (forwards, backwards, shadow)
    assert planned.shadow_transfers == sent


def longest(preset: str, num_microbatches: int) -> float:
    """An iteration of so many microbatches."""
    world = a_world(a_scenario(num_microbatches=num_microbatches))
    plan = strategy_of("redundant", 4, preset=preset).adapt_plan(world.plain_plan())
    return world.iteration_times.alone(plan).seconds


@pytest.mark.parametrize(
    ("preset", "each"), [("bamboo_lazy", 3.0), ("bamboo", 4.0), ("bamboo_forward_and_backward", 6.0)]
)
def test_a_microbatch_takes_a_node_its_own_work_and_the_shadows(preset, each):
    """f + b = 3; 2 f + b = 4; 2 f + 2 b = 6: of many microbatches, each one more."""
    assert (longest(preset, 40) - longest(preset, 20)) / 20 == pytest.approx(each)


def test_shadows_occupy_the_memory_of_what_they_hold():
    costs = Costs(a_scenario().workload, a_scenario().cluster.device)
    held = {
        preset: Redundant.extra_memory_bytes(RedundantConfig(preset=preset), costs, 1)
        for preset in ("paper_text", "bamboo", "bamboo_lazy", "bamboo_forward_and_backward")
    }
    gradient_bytes = held.pop("bamboo_forward_and_backward") - CHECKPOINT_BYTES
    assert set(held.values()) == {CHECKPOINT_BYTES}
    assert gradient_bytes == costs.weight_bytes(2) == costs.state_bytes(2) - CHECKPOINT_BYTES
    workload = a_scenario(loss_at="last_stage").workload
    costs = Costs(workload, a_scenario().cluster.device)
    config = RedundantConfig()
    assert Redundant.extra_memory_bytes(config, costs, 4) == costs.checkpoint_bytes(0)
    assert Redundant.extra_memory_bytes(config, costs, 3) == costs.checkpoint_bytes(4) > costs.checkpoint_bytes(0)


# ---- who can be recovered -----------------------------------------------------------------------------------
@pytest.mark.parametrize("on_failure", ["wait", "carry_on"])
@pytest.mark.parametrize("stages", [(1, 2), (5, 6), (6, 0), (0, 1)])
def test_neighbours_are_lost_anywhere_on_the_ring(stages, on_failure):
    strategy = strategy_of("redundant", on_failure=on_failure)
    reason = rebuild(strategy, WorldOnPaper(lost=stages), start_of(strategy).after(9))
    assert isinstance(reason, UnrecoverableError)


@given(st.sets(st.integers(0, 6), min_size=1), st.sets(st.integers(0, 6), max_size=3))
def test_a_covered_stage_counts_as_lost_to_its_neighbours(lost, covered):
    """Its own holder does its work, and nobody has the shadow that it held."""
    lost, gone = lost - covered or lost, lost | covered
    covered = gone - lost
    strategy = strategy_of("redundant", preset="bamboo")
    world = WorldOnPaper(lost=lost, covered=covered)
    recovered = rebuild(strategy, world, start_of(strategy).after(9))
    neighbours = any((stage + 1) % 7 in gone for stage in gone)
    assert isinstance(recovered, UnrecoverableError) == neighbours
    if not neighbours:
        assert world.holders == {stage: (stage - 1) % 7 for stage in lost}
        assert world.resumed
        assert world.transfers == []


# ---- the pause ------------------------------------------------------------------------------------------------
@BAMBOO
def test_the_pause_is_the_completed_work_the_shadow_lacks(preset):
    """Half of the iteration was: half of the workload's microbatches."""
    strategy, world = strategy_of("redundant", preset=preset), WorldOnPaper(lost=[3])
    rebuild(strategy, world, start_of(strategy).after(9))
    num_microbatches = world.plain_plan().num_microbatches
    assert world.attempted_seconds == [10.0, 0.5 * num_microbatches * LEFT[preset]]


@pytest.mark.parametrize(
    ("options", "lost", "cut_share", "pause"),
    [
        (
            {"preset": "bamboo", "shadow_forwards": 0.25, "shadow_backwards": 0.5},
            [3],
            0.5,
            0.5 * 4 * (0.75 + 0.5 * 2.0),
        ),
        ({"preset": "bamboo_lazy"}, [0, 3], 0.5, 0.5 * 4 * 3.0),
        ({"preset": "bamboo_lazy"}, [3], 0.0, 0.0),
    ],
    ids=["shadows in part", "slowest of several", "outside an iteration"],
)
def test_the_pause_is_what_the_slowest_shadow_has_to_redo(options, lost, cut_share, pause):
    strategy, world = strategy_of("redundant", **options), WorldOnPaper(lost=lost)
    world.cut_share = cut_share
    rebuild(strategy, world, start_of(strategy).after(9))
    assert world.attempted_seconds == [10.0, pause]


@pytest.mark.parametrize(
    ("loss_at", "lost", "each"),
    [
        ("embedding_stage", 0, 6.0),  # the head's own forward and backward
        ("embedding_stage", 4, 3.0),
        ("last_stage", 0, 0.0),  # which has the look-up only
        ("last_stage", 4, 9.0),
        ("last_stage", 3, 3.0),
    ],
)
def test_the_head_is_redone_by_its_stages_shadow(loss_at, lost, each):
    measured = {"forward_seconds": 1.0, "backward_seconds": 2.0, "head_seconds": 6.0}
    scenario = a_scenario(loss_at=loss_at, measured=measured)
    strategy, world = strategy_of("redundant", 4, preset="bamboo_lazy"), WorldOnPaper(lost=[lost])
    world.costs = Costs(scenario.workload, scenario.cluster.device)
    rebuild(strategy, world, start_of(strategy).after(9))
    assert world.attempted_seconds[1] == pytest.approx(0.5 * 4 * each)


# ---- carrying on ------------------------------------------------------------------------------------------------
def scenario_of(preset: str, provisioning: float = 1e5, **options: Any) -> Any:
    """Replacements come late, where nothing else is said."""
    cluster = {"detection_seconds": 10.0, "startup_seconds": 5.0, "provisioning_seconds": provisioning}
    return a_scenario(({"kind": "redundant", "preset": preset},), cluster=cluster, **options)


def struck(preset: str, script: dict[int, tuple[float, ...]], provisioning: float = 1e5, **options: Any) -> Run:
    """Stages are lost by script."""
    scenario = scenario_of(preset, provisioning, **options)
    return run(scripted(scenario, script))


def price(preset: str, covers: dict[int, int], **options: Any) -> float:
    """An iteration in which some stages' work is done by others."""
    scenario = scenario_of(preset, **options)
    world: World = a_world(scenario)
    plan = a_strategy(scenario.strategies[0]).adapt_plan(world.plain_plan())
    return world.iteration_times.alone(plan, assign_slots(set(covers), world.cluster, covers)).seconds


def ends(result: Run) -> list[float]:
    """When iterations ended."""
    return [record.ended_seconds for record in result.iterations]


@BAMBOO
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_iteration_goes_on_where_it_was_cut_on_the_holder(preset, share):
    """Detection, the pause, and what is left at the pace of a node that does both stages' work."""
    whole, covered = price(preset, {}), price(preset, {2: 1})
    result = struck(preset, {2: (share * whole,)}, steps=3)
    pause = share * 4 * LEFT[preset]
    first = share * whole + 10.0 + pause + (1.0 - share) * covered
    assert ends(result) == [seconds(first), seconds(first + covered), seconds(first + 2 * covered)]
    assert covered >= 4 * 2 * 3.0 > 0.5 * whole
    assert result.ledger["detection"] == seconds(10.0)
    assert result.ledger["lost_work"] == seconds(0.0)
    assert result.ledger["provisioning"] == result.ledger["state_transfer"] == 0.0
    assert times(of_kind(result, "recovered")) == [seconds(share * whole + 10.0 + pause)]
    assert of_kind(result, "rolled_back") == []


def test_the_pause_is_redundant_and_covering_doubles_the_work():
    """Nothing else of bamboo_lazy is: 0.5 · 4 · 3 s."""
    whole = price("bamboo_lazy", {})
    assert whole == 21.0
    assert struck("bamboo_lazy", {2: (0.5 * whole,)}, steps=3).ledger["redundant_compute"] == seconds(6.0)
    # Two stages on one node: every microbatch more takes it 2 (f + b).
    more, fewer = (price("bamboo_lazy", {2: 1}, num_microbatches=m) for m in (20, 10))
    assert (more - fewer) / 10 == pytest.approx(6.0)


def test_the_shadow_serves_both_until_the_replacement_has_state():
    """Bamboo without shadow work: struck at 5.25, goes on at 18.25; the node is there at 105.25 and ready at 110.25.

    It joins before the next iteration, 16 s after it was sent the state of two stages.
    """
    rate = 2 * CHECKPOINT_BYTES / 16.0
    network = {"same_region": a_link(bytes_per_second=rate), "storage": INSTANT, "negligible_seconds": 1e9}
    covered = price("bamboo_lazy", {2: 1}, network=network)
    result = struck("bamboo_lazy", {2: (5.25,)}, 100.0, network=network, steps=10)
    first = 5.25 + 10.0 + 0.25 * 4 * 3.0 + 0.75 * covered
    expected = [first]
    while expected[-1] < 110.25:
        expected.append(expected[-1] + covered)
    joined = expected[-1] + 16.0
    expected += [joined + 21.0 * k for k in range(1, 11 - len(expected))]
    assert ends(result) == [seconds(end) for end in expected]
    assert times(of_kind(result, "node_joined")) == [seconds(joined)]
    assert result.ledger["state_transfer"] == seconds(16.0)


def test_a_second_failure_redoes_the_whole_iteration_so_far():
    """Half of 21 s, 6 s of pause; then half of the other half at stage 2's holder's pace, when stage 4 is lost."""
    covered, both = price("bamboo_lazy", {2: 1}), price("bamboo_lazy", {2: 1, 4: 3})
    again = 10.5 + 16.0 + covered / 4
    result = struck("bamboo_lazy", {2: (10.5,), 4: (again,)}, steps=2)
    resumed = again + 10.0 + 0.75 * 12.0
    assert ends(result) == [seconds(resumed + both / 4), seconds(resumed + both / 4 + both)]
    assert result.ledger["redundant_compute"] == seconds(6.0 + 9.0)
    assert result.ledger["lost_work"] == seconds(0.0)


@pytest.mark.parametrize("after_seconds", [5.0, 12.0])
def test_a_failure_during_detection_or_pause_begins_both_anew(after_seconds):
    """Half of 21 s was done: 10 + 6 s, from the second failure on."""
    both = price("bamboo_lazy", {2: 1, 4: 3})
    result = struck("bamboo_lazy", {2: (10.5,), 4: (10.5 + after_seconds,)}, steps=1)
    assert ends(result) == [seconds(10.5 + after_seconds + 16.0 + both / 2)]


@pytest.mark.parametrize(("second", "why"), [(1, "stages 1 and 2"), (3, "stages 2 and 3")])
def test_neighbours_of_a_covered_stage_cannot_be_lost_too(second, why):
    """1 works for 2, and 2 held the shadow of 3."""
    result = struck("bamboo", {2: (10.0,), second: (60.0,)}, 500.0)
    assert result.stopped is not None
    assert why in result.stopped
    restarted = struck("bamboo", {2: (10.0,), second: (60.0,)}, 500.0, fallback="restart")
    assert len(of_kind(restarted, "fallback")) == 1
    assert restarted.num_iterations == 20


@pytest.mark.parametrize(("second", "stopped"), [(60.0, True), (140.0, False)])
def test_once_the_replacement_has_joined_its_holder_can_be_lost(second, stopped):
    """There at 60, ready at 65."""
    result = struck("bamboo", {2: (10.0,), 1: (second,)}, 50.0)
    assert any(at < 140.0 for at in times(of_kind(result, "node_joined"))) != stopped
    assert (result.stopped is not None) == stopped


def test_papers_presets_wait_and_run_the_iteration_again():
    """Half of the iteration, 15 s until the node has started; nothing is sent in no time."""
    result = struck("bamboo_lazy", {2: (10.5,)}, 0.0, steps=2)
    assert result.ledger["lost_work"] == seconds(0.0)
    scenario = a_scenario(({"kind": "redundant", "preset": "bamboo_lazy", "on_failure": "wait"},), steps=2)
    waited = run(scripted(scenario, {2: (10.5,)}))
    assert ends(waited) == [seconds(10.5 + 15.0 + 21.0), seconds(10.5 + 15.0 + 42.0)]
    assert waited.ledger["lost_work"] == seconds(10.5)
    for preset in LEFT:
        assert RedundantConfig(preset=preset).on_failure == "carry_on"
    assert RedundantConfig().on_failure == RedundantConfig(preset="paper_table2").on_failure == "wait"
    assert STRATEGIES["redundant"].check(RedundantConfig(preset="bamboo"), a_scenario().workload) is None
