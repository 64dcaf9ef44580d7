"""The order in which a stage's node works, against hand-written ones."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.spec import plain_routes, swapped_routes
from sim.workload.config import IterationPlan, TargetModel, WorkloadConfig, plain_plan, schedule_of
from sim.workload.schedule import SCHEDULES, Schedule, Visit
from support.builders import TINY_MODEL, a_pipeline, a_site
from support.iterations import options_of
from support.simpy_iteration import run_alone

HEAD_ON_LAST_STAGE = {"loss_at": "last_stage", "head_computes": True}


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


@pytest.mark.parametrize(
    ("name", "p", "m", "options", "expected"),
    [
        ("gpipe", 3, 4, {}, dict.fromkeys((1, 2, 3), "F0 F1 F2 F3 B0 B1 B2 B3")),
        (  # Narayanan et al. 2021, figure 3 lower half (PipeDream-flush): warm-up, then forward and backward in turn
            "1f1b",
            4,
            6,
            {},
            {
                1: "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5",
                2: "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5",
                3: "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5",
                4: "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5",
            },
        ),
        (  # more in flight than positions: that many run ahead
            "1f1b",
            2,
            6,
            {"max_in_flight": 4},
            {1: "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5", 2: "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5"},
        ),
        (  # Narayanan et al. 2021, section 2.2: groups of p pass chunk after chunk, warm-up 2 (p - i) + (v - 1) p
            "interleaved_1f1b",
            2,
            4,
            {"chunks_per_stage": 2},
            {
                1: "F0a F1a F0b F1b F2a B0b F3a B1b F2b B0a F3b B1a B2b B3b B2a B3a",
                2: "F0a F1a F0b B0b F1b B1b F2a B0a F3a B1a F2b B2b F3b B3b B2a B3a",
            },
        ),
        (  # a head on its own node is one more stage
            "1f1b",
            2,
            4,
            {"head_computes": True},
            {1: "F0 F1 F2 B0 F3 B1 B2 B3", 2: "F0 F1 B0 F2 B1 F3 B2 B3", 0: "H0 h0 H1 h1 H2 h2 H3 h3"},
        ),
        ("1f1b", 2, 3, HEAD_ON_LAST_STAGE, {2: "F0 H0 h0 B0 F1 H1 h1 B1 F2 H2 h2 B2"}),
        ("gpipe", 2, 3, HEAD_ON_LAST_STAGE, {2: "F0 H0 F1 H1 F2 H2 h0 B0 h1 B1 h2 B2"}),
        (
            "interleaved_1f1b",
            2,
            2,
            HEAD_ON_LAST_STAGE | {"chunks_per_stage": 2},
            {2: "F0a F1a F0b H0 h0 B0b F1b H1 h1 B1b B0a B1a"},
        ),
    ],
    ids=["gpipe", "1f1b", "ahead", "interleaved", "head node", "1f1b head", "gpipe head", "interleaved head"],
)
def test_each_stage_works_in_the_textbook_order(name, p, m, options, expected):
    schedule = a_schedule(name, p, m, **options)
    assert {stage: order(schedule, stage) for stage in expected} == expected


@pytest.mark.parametrize(("stage", "warm_up"), [(1, 10), (2, 8), (3, 6), (4, 4)])
def test_interleaved_four_stages_warm_up_as_in_figure_4(stage, warm_up):
    """Of 4 devices, 2 chunks and 8 microbatches; the steady state begins with a forward, then the first backward."""
    done = order(a_schedule("interleaved_1f1b", 4, 8, chunks_per_stage=2), stage).split()
    assert "".join(name[0] for name in done[: warm_up + 2]) == "F" * (warm_up + 1) + "B"
    for letter, chunks in (("F", "ab"), ("B", "ba")):
        groups = [f"{letter}{k}{chunk}" for ks in (range(4), range(4, 8)) for chunk in chunks for k in ks]
        assert [name for name in done if name[0] == letter] == groups


def test_swapped_routes_pass_the_ends_of_two_stages_at_least():
    plan = IterationPlan(4, swapped_routes(4))
    schedule = a_schedule("1f1b", 4, 4, plan=plan)
    assert [schedule.stage(visit) for visit in schedule.visits(0)[:5]] == [1, 2, 3, 4, 0]
    assert [schedule.stage(visit) for visit in schedule.visits(1)[:5]] == [2, 1, 4, 3, 0]
    assert [schedule.stage(visit) for visit in schedule.visits(1)[5:]] == [0, 3, 4, 1, 2]
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        WorkloadConfig(num_stages=1)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("loss_at", "stage"), [("embedding_stage", 0), ("last_stage", 4)])
def test_the_head_is_visited_where_it_is(name, loss_at, stage):
    schedule = a_schedule(p=4, m=4, loss_at=loss_at, head_computes=True, **options_of(name))
    heads = [visit for visit in schedule.visits(1) if visit.position == schedule.head]
    assert [schedule.stage(visit) for visit in heads] == [stage, stage]
    assert schedule.num_positions == (5 if stage == 0 else 4)
    assert len(schedule.orders()[0]) == (8 if stage == 0 else 0)


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
    for microbatch in range(m):
        way, positions = schedule.visits(microbatch), list(range(schedule.head + 1))
        assert [visit.position for visit in way] == positions + positions[::-1]
        assert sorted(schedule.stage(visit) for visit in way[:p]) == list(range(1, p + 1))


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
        done = [o for o in run.operations if o.kind != "weights"]
        by_stage = {stage: [o for o in done if o.stage == stage] for stage in site.cluster.stages}
        for stage, visits in found.orders().items():
            assert [(o.kind, o.microbatch) for o in by_stage[stage]] == [(v.kind, v.microbatch) for v in visits]


@pytest.mark.parametrize("max_in_flight", range(1, 14))
@pytest.mark.parametrize(("p", "v"), [(2, 2), (3, 2), (2, 4), (4, 3)])
def test_interleaved_with_few_in_flight_ends_too(p, v, max_in_flight):
    run = a_pipeline(p, 3 * p, 1.0, 2.0, "interleaved_1f1b", chunks_per_stage=v, max_in_flight=max_in_flight)
    assert len(run.operations) == 2 * 3 * p * (v * p + 1)


@pytest.mark.parametrize(
    ("name", "options", "has_textbook_order"),
    [
        ("fifo", {}, False),
        ("gpipe", {}, True),
        ("1f1b", {}, True),
        ("1f1b", {"max_in_flight": 3}, False),
        ("1f1b", {"max_in_flight": 4, "head_computes": True}, False),
        ("interleaved_1f1b", {"chunks_per_stage": 2}, True),
        ("interleaved_1f1b", {"chunks_per_stage": 2, "max_in_flight": 7}, False),
    ],
)
def test_which_schedules_have_a_textbook_order(name, options, has_textbook_order):
    assert a_schedule(name, 4, 8, **options).has_textbook_order == has_textbook_order
