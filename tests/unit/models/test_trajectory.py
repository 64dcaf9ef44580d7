"""The heart of the project: one Position, one set of bits, whatever the way to it."""

import sqlite3
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.spec import plain_routes, swapped_routes
from models.training_plan import Demand, num_steps
from models.training_state import Edit, Lineage, Merge, Position
from models.trajectory import NUM_STATES_KEPT, Trajectory
from models.trajectory_store import AlteredStoreError, TrajectoryStore
from support.trainings import (
    AVERAGE_2,
    AVERAGE_3,
    COPY_1,
    FRESH_4,
    MOVES,
    NUM_STAGES,
    bits,
    by_the_book,
    spec_for,
    stale,
    travelled,
)


def open_store(tmp_path, name="cache", **options):
    return TrajectoryStore(tmp_path / name, **options)


def losses(trajectory: Trajectory, position: Position, last: int) -> list[float]:
    return [trajectory.train_loss(position.after(step)) for step in range(position.step + 1, last + 1)]


def forked(trajectory: Trajectory) -> Position:
    """Two lost stages at step 7, one of them again at 7, two more edits at 12."""
    start = trajectory.root(swapped_routes(NUM_STAGES))
    first = start.after(7).edited(AVERAGE_2, FRESH_4).edited(AVERAGE_3)
    return first.after(12).edited(COPY_1)


def gone_back(trajectory: Trajectory) -> Position:
    """Stages that go back past an edit, to just before and after one, and to a state itself made of older ones."""
    first = trajectory.root(swapped_routes(NUM_STAGES)).after(3)
    edited = first.after(6).edited(AVERAGE_2)
    second = edited.after(9).edited(stale(3, first))
    third = second.after(11).edited(stale(1, edited), stale(2, edited.after(6), first.after(6)))
    return third.after(14).edited(stale(0, second.after(10)), stale(4, third, second))


def test_positions_are_equal_by_the_content_of_their_lineage(corpus, spec):
    one, other = Edit(2, "copy", (1,)), Edit(3, "copy", (2,), learning_rate_factor=1.1)
    edited = Position(Lineage(spec)).after(3).edited(one, other).after(5).edited(one).lineage
    assert edited == Lineage(spec, ((3, one), (3, other), (5, one)))
    assert edited.parent() == Lineage(spec, ((3, one), (3, other)))
    assert edited != Lineage(spec, ((3, other), (3, one), (5, one)))
    assert edited != Lineage(spec, ((3, one), (3, other), (4, one)))
    first, second = (Trajectory(spec, corpus, None).root(plain_routes(NUM_STAGES)) for _ in range(2))
    assert first.after(5) == second.after(5)
    assert first.after(5).edited(AVERAGE_2) == second.after(5).edited(AVERAGE_2)
    assert first.after(5).edited(AVERAGE_2) != first.after(6).edited(AVERAGE_2)
    assert first.after(5).edited(AVERAGE_2) != first.after(5).edited(replace(AVERAGE_2, learning_rate_factor=1.0))
    assert first.after(5) != Trajectory(spec, corpus, None).root(swapped_routes(NUM_STAGES)).after(5)


def test_straight_resumed_forked_and_storeless_training_agree(corpus, spec, tmp_path):
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


def test_sums_of_older_states_are_independent_of_the_way_there(corpus, spec, tmp_path):
    straight = Trajectory(spec, corpus, None)
    wanted = gone_back(straight).after(18)
    expected, results = by_the_book(wanted, corpus)
    assert bits(straight.state_at(wanted)) == expected
    assert straight.num_trained_steps == len(results) == 18  # older states are kept in passing
    assert bits(straight.state_at(wanted)) == expected
    by_and_by = Trajectory(spec, corpus, None)
    resumed = [Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=5)]
    edits = wanted.lineage.edits
    for num_edits in range(len(edits) + 1):
        until = edits[num_edits][0] if num_edits < len(edits) else 18
        position = Position(wanted.lineage.first(num_edits), until)
        for trajectory in (by_and_by, resumed[-1]):
            assert trajectory.train_loss(position) == results[until - 1].train_loss
        assert by_and_by.validation_loss(position) == resumed[-1].validation_loss(position)
        resumed[-1].flush()
        resumed.append(Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=5))
    assert bits(by_and_by.state_at(wanted)) == bits(resumed[-1].state_at(wanted)) == expected
    assert resumed[-1].num_trained_steps == 0
    trunk_first = Trajectory(spec, corpus, open_store(tmp_path, "other"), keyframe_interval_steps=4)
    trunk_first.train_loss(trunk_first.root(swapped_routes(NUM_STAGES)).after(16))
    assert bits(trunk_first.state_at(gone_back(trunk_first).after(18))) == expected
    forgetful = Trajectory(spec, corpus, open_store(tmp_path, "small", budget_bytes=0), keyframe_interval_steps=4)
    assert bits(forgetful.state_at(wanted)) == expected


def test_an_older_state_costs_the_steps_since_its_keyframe_once(corpus, spec, tmp_path):
    trajectory = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=10)
    saved = trajectory.root(plain_routes(NUM_STAGES)).after(13)
    here = saved.after(25)
    trajectory.train_loss(here)
    assert (trajectory.num_trained_steps, trajectory.num_replayed_steps) == (25, 0)
    back = here.edited(stale(3, saved))
    trajectory.validation_loss(back)
    assert (trajectory.num_trained_steps, trajectory.num_replayed_steps) == (28, 3)
    trajectory.train_loss(back.after(26).edited(stale(2, saved)).after(27))
    assert (trajectory.num_trained_steps, trajectory.num_replayed_steps) == (30, 3)
    trajectory.flush()
    again = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=10)
    again.validation_loss(here.edited(stale(1, saved)))
    assert again.num_trained_steps == 0


def test_without_a_store_the_last_older_states_are_kept(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    saved = trajectory.root(plain_routes(NUM_STAGES)).after(4)
    position = saved.after(6)
    trajectory.train_loss(position)
    for _ in range(4):
        position = position.edited(stale(3, saved)).after(position.step + 1)
        trajectory.train_loss(position)
    assert (trajectory.num_trained_steps, trajectory.num_replayed_steps) == (10 + 4, 4)


@pytest.mark.parametrize("stored", [False, True])
def test_nested_sums_of_older_states_are_trained_once(corpus, spec, tmp_path, stored):
    """Otherwise each of a chain would take the sum of all before it."""
    store = open_store(tmp_path, budget_bytes=0) if stored else None
    trajectory = Trajectory(spec, corpus, store)
    position = trajectory.root(plain_routes(NUM_STAGES))
    for _ in range(12):
        saved = position.after(position.step + 1)
        position = saved.after(saved.step + 1).edited(stale(3, saved))
    assert bits(trajectory.state_at(position)) == by_the_book(position, corpus)[0]
    assert trajectory.num_trained_steps == position.step == 24
    assert len(trajectory._kept) == NUM_STATES_KEPT


def test_an_older_state_that_differs_is_an_error(corpus, spec, tmp_path):
    store = open_store(tmp_path)
    trajectory = Trajectory(spec, corpus, store)
    saved = trajectory.root(plain_routes(NUM_STAGES)).after(3)
    here = saved.after(4).edited(AVERAGE_2).after(6)
    trajectory.train_loss(here)
    known = trajectory._results(saved.lineage).steps
    truth = dict(known)
    del known[1]
    known[2] = replace(known[2], train_loss=1.0)
    with pytest.raises(AlteredStoreError, match="step 2 gave loss"):
        trajectory.validation_loss(here.edited(stale(3, saved)))
    known.update(truth)
    trained = trajectory.num_trained_steps
    trajectory.train_loss(here.after(7))
    assert trajectory.num_trained_steps == trained + 1
    trajectory.flush()
    assert sorted(store.read(trajectory._line(here.lineage)).steps) == [5, 6, 7]
    assert bits(trajectory.state_at(here.after(7))) == by_the_book(here.after(7), corpus)[0]


def test_a_rollback_repeats_the_losses_and_trains_nothing(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    start = trajectory.root(plain_routes(NUM_STAGES))
    first_time = losses(trajectory, start, 12)
    trained = trajectory.num_trained_steps
    assert losses(trajectory, start.after(4), 12) == first_time[4:]
    assert trajectory.num_trained_steps == trained == 12


def test_known_steps_are_read_back_and_lost_states_recomputed(corpus, spec, tmp_path):
    one = Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4)
    wanted = forked(one).after(18)
    expected = [one.train_loss(wanted), one.validation_loss(wanted), one.gradient_norms(wanted)]
    expected_bits = bits(one.state_at(wanted))
    one.flush()
    two = Trajectory(spec, corpus, open_store(tmp_path))
    assert [two.train_loss(wanted), two.validation_loss(wanted), two.gradient_norms(wanted)] == expected
    assert two.num_trained_steps == 0
    for file in (tmp_path / "cache" / "keyframes").iterdir():
        file.write_bytes(file.read_bytes()[:-7]) if file.stat().st_size % 2 else file.unlink()
    three = Trajectory(spec, corpus, open_store(tmp_path))
    assert bits(three.state_at(wanted)) == expected_bits
    assert three.num_replayed_steps == three.num_trained_steps == 18


@pytest.mark.parametrize("known_steps", [0, 3])
def test_a_store_with_another_loss_is_an_error(corpus, spec, tmp_path, known_steps):
    """Found when a step is trained again, or when one that was trained before is stored."""
    one, two = (Trajectory(spec, corpus, open_store(tmp_path), keyframe_interval_steps=4) for _ in range(2))
    start = one.root(plain_routes(NUM_STAGES))
    if known_steps:
        two.train_loss(start.after(known_steps))
    one.train_loss(start.after(4))
    with sqlite3.connect(tmp_path / "cache" / "trajectory.sqlite") as database:
        database.execute("UPDATE steps SET train_loss = train_loss + 1e-12 WHERE step = 2")
        database.execute("DELETE FROM keyframes")
    with pytest.raises(AlteredStoreError, match="step 2 gave loss"):
        two.train_loss(start.after(5))


def test_keyframes_stay_within_their_budget_and_losses_stay(corpus, spec, tmp_path):
    probe = Trajectory(spec, corpus, open_store(tmp_path, "probe"), keyframe_interval_steps=1)
    start = probe.root(plain_routes(NUM_STAGES))
    probe.train_loss(start.after(1))
    (keyframe,) = (tmp_path / "probe" / "keyframes").iterdir()
    store = open_store(tmp_path, budget_bytes=3 * keyframe.stat().st_size)
    expected = losses(Trajectory(spec, corpus, store, keyframe_interval_steps=2), start, 20)
    files = list((tmp_path / "cache" / "keyframes").iterdir())
    assert sum(file.stat().st_size for file in files) <= store.budget_bytes
    assert len(files) == 3
    again = Trajectory(spec, corpus, open_store(tmp_path))
    assert losses(again, start, 20) == expected
    assert again.num_trained_steps == 0


def test_a_step_of_the_proxy_may_stand_for_several_iterations(corpus, spec):
    trajectory = Trajectory(spec, corpus, None, iterations_per_step=3)
    start = trajectory.root(plain_routes(NUM_STAGES))
    assert start.after(8).step == 2
    assert trajectory.train_loss(start.after(6)) == trajectory.train_loss(start.after(8))
    edited = start.after(7).edited(AVERAGE_2)
    assert trajectory.validation_loss(edited) != trajectory.validation_loss(start.after(7))
    assert trajectory.train_loss(edited) == trajectory.train_loss(start.after(6))
    trajectory = Trajectory(spec, corpus, None)
    with pytest.raises(ValueError, match="no step led to step 0"):
        trajectory.train_loss(trajectory.root(plain_routes(NUM_STAGES)))
    with pytest.raises(ValueError, match="before the last edit"):
        trajectory.root(plain_routes(NUM_STAGES)).after(3).edited(AVERAGE_2).after(2)


def test_an_edit_of_the_first_state_keeps_earlier_measurements(corpus, spec, tmp_path):
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


def test_a_folder_that_cannot_be_a_store_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot use the cache of training states"):
        TrajectoryStore(tmp_path / "file")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(MOVES, min_size=2, max_size=10),
    keyframe_interval_steps=st.integers(1, 6),
    num_kept=st.sampled_from([0, 2, 1000]),
    detours=st.lists(st.integers(0, 14), max_size=3),
)
def test_any_sequence_gives_the_same_bits_by_every_way(
    corpus, spec, tmp_path_factory, moves, keyframe_interval_steps, num_kept, detours
):
    """Steps, entries and rollbacks: straight, resumed, after detours and foreign draws, with and without a store."""
    asked = travelled(Trajectory(spec, corpus, None).root(plain_routes(NUM_STAGES)), moves)
    expected, results = by_the_book(asked[-1], corpus)
    folder = tmp_path_factory.mktemp("store")
    budget_bytes = num_kept * 40_000

    def with_store() -> Trajectory:
        store = TrajectoryStore(folder, budget_bytes)
        return Trajectory(spec, corpus, store, keyframe_interval_steps=keyframe_interval_steps)

    def answers(trajectory: Trajectory) -> list[tuple[float, float]]:
        return [(trajectory.train_loss(at) if at.step else 0.0, trajectory.validation_loss(at)) for at in asked]

    plain, stored = Trajectory(spec, corpus, None), with_store()
    found = answers(plain)
    for step in detours:
        stored.validation_loss(stored.root(plain_routes(NUM_STAGES)).after(step))
    torch.manual_seed(0)  # a foreign draw
    stored.validation_loss(stored.root(swapped_routes(NUM_STAGES)).after(2))
    assert answers(stored) == found
    assert bits(plain.state_at(asked[-1])) == bits(stored.state_at(asked[-1])) == expected
    if asked[-1].step and not asked[-1].line_of_step.is_at_rest:
        assert found[-1][0] == results[-1].train_loss
    stored.flush()
    resumed = with_store()
    assert bits(resumed.state_at(asked[-1])) == expected
    assert answers(resumed) == found
    at_once = Trajectory(spec, corpus, None)
    assert bits(at_once.state_at(asked[-1])) == expected
    steps_alone = num_steps({asked[-1].settled.lineage: Demand(asked[-1].settled.step)})
    if not any(isinstance(entry, Merge) for _, entry in asked[-1].lineage.edits):
        assert at_once.num_trained_steps == len(results) == steps_alone


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
