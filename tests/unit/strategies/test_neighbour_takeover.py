"""Neighbours that work for lost nodes: who does, what they are sent, what it costs, and which gradients are cheap."""

from typing import Any

import pytest

from models.recipe import PLAIN, ApproximateBackward, Recipe
from models.training_state import Position, root
from sim.cluster.topology import ClusterConfig
from sim.simulation.run import time_only
from sim.simulation.world import World
from sim.strategies.neighbour_takeover import NeighbourTakeover, NeighbourTakeoverConfig, cheap_backward
from sim.workload.config import WorkFactor
from support.builders import (
    CHECKPOINT_BYTES,
    INSTANT,
    a_link,
    a_scenario,
    a_site,
    a_world,
    in_turn,
    of_kind,
    run,
    times,
    with_losses,
)
from support.failure_processes import Loss

CLUSTER = {
    "nodes_per_stage": 2,
    "detection_seconds": 10.0,
    "startup_seconds": 5.0,
    "regroup_seconds": 4.0,
    "provisioning_seconds": 1e6,
}
SIX_SECONDS = {"same_region": a_link(0.0, CHECKPOINT_BYTES / 6), "storage": INSTANT, "negligible_seconds": 1e9}
"""Of a stage's state from node to node; hops take no time."""


def takeover(**options: Any) -> dict[str, Any]:
    return {"kind": "neighbour_takeover", **options}


def after_losses(*places: tuple[int, int], **options: Any) -> tuple[NeighbourTakeover, World, Position]:
    """The strategy after it has regrouped without some nodes of four stages in two pipelines."""
    scenario = a_scenario((takeover(),), cluster=CLUSTER)
    world, strategy = a_world(scenario), NeighbourTakeover(NeighbourTakeoverConfig(**options), 4)
    position = root(time_only(scenario).spec.model_copy(update={"sequences_per_batch": 4}))
    for stage, pipeline in places:
        world.placement.lose(world.cluster.slot(stage, pipeline))
    assert in_turn(world, strategy.regroup(world, position)) == [None]
    return strategy, world, position


@pytest.mark.parametrize(
    ("lost", "substitutes"),
    [
        ([(2, 1)], ((2, 1, 1),)),
        ([(1, 0)], ((1, 0, 2),)),
        ([(2, 1), (3, 0)], ((2, 1, 1), (3, 0, 2))),
        ([(1, 1), (2, 1)], ((2, 1, 3),)),  # S1 has no neighbour there: the other node of S1 does its work
        ([(0, 1)], ()),
    ],
)
def test_the_node_before_else_the_one_after_works_for_a_lost_one(lost, substitutes):
    strategy, world, _ = after_losses(*lost)
    assert strategy.plan_for(world, world.plain_plan()).substitutes == substitutes


@pytest.mark.parametrize("approximate", ["both_stages", "lost_stage"])
def test_gradients_are_approximate_for_the_rows_of_the_pipeline(approximate):
    strategy, world, position = after_losses((2, 1), approximate=approximate)
    stages = (1, 2) if approximate == "both_stages" else (2,)
    backward = tuple(ApproximateBackward(stage, (2, 3), rank=8) for stage in stages)  # an eighth of 64
    assert strategy.recipe_for(world, position) == Recipe(backward=backward)
    factors = strategy.plan_for(world, world.plain_plan()).factors
    assert [(each.stage, each.pipelines, each.forward) for each in factors] == [(stage, (1,), 1.0) for stage in stages]
    world.placement.gain([world.cluster.slot(2, 1)])
    assert strategy.recipe_for(world, position) == PLAIN
    assert strategy.plan_for(world, plan := world.plain_plan()) is plan


def test_the_cheap_backward_of_feed_forward_parts_by_hand():
    """d = 8, f = 17, 4 tokens of context: a forward has 8 d² + 4 s d + 6 d f = 512 + 128 + 816 FLOPs a token."""
    costs = a_site(4, 4, sequence_length=4).costs
    of_matrices = 1 * (8 + 17) / (8 * 17)  # of rank 1
    assert cheap_backward(costs, 2, 0.125) == pytest.approx(816 * (2 + of_matrices) / (2 * (512 + 128 + 816)))
    assert cheap_backward(costs, 2, 1.0) == pytest.approx(816 * 3 / (2 * 1456))  # never more than the exact one


def test_a_loss_costs_a_transfer_and_then_longer_iterations():
    """One microbatch in each of two pipelines, each with a neighbour at work; gradients are exchanged for 2 s."""
    scenario = a_scenario((takeover(),), cluster=CLUSTER, network=SIX_SECONDS, num_microbatches=1, steps=6)
    scenario = with_losses(scenario, Loss(15.0, ((2, 1), (3, 0))))
    found, cheap = run(scenario), cheap_backward(a_world(scenario).costs, 2, 0.125)
    ends = [record.ended_seconds for record in found.iterations]
    resumed_seconds = 15.0 + 10.0 + 4.0 + 6.0  # detected, regrouped, two states over links of their own
    each_seconds = 4 * 1.0 + 2 * 2.0 + 2 * 2.0 * cheap + 2.0
    assert ends == pytest.approx([14.0, *(resumed_seconds + turn * each_seconds for turn in range(1, 6))], abs=1e-6)
    assert found.ledger["state_transfer"] == 6.0
    assert found.sent_bytes == 2 * CHECKPOINT_BYTES
    assert {entry for _, entry in found.edits if isinstance(entry, Recipe)} != {PLAIN}


def test_it_lasts_until_the_replacement_has_the_state():
    scenario = a_scenario((takeover(),), cluster={**CLUSTER, "provisioning_seconds": 60.0}, network=SIX_SECONDS)
    found = run(with_losses(scenario, Loss(50.0, ((2, 1),))))
    (joined,) = times(of_kind(found, "node_joined"))
    assert found.edits[-1][1] == PLAIN
    last = [record for record in found.iterations if record.started_seconds >= joined]
    assert {record.ended_seconds - record.started_seconds for record in last} == {found.iteration_seconds}


def test_all_present_it_is_the_run_of_peer():
    scenario = a_scenario((takeover(), {"kind": "peer"}), cluster=CLUSTER)
    one, plain = (run(scenario, index) for index in (0, 1))
    assert [record.ended_seconds for record in one.iterations] == [record.ended_seconds for record in plain.iterations]
    assert (one.edits, one.ledger) == ((), plain.ledger)


def test_a_stage_without_nodes_is_the_fallbacks():
    scenario = a_scenario((takeover(),), cluster={**CLUSTER, "nodes_per_stage": 1})
    found = run(with_losses(scenario, Loss(50.0, ((2, 0),))))
    assert found.stopped is not None
    assert "stage 2 has lost its last node" in found.stopped


@pytest.mark.parametrize(
    ("cluster", "sequences", "says"),
    [
        ({"nodes_per_stage": 3}, 2, "training.sequences_per_batch 2 is less than cluster.nodes_per_stage, 3"),
        ({"embedding_on": "first_stage"}, 8, "no neighbour takes over an S1 that holds the embedding too"),
    ],
)
def test_what_a_cluster_cannot_give(cluster, sequences, says):
    found = NeighbourTakeover.check_site(NeighbourTakeoverConfig(), ClusterConfig(**cluster), sequences)
    assert found is not None
    assert found.startswith(says)


def test_room_for_the_largest_neighbour_is_kept_free():
    costs = a_site(4, 4).costs
    needed = [NeighbourTakeover.extra_memory_bytes(NeighbourTakeoverConfig(), costs, stage) for stage in range(5)]
    assert needed == [0.0, *[costs.state_bytes(2)] * 4]
    assert WorkFactor(2, 1.0, 0.5, pipelines=(1,)).applies(2, 0, 1)
    assert not WorkFactor(2, 1.0, 0.5, pipelines=(1,)).applies(2, 0, 0)
