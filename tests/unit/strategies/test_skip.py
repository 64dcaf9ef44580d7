"""Training around a lost stage: seconds, routes, what returns, and where it must wait."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.recipe import PLAIN, Recipe
from models.spec import OptimizerSpec
from models.trainer import Trainer
from models.training_state import Edit, GradientNormWeights, Moment, Position, Term
from models.trajectory import Trajectory
from sim.strategies.skip import Skip, SkipConfig
from sim.workload.config import WorkFactor, WorkloadConfig
from support.builders import (
    CHECKPOINT_BYTES,
    INSTANT,
    a_link,
    a_scenario,
    a_world,
    no_training,
    of_kind,
    run,
    start_of,
    times,
    with_losses,
)
from support.failure_processes import Loss
from support.trainings import a_corpus, spec_for

CLUSTER = {"detection_seconds": 10.0, "startup_seconds": 5.0, "regroup_seconds": 4.0, "provisioning_seconds": 60.0}
LOSS_OF_2 = Loss(50.0, ((2, 0),))  # in the third iteration of 21 s
AROUND_2 = Recipe(routes=((1, 3, 4),), validate_on_routes=True)
TWO_SECONDS = {"same_region": a_link(0.0, CHECKPOINT_BYTES / 6), "storage": INSTANT, "negligible_seconds": 1e9}
"""Of weights from node to node; hops take no time."""


def skip(**options: Any) -> dict[str, Any]:
    return {"kind": "skip", **options}


def skipped(*losses: Loss, cluster: dict[str, Any] | None = None, network: Any = None, **options: Any) -> Any:
    scenario = a_scenario((skip(**options),), cluster=cluster or CLUSTER, network=network)
    return run(with_losses(scenario, *losses))


def test_training_goes_on_around_a_stage_until_a_node_has_come():
    """Detection and regrouping, then three stages in place of four: 18 s in place of 21, until a node has started up.

    It comes at 110 s and has started at 115; at 118, when the iteration ends, it is sent the weights of S1 and S3.
    """
    found = skipped(LOSS_OF_2, network=TWO_SECONDS)
    ends = [record.ended_seconds for record in found.iterations]
    assert ends[:8] == [21.0, 42.0, 82.0, 100.0, 118.0, 120.0 + 21.0, 162.0, 183.0]
    assert found.edits == (
        (2, AROUND_2),
        (5, Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1)),
        (5, PLAIN),
    )
    assert [(event.kind, event.time_seconds) for event in found.events] == [
        ("failure", 50.0),
        ("stage_left_out", 64.0),
        ("recovered", 64.0),
        ("stage_returned", 120.0),
    ]
    booked = {name: seconds for name, seconds in found.ledger.items() if name not in ("productive_compute", BUBBLE)}
    assert {name: seconds for name, seconds in booked.items() if seconds} == {
        "lost_work": 8.0,
        "detection": 10.0,
        "provisioning": 4.0,
        "state_transfer": 2.0,
    }


BUBBLE = "bubble_and_communication"


def test_a_stale_stage_returns_from_the_last_checkpoint():
    found = skipped(LOSS_OF_2, returns="stale", interval_iterations=2)
    back = Edit(2, "sum", terms=(Term(2, 1.0, Moment(0, 2)),), optimizer="older")
    assert found.edits == ((2, AROUND_2), (5, back), (5, PLAIN))
    saved = [event.iteration for event in of_kind(found, "checkpoint_started")]
    assert saved == [2, *range(6, 21, 2)]  # none of an incomplete state


def test_before_the_first_checkpoint_a_stale_stage_is_drawn_again():
    found = skipped(LOSS_OF_2, returns="stale")
    assert found.edits[1][1].goes_back_to == Moment(0, 0)
    assert found.sent_bytes == 0.0


@pytest.mark.parametrize(("stage", "sources"), [(1, (2,)), (4, (3,))])
def test_an_end_stage_returns_as_a_copy(stage, sources):
    assert skipped(Loss(50.0, ((stage, 0),))).edits[1][1].sources == sources


def test_without_a_node_training_goes_around_the_stage_to_the_end():
    found = skipped(LOSS_OF_2, cluster={**CLUSTER, "provisioning_seconds": 1e6})
    assert found.stopped is None
    assert found.edits == ((2, AROUND_2),)
    assert found.wall_clock_seconds == 64.0 + 18 * 18.0


def test_a_node_that_is_lost_again_before_it_takes_part():
    """While it starts up nothing happens; while it is sent weights, these are sent anew to the next one."""
    again = skipped(LOSS_OF_2, Loss(62.0, ((2, 0),)), network=TWO_SECONDS)
    assert times(of_kind(again, "failure")) == [50.0, 112.0]
    assert len(of_kind(again, "recovered")) == 1
    sending = skipped(LOSS_OF_2, Loss(69.0, ((2, 0),)), network=TWO_SECONDS)  # of 118 to 120 s
    assert times(of_kind(sending, "failure")) == [50.0, 119.0]
    assert sending.ledger["state_transfer"] == 1.0 + 2.0
    assert len(of_kind(sending, "regrouped")) == 1


@pytest.mark.parametrize("most", [1, 2])
def test_a_second_stage_is_left_out_too_or_waited_for(most):
    """S3 is lost at 70 s. Where it is one too many, its node is waited for and S3 rebuilt from S1 and S4."""
    found = skipped(LOSS_OF_2, Loss(20.0, ((3, 0),)), most_skipped=most)
    left_out = [event.stage for event in of_kind(found, "stage_left_out")]
    assert left_out == [2, 3][:most]
    if most == 2:
        assert found.edits[0] == (2, Recipe(routes=((1, 4),), validate_on_routes=True))
        assert found.ledger["waiting_for_nodes"] == 0.0
    else:
        assert [edit.sources for _, edit in found.edits] == [
            (1, 4),
            (1, 3),
        ]  # S2 returns at once: its node has started meanwhile
        assert found.ledger["provisioning"] > 50.0


@pytest.mark.parametrize("options", [{}, {"loss_at": "last_stage"}])
def test_stage_0_and_the_head_cannot_be_left_out(options):
    scenario = a_scenario((skip(),), cluster=CLUSTER, **options)
    stage = 4 if options else 0
    found = run(with_losses(scenario, Loss(50.0, ((stage, 0),))))
    assert found.stopped is not None
    assert "which microbatches cannot leave out" in found.stopped


def test_the_fallback_recovers_what_is_left_out_too():
    """Stage 0 is lost at 90 s: all stages go back to the checkpoint of iteration 2, S2 with them."""
    scenario = a_scenario((skip(),), cluster=CLUSTER, fallback={"kind": "checkpoint", "interval_iterations": 2})
    found = run(with_losses(scenario, LOSS_OF_2, Loss(40.0, ((0, 0),))))
    assert [event.detail for event in of_kind(found, "rolled_back")] == ["to iteration 2"]
    assert found.edits == ()  # on the way to the last state there is no edit
    assert times(of_kind(found, "stage_returned")) == []
    saved = [event.iteration for event in of_kind(found, "checkpoint_started")]
    assert saved == [2, *range(4, 21, 2)]


def test_with_several_nodes_a_stage_goes_on_with_its_first_node():
    """Two pipelines; S2 loses both nodes, S3 one: one pipeline without S2 does all eight microbatches."""
    scenario = a_scenario((skip(),), cluster={**CLUSTER, "nodes_per_stage": 2})
    world, strategy = a_world(scenario), Skip(SkipConfig(), 4)
    for stage, replica in ((2, 0), (2, 1), (3, 0)):
        world.placement.lose(world.cluster.slot(stage, replica))
    world.leave_out(2)
    plan = strategy.plan_for(world, world.plain_plan())
    assert plan.num_microbatches == 8
    assert plan.routes == ((1, 2, 3),)
    assert plan.layout
    assert [world.cluster.place_of(slot) for slot in plan.layout.slots] == [(0, 1), (1, 1), (3, 1), (4, 1)]
    assert strategy.plan_for(world, world.plain_plan()) is not world.plain_plan()
    assert strategy.recipe_for(world, start_of(strategy)) == AROUND_2


def test_all_present_it_is_the_plain_run_to_the_bit():
    scenario = a_scenario((skip(), {"kind": "none"}))
    one, plain = (run(scenario, index) for index in (0, 1))
    assert replace(one, strategy="", kind="") == replace(plain, strategy="", kind="")
    assert one.edits == ()


# ---- what is learnt --------------------------------------------------------------------------------------------
def losses_by_hand(corpus: Any, spec: Any, num_steps: int) -> list[float]:
    """S2 is left out of steps 3 to 5; then it is the average of S1 and S3, with new moments and 1.1 × the rate."""
    model, losses = Trainer(spec, corpus).model, []
    stages = [list(stage.parameters()) for stage in model.stages]
    for parameter in (parameter for stage in stages for parameter in stage):
        parameter.data = parameter.data.clone()  # a storage of its own
    optimizers = [torch.optim.Adam(stage, spec.optimizer.learning_rate) for stage in stages]
    for step in range(num_steps):
        if step == 5:
            squares = [sum(float((each.grad**2).sum()) for each in stages[number]) for number in (1, 3)]
            share = squares[0] / sum(squares)
            for own, before, after in zip(stages[2], stages[1], stages[3], strict=True):
                own.data = share * before.data + (1 - share) * after.data
            optimizers[2] = torch.optim.Adam(stages[2], 1.1 * spec.optimizer.learning_rate)
        windows = torch.from_numpy(corpus.batch(spec.data_seed, step, spec.sequences_per_batch, spec.sequence_length))
        x = model.ends.embed(windows[:, :-1])
        for number in (1, 3, 4) if 2 <= step < 5 else (1, 2, 3, 4):
            x = model.stages[number](x)
        loss = F.cross_entropy(model.ends.logits(x).flatten(0, 1), windows[:, 1:].flatten())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for stage, optimizer in zip(stages, optimizers, strict=True):
            optimizer.step() if stage[0].grad is not None else None
        losses.append(loss.item())
    return losses


def test_the_losses_are_those_of_a_hand_written_loop(tmp_path):
    corpus = a_corpus(tmp_path)
    spec = spec_for(corpus, optimizer=OptimizerSpec(learning_rate=3e-3, clip_norm=None))
    scenario = with_losses(a_scenario((skip(),), cluster=CLUSTER, steps=10), LOSS_OF_2)
    found = run(scenario, training=Trajectory(spec, corpus, None))
    assert [record.train_loss for record in found.iterations] == pytest.approx(
        losses_by_hand(corpus, spec, 10), rel=1e-4
    )
    trainer = Trainer(spec, corpus)
    for _ in range(2):
        trainer.train_step()
    trainer.enter(AROUND_2)
    for _ in range(3):
        trainer.train_step()
    at_5 = found.iterations[4].validation_loss
    assert at_5 == pytest.approx(trainer.validation_loss(), rel=1e-6)  # around S2
    trainer.enter(PLAIN)
    assert at_5 != pytest.approx(trainer.validation_loss(), rel=1e-5)


# ---- trained skipping ---------------------------------------------------------------------------------------
def recipe_of(position: Position, share: float) -> Recipe:
    return Skip(SkipConfig(trained_share=share), 4).recipe_for(a_world(), position)


def test_microbatches_leave_out_stages_in_turn_from_the_start():
    position = start_of(Skip(SkipConfig(), 4))
    spec = position.lineage.spec.model_copy(update={"num_microbatches": 8})
    position = Position(replace(position.lineage, spec=spec), 0)
    whole = (1, 2, 3, 4)
    assert recipe_of(position, 0.0) == PLAIN
    half = (whole, (2, 3, 4), whole, (1, 3, 4), whole, (1, 2, 4), whole, (1, 2, 3))
    assert recipe_of(position, 0.5) == Recipe(routes=half)
    assert recipe_of(position, 1.0).routes == ((2, 3, 4), (1, 3, 4), (1, 2, 4), (1, 2, 3)) * 2
    assert recipe_of(position, 0.25).routes == (whole, whole, (2, 3, 4), whole, whole, whole, (1, 2, 4), whole)


def test_trained_skipping_saves_the_seconds_of_the_stages_left_out():
    plan = Skip(SkipConfig(trained_share=0.5), 4).adapt_plan(a_world().plain_plan())
    assert plan.factors == (WorkFactor(1, 0.0, 0.0, (1,)), WorkFactor(3, 0.0, 0.0, (3,)))
    found, plain = (
        run(scenario, training=no_training(scenario))
        for scenario in (a_scenario((skip(trained_share=share),)) for share in (0.5, 0.0))
    )
    assert (found.iteration_seconds, plain.iteration_seconds) == (20.0, 21.0)
    one_microbatch = a_scenario((skip(trained_share=1.0),), num_microbatches=1)
    assert run(one_microbatch).wall_clock_seconds == 20 * 9.0  # three stages, of 3 s each


@pytest.mark.parametrize(
    ("options", "workload", "says"),
    [
        ({"most_skipped": 3}, {}, "most_skipped 3 of 4 stages leaves fewer than 2: at most 2"),
        ({}, {"num_stages": 2}, "most_skipped 1 of 2 stages leaves fewer than 2: it needs at least 3 stages"),
        ({}, {"schedule": "interleaved_1f1b"}, "schedule 'interleaved_1f1b' needs"),
        ({"interval_iterations": 10}, {}, "interval_iterations goes with returns 'stale', found 'rebuilt'"),
        ({"returns": "stale", "learning_rate_factor": 1.2}, {}, "learning_rate_factor goes with returns 'rebuilt'"),
    ],
)
def test_impossible_options(options, workload, says):
    found = Skip.check(SkipConfig(**options), WorkloadConfig(**{"num_stages": 4, **workload}))
    assert found is not None
    assert found.startswith(says)
