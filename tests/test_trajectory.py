"""The heart of the project: one Position, one set of bits, whatever the way to it."""

import sqlite3
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.corpus import load_corpus
from models.lineage import (
    DataSpec,
    Edit,
    GradientNormWeights,
    Lineage,
    ModelSpec,
    OptimizerSpec,
    Position,
    TrainingSpec,
    plain_routes,
    swapped_routes,
)
from models.store import TrajectoryStore
from models.trainer import Trainer
from models.trajectory import Trajectory

NUM_STAGES = 4
AVERAGE_2 = Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1)
AVERAGE_3 = Edit(3, "average", (2, 4), GradientNormWeights(exponent=1.0, after_clip=True, epsilon=1e-4))
COPY_1 = Edit(1, "copy", (2,), optimizer="average", learning_rate_factor=1.2, learning_rate_half_life_steps=5.0)
FRESH_4 = Edit(4, "fresh")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number in range(8):
        text = "".join(f"line {i} of {number}: {i * number % 97} bottles\n" for i in range(300))
        (folder / f"{number}.txt").write_text(text)
    return load_corpus(DataSpec(source="text", files=("*.txt",)), folder, None)


@pytest.fixture
def spec(corpus):
    return spec_for(corpus)


def spec_for(corpus, **changes) -> TrainingSpec:
    values = {
        "model": ModelSpec(dim=16, num_heads=2, num_stages=NUM_STAGES),
        "optimizer": OptimizerSpec(learning_rate=3e-3, clip_norm=0.5),
        "corpus": corpus.content_hash,
        "vocabulary_size": corpus.vocabulary_size,
        "sequences_per_batch": 4,
        "num_microbatches": 4,
        "sequence_length": 16,
        "num_validation_sequences": 8,
        "init_seed": 1,
        "data_seed": 2,
        "routes": plain_routes(NUM_STAGES),
    }
    return TrainingSpec(**{**values, **changes})


def open_store(tmp_path, name="cache", **options):
    return TrajectoryStore(tmp_path / name, **options)


def bits(trainer: Trainer) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in trainer.snapshot().items()}


def losses(trajectory: Trajectory, position: Position, last: int) -> list[float]:
    return [trajectory.train_loss(position.after(step)) for step in range(position.step + 1, last + 1)]


def forked(trajectory: Trajectory) -> Position:
    """Two lost stages at step 7, one of them again at 7, two more edits at 12."""
    start = trajectory.root(swapped_routes(NUM_STAGES))
    first = start.after(7).edited(AVERAGE_2, FRESH_4).edited(AVERAGE_3)
    return first.after(12).edited(COPY_1)


def test_a_lineage_has_the_name_of_its_content_however_it_was_made(spec):
    one, other = Edit(2, "copy", (1,)), Edit(3, "copy", (2,), learning_rate_factor=1.1)
    edited = Position(Lineage(spec)).after(3).edited(one, other).after(5).edited(one).lineage
    assert edited == Lineage(spec, ((3, one), (3, other), (5, one)))
    assert edited.parent() == Lineage(spec, ((3, one), (3, other)))
    assert edited != Lineage(spec, ((3, other), (3, one), (5, one)))
    assert edited != Lineage(spec, ((3, one), (3, other), (4, one)))


def test_equal_names_are_equal_positions(corpus, spec):
    one, two = (Trajectory(spec, corpus, None).root(plain_routes(NUM_STAGES)) for _ in range(2))
    assert one.after(5) == two.after(5)
    assert one.after(5).edited(AVERAGE_2) == two.after(5).edited(AVERAGE_2)
    assert one.after(5).edited(AVERAGE_2) != one.after(6).edited(AVERAGE_2)
    assert one.after(5).edited(AVERAGE_2) != one.after(5).edited(replace(AVERAGE_2, learning_rate_factor=1.0))
    assert one.after(5) != Trajectory(spec, corpus, None).root(swapped_routes(NUM_STAGES)).after(5)


def test_straight_resumed_forked_and_without_store_agree_to_the_bit(corpus, spec, tmp_path):
    straight = Trajectory(spec, corpus, None)
    expected = bits(straight.state_at(forked(straight).after(20)))

    resumed = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=5)
    for step in (3, 7):
        resumed.train_loss(resumed.root(swapped_routes(NUM_STAGES)).after(step))
    resumed.flush()
    again = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=5)
    again.train_loss(forked(again).after(15))
    again.flush()
    third = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=5)
    assert bits(third.state_at(forked(third).after(20))) == expected
    assert third.num_trained_steps == 5  # from the keyframe at 15

    trunk_first = Trajectory(spec, corpus, open_store(tmp_path, "other"), keyframe_interval_steps=4)
    trunk_first.train_loss(trunk_first.root(swapped_routes(NUM_STAGES)).after(30))
    assert bits(trunk_first.state_at(forked(trunk_first).after(20))) == expected


def test_a_rollback_repeats_the_losses_and_trains_nothing(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    start = trajectory.root(plain_routes(NUM_STAGES))
    first_time = losses(trajectory, start, 12)
    trained = trajectory.num_trained_steps
    assert losses(trajectory, start.after(4), 12) == first_time[4:]
    assert trajectory.num_trained_steps == trained == 12


def test_known_steps_are_read_back_not_trained(corpus, spec, tmp_path):
    one = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4)
    wanted = forked(one).after(18)
    expected = [one.train_loss(wanted), one.validation_loss(wanted), one.gradient_norms(wanted)]
    one.flush()
    two = Trajectory(spec, corpus, open_store(tmp_path))
    assert [two.train_loss(wanted), two.validation_loss(wanted), two.gradient_norms(wanted)] == expected
    assert two.num_trained_steps == 0


def test_everything_is_recomputed_alike_when_the_store_is_emptied_or_its_keyframes_lost(corpus, spec, tmp_path):
    one = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4)
    expected = bits(one.state_at(forked(one).after(18)))
    one.flush()
    for file in (tmp_path / "cache" / "keyframes").iterdir():
        file.write_bytes(file.read_bytes()[:-7]) if file.stat().st_size % 2 else file.unlink()
    two = Trajectory(spec, corpus, open_store(tmp_path))
    assert bits(two.state_at(forked(two).after(18))) == expected
    assert two.num_replayed_steps == two.num_trained_steps == 18


def test_a_store_that_tells_another_loss_is_an_error_not_a_second_truth(corpus, spec, tmp_path):
    one = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4)
    one.train_loss(one.root(plain_routes(NUM_STAGES)).after(4))
    database = sqlite3.connect(tmp_path / "cache" / "trajectory.sqlite")
    with database:
        database.execute("UPDATE steps SET train_loss = train_loss + 1e-12 WHERE step = 2")
        database.execute("DELETE FROM keyframes")
    two = Trajectory(spec, corpus, open_store(tmp_path))
    with pytest.raises(RuntimeError, match="step 2 gave loss"):
        two.train_loss(two.root(plain_routes(NUM_STAGES)).after(5))


def test_two_truths_of_one_step_are_found_when_they_are_stored(corpus, spec, tmp_path):
    one, two = (Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4) for _ in range(2))
    start = one.root(plain_routes(NUM_STAGES))
    two.train_loss(start.after(3))
    one.train_loss(start.after(4))
    database = sqlite3.connect(tmp_path / "cache" / "trajectory.sqlite")
    with database:
        database.execute("UPDATE steps SET train_loss = train_loss + 1 WHERE step = 2")
    with pytest.raises(RuntimeError, match="step 2 gave loss"):
        two.train_loss(start.after(4))


def test_keyframes_stay_within_their_budget_and_losses_stay(corpus, spec, tmp_path):
    one_keyframe = len(bits_of_one_keyframe(corpus, spec, tmp_path))
    store = open_store(tmp_path, budget_bytes=3 * one_keyframe)
    trajectory = Trajectory(spec, corpus, store, keyframe_interval_steps=2)
    start = trajectory.root(plain_routes(NUM_STAGES))
    expected = losses(trajectory, start, 20)
    files = list((tmp_path / "cache" / "keyframes").iterdir())
    assert sum(file.stat().st_size for file in files) <= store.budget_bytes
    assert len(files) == 3
    again = Trajectory(spec, corpus, open_store(tmp_path))
    assert losses(again, start, 20) == expected
    assert again.num_trained_steps == 0


def bits_of_one_keyframe(corpus, spec, tmp_path) -> bytes:
    trajectory = Trajectory(spec, corpus, open_store(tmp_path, "probe"), keyframe_interval_steps=1)
    trajectory.train_loss(trajectory.root(plain_routes(NUM_STAGES)).after(1))
    return next((tmp_path / "probe" / "keyframes").iterdir()).read_bytes()


def test_a_step_of_the_proxy_may_stand_for_several_iterations(corpus, spec):
    trajectory = Trajectory(spec, corpus, None, iterations_per_step=3)
    start = trajectory.root(plain_routes(NUM_STAGES))
    assert start.after(8).step == 2
    assert trajectory.train_loss(start.after(6)) == trajectory.train_loss(start.after(8))
    edited = start.after(7).edited(AVERAGE_2)
    assert trajectory.validation_loss(edited) != trajectory.validation_loss(start.after(7))
    assert trajectory.train_loss(edited) == trajectory.train_loss(start.after(6))


def test_no_step_led_to_the_first_state(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    with pytest.raises(ValueError, match="no step led to step 0"):
        trajectory.train_loss(trajectory.root(plain_routes(NUM_STAGES)))
    with pytest.raises(ValueError, match="before the last edit"):
        trajectory.root(plain_routes(NUM_STAGES)).after(3).edited(AVERAGE_2).after(2)


def test_an_edit_at_the_first_state_keeps_what_was_measured_before_it(corpus, spec, tmp_path):
    trajectory = Trajectory(spec, corpus, open_store(tmp_path))
    start = trajectory.root(plain_routes(NUM_STAGES))
    before, after = trajectory.validation_loss(start), trajectory.validation_loss(start.edited(FRESH_4))
    trajectory.flush()
    again = Trajectory(spec, corpus, open_store(tmp_path))
    assert (again.validation_loss(start), again.validation_loss(start.edited(FRESH_4))) == (before, after)
    assert before != after


@pytest.mark.parametrize("change", [{"init_seed": 9}, {"data_seed": 9}, {"sequences_per_batch": 8}])
def test_another_recipe_is_another_line(corpus, spec, change):
    one, two = Trajectory(spec, corpus, None), Trajectory(spec_for(corpus, **change), corpus, None)
    routes = plain_routes(NUM_STAGES)
    assert one.root(routes) != two.root(routes)
    assert one.train_loss(one.root(routes).after(3)) != two.train_loss(two.root(routes).after(3))


def test_a_folder_that_cannot_be_a_store_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot use the trajectory cache"):
        TrajectoryStore(tmp_path / "file")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "trajectory.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(ValueError, match="cannot use the trajectory cache"):
        TrajectoryStore(tmp_path / "broken")


edits = st.sampled_from([AVERAGE_2, AVERAGE_3, COPY_1, FRESH_4])
journeys = st.lists(st.tuples(st.integers(0, 4), st.lists(edits, min_size=1, max_size=2)), max_size=3)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(journey=journeys, tail=st.integers(0, 3), detours=st.lists(st.integers(0, 14), max_size=3))
def test_any_journey_ends_in_the_same_bits(corpus, spec, tmp_path_factory, journey, tail, detours):
    """Whatever else was asked before, in whatever order, with or without a store."""

    def destination(trajectory: Trajectory) -> Position:
        position = trajectory.root(plain_routes(NUM_STAGES))
        for steps, made in journey:
            position = position.after(position.step + steps).edited(*made)
        return position.after(position.step + tail)

    plain = Trajectory(spec, corpus, None)
    expected = bits(plain.state_at(destination(plain)))
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    busy = Trajectory(spec, corpus, store, keyframe_interval_steps=3)
    for step in detours:
        busy.validation_loss(busy.root(plain_routes(NUM_STAGES)).after(step))
    assert bits(busy.state_at(destination(busy))) == expected
    torch.manual_seed(0)  # a foreign draw in between moves nothing
    busy.validation_loss(busy.root(swapped_routes(NUM_STAGES)).after(2))
    assert bits(busy.state_at(destination(busy))) == expected


def test_two_processes_may_share_a_store_and_the_lines_in_it(corpus, spec, tmp_path):
    """Each finds keyframes the other wrote after it had read the rows."""
    alone = Trajectory(spec, corpus, None)
    start = alone.root(plain_routes(NUM_STAGES))
    expected = losses(alone, start, 24)
    one, two = (Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4) for _ in range(2))
    assert losses(one, start, 6) == expected[:6]
    assert losses(two, start, 3) == expected[:3]
    assert losses(one, start, 14) == expected[:14]
    assert losses(two, start, 24) == expected
    assert losses(one, start, 24) == expected
    assert one.num_trained_steps + two.num_trained_steps < 2 * 24
