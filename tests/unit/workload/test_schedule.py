"""The order in which a stage's node works, against hand-written ones."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.spec import plain_routes, swapped_routes
from sim.workload.config import IterationPlan, TargetModel, WorkloadConfig, plain_plan, schedule_of
from sim.workload.iteration_time import run_alone
from sim.workload.schedule import SCHEDULES, Schedule, Visit
from support.builders import TINY_MODEL, a_pipeline, a_site
from support.iterations import options_of


def a_schedule(
    schedule: str, p: int, m: int, *, head_computes: bool = False, plan: IterationPlan | None = None, **workload: object
) -> Schedule:
    model = TargetModel(num_layers=p * workload.get("chunks_per_stage", 1), **TINY_MODEL)
    config = WorkloadConfig(model=model, num_stages=p, num_microbatches=m, schedule=schedule, **workload)
    plan = plan or plain_plan(config)
    return schedule_of(config, plan, head_computes)


def order(schedule: Schedule, stage: int) -> str:
    """F and B with microbatch and, of several, chunk; H and h for the head's forward and backward."""

    def name(visit: Visit) -> str:
        letters = "Hh" if visit.position == schedule.head else "FB"
        chunks = schedule.chunks_per_stage
        chunk = "abc"[visit.position // schedule.num_stages] if chunks > 1 and letters == "FB" else ""
        return f"{letters[visit.kind == 'backward']}{visit.microbatch}{chunk}"

    return " ".join(name(visit) for visit in schedule.orders()[stage])


# ---- orders by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gpipe_does_all_forwards_and_then_all_backwards(stage):
    assert order(a_schedule("gpipe", 3, 4), stage) == "F0 F1 F2 F3 B0 B1 B2 B3"


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (1, "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5"),
        (2, "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5"),
        (3, "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5"),
        (4, "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5"),
    ],
)
def test_1f1b_warms_up_then_alternates_forward_and_backward(stage, expected):
    """Narayanan et al. 2021, figure 3 lower half (PipeDream-flush), of 4 stages."""
    assert order(a_schedule("1f1b", 4, 6), stage) == expected


def test_a_head_on_its_own_node_is_one_more_stage_of_1f1b():
    schedule = a_schedule("1f1b", 2, 4, head_computes=True)
    assert order(schedule, 1) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert order(schedule, 2) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert order(schedule, 0) == "H0 h0 H1 h1 H2 h2 H3 h3"


def test_more_in_flight_than_positions_run_ahead_by_as_much():
    schedule = a_schedule("1f1b", 2, 6, max_in_flight=4)
    assert order(schedule, 1) == "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5"
    assert order(schedule, 2) == "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5"


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (1, "F0a F1a F0b F1b F2a B0b F3a B1b F2b B0a F3b B1a B2b B3b B2a B3a"),
        (2, "F0a F1a F0b B0b F1b B1b F2a B0a F3a B1a F2b B2b F3b B3b B2a B3a"),
    ],
)
def test_interleaved_two_stages_two_chunks_four_microbatches(stage, expected):
    """Narayanan et al. 2021, section 2.2: groups of p pass chunk after chunk, warm-up 2 (p - i) + (v - 1) p."""
    assert order(a_schedule("interleaved_1f1b", 2, 4, chunks_per_stage=2), stage) == expected


@pytest.mark.parametrize(("stage", "warm_up"), [(1, 10), (2, 8), (3, 6), (4, 4)])
def test_interleaved_four_stages_warm_up_as_in_figure_4(stage, warm_up):
    """Of 4 devices, 2 chunks and 8 microbatches; the steady state begins with a forward, then the first backward."""
    done = order(a_schedule("interleaved_1f1b", 4, 8, chunks_per_stage=2), stage).split()
    assert "".join(name[0] for name in done[: warm_up + 2]) == "F" * (warm_up + 1) + "B"
    for letter, chunks in (("F", "ab"), ("B", "ba")):
        groups = [f"{letter}{k}{chunk}" for ks in (range(4), range(4, 8)) for chunk in chunks for k in ks]
        assert [name for name in done if name[0] == letter] == groups


def test_swapped_routes_pass_the_ends_in_another_order():
    plan = IterationPlan(4, swapped_routes(4))
    schedule = a_schedule("1f1b", 4, 4, plan=plan)
    assert [schedule.stage(visit) for visit in schedule.visits(0)[:5]] == [1, 2, 3, 4, 0]
    assert [schedule.stage(visit) for visit in schedule.visits(1)[:5]] == [2, 1, 4, 3, 0]
    assert [schedule.stage(visit) for visit in schedule.visits(1)[5:]] == [0, 3, 4, 1, 2]


# ---- where the head is --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("loss_at", "stage"), [("embedding_stage", 0), ("last_stage", 4)])
def test_the_head_is_visited_where_it_is(name, loss_at, stage):
    schedule = a_schedule(p=4, m=4, loss_at=loss_at, head_computes=True, **options_of(name))
    heads = [visit for visit in schedule.visits(1) if visit.position == schedule.head]
    assert [schedule.stage(visit) for visit in heads] == [stage, stage]
    assert schedule.num_positions == (5 if stage == 0 else 4)
    assert len(schedule.orders()[0]) == (8 if stage == 0 else 0)


def test_the_head_runs_between_the_last_forward_and_backward():
    one = a_schedule("1f1b", 2, 3, loss_at="last_stage", head_computes=True)
    assert order(one, 2) == "F0 H0 h0 B0 F1 H1 h1 B1 F2 H2 h2 B2"
    all_forwards = a_schedule("gpipe", 2, 3, loss_at="last_stage", head_computes=True)
    assert order(all_forwards, 2) == "F0 H0 F1 H1 F2 H2 h0 B0 h1 B1 h2 B2"
    chunks = a_schedule("interleaved_1f1b", 2, 2, loss_at="last_stage", head_computes=True, chunks_per_stage=2)
    assert order(chunks, 2) == "F0a F1a F0b H0 h0 B0b F1b H1 h1 B1b B0a B1a"


# ---- whatever the shape ---------------------------------------------------------------------------------
@st.composite
def schedules(draw) -> Schedule:
    name = draw(st.sampled_from(list(SCHEDULES)))
    p = draw(st.integers(2, 6))
    interleaved = SCHEDULES[name].is_interleaved
    m = SCHEDULES[name].microbatch_multiple(p) * draw(st.integers(1, 4 if interleaved else 12))
    swapped = p >= 4 and not interleaved and draw(st.booleans())
    workload = {"loss_at": draw(st.sampled_from(["embedding_stage", "last_stage"]))}
    if interleaved:
        workload["chunks_per_stage"] = draw(st.integers(2, 4))
    if SCHEDULES[name].limits_in_flight:
        workload["max_in_flight"] = draw(st.one_of(st.none(), st.integers(1, 30)))
    plan = IterationPlan(m, swapped_routes(p) if swapped else plain_routes(p))
    return a_schedule(name, p, m, head_computes=draw(st.booleans()), plan=plan, **workload)


@given(schedules())
def test_every_visit_is_made_exactly_once_at_its_stage(schedule):
    p, v, m = schedule.num_stages, schedule.chunks_per_stage, schedule.num_microbatches
    orders = schedule.orders()
    made = Counter(visit for visits in orders.values() for visit in visits)
    expected = {Visit(kind, i, k) for kind in ("forward", "backward") for i in range(v * p + 1) for k in range(m)}
    assert made == Counter(expected)
    assert all(schedule.stage(visit) == stage for stage, visits in orders.items() for visit in visits)
    assert set(orders) == set(range(p + 1))


@given(schedules())
def test_a_stage_keeps_microbatch_order_and_forward_first(schedule):
    assume(len(schedule.routes) == 1)  # they overtake each other where they swap stages
    for visits in schedule.orders().values():
        for kind in ("forward", "backward"):
            for position in {visit.position for visit in visits}:
                here = [visit.microbatch for visit in visits if (visit.kind, visit.position) == (kind, position)]
                assert here == sorted(here)
        place = {visit: rank for rank, visit in enumerate(visits)}
        assert all(place[v] < place[replace(v, kind="backward")] for v in visits if v.kind == "forward")


@given(schedules())
def test_a_way_leads_through_all_positions_and_back(schedule):
    for microbatch in range(schedule.num_microbatches):
        way = schedule.visits(microbatch)
        there, back = way[: schedule.head + 1], way[schedule.head + 1 :]
        assert [visit.position for visit in there] == list(range(schedule.head + 1))
        assert [visit.position for visit in back] == list(range(schedule.head + 1))[::-1]
        stages = [schedule.stage(visit) for visit in there[: schedule.num_stages]]
        assert sorted(stages) == list(range(1, schedule.num_stages + 1))


@given(schedules(), st.sampled_from([0.0, 0.5, 4.0]), st.sampled_from([0.0, 1.5]))
def test_a_textbook_order_can_be_followed_to_its_end(schedule, hop_seconds, head_seconds):
    p, m = schedule.num_stages, schedule.num_microbatches
    plan = IterationPlan(m, schedule.routes)
    options = {
        "loss_at": "last_stage" if schedule.head_stage else "embedding_stage",
        "chunks_per_stage": schedule.chunks_per_stage,
        "max_in_flight": schedule.chosen_in_flight,
    }
    site = a_site(p, m, 1.0, 2.0, schedule.name, head_seconds, hop_seconds, **options)
    found = site.costs.schedule(plan)
    if found.has_textbook_order:
        run = run_alone(site, plan, "textbook").run
        by_stage = {stage: [o for o in run.operations if o.stage == stage] for stage in site.cluster.stages}
        for stage, visits in found.orders().items():
            assert [(o.kind, o.microbatch) for o in by_stage[stage]] == [(v.kind, v.microbatch) for v in visits]


@pytest.mark.parametrize("max_in_flight", range(1, 14))
@pytest.mark.parametrize(("p", "v"), [(2, 2), (3, 2), (2, 4), (4, 3)])
def test_interleaved_with_few_in_flight_ends_too(p, v, max_in_flight):
    run = a_pipeline(p, 3 * p, 1.0, 2.0, "interleaved_1f1b", chunks_per_stage=v, max_in_flight=max_in_flight)
    assert len(run.operations) == 2 * 3 * p * (v * p + 1)


def test_first_come_first_served_has_no_textbook_order():
    assert not a_schedule("fifo", 4, 8).has_textbook_order
    assert a_schedule("gpipe", 4, 8).has_textbook_order
    assert a_schedule("1f1b", 4, 8).has_textbook_order
    assert not a_schedule("1f1b", 4, 8, max_in_flight=3).has_textbook_order
    assert not a_schedule("1f1b", 4, 8, max_in_flight=4, head_computes=True).has_textbook_order
    assert a_schedule("interleaved_1f1b", 4, 8, chunks_per_stage=2).has_textbook_order
    assert not a_schedule("interleaved_1f1b", 4, 8, chunks_per_stage=2, max_in_flight=7).has_textbook_order


def test_a_pipeline_has_two_stages_at_least():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        WorkloadConfig(num_stages=1)
