"""Training cut into pieces: every step that is asked for once, the same bits as one trainer straight through."""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.segment import measure_step_seconds, train_segments
from models.shared_training import SharedTraining
from models.spec import OptimizerSpec, plain_routes, swapped_routes
from models.training import ReplayedTraining
from models.training_plan import (
    Demand,
    DemandRecorder,
    Demands,
    Segment,
    StoredLine,
    cuts_between,
    dependencies_of,
    ends,
    num_steps,
    plan_segments,
    together,
)
from models.training_state import DivergedError, Position, root
from models.trajectory import Trajectory, environment_of
from models.trajectory_store import TrajectoryStore
from sim.experiments.queue import WorkQueue
from support.examples import examples
from support.trainings import (
    AROUND_3,
    AVERAGE_2,
    COPY_1,
    FRESH_4,
    MOVES,
    NO_TEXT,
    NUM_STAGES,
    bits,
    by_the_book,
    spec_for,
    travelled,
)


def surveyed(spec, asked: list[Position]) -> DemandRecorder:
    """What a run asks for that comes past these states and validates at every third."""
    recorder = DemandRecorder(spec)
    for position in asked:
        if position.step:
            recorder.train_loss(position)
        if position.step % 3 == 0:
            recorder.validation_loss(position)
    return recorder


def do_all(shared: SharedTraining, corpus, demands, choose=lambda ready: 0) -> list[Segment]:
    """Do the pieces of a plan as workers would, in any order that their needs allow."""
    open_ones, done = shared.plan(demands), []
    while open_ones:
        makers = {segment.end for segment in open_ones if not segment.end_is_stored}
        ready = [segment for segment in open_ones if not makers.intersection(segment.needs)]
        segment = ready[choose(ready)]
        open_ones.remove(segment)
        states = {state: shared.state(state) for state in segment.needs}
        assert None not in states.values(), "a plan asks for no state that neither it nor the store has"
        start = states[segment.start] if segment.start else None
        used = {state.outlined: states[state] for state in segment.used}
        assert (segment.outlined.lineage, segment.outlined.kind) == (segment.lineage, segment.kind)
        (trained,) = train_segments([(segment.outlined, start, used)], corpus, environment_of(segment.lineage.spec))
        shared.add_state(segment, trained)
        shared.commit(segment, trained, lambda: [state for segment in open_ones for state in segment.needs])
        shared.discard_states(lambda state: any(state in segment.needs for segment in open_ones))
        done.append(segment)
    return done


@settings(max_examples=examples(8, 20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(MOVES, min_size=2, max_size=10),
    others=st.lists(MOVES, max_size=8),
    most_steps=st.integers(1, 8),
    num_kept=st.sampled_from([0, 2, 1000]),
    seed=st.integers(0, 99),
)
def test_segments_in_any_order_give_the_bits_of_one_trainer(
    corpus, spec, tmp_path_factory, moves, others, most_steps, num_kept, seed
):
    start = root(spec.model_copy(update={"routes": plain_routes(NUM_STAGES)}), 1)
    asked, asked_else = travelled(start, moves), travelled(start, others)
    recorder, order = surveyed(spec, asked), random.Random(seed)
    store = TrajectoryStore(tmp_path_factory.mktemp("store"), num_kept * 40_000)
    shared = SharedTraining(store, most_steps)
    do_all(shared, corpus, surveyed(spec, asked_else).demands)  # what another run left: some states, or none
    known_before = shared.num_trained_steps
    segments = do_all(shared, corpus, recorder.demands, lambda ready: order.randrange(len(ready)))
    again = [step for segment in segments for step in steps_of(segment)]
    assert len(again) == len(set(again)), "no step is trained twice in one plan"
    assert known_before + len(again) == shared.num_trained_steps
    assert not shared.plan(recorder.demands), "nothing is missing afterwards"
    plain = Trajectory(spec, corpus, None)
    known = ReplayedTraining(spec, 1, shared.losses(recorder.demands))
    for position in asked:
        if position.step:
            assert known.train_loss(position) == plain.train_loss(position)
        if position.step % 3 == 0:
            assert known.validation_loss(position) == plain.validation_loss(position)
    expected, _ = by_the_book(asked[-1], corpus)
    assert bits(plain.state_at(asked[-1])) == expected


def drained(segments: list[Segment], demands: dict[str, Demands]) -> list[str]:
    """Do the pieces as a queue hands them out; the runs that it hands out, in their order."""
    queue, at_work, runs, states = WorkQueue(segments, demands), [], [], set[Position]()
    while (item := queue.next()) is not None or at_work:
        if isinstance(item, Segment):
            made = {segment.end for segment in segments if not segment.end_is_stored}
            assert states.issuperset(made.intersection(item.needs)), "nothing is handed out before what it needs"
            at_work.append(item)
            if len(at_work) < 3:
                continue
        elif item is not None:
            runs.append(item)
            continue
        segment = at_work.pop(0)
        states.add(segment.end)
        queue.done(segment)
        queue.kept(segment)
    assert queue.num_steps_left == 0
    assert not queue.needed_states
    return runs


@settings(max_examples=examples(8, 20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=2, max_size=8), most_steps=st.integers(1, 6), every=st.integers(1, 4))
def test_new_validations_over_a_full_store_are_made_once(corpus, spec, tmp_path_factory, moves, most_steps, every):
    start = root(spec.model_copy(update={"routes": plain_routes(NUM_STAGES)}), 1)
    asked = travelled(start, moves)
    shared = SharedTraining(TrajectoryStore(tmp_path_factory.mktemp("store")), most_steps)
    do_all(shared, corpus, surveyed(spec, asked).demands)
    more = DemandRecorder(spec)
    for position in asked:
        if position.step % every == 0:
            more.validation_loss(position)
    segments = shared.plan(more.demands)
    due = Counter((segment.lineage.key, step) for segment in segments for step in segment.validations)
    assert set(due.values()) <= {1}
    runs = {"all": more.demands, "none": {}}
    runs |= {f"only {n}": {lineage: demand} for n, (lineage, demand) in enumerate(more.demands.items())}
    assert sorted(drained(segments, runs)) == sorted(runs)
    do_all(shared, corpus, more.demands)
    assert shared.plan(more.demands) == []


@given(moves=st.lists(MOVES, min_size=1, max_size=14), most_steps=st.integers(1, 9))
def test_a_queue_releases_each_run_when_its_segments_are_stored(moves, most_steps):
    start = root(spec_for(NO_TEXT), 1)
    asked = travelled(start, moves)
    runs = {f"run {n}": surveyed(start.lineage.spec, asked[: n + 1]).demands for n in range(len(asked))}
    segments = plan_segments(together(runs.values()), lambda _: StoredLine(), most_steps)
    assert sorted(drained(segments, runs)) == sorted(runs)


def test_runs_wait_only_for_what_they_ask_for():
    start = root(spec_for(NO_TEXT), 1)
    fork = start.after(50).edited(AVERAGE_2)
    runs = {"trunk": {start.lineage: Demand(100)}, "branch": {fork.lineage: Demand(60)}}
    segments = plan_segments(together(runs.values()), lambda _: StoredLine(), 50)
    queue = WorkQueue(segments, runs)
    last = next(segment for segment in segments if (segment.lineage, segment.first_step) == (start.lineage, 50))
    assert queue.give_up(last) == ["trunk"]
    first = queue.next()
    queue.done(first)
    queue.kept(first)
    branch = queue.next()
    queue.done(branch)
    queue.kept(branch)
    assert queue.next() == "branch"
    assert queue.next() is None
    start = root(spec_for(NO_TEXT), 1)
    fork = start.after(50).edited(AVERAGE_2)
    known = {start.lineage: StoredLine(range(1, 51), (), (50,))}
    runs = {
        "trunk": {start.lineage: Demand(100, {50})},
        "short": {start.lineage: Demand(50, {50})},
        "branch": {start.lineage: Demand(50), fork.lineage: Demand(60)},
    }
    segments = plan_segments(together(runs.values()), lambda line: known.get(line, StoredLine()), 50)
    (trunk,) = [segment for segment in segments if segment.lineage == start.lineage]
    assert (trunk.first_step, trunk.last_step, trunk.validations) == (50, 100, {50})
    assert sorted(WorkQueue(segments, runs).give_up(trunk)) == ["short", "trunk"]


def test_segments_of_one_kind_are_taken_together():
    """Those of the same steps first; not those of other routes or recipes, nor those excluded."""
    plain, swapped = plain_routes(NUM_STAGES), swapped_routes(NUM_STAGES)
    starts = [root(spec_for(NO_TEXT, init_seed=seed, routes=plain)) for seed in range(4)]
    others = [root(spec_for(NO_TEXT, init_seed=seed, routes=swapped)) for seed in range(2)]
    others.append(root(spec_for(NO_TEXT, init_seed=4, routes=plain)).entered(AROUND_3))
    runs = {f"run {n}": {start.lineage: Demand(40)} for n, start in enumerate((*starts, *others))}
    known = {starts[1].lineage: StoredLine(range(1, 21), (), (20,))}
    segments = plan_segments(together(runs.values()), lambda line: known.get(line, StoredLine()), 50)
    queue, of_line = WorkQueue(segments, runs), {segment.lineage: segment for segment in segments}
    first, later, *same = (of_line[start.lineage] for start in starts)
    assert later.first_step == 20
    taken = queue.take_alike(first, 3, without=[first])
    assert (set(taken[:2]), taken[2]) == (set(same), later)
    for segment in taken:
        queue.again(segment)
    assert queue.take_alike(first, 2, without=[first, same[0]]) == [same[1], later]
    assert queue.take_alike(first, 0) == []
    left = {queue.next() for _ in range(5)}
    assert left == {first, same[0], *(of_line[other.lineage] for other in others)}
    assert queue.next() is None


def test_stored_states_wait_for_no_earlier_steps():
    start = root(spec_for(NO_TEXT), 1)
    fork = start.after(70).edited(AVERAGE_2)
    half = {start.lineage: StoredLine(range(51, 101), (), (50,))}
    demands = {start.lineage: Demand(100), fork.lineage: Demand(80)}
    segments = plan_segments(demands, lambda line: half.get(line, StoredLine()), 50)
    before, middle, branch = segments
    assert (before.first_step, before.last_step, before.end_is_stored) == (0, 50, True)
    assert dependencies_of(segments) == {before: set(), middle: set(), branch: {middle}}
    assert sorted(drained(segments, {"all": demands})) == ["all"]
    # Nor do validations of one.
    validated = {start.lineage: Demand(100, {50})}
    segments = plan_segments(validated, lambda line: half[line], 50)
    assert [(segment.first_step, segment.last_step, segment.validations) for segment in segments] == [(0, 50, {50})]
    whole = StoredLine(range(1, 101), (), (50, 100))
    (segment,) = plan_segments(validated, lambda _: whole, 50)
    assert (segment.first_step, segment.last_step, segment.validations) == (50, 50, {50})
    assert dependencies_of([segment]) == {segment: set()}


def test_runs_with_a_thousand_repairs_are_planned_in_no_time():
    position = root(spec_for(NO_TEXT), 1)
    recorder = DemandRecorder(position.lineage.spec)
    for _ in range(1000):
        position = position.after(position.step + 3).edited(AVERAGE_2)
        recorder.train_loss(position.after(position.step + 1))
    assert num_steps(recorder.demands) == 3001
    assert len(plan_segments(recorder.demands, lambda _: StoredLine(), 50)) == 1001


def steps_of(segment: Segment) -> list[tuple[str, int]]:
    return [(segment.lineage.key, step) for step in range(segment.first_step + 1, segment.last_step + 1)]


@given(
    moves=st.lists(MOVES, min_size=1, max_size=14),
    most_steps=st.integers(1, 9),
    states=st.lists(st.integers(0, 30), max_size=6),
)
def test_a_plan_without_a_store_makes_every_distinct_step_once(moves, most_steps, states):
    start = root(spec_for(NO_TEXT), 1)
    recorder = surveyed(start.lineage.spec, travelled(start, moves))
    segments = plan_segments(recorder.demands, lambda _: StoredLine(), most_steps)
    made = Counter(step for segment in segments for step in steps_of(segment))
    assert set(made.values()) <= {1}
    assert len(made) == num_steps(recorder.demands) == sum(segment.num_steps for segment in segments)
    assert all(segment.num_steps <= most_steps + most_steps // 4 for segment in segments)
    seen: set[Position] = set()
    for segment in segments:
        assert seen.issuperset(segment.needs), "needs come before users"
        seen.add(segment.end)


def test_demands_join_and_cuts_leave_no_slivers():
    assert cuts_between(0, 100, [], 50) == [50, 100]
    assert cuts_between(0, 105, [], 50) == [50, 105]
    assert cuts_between(7, 60, [33], 50) == [33, 60]
    assert cuts_between(0, 10, [0, 5], 50) == [0, 5, 10]
    assert cuts_between(45, 160, [], 50) == [100, 160]
    start = root(spec_for(NO_TEXT), 1)
    fork = start.after(8).edited(AVERAGE_2)
    union = together([{start.lineage: Demand(5, {5})}, {start.lineage: Demand(3, {2})}, {fork.lineage: Demand(12)}])
    assert union == {start.lineage: Demand(5, {2, 5}), fork.lineage: Demand(12)}
    assert ends(union) == {start.lineage: 8, fork.lineage: 12}
    assert num_steps(union) == 8 + 4


def test_known_steps_are_skipped_and_branches_start_nearby():
    """Branches begin at the nearest stored state."""
    start = root(spec_for(NO_TEXT), 1)
    fork = start.after(70).edited(AVERAGE_2)
    demands = {start.lineage: Demand(100), fork.lineage: Demand(90)}
    known = {start.lineage: StoredLine(range(1, 101), (), (50, 100))}
    segments = plan_segments(demands, lambda lineage: known.get(lineage, StoredLine()), 50)
    assert [(segment.lineage, segment.first_step, segment.last_step) for segment in segments] == [
        (start.lineage, 50, 70),
        (fork.lineage, 70, 90),
    ]
    assert segments[0].start == Position(start.lineage, 50)
    assert segments[1].entered == (fork.lineage,)


def test_divergence_ends_every_run_that_asks_for_more(corpus, tmp_path):
    wild = spec_for(corpus, optimizer=OptimizerSpec(learning_rate=1e30, clip_norm=1e30))
    start = root(wild, 1)
    with pytest.raises(DivergedError) as expected:
        Trajectory(wild, corpus, None).train_loss(start.after(6))
    recorder = DemandRecorder(wild)
    for position in [start.after(step) for step in range(1, 7)] + [start.after(4).edited(COPY_1).after(5)]:
        recorder.train_loss(position)
    shared = SharedTraining(TrajectoryStore(tmp_path), 50)
    first, *_ = shared.plan(recorder.demands)
    (trained,) = train_segments([(first, None, {})], corpus, environment_of(first.lineage.spec))
    assert trained.divergence == str(expected.value)
    assert trained.state is None
    shared.commit(first, trained, tuple)
    assert shared.plan(recorder.demands) == []
    known = ReplayedTraining(wild, 1, shared.losses(recorder.demands))
    with pytest.raises(DivergedError) as met:
        [known.train_loss(start.after(step)) for step in range(1, 7)]
    assert str(met.value) == str(expected.value)


def test_a_worker_that_computes_otherwise_is_refused(corpus, spec):
    segment = Segment(root(spec, 1).lineage, 0, 1, None)
    with pytest.raises(RuntimeError, match="would compute other bits"):
        train_segments([(segment, None, {})], corpus, "another machine")
    assert 0 < measure_step_seconds(spec, corpus) < 10


def test_a_state_that_was_deleted_is_planned_anew(corpus, spec, tmp_path):
    recorder = DemandRecorder(spec)
    start = root(spec, 1)
    recorder.train_loss(start.after(6))
    shared = SharedTraining(TrajectoryStore(tmp_path), 3)
    do_all(shared, corpus, recorder.demands)
    for file in (tmp_path / "keyframes").iterdir():
        file.unlink()
    more = DemandRecorder(spec)
    more.train_loss(start.after(8))
    assert shared.state(Position(start.lineage, 6)) is None
    do_all(shared, corpus, more.demands)
    plain = Trajectory(spec, corpus, None)
    known = ReplayedTraining(spec, 1, shared.losses(more.demands))
    assert known.train_loss(start.after(8)) == plain.train_loss(start.after(8))


def test_swapped_routes_and_fresh_stages_have_lines_of_their_own(spec, tmp_path):
    swapped = spec.model_copy(update={"routes": swapped_routes(NUM_STAGES)})
    recorder = DemandRecorder(spec)
    for start in (root(spec, 1), root(swapped, 1)):
        recorder.validation_loss(start.after(2).edited(FRESH_4))
    segments = SharedTraining(TrajectoryStore(tmp_path), 5).plan(recorder.demands)
    assert len({segment.lineage for segment in segments}) == 4
