"""Who holds what: a stage is lost with its last holder, and nothing is taken from who lost it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.membership import Node
from sim.simulation.state_placement import StatePlacement
from sim.strategies import STRATEGIES
from support.builders import a_strategy, start_of
from support.memberships import a_cluster

START = start_of(a_strategy(STRATEGIES["restart"].Config()))


def holders(num_stages: int = 3, nodes_per_stage: int = 1) -> StatePlacement:
    return StatePlacement(a_cluster(num_stages, nodes_per_stage=nodes_per_stage))


def lost(num_stages: int, nodes_per_stage: int, *places: int) -> StatePlacement:
    """All hold their stage's state but for the nodes of some places, which are gone."""
    held = holders(num_stages, nodes_per_stage)
    for place in places:
        held.lose(place)
    return held


def test_a_stage_is_held_by_its_nodes_and_lost_with_the_last():
    held = holders(2, 2)
    assert [held.of(stage) for stage in (0, 1, 2)] == [[0, 1], [2, 3], [4, 5]]
    assert held.assignment is None
    assert not held.lost_stages
    held = holders(2, 2)
    assert held.lose(3) is False
    assert (held.lost_stages, held.of(1)) == (set(), [2])
    assert held.lose(3) is False  # whoever is there now held nothing
    assert held.lose(2) is True
    assert (held.lost_stages, held.of(1)) == ({1}, [])
    assert held.lose(2) is False
    assert not held.holds(2)


def test_peers_substitute_for_a_node_until_it_has_the_state():
    held = lost(2, 3, 4)
    assert held.assignment == (0, 1, 2, 3, 5, 5, 6, 7, 8)
    held.lose(5)
    assert held.assignment == (0, 1, 2, 3, 3, 3, 6, 7, 8)
    held.gain([4, 5])
    assert held.assignment is None


def test_copies_are_lost_with_their_last_holder():
    held = holders(2, 2)
    held.hold(1, "x", START)
    held.hold(2, "x", START)
    held.lose(2)
    assert held.held(1, "x") == START
    held.lose(3)
    assert held.held(1, "x") is None
    assert held.held(2, "x") == START
    held.gain([2, 3])
    assert held.held(1, "x") is None
    held = lost(2, 1, 1)
    with pytest.raises(AssertionError):
        held.hold(1, "x", START)
    held.receive({1: Node(7, "a", 1)})
    held.hold(1, "x", START)
    assert held.lose(1) is False
    assert held.held(1, "x") is None


def test_a_recovery_reaches_only_the_nodes_that_take_part_in_it():
    held = lost(2, 3, 3, 4, 5, 6)
    held.receive({3: Node(9, "a", 3), 5: Node(10, "a", 5)})
    assert held.receivers(1) == [3, 5]
    assert held.receivers(2) == [7, 8]
    held.rebuilt(held.receiving, set())
    assert (held.of(1), held.lost_stages) == ([3, 5], set())
    assert held.assignment == (0, 1, 2, 3, 5, 5, 7, 7, 8)
    held = lost(3, 1, 1, 2)
    held.rebuilt([1, 2], {2})
    assert (held.lost_stages, held.holds(1), held.holds(2)) == ({2}, True, False)
    held = lost(2, 2, 2, 3)
    assert [held.source(1, replica) for replica in (0, 1)] == [2, 3]
    held.receive({3: Node(9, "a", 3)})
    assert [held.source(1, replica) for replica in (0, 1)] == [3, 3]


@pytest.mark.parametrize(
    ("gone", "sources"), [((), [3, 4, 5]), ((4,), [3, 5, 5]), ((3,), [4, 4, 5]), ((3, 5), [4, 4, 4])]
)
def test_state_comes_from_another_pipeline_if_need_be(gone, sources):
    assert [lost(2, 3, *gone).source(1, replica) for replica in range(3)] == sources


def covered() -> StatePlacement:
    """Stage 2 of two replicas is gone, stage 1 works for it."""
    held = lost(3, 2, 4, 5)
    held.cover(2, 1)
    held.rebuilt([], set())
    return held


def test_a_covering_stage_works_sends_and_receives_for_the_other():
    held = covered()
    assert (held.lost_stages, held.covers) == (set(), {2: 1})
    assert held.assignment == (0, 1, 2, 3, 2, 3, 6, 7)
    assert [held.source(2, replica) for replica in (0, 1)] == [2, 3]
    assert held.receivers(2) == [2, 3]
    held.lose(2)
    assert held.assignment == (0, 1, 3, 3, 3, 3, 6, 7)
    assert (held.source(2, 0), held.receivers(2)) == (3, [3])


def test_a_stage_covers_until_the_other_has_nodes_or_it_is_lost():
    held = covered()
    held.gain([5])
    assert held.covers == {}
    assert held.assignment == (0, 1, 2, 3, 5, 5, 6, 7)
    held = covered()
    assert held.lose(3) is False
    assert held.lose(2) is True
    assert (held.lost_stages, held.covers) == ({1, 2}, {})


def test_a_covered_stage_keeps_no_copies_and_stays_covered():
    held = covered()
    held.hold(2, "x", START)
    assert held.held(2, "x") is None
    assert held.lose(4) is False  # who has come and not joined yet
    assert held.lost_stages == set()
    held = covered()
    held.lose(0)
    held.lose(1)
    held.rebuilt([0, 1, 4], set())
    assert held.covers == {2: 1}
    assert not held.holds(4)


def test_only_a_stage_with_its_state_covers_a_lost_one():
    held = lost(3, 1, 1, 2)
    with pytest.raises(AssertionError):
        held.cover(0, 3)
    with pytest.raises(AssertionError):
        held.cover(1, 2)
    held.cover(2, 3)
    with pytest.raises(AssertionError):
        held.cover(1, 2)


moves = st.lists(st.tuples(st.sampled_from(["lose", "gain", "keep", "rebuild"]), st.integers(0, 8)), max_size=40)


@given(moves)
def test_a_state_is_lost_exactly_while_no_node_holds_it(moves):
    held = holders(2, 3)
    with_state, lost_stages, copies = set(range(9)), set(), set()
    for move, place in moves:
        stage = place // 3
        others = {other for other in with_state if other // 3 == stage} - {place}
        if move == "lose":
            is_last = place in with_state and not others
            assert held.lose(place) is is_last
            with_state.discard(place)
            if is_last:
                lost_stages.add(stage)
                copies.discard(stage)
        elif move == "gain" and stage not in lost_stages:
            held.gain([place])
            with_state.add(place)
        elif move == "keep" and stage not in lost_stages:
            held.hold(stage, "copy", START)
            copies.add(stage)
        elif move == "rebuild" and lost_stages:
            back = {3 * each + place % 3 for each in lost_stages}
            held.rebuilt(back, set())
            with_state |= back
            lost_stages = set()
        assert held.lost_stages == lost_stages
        assert {each for each in range(9) if held.holds(each)} == with_state
        assert {each for each in range(3) if held.held(each, "copy")} == copies
        if not lost_stages:
            hosts = held.assignment or tuple(range(9))
            assert set(hosts) == with_state
            assert all(host // 3 == each // 3 for each, host in enumerate(hosts))


def test_a_stage_left_out_is_not_lost_until_the_fallback_needs_it():
    held = lost(3, 1, 2)
    held.leave_out(2)
    assert (held.lost_stages, held.left_out, held.of(2), held.receivers(2)) == (set(), {2}, [], [])
    assert held.lose(2) is False  # a node that has come meanwhile holds nothing
    held.lose_left_out()
    assert (held.lost_stages, held.left_out) == ({2}, set())
    held.leave_out(2)
    held.gain([2])
    assert (held.lost_stages, held.left_out, held.of(2)) == (set(), set(), [2])


@pytest.mark.parametrize("stage", [0, 1])
def test_stage_0_and_stages_with_a_state_are_never_left_out(stage):
    with pytest.raises(AssertionError):
        lost(3, 1, 0).leave_out(stage)
