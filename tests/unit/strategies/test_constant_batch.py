"""Constant batch: who does a lost node's work, what is kept of the interrupted iteration, and that losses stay."""

from collections import Counter
from dataclasses import replace

import pytest

from sim.workload.config import plain_plan
from sim.workload.deployment import WorkPlacement, assign_slots
from sim.workload.iteration_time import fastest_time
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


@pytest.mark.parametrize("dealing", ["by_stage", "by_pipeline"])
@pytest.mark.parametrize("cut_iteration", ["kept", "run_again"])
def test_losses_are_those_without_failures(cut_iteration, dealing):
    options = {"kind": "constant_batch", "cut_iteration": cut_iteration, "dealing": dealing}
    scenario = a_scenario((options,), cluster=THREE)
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


def test_complete_pipelines_share_the_microbatches_of_all():
    """ReCoVer (arXiv 2605.11215): one of three pipelines with three microbatches each has lost a node: 5 and 4."""
    options = {"kind": "constant_batch", "dealing": "by_pipeline"}
    scenario = with_losses(a_scenario((options,), num_microbatches=3, cluster=THREE), LOSS_OF_ONE)
    found = run(scenario)
    seconds = [record.ended_seconds - record.started_seconds for record in found.iterations]
    assert (seconds[0], seconds[-1]) == (3 * (3 + 3), 3 * (5 + 3))
    assert found.batch_share == 1.0


def test_pipelines_of_other_shares_take_as_long_as_each_alone():
    site, alone = a_site(4, 6, cluster={"nodes_per_stage": 3}), a_site(4, 6)
    plan = plain_plan(site.costs.workload)
    each = [fastest_time(alone, replace(plan, num_microbatches=share)).split for share in (6, 2, 3)]
    found = fastest_time(site, replace(plan, shares=(6, 2, 3)))
    assert found.seconds == fastest_time(alone, plan).seconds
    assert found.split.productive_seconds == pytest.approx(sum(one.productive_seconds for one in each) / 3)
    assert fastest_time(site, replace(plan, shares=(6, 6, 6))) == fastest_time(site, plan)
