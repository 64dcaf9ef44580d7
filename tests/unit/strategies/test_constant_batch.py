"""Constant batch: who does a lost node's work, what is kept of the interrupted iteration, and that losses stay."""

from collections import Counter
from dataclasses import replace

import pytest

from sim.workload.deployment import WorkPlacement, assign_slots
from support.builders import a_scenario, a_site, run, with_losses
from support.failure_processes import Loss

THREE = {"nodes_per_stage": 3, "provisioning_seconds": 1e6, "detection_seconds": 0.0, "startup_seconds": 0.0}
LOSS_OF_ONE = Loss(52.5, ((2, 1),))  # in the middle of the third iteration of 21 s


def test_the_microbatches_of_a_lost_node_go_to_its_peers_in_turn():
    """ReCycle (arXiv 2405.14009): of three pipelines of four stages with six microbatches each, one node is lost."""
    site = a_site(4, 6, cluster={"nodes_per_stage": 3})
    lost = site.cluster.slot(3, 1)
    placement = WorkPlacement(site.cluster, assign_slots([lost], site.cluster))
    done = Counter(placement.node(3, replica, microbatch) for replica in range(3) for microbatch in range(6))
    assert done == {site.cluster.slot(3, 0): 9, site.cluster.slot(3, 2): 9}
    others = Counter(placement.node(2, replica, microbatch) for replica in range(3) for microbatch in range(6))
    assert set(others.values()) == {6}


@pytest.mark.parametrize("cut_iteration", ["kept", "run_again"])
def test_losses_are_those_without_failures(cut_iteration):
    scenario = a_scenario(({"kind": "constant_batch", "cut_iteration": cut_iteration},), cluster=THREE)
    plain, lost = run(scenario), run(with_losses(scenario, LOSS_OF_ONE))
    assert lost.num_nodes_lost == 1
    assert [record.train_loss for record in lost.iterations] == [record.train_loss for record in plain.iterations]
    assert {record.lineage for record in lost.iterations} == {record.lineage for record in plain.iterations}


def test_the_part_of_the_other_pipelines_is_kept():
    """Half of the iteration was done, in three pipelines: a third of an iteration is kept, a sixth is lost."""
    scenario = with_losses(
        a_scenario(
            ({"kind": "constant_batch"}, {"kind": "constant_batch", "label": "again", "cut_iteration": "run_again"}),
            cluster=THREE,
        ),
        LOSS_OF_ONE,
    )
    kept, again = run(scenario, 0), run(scenario, 1)
    assert again.ledger["lost_work"] == 10.5
    assert kept.ledger["lost_work"] == pytest.approx(3.5)
    incomplete_seconds = again.iterations[-1].ended_seconds - again.iterations[-1].started_seconds
    assert again.wall_clock_seconds - kept.wall_clock_seconds == pytest.approx(incomplete_seconds / 3)


def test_without_failures_it_is_peer_to_the_bit():
    scenario = a_scenario(({"kind": "constant_batch"}, {"kind": "peer"}), cluster=THREE)
    one, other = run(scenario, 0), run(scenario, 1)
    assert replace(one, strategy="", kind="") == replace(other, strategy="", kind="")
