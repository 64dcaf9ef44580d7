"""Stacked replicates: the losses of the trainer, and bits that no company, slot or interruption changes."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from models.segment import train_segments
from models.spec import ModelSpec, OptimizerSpec, odd_sizes, swapped_routes
from models.stacked import TOLERANCE, Stack, open_trainer
from models.trainer import Trainer
from models.training_plan import Segment
from models.training_state import DivergedError, Lineage, Position, root
from models.trajectory import Trajectory, environment_key, environment_of
from models.trajectory_store import TrajectoryStore
from support.trainings import AROUND_3, AVERAGE_2, AVERAGE_3, COPY_1, FRESH_4, OWN_3, RECIPES, as_of, bits, spec_for

SLOTS = 3


def stacked(corpus, seed=1, **changes):
    """A spec of which three replicates are trained at once."""
    return spec_for(corpus, **{"init_seed": seed, "data_seed": seed + 10, "replicates_at_once": SLOTS, **changes})


def segment_of(position: Position, first_step=0, validations=()) -> Segment:
    """A segment from the beginning of a line without edits, or from the last edit on."""
    lineage = position.lineage
    start = Position(lineage.first(0), first_step) if first_step else None
    entered = tuple(lineage.first(number) for number in range(1, len(lineage.edits) + 1))
    return Segment(lineage, first_step, position.step, start, entered, frozenset(validations))


def trained(corpus, *work):
    """Segments with their starts, trained in one stack."""
    spec = work[0][0].lineage.spec
    return train_segments(work, corpus, environment_of(spec))


SIZES = [
    {"model": ModelSpec(dim=16, num_heads=2, num_stages=4), "optimizer": OptimizerSpec(learning_rate=0.01)},
    {
        "model": ModelSpec(dim=32, num_heads=2, num_stages=4, layers_per_stage=2),
        "optimizer": OptimizerSpec(learning_rate=0.01, clip_norm=0.05, warmup_steps=4, beta2=0.95),
        "routes": swapped_routes(4),
    },
    {
        "model": ModelSpec(family="gpt", dim=16, num_heads=2, num_stages=4),
        "optimizer": OptimizerSpec(learning_rate=0.01, clip_norm=None, decay="cosine", decay_steps=8),
    },
]


FORKS = {
    "sizes": st.sampled_from(SIZES),
    "recipe": st.sampled_from(RECIPES),
    "edits": st.lists(st.sampled_from([AVERAGE_2, AVERAGE_3, OWN_3, COPY_1, FRESH_4]), min_size=1, max_size=3),
    "seeds": st.lists(st.integers(0, 99), min_size=2, max_size=SLOTS, unique=True),
    "fork": st.integers(1, 4),
}
COMPANIES = {
    "sizes": st.sampled_from(SIZES),
    "recipe": st.sampled_from(RECIPES),
    "precision": st.sampled_from(["fp32", "bf16"]),
    "num_steps": st.lists(st.integers(1, 5), min_size=2, max_size=SLOTS),
    "order": st.randoms(use_true_random=False),
}
few = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(few, max_examples=20)


def check_losses(corpus, sizes, recipe, edits, seeds, fork):
    """Losses, norms and validations of a stack beside the trainer's; the first replicate has no edit."""
    work, trainers = [], []
    for number, seed in enumerate(seeds):
        trainer = Trainer(stacked(corpus, seed, **sizes), corpus)
        for _ in range(fork):
            trainer.train_step()
        start = {name: tensor.clone() for name, tensor in trainer.snapshot().items()}
        position = root(trainer.spec).after(fork).entered(recipe)
        trainer.enter(position.lineage.recipe)
        for edit in edits if number else []:
            trainer.apply(edit)
            position = position.edited(edit)
        trainers.append(trainer)
        segment = segment_of(position.after(fork + 6), fork, {fork, fork + 4})
        work.append((segment, save(start), {}))
    for done, trainer in zip(trained(corpus, *work), trainers, strict=True):
        assert done.results.validations[fork] == pytest.approx(trainer.validation_loss(), rel=TOLERANCE)
        for step in range(fork + 1, fork + 7):
            expected, found = trainer.train_step(), done.results.steps[step]
            assert found.train_loss == pytest.approx(expected.train_loss, rel=TOLERANCE)
            assert found.gradient_norms == pytest.approx(expected.gradient_norms, rel=1e-2)
            if step == fork + 4:
                assert done.results.validations[step] == pytest.approx(trainer.validation_loss(), rel=TOLERANCE)


@few
@given(**FORKS)
def test_losses_are_the_trainers_within_the_tolerance(corpus, sizes, recipe, edits, seeds, fork):
    check_losses(corpus, sizes, recipe, edits, seeds, fork)


@pytest.mark.slow
@many
@given(**FORKS)
def test_many_losses_are_the_trainers_within_the_tolerance(corpus, sizes, recipe, edits, seeds, fork):
    check_losses(corpus, sizes, recipe, edits, seeds, fork)


def check_bits(corpus, sizes, recipe, precision, num_steps, order):
    """Bits of replicates alone and together, of unequal lengths, some after an edit."""
    work = []
    for seed, steps in enumerate(num_steps):
        position = root(stacked(corpus, seed, precision=precision, **sizes))
        position = (position.edited(COPY_1) if seed % 2 else position).entered(recipe)
        work.append((segment_of(position.after(steps), 0, {0, steps}), None, {}))
    alone = {segment: trained(corpus, (segment, start, older)) for segment, start, older in work}
    order.shuffle(work)
    for (segment, _, _), done in zip(work, trained(corpus, *work), strict=True):
        assert [done] == alone[segment]
        assert done.state is not None


@few
@given(**COMPANIES)
def test_company_and_slot_change_no_bit(corpus, sizes, recipe, precision, num_steps, order):
    check_bits(corpus, sizes, recipe, precision, num_steps, order)


@pytest.mark.slow
@many
@given(**COMPANIES)
def test_company_and_slot_change_no_bit_of_many(corpus, sizes, recipe, precision, num_steps, order):
    check_bits(corpus, sizes, recipe, precision, num_steps, order)


def test_a_worker_of_another_environment_trains_no_stack(corpus):
    segment = segment_of(root(stacked(corpus)).after(3))
    with pytest.raises(RuntimeError, match="would compute other bits"):
        train_segments([(segment, None, {})], corpus, environment_key())


def test_a_replicate_that_diverges_harms_no_other(corpus):
    spec = stacked(corpus, 1)
    (alone,) = trained(corpus, (segment_of(root(spec).after(6), 0, {6}), None, {}))
    other = stacked(corpus, 2)
    trainer = Trainer(other, corpus)
    state = {name: tensor.clone() for name, tensor in trainer.snapshot().items()}
    trainer.restore(state)
    state["rate_factors"][2] = torch.tensor([1e30, float("inf"), 0.0])  # a far too high rate of one stage
    bad = Segment(Lineage(other), 0, 6, Position(Lineage(other), 0), (), frozenset({0, 6}))
    diverged, fine = trained(corpus, (bad, save(state), {}), (segment_of(root(spec).after(6), 0, {6}), None, {}))
    assert fine == alone
    assert diverged.state is None
    last_step = max(diverged.results.steps)
    assert f"at step {last_step + 1} is" in diverged.divergence
    assert diverged.results.validations.keys() == {0}
    alone_too = open_trainer(other, corpus)
    alone_too.restore(state)
    for _ in range(last_step):
        alone_too.train_step()
    before = bits(alone_too)
    with pytest.raises(DivergedError) as error:
        alone_too.train_step()
    assert str(error.value) == diverged.divergence
    assert bits(alone_too) == before, "weights are those before the step"
    assert alone_too.step == last_step


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16", "replicates_at_once": 1}])
def test_straight_resumed_and_forked_trainings_have_equal_bits(corpus, tmp_path, changes):
    """By a trajectory with a store, by segments, and by one trainer."""
    spec = stacked(corpus, **changes)
    fork = root(spec).after(4)
    rebuilt = fork.edited(AVERAGE_2).after(6)
    restored = rebuilt.edited(as_of(3, fork.moment)).after(9)
    straight = Trajectory(spec, corpus, None)
    expected = [straight.train_loss(restored), straight.validation_loss(restored)]
    for _ in range(2):
        trajectory = Trajectory(spec, corpus, TrajectoryStore(tmp_path), keyframe_interval_steps=3)
        trajectory.train_loss(rebuilt)
        trajectory.flush()
    assert trajectory.num_trained_steps == 0
    assert [trajectory.train_loss(restored), trajectory.validation_loss(restored)] == expected
    first = trained(corpus, (segment_of(fork), None, {}))[0]
    second = trained(corpus, (segment_of(rebuilt, 4), first.state, {}))[0]
    third = Segment(restored.lineage, 6, 9, rebuilt, (restored.lineage,), frozenset({9}))
    done = trained(corpus, (third, second.state, {fork: first.state}))[0]
    assert [done.results.steps[9].train_loss, done.results.validations[9]] == expected
    found = load(done.state)
    assert {name: tensor.numpy().tobytes() for name, tensor in found.items()} == bits(straight.state_at(restored))


def test_stages_left_out_of_a_stack_keep_their_state(corpus):
    """Also after a divergence, where step counts are taken back."""
    trainer = open_trainer(stacked(corpus), corpus)
    trainer.train_step()
    before = bits(trainer)
    trainer.enter(AROUND_3)
    norms = [trainer.train_step().gradient_norms[3] for _ in range(3)]
    after = bits(trainer)
    own = [name for name in before if name.split(".")[1:2] == ["3"]]
    assert all(after[name] == before[name] for name in own)
    assert all(after[name] != before[name] for name in before if "." in name and name not in own)
    assert norms == [0.0] * 3
    state = trainer.snapshot()
    assert state["gradient_norms"][3] > 0.0
    state["rate_factors"][2] = torch.tensor([1e30, float("inf"), 0.0])
    trainer.restore(state)
    with pytest.raises(DivergedError):
        [trainer.train_step() for _ in range(9)]
    assert trainer.snapshot()["adam.3.step"] == 1.0
    assert trainer.snapshot()["adam.2.step"] == trainer.step


def test_segments_of_different_recipes_are_no_stack(corpus):
    first, second = (root(stacked(corpus, seed)).after(2) for seed in (1, 2))
    entered = second.entered(AROUND_3).after(4)
    assert segment_of(first).kind == segment_of(second).kind != segment_of(entered, 2).kind
    with pytest.raises(ValueError, match="a stack trains by one recipe, found 2"):
        trained(corpus, (segment_of(first), None, {}), (segment_of(entered), None, {}))


def test_bf16_learns_about_the_same_with_other_bits(corpus):
    precise, coarse = (
        open_trainer(stacked(corpus, precision=precision, optimizer=OptimizerSpec(learning_rate=0.01)), corpus)
        for precision in ("fp32", "bf16")
    )
    pairs = [(precise.train_step().train_loss, coarse.train_step().train_loss) for _ in range(20)]
    assert all(rough == pytest.approx(exact, rel=0.02) and rough != exact for exact, rough in pairs)
    assert {tensor.dtype for name, tensor in coarse.snapshot().items() if "." in name} == {torch.float32}


def test_what_decides_bits_is_in_the_key(corpus):
    plain = stacked(corpus, replicates_at_once=1)
    others = [
        plain.model_copy(update=change)
        for change in ({"precision": "bf16"}, {"replicates_at_once": 2}, {"replicates_at_once": 3})
    ]
    assert len({Lineage(spec).key for spec in (plain, *others)}) == 4
    assert "device" not in plain.model_dump_json()
    assert environment_of(plain) == environment_key()
    assert not plain.is_stacked
    assert all(spec.is_stacked and environment_of(spec) != environment_key() for spec in others)
    assert isinstance(open_trainer(plain, corpus), Trainer)


def test_slots_need_equal_alignments_and_one_spec(corpus):
    model = ModelSpec(dim=20, num_heads=2, num_stages=4, hidden_dim=33)
    assert odd_sizes(model, 24) == {"model.dim": 20, "model.hidden_dim": 33, "sequence_length": 24}
    with pytest.raises(ValueError, match="multiples of 16"):
        Stack(stacked(corpus, model=model), corpus)
    alone = open_trainer(stacked(corpus, model=model, replicates_at_once=1, precision="bf16"), corpus)
    alone.train_step()
    stack, spec = Stack(stacked(corpus), corpus), stacked(corpus, optimizer=OptimizerSpec(clip_norm=0.3))
    with pytest.raises(ValueError, match="differ in seeds alone"):
        stack.load([(spec, Trainer(spec, corpus).snapshot())])


def test_slots_that_differ_are_noticed(corpus):
    """As on a device whose kernels treat slots differently."""
    spec = stacked(corpus)
    stack = Stack(spec, corpus)
    stack.load([(spec, Trainer(spec, corpus).snapshot())])
    with torch.no_grad():
        stack.weights[2] *= 1.01
    stack.train_step()
    with pytest.raises(RuntimeError, match=r"set training\.replicates_at_once to 1"):
        stack.collect()


@pytest.mark.parametrize("family", ["llama", "gpt"])
def test_all_tensors_of_a_step_are_on_the_device(corpus, monkeypatch, family):
    """A device without storage stands for a GPU: an operation that mixes devices would fail."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model = ModelSpec(family=family, dim=16, num_heads=2, num_stages=4)
    spec = stacked(corpus, model=model, routes=swapped_routes(4)).model_copy(update={"device": "meta"})
    stack = Stack(spec, corpus)
    stack.load([(spec, Trainer(spec, corpus).snapshot())])
    stack.train_step()
    assert {tensor.device.type for tensor in (stack.weights, stack.exp_avg, *stack._results[0])} == {"meta"}


def test_a_stack_too_large_for_its_device_says_so(corpus, monkeypatch):
    def allocate(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stack, "load", allocate)
    segment = segment_of(root(stacked(corpus)).after(3))
    with pytest.raises(MemoryError, match=r"a stack of 3 on cpu: lower training\.replicates_at_once"):
        trained(corpus, (segment, None, {}))


def test_no_warning_reaches_the_user(corpus):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_trainer(stacked(corpus), corpus).train_step()
