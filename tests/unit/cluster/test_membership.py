"""Which nodes are there: who sits where, who idles, and what is paid for."""

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.membership import Membership, node_seconds
from support.memberships import a_cluster, empty_stages, seated


def a_fleet(*shape: object, **options: object) -> Membership:
    return Membership(a_cluster(*shape, **options))


def test_nodes_are_numbered_by_slot_and_dealt_to_regions():
    fleet = a_fleet(2, ("a", "b"), nodes_per_stage=2, num_spares=3)
    assert seated(fleet) == [0, 1, 2, 3, 4, 5]
    last = [(fleet.nodes[number].region, fleet.nodes[number].slot) for number in range(4, 9)]
    assert last == [("a", 4), ("b", 5), ("a", None), ("b", None), ("a", None)]  # spares after the others
    assert (fleet.num_arrived, fleet.num_lost, empty_stages(fleet)) == (9, 0, [])
    newcomers = a_fleet(3, ("a", "b", "c"))
    assert [newcomers.arrive(1.0).region for _ in range(4)] == ["b", "c", "a", "b"]


def test_returning_nodes_keep_numbers_and_spares_fill_slots():
    fleet = a_fleet(nodes_per_stage=2, num_spares=1)
    lost = fleet.lose([2, 3], 10.0)
    assert [(node.number, node.slot) for node in lost] == [(2, 2), (3, 3)]
    assert seated(fleet) == [0, 1, None, None, 4, 5]
    assert (empty_stages(fleet), fleet.has_node(1), fleet.num_lost) == ([1], False, 2)
    fleet.assign_spares(10.0)
    assert seated(fleet) == [0, 1, 6, None, 4, 5]
    assert (fleet.nodes[6].assigned_seconds, empty_stages(fleet)) == (10.0, [])
    fleet = a_fleet(num_spares=3)
    fleet.lose([3], 1.0)
    assert fleet.arrive(2.0, number=3).slot is None  # it is the last in the queue now
    fleet.lose([0, 1, 2], 5.0)
    fleet.assign_spares(6.0)
    assert seated(fleet) == [4, 5, 3]
    assert {fleet.nodes[number].assigned_seconds for number in (3, 4, 5)} == {6.0}
    fleet = a_fleet(num_spares=1)
    (before,) = fleet.lose([1], 5.0)
    fleet.assign_spares(5.0)
    after = fleet.arrive(8.0, "a", 1)
    assert (after.number, after.slot) == (1, None)  # its place is taken
    assert after is not before
    assert after != before
    assert fleet.num_arrived == 4
    assert fleet.arrive(9.0).number == 4


def test_a_spare_is_assigned_by_empty_stage_region_wait_and_slot():
    fleet = a_fleet(2, ("a", "b", "c"), nodes_per_stage=3)  # regions abc abc abc
    fleet.lose([2], 1.0)
    fleet.lose([6], 2.0)
    fleet.lose([1, 3, 4, 5], 3.0)
    assert fleet.arrive(9.0, "c").slot == 5  # stage 1 has nobody; the place in its region
    assert fleet.arrive(9.0, "c").slot == 2  # its region
    assert fleet.arrive(9.0, "c").slot == 6  # vacant since 2 s
    assert fleet.arrive(9.0, "b").slot == 1  # of two in its region, vacant alike
    assert fleet.arrive(9.0, "c").slot == 3
    assert fleet.arrive(9.0, "a").slot == 4
    assert fleet.arrive(9.0, "a").slot is None
    fleet = a_fleet(2, ("a", "b"), nodes_per_stage=1)
    fleet.lose([0, 1], 0.0)
    assert fleet.arrive(1.0, "b").slot == 1
    crowded = a_fleet(1, ("a", "b", "b", "b"), nodes_per_stage=2)
    crowded.lose([0, 2, 3], 0.0)
    assert crowded.arrive(1.0, "a").slot == 2  # though place 0 is in its region


def test_an_arrival_costs_stages_and_regions_not_vacant_slots():
    fleet = a_fleet(3, ("a", "b"), nodes_per_stage=500)
    fleet.lose(list(fleet.nodes), 1.0)
    with patch.object(Membership, "has_node", autospec=True, side_effect=Membership.has_node) as asked:
        for _ in range(10):
            fleet.arrive(2.0)
    assert asked.call_count <= 10 * 4 * 2


@pytest.mark.parametrize(
    ("num_nodes", "num_empty", "num_idle"), [(0, 5, 0), (3, 2, 0), (5, 0, 0), (7, 0, 0), (12, 0, 2)]
)
def test_initial_nodes_are_assigned_at_random_each_stage_first(num_nodes, num_empty, num_idle):
    cluster = a_cluster(4, nodes_per_stage=2)
    fleet = Membership(cluster, num_nodes, np.random.default_rng(3))
    assert len(empty_stages(fleet)) == num_empty
    assert sum(node.slot is None for node in fleet.nodes.values()) == num_idle
    assert fleet.num_arrived == len(fleet.nodes) == num_nodes
    again, other = (Membership(cluster, num_nodes, np.random.default_rng(seed)) for seed in (3, 4))
    assert seated(fleet) == seated(again)
    assert num_nodes < 3 or seated(fleet) != seated(other)


def test_random_assignment_is_uniform_over_nodes():
    cluster, counts = a_cluster(4), np.zeros(10)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        counts[[number for number in seated(Membership(cluster, 10, rng)) if number is not None]] += 1
    assert np.abs(counts / 2000 - 0.5).max() < 4 * math.sqrt(0.25 / 2000)


happenings = st.lists(st.tuples(st.floats(0.0, 100.0), st.sampled_from(["come", "return", "lose"]), st.integers(0, 99)))


@given(happenings, st.integers(1, 3), st.integers(0, 2))
def test_slots_nodes_and_paid_time_agree_after_any_events(happenings, nodes_per_stage, num_spares):
    """No spare idles beside a vacant slot, and node-seconds are the time that nodes are there."""
    fleet = a_fleet(2, ("a", "b"), nodes_per_stage=nodes_per_stage, num_spares=num_spares)
    now, came, stays, gone = 0.0, dict.fromkeys(fleet.nodes, 0.0), [], []
    for seconds, what, pick in happenings:
        now += seconds
        if what == "lose" and fleet.nodes:
            chosen = sorted(fleet.nodes)[:: 1 + pick % 4]
            fleet.lose(chosen, now)
            fleet.assign_spares(now)
            stays += [now - came.pop(number) for number in chosen]
            gone += chosen
        elif what == "come" or not gone:
            came[fleet.arrive(now).number] = now
        else:
            came[fleet.arrive(now, "b", gone.pop(pick % len(gone))).number] = now
        there = {node.slot: node for node in fleet.nodes.values() if node.slot is not None}
        assert [there.get(place) for place in range(len(fleet.node_at))] == fleet.node_at
        assert all(number == node.number for number, node in fleet.nodes.items())
        assert None not in fleet.node_at or len(there) == len(fleet.nodes)
        assert empty_stages(fleet) == [stage for stage in (0, 1, 2) if not fleet.has_node(stage)]
        assert fleet.nodes.keys() == came.keys()
    now += 7.0
    paid = math.fsum(stays) + math.fsum(now - seconds for seconds in came.values())
    assert node_seconds(fleet.counts, now) == pytest.approx(paid)
    assert [count.time_seconds for count in fleet.counts] == sorted({count.time_seconds for count in fleet.counts})
    assert fleet.counts[-1].num_nodes == len(fleet.nodes)
    assert fleet.num_lost == len(stays)
