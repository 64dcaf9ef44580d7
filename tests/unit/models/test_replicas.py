"""Replicas that train apart and are merged: plain training for one, a hand-written loop of DiLoCo for several."""

from contextlib import closing
from copy import deepcopy

import pytest
import torch

from models.curve import CurveTraining
from models.recipe import PLAIN, REST, Recipe, rows_of_parts
from models.replicas import averaged_in_pairs, joined, rows_learnt, split, synchronised, with_replica, without
from models.shared_training import SharedTraining
from models.spec import OptimizerSpec, plain_routes
from models.training import NoTraining, ReplayedTraining
from models.training_plan import DemandRecorder, Demands, num_steps
from models.training_state import DivergedError, Merge, Position, root
from models.trajectory import Trajectory
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import InProcess
from sim.experiments.state_training import train
from sim.experiments.training_workers import TrainingWorkers
from support.local_steps import DiLoCo
from support.trainings import AVERAGE_2, NUM_STAGES, bits, spec_for

PLAIN_OUTER = {"rate": 1.0, "momentum": 0.0}
NESTEROV = {"rate": 0.7, "momentum": 0.9}


def parts(num_replicas: int) -> list[Recipe]:
    """Recipes that share the rows of a batch of 4 among replicas."""
    return [Recipe(rows=rows_of_parts((part,), num_replicas, 4)) for part in range(num_replicas)]


def beginning(trajectory: Trajectory) -> Position:
    return trajectory.root(plain_routes(NUM_STAGES))


@pytest.mark.parametrize("every", [1, 3])
def test_one_replica_that_is_averaged_is_plain_training_to_the_bit(corpus, spec, every):
    plain, alone = Trajectory(spec, corpus, None), Trajectory(spec, corpus, None)
    before = beginning(plain).after(2)
    position = split(before, [PLAIN])
    for step in range(3, 10):
        position = position.after(step)
        assert alone.train_loss(position) == plain.train_loss(before.after(step))
        if step % every == 0:
            position = synchronised(position, **PLAIN_OUTER)
            assert alone.train_loss(position) == plain.train_loss(before.after(step))
            assert alone.validation_loss(position) == plain.validation_loss(before.after(step))
    assert bits(alone.state_at(position.replicas[0])) == bits(plain.state_at(before.after(9)))
    assert alone.num_trained_steps == plain.num_trained_steps == 9


def test_replicas_follow_a_hand_written_loop_of_diloco(corpus, spec):
    """Three replicas, three rounds of four steps."""
    loop, trajectory = DiLoCo(spec, corpus, [[0, 3], [1], [2]]), Trajectory(spec, corpus, None)
    position = split(beginning(trajectory), [Recipe(rows=(0, 3)), Recipe(rows=(1,)), Recipe(rows=(2,))])
    for step in range(1, 13):
        position = position.after(step)
        one, two, three = loop.inner_step()
        assert trajectory.train_loss(position) == pytest.approx((2 * one + two + three) / 4, rel=2e-5)
        if step % 4 == 0:
            position = synchronised(position, **NESTEROV)
            loop.outer_step([0, 1, 2])
            assert trajectory.validation_loss(position) == pytest.approx(loop.validation_loss(), rel=2e-5)
    assert trajectory.num_trained_steps == 3 * 12


def test_replicas_that_average_in_pairs_follow_a_hand_written_loop(corpus, spec):
    """Four replicas, and another partner each time; the loss is that of the mean of all."""
    loop, trajectory = DiLoCo(spec, corpus, [[0], [1], [2], [3]]), Trajectory(spec, corpus, None)
    position = split(beginning(trajectory), parts(4))
    rounds = [((0, 3), (1, 2)), ((0, 1), (2, 3)), ((0, 2),)]
    for step in range(1, 10):
        position = position.after(step)
        assert trajectory.train_loss(position) == pytest.approx(sum(loop.inner_step()) / 4, rel=2e-5)
        if step % 3 == 0:
            pairs = rounds[step // 3 - 1]
            position = averaged_in_pairs(position, pairs, range(4))
            for pair in pairs:
                loop.average(pair)
            assert trajectory.validation_loss(position) == pytest.approx(loop.loss_of_mean(), rel=2e-5)
    assert trajectory.num_trained_steps == 4 * 9


@pytest.mark.parametrize("same_rows", [False, True])
def test_a_replica_may_miss_a_merge_and_join_again(corpus, spec, same_rows):
    """Its rows are not learnt meanwhile; it starts from the global weights, with its own Adam's state or a new one."""
    recipes = [Recipe(rows=(0, 3)), Recipe(rows=(1,)), Recipe(rows=(2,))]
    loop, trajectory = DiLoCo(spec, corpus, [[0, 3], [1], [2]]), Trajectory(spec, corpus, None)
    position = split(beginning(trajectory), recipes)
    for step in range(1, 13):
        position = position.after(step)
        one, two, three = loop.inner_step()
        there = position.replicas[1] is not None
        expected = (2 * one + two + three) / 4 if there else (2 * one + three) / 3
        assert trajectory.train_loss(position) == pytest.approx(expected, rel=2e-5)
        if step == 6:
            position = without(position, 1)
            assert trajectory.train_loss(position) == pytest.approx((2 * one + three) / 3, rel=2e-5)
        if step % 4 == 0:
            present = [number for number, replica in enumerate(position.replicas) if replica]
            position = synchronised(position, **NESTEROV)
            loop.outer_step(present)
            assert trajectory.validation_loss(position) == pytest.approx(loop.validation_loss(), rel=2e-5)
        if step == 8:
            position = joined(position, 1, recipes[1], 2 if same_rows else "fresh")
            loop.receive(1)
            loop.inner[1].state.clear()
            if same_rows:
                loop.inner[1].load_state_dict(deepcopy(loop.inner[2].state_dict()))
            assert trajectory.train_loss(position) == pytest.approx((2 * one + three) / 3, rel=2e-5)
    assert trajectory.num_trained_steps == 3 * 12 - 2


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("taken_before", [0, 2])
def test_fragments_and_older_states_are_merged_as_by_hand(corpus, spec, tmp_path, stored, taken_before):
    """A fragment after each round in turn, of states of some steps before, of which replicas take half."""
    store = TrajectoryStore(tmp_path) if stored else None
    trajectory = Trajectory(spec, corpus, store)
    loop = DiLoCo(spec, corpus, [[0, 1], [2, 3]])
    position, fragments = split(beginning(trajectory), parts(2)), [(0, 2), (1, 3, 4)]
    for step in range(1, 10):
        position = position.after(step)
        loop.inner_step()
        if step % 3 == 3 - taken_before:
            taken = position.replicas
            older = [[flat.detach().clone() for flat in model.flat] for model in loop.models]
        if step % 3 == 0:
            fragment = fragments[step // 3 % 2]
            taken = taken if taken_before else None
            position = synchronised(position, **NESTEROV, stages=fragment, mixing=0.5, taken=taken)
            others = older if taken_before else [model.flat for model in loop.models]
            with torch.no_grad():
                for number, weights in enumerate(loop.weights):
                    weights.grad = (
                        (weights - torch.stack([other[number] for other in others]).mean(dim=0))
                        if number in fragment
                        else None
                    )
                loop.outer.step()
                for model in loop.models:
                    for number in fragment:
                        model.flat[number].copy_(0.5 * model.flat[number] + 0.5 * loop.weights[number])
            assert trajectory.validation_loss(position) == pytest.approx(loop.validation_loss(), rel=2e-5)
    if stored:
        trajectory.flush()
        again = Trajectory(spec, corpus, TrajectoryStore(tmp_path))
        assert again.validation_loss(position) == trajectory.validation_loss(position)
        assert again.num_trained_steps == 0


def rounds(position: Position, num_rounds: int, every: int) -> list[Position]:
    """Every state of a training with merges, before and after them."""
    passed = []
    for _ in range(num_rounds):
        passed += [position.after(position.step + number) for number in range(1, every + 1)]
        position = synchronised(passed[-1], **NESTEROV)
        passed.append(position)
    return passed


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("num_replicas", [2, 4])
def test_replicas_asked_for_in_turn_train_each_step_once(corpus, spec, tmp_path, stored, num_replicas):
    trajectory = Trajectory(spec, corpus, TrajectoryStore(tmp_path) if stored else None)
    recorder = DemandRecorder(spec)
    found = []
    for position in rounds(split(beginning(trajectory), parts(num_replicas)), 5, 2):
        found.append((trajectory.train_loss(position), trajectory.validation_loss(position)))
        assert recorder.train_loss(position) is recorder.validation_loss(position) is None
    assert trajectory.num_trained_steps == num_steps(recorder.demands) == num_replicas * 10
    at_once = Trajectory(spec, corpus, None)
    assert at_once.train_loss(position) == found[-1][0]
    assert at_once.validation_loss(position) == found[-1][1]
    assert at_once.num_trained_steps == num_replicas * 10
    if stored:
        trajectory.flush()
        again = Trajectory(spec, corpus, TrajectoryStore(tmp_path))
        assert again.train_loss(position.after(11)) > 0
        assert again.num_trained_steps == num_replicas, "each goes on from a stored state"


def test_replicas_that_do_the_same_share_their_steps(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    position = split(beginning(trajectory), [Recipe(rows=(0, 1))] * 3)
    alone = beginning(trajectory).entered(Recipe(rows=(0, 1)))
    for step in range(1, 5):
        assert trajectory.train_loss(position.after(step)) == trajectory.train_loss(alone.after(step))
    assert trajectory.num_trained_steps == 4


def test_the_divergence_of_a_replica_ends_its_training_and_that_of_its_merges(corpus, tmp_path):
    """Planned and live, with the same message; the other replica alone goes on."""
    wild = spec_for(corpus, optimizer=OptimizerSpec(learning_rate=3e-3, clip_norm=1e30))
    start = root(wild)
    recipes = [Recipe(rows=(0, 1)), Recipe(rows=(2, 3), rate_factor=1e30)]
    before = split(start, recipes).after(4)
    after = synchronised(before, **NESTEROV)
    lonely = without(after, 1).after(6)
    with pytest.raises(DivergedError) as live:
        Trajectory(wild, corpus, None).train_loss(before)
    recorder = DemandRecorder(wild)
    for position in (before, lonely, after.after(6)):
        recorder.train_loss(position)
        recorder.validation_loss(position)
    shared = SharedTraining(TrajectoryStore(tmp_path))
    train_all(shared, recorder.demands, corpus)
    known = ReplayedTraining(wild, 1, shared.losses(recorder.demands))
    assert known.train_loss(without(before, 1)) == Trajectory(wild, corpus, None).train_loss(without(before, 1))
    for question, position in ((known.train_loss, before), (known.validation_loss, after), (known.train_loss, lonely)):
        with pytest.raises(DivergedError) as planned:
            question(position)
        assert str(planned.value) == str(live.value)


def train_all(shared: SharedTraining, demands: Demands, corpus) -> None:
    """Train what demands need as a sweep does, in this process."""
    with closing(InProcess()) as executor:
        train(demands, shared, TrainingWorkers(executor, [corpus]), executor, lambda _: None)


@pytest.mark.parametrize(("max_steps", "slots"), [(1, 1), (3, 1), (50, 2)])
def test_planned_replicas_have_the_losses_of_live_ones(corpus, tmp_path, max_steps, slots):
    """Those of stacks to the bit, too."""
    spec = spec_for(corpus, replicates_at_once=slots)
    live, recorder = Trajectory(spec, corpus, None), DemandRecorder(spec)
    passed = rounds(split(beginning(live).after(2).edited(AVERAGE_2), parts(3)), 3, 4)
    passed[6:] = rounds(joined(without(passed[5], 0), 0, PLAIN, 1), 2, 3)
    for position in passed:
        recorder.train_loss(position)
        recorder.validation_loss(position)
    shared = SharedTraining(TrajectoryStore(tmp_path), max_steps)
    train_all(shared, recorder.demands, corpus)
    assert shared.num_trained_steps == num_steps(recorder.demands)
    assert shared.plan(recorder.demands) == []
    known = ReplayedTraining(spec, 1, shared.losses(recorder.demands))
    for position in passed:
        assert known.train_loss(position) == live.train_loss(position)
        assert known.validation_loss(position) == live.validation_loss(position)


def test_the_global_weights_rest_between_merges(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    position = split(beginning(trajectory).after(2), parts(2))
    assert position.settled == position.after(9).settled
    loss = trajectory.validation_loss(position)
    assert (
        loss
        == trajectory.validation_loss(position.after(9))
        == trajectory.validation_loss(beginning(trajectory).after(2))
    )
    alone = beginning(trajectory).after(2).entered(REST).after(5)
    assert trajectory.train_loss(alone) is None
    assert trajectory.validation_loss(alone) == loss
    assert trajectory.num_trained_steps == 2
    nobody = without(without(position, 0), 1).after(6)
    assert trajectory.train_loss(nobody) is None
    assert NoTraining(spec).train_loss(position.after(3)) is None


def test_names_of_replicas_say_what_they_are_made_of(spec):
    start = root(spec)
    position = split(start, parts(2)).after(4)
    one = synchronised(position, **NESTEROV)
    others = [
        synchronised(position, rate=0.7, momentum=0.8),
        synchronised(position, rate=0.6, momentum=0.9),
        synchronised(position, **NESTEROV, stages=(1,)),
        synchronised(position, **NESTEROV, present=[0]),
        synchronised(position, **NESTEROV, shares=(3, 1)),
        synchronised(position.after(5), **NESTEROV),
        synchronised(position, **NESTEROV, taken=split(start, parts(2)).after(3).replicas),
    ]
    assert len({each.lineage.key for each in (one, *others)}) == len(others) + 1
    assert synchronised(position, **NESTEROV, shares=(2, 2)) == one
    assert synchronised(position, **NESTEROV, shares=(6, 2)) == others[4]
    assert synchronised(position, **NESTEROV, mixing=0.5).lineage == one.lineage
    assert one.replicas[0].lineage.rank == one.lineage.rank + 1 == 3
    assert start.after(9).edited(AVERAGE_2, AVERAGE_2).entered(REST).lineage.rank == 3
    late = synchronised(position, **NESTEROV, present=[1])
    assert late.replicas[0] == position.replicas[0]
    assert joined(one, 0, parts(2)[0], 1) == with_replica(one, 0, one.replicas[1].entered(parts(2)[0]))


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("at least one state of a single line", {"sources": ()}),
        ("at least one state of a single line", {"sources": "replicas"}),
        ("one share for each of 1 sources, found 2", {"shares": (1, 2)}),
        ("shares are finite and above 0", {"shares": (0,)}),
        ("rate is finite and above 0, found 0", {"rate": 0}),
        ("momentum is at least 0 and below 1, found 1", {"momentum": 1}),
        ("stages are at least one number from 0", {"stages": ()}),
        ("stages are at least one number from 0", {"stages": (-1,)}),
        ("stages are 0 to 4, found 5", {"stages": (5,)}),
        ("a source is of step 9, which is later", {"sources": "later"}),
        ("a source is of another training", {"sources": "other"}),
    ],
)
def test_a_merge_that_cannot_be_made_is_refused(spec, message, wrong):
    start = root(spec).after(3)
    other = root(spec.model_copy(update={"data_seed": 9}))
    named = {"replicas": (split(start, [PLAIN]),), "later": (start.after(9),), "other": (other,)}
    fields = {"sources": (start,), **wrong}
    fields["sources"] = named.get(fields["sources"], fields["sources"])
    with pytest.raises(ValueError, match=message):
        start.entered(REST).merged(Merge(**fields))


def test_rows_are_counted_since_a_step(spec):
    position = split(root(spec).after(3), [Recipe(rows=(0, 1, 2)), Recipe(rows=(3,))]).after(10)
    assert [rows_learnt(replica, 0) for replica in position.replicas] == [3 * 4 + 7 * 3, 3 * 4 + 7]
    assert [rows_learnt(replica, 6) for replica in position.replicas] == [4 * 3, 4]
    position = joined(synchronised(position, **NESTEROV), 1, Recipe(rows=(3,)), "fresh").after(12)
    assert [rows_learnt(replica, 6) for replica in position.replicas] == [6 * 3, 2]
    assert rows_learnt(position, 0) == 3 * 4, "the global line learns nothing itself"


def test_texts_of_states_do_not_grow_with_every_merge(spec):
    (*_, position) = rounds(split(root(spec), parts(2)), 40, 2)
    assert len(repr(position)) < 100_000


def test_replicas_that_are_not_there_are_refused(spec):
    position = without(split(root(spec), parts(2)).after(3), 1)
    gone = "replicas: number 1 takes no part"
    for message, call in (
        (gone, lambda: without(position, 1)),
        (gone, lambda: synchronised(position, **NESTEROV, present=[0, 1])),
        (gone, lambda: joined(position, 0, PLAIN, 1)),
        ("2 of them, found 1 shares", lambda: synchronised(position, **NESTEROV, shares=(1,))),
        ("a state is taken of each replica", lambda: synchronised(position, **NESTEROV, taken=(None, None))),
        ("numbers are 0 to 1, found 2", lambda: with_replica(position, 2, root(spec).after(3))),
        (
            "after iteration 3, found one after iteration 2",
            lambda: with_replica(position, 1, root(spec).after(2)),
        ),
        ("after iteration 3, found 2 replicas", lambda: with_replica(position, 1, position)),
        ("at least one recipe", lambda: split(root(spec), [])),
        ("entries are made in the state of a replica", lambda: position.edited(AVERAGE_2)),
        ("entries are made in the state of a replica", lambda: position.entered(PLAIN)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_curve_adds_up_what_the_replicas_gain(spec):
    curve = CurveTraining(spec)
    start = curve.root(plain_routes(NUM_STAGES)).after(10)
    plain, position = start.after(30), split(start, parts(2)).after(30)
    assert curve.validation_loss(position) == curve.validation_loss(start)
    assert curve.validation_loss(synchronised(position, **NESTEROV)) == pytest.approx(curve.validation_loss(plain))
    lost = synchronised(without(position, 0), **NESTEROV)
    assert curve.validation_loss(lost) == pytest.approx(curve.validation_loss(start.after(20)))
    alone = synchronised(split(start, [PLAIN]).after(30), **PLAIN_OUTER).after(40)
    assert curve.train_loss(alone) == pytest.approx(curve.train_loss(start.after(40)))
