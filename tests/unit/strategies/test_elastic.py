"""Elastic batches: which pipelines run, which rows they learn, and what a missing one costs."""

from dataclasses import replace
from typing import Any

import pytest

from models.recipe import PLAIN, Recipe
from models.training_state import Position, root
from sim.cluster.topology import ClusterConfig
from sim.simulation.run import time_only
from sim.strategies import STRATEGIES, answers_lost_nodes
from sim.strategies.elastic import Elastic, ElasticConfig
from support.builders import a_scenario, a_world, of_kind, run, with_losses
from support.failure_processes import Loss

THREE = {"nodes_per_stage": 3, "provisioning_seconds": 1e6, "detection_seconds": 0.0, "startup_seconds": 0.0}
LOSS_OF_ONE = (Loss(50.0, ((2, 1),)),)  # in the third iteration of 21 s


def elastic(**options: Any) -> dict[str, Any]:
    return {"kind": "elastic", **options}


def position_of(scenario: Any) -> Position:
    return root(time_only(scenario).spec.model_copy(update={"sequences_per_batch": 6}))


def rows_without(vacancies: set[tuple[int, int]], **options: Any) -> Recipe:
    """The recipe of a cluster of three pipelines of four stages in which some places are vacant."""
    scenario = a_scenario((elastic(),), cluster=THREE)
    world = a_world(scenario)
    for stage, replica in vacancies:
        world.placement.lose(world.cluster.slot(stage, replica))
    strategy = Elastic(ElasticConfig(**options), 4)
    return strategy.recipe_for(world, position_of(scenario))


def test_the_rows_of_pipelines_that_are_there_count():
    assert rows_without(set()) == PLAIN
    assert rows_without({(2, 1)}) == Recipe(rows=(0, 1, 4, 5))
    assert rows_without({(2, 1), (3, 0)}) == Recipe(rows=(4, 5))
    assert rows_without({(2, 1)}, learning_rate="linear") == Recipe(rows=(0, 1, 4, 5), rate_factor=2 / 3)
    assert rows_without({(2, 1)}, learning_rate="sqrt").rate_factor == pytest.approx((2 / 3) ** 0.5)


def test_nodes_of_broken_pipelines_form_a_complete_one():
    assert rows_without({(2, 1), (3, 0)}, pipelines="formed_anew") == Recipe(rows=(0, 1, 4, 5))
    assert rows_without({(2, 1), (2, 0)}, pipelines="formed_anew") == Recipe(rows=(4, 5))
    world = a_world(a_scenario((elastic(),), cluster=THREE))
    for stage, replica in ((2, 1), (3, 0)):
        world.placement.lose(world.cluster.slot(stage, replica))
    plan = Elastic(ElasticConfig(pipelines="formed_anew"), 4).plan_for(world, world.plain_plan())
    assert plan.layout
    assert [slot % 3 for slot in plan.layout.slots] == [0, 2, 0, 2, 0, 2, 1, 2, 0, 2]  # S3 of pipeline 1 helps out


def test_spares_never_change_the_batch():
    for vacancies in (set(), {(2, 1)}, {(2, 0)}):
        assert rows_without(vacancies, world_size="fixed_with_spares", min_replicas=2) == Recipe(rows=(0, 1, 2, 3))


def test_all_present_it_is_the_plain_run_to_the_bit():
    scenario = a_scenario((elastic(), {"kind": "peer"}), cluster=THREE, failures={"kind": "never"})
    one, plain = (run(scenario, index) for index in (0, 1))
    assert replace(one, strategy="", kind="") == replace(plain, strategy="", kind="")
    assert one.batch_share == 1.0


def test_a_missing_pipeline_costs_rows_and_no_time():
    """With links that take no time, two pipelines take as long as three: 21 s per iteration."""
    lost = with_losses(a_scenario((elastic(), {"kind": "peer"}), cluster=THREE), *LOSS_OF_ONE)
    one, constant = (run(lost, index, training=time_only(lost)) for index in (0, 1))
    assert one.wall_clock_seconds == 20 * 21.0 + (50.0 - 42.0)  # the cut iteration is run again
    assert constant.wall_clock_seconds > one.wall_clock_seconds + 17 * 2.0  # at stage 2, two nodes do the work of three
    assert one.batch_share == pytest.approx((2 + 18 * 10 / 16) / 20)  # of the 16 rows, six are those of pipeline 1


def test_a_pipeline_comes_back_and_the_batch_grows():
    cluster = {**THREE, "provisioning_seconds": 60.0}
    scenario = with_losses(a_scenario((elastic(),), cluster=cluster), *LOSS_OF_ONE)
    found = run(scenario)
    (joined,) = of_kind(found, "node_joined")
    lines = [record.lineage for record in found.iterations]
    assert (joined.stage, joined.detail) == (2, "replica 1")
    assert len(dict.fromkeys(lines)) == 3  # all rows, four of six, all again
    assert lines[0] != lines[-1]


def test_a_pipeline_that_is_back_first_has_no_gradient():
    strategy, scenario = Elastic(ElasticConfig(first_step_without_gradient=True), 4), a_scenario(cluster=THREE)
    world, position = a_world(scenario), position_of(scenario)
    slot = world.cluster.slot(2, 1)

    def rows_after(iteration: int) -> tuple[int, ...] | None:
        return strategy.recipe_for(world, position.after(iteration)).rows

    assert rows_after(0) is None
    world.placement.lose(slot)
    assert rows_after(1) == (0, 1, 4, 5)
    world.placement.gain([slot])
    assert rows_after(2) == (0, 1, 4, 5)
    assert rows_after(2) == (0, 1, 4, 5)  # the same iteration, again after a failure
    assert rows_after(3) is None


def test_with_fewer_pipelines_than_it_needs_it_waits():
    cluster = {**THREE, "provisioning_seconds": 100.0}
    scenario = with_losses(a_scenario((elastic(min_replicas=3),), cluster=cluster), *LOSS_OF_ONE)
    found = run(scenario)
    assert found.batch_share == 1.0
    assert found.ledger["provisioning"] > 0.0
    assert found.wall_clock_seconds == 20 * 21.0 + 8.0 + found.ledger["provisioning"] + found.ledger["state_transfer"]


@pytest.mark.parametrize(
    ("options", "sequences", "says"),
    [
        ({"min_replicas": 4}, 12, "min_replicas 4 is more than cluster.nodes_per_stage, 3"),
        ({}, 2, "training.sequences_per_batch 2 is less than cluster.nodes_per_stage, 3"),
    ],
)
def test_what_a_cluster_cannot_give(options, sequences, says):
    found = Elastic.check_site(ElasticConfig(**options), ClusterConfig(nodes_per_stage=3), sequences)
    assert found is not None
    assert found.startswith(says)


def test_a_fixed_batch_has_one_learning_rate():
    fixed = ElasticConfig(world_size="fixed_with_spares", learning_rate="linear")
    assert "goes with world_size 'dynamic'" in str(Elastic.check(fixed, a_scenario().workload))


def test_losses_of_nodes_count_where_a_strategy_answers_them():
    kinds = {kind for kind in STRATEGIES if answers_lost_nodes(kind)}
    assert {"elastic", "constant_batch"} <= kinds
    assert not kinds & {"peer", "checkpoint", "checkfree", "redundant"}
    assert not answers_lost_nodes("nowhere:Nothing")
