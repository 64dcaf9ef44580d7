"""What every iteration of the pipeline obeys, whatever its schedule, routes and costs."""

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from conftest import a_pipeline, a_scenario, a_strategy
from hypothesis import given
from hypothesis import strategies as st

from models.lineage import plain_routes, swapped_routes
from sim import pipeline
from sim.costs import Costs, IterationPlan
from sim.pipeline import PipelineRun, fastest_run
from sim.simulation import build_world

SCHEDULES = ("gpipe", "1f1b")
seconds = st.floats(0.01, 10.0)
schedules = st.sampled_from(SCHEDULES)


@st.composite
def pipelines(draw) -> PipelineRun:
    """Pipelines of all shapes: plain or swapped, with and without head, hops, shadow forwards and bounds."""
    num_stages, num_microbatches = draw(st.integers(2, 7)), draw(st.integers(1, 12))
    swapped = num_stages >= 4 and draw(st.booleans())
    plan = IterationPlan(
        num_microbatches,
        swapped_routes(num_stages) if swapped else plain_routes(num_stages),
        microbatch_size=draw(st.sampled_from([0.5, 1.0])),
        shadow_forwards=draw(st.sampled_from([0.0, 1.0])),
    )
    head_seconds, hop_seconds = (draw(st.one_of(st.just(0.0), seconds)) for _ in range(2))
    max_in_flight = draw(st.one_of(st.none(), st.integers(1, 15)))
    shape = (num_stages, num_microbatches, draw(seconds), draw(seconds), draw(schedules), head_seconds, hop_seconds)
    return a_pipeline(*shape, plan, max_in_flight)


def held_at_most(run: PipelineRun, stage: int) -> int:
    """Most microbatches between the start of their forward on a stage and the end of their backward."""
    changes = []
    for operation in (operation for operation in run.operations if operation.stage == stage):
        is_forward = operation.kind == "forward"
        changes.append((operation.start_seconds, 1) if is_forward else (operation.end_seconds, -1))
    held, most = 0, 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


@given(pipelines())
def test_every_microbatch_goes_all_the_way_and_back(run):
    for kind in ("forward", "backward"):
        done = [(o.microbatch, o.stage) for o in run.operations if o.kind == kind]
        assert len(done) == len(set(done)) == run.plan.num_microbatches * (run.cluster.num_stages + 1)
    assert run.seconds >= max(operation.end_seconds for operation in run.operations)


@given(pipelines())
def test_a_node_runs_one_operation_at_a_time(run):
    by_stage = defaultdict(list)
    for operation in run.operations:
        by_stage[operation.stage].append((operation.start_seconds, operation.end_seconds))
    for spans in by_stage.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@given(pipelines())
def test_a_microbatch_follows_its_route_to_the_loss_and_back(run):
    by_microbatch = defaultdict(list)
    for operation in run.operations:
        by_microbatch[operation.microbatch].append(operation)
    for microbatch, operations in by_microbatch.items():
        route = (*run.plan.routes[microbatch % len(run.plan.routes)], 0)
        visits = [("forward", stage) for stage in route] + [("backward", stage) for stage in reversed(route)]
        assert [(o.kind, o.stage) for o in operations] == visits
        assert all(before.end_seconds <= o.start_seconds for before, o in pairwise(operations))


@given(pipelines())
def test_no_iteration_is_shorter_than_its_busiest_node_or_its_longest_way(run):
    busy, way = defaultdict(float), defaultdict(float)
    for o in run.operations:
        busy[o.stage] += o.end_seconds - o.start_seconds
        way[o.microbatch] += o.end_seconds - o.start_seconds
    assert run.seconds >= max(*busy.values(), *way.values()) * (1 - 1e-9)


@pytest.mark.parametrize("num_stages", range(4, 13))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_swapped_routes_end(num_stages, schedule):
    for num_microbatches in (1, 2, 3, 4, 7, 10, 16, 30):
        plan = IterationPlan(num_microbatches, swapped_routes(num_stages))
        for head_seconds in (0.0, 1.5):
            run = a_pipeline(num_stages, num_microbatches, schedule=schedule, head_seconds=head_seconds, plan=plan)
            assert len(run.operations) == 2 * num_microbatches * (num_stages + 1)


@given(st.integers(2, 7), st.integers(1, 14), seconds, seconds)
def test_1f1b_holds_few_microbatches_and_gpipe_all(num_stages, num_microbatches, forward, backward):
    one_f_one_b = a_pipeline(num_stages, num_microbatches, forward, backward, "1f1b")
    gpipe = a_pipeline(num_stages, num_microbatches, forward, backward, "gpipe")
    for position in range(num_stages):
        assert held_at_most(one_f_one_b, position + 1) == min(num_microbatches, num_stages - position)
        assert held_at_most(gpipe, position + 1) == num_microbatches


@given(pipelines())
def test_no_more_microbatches_are_in_flight_than_allowed(run):
    if run.costs.workload.schedule == "1f1b":
        head_computes = any(o.end_seconds > o.start_seconds for o in run.operations if o.stage == 0)
        allowed = run.costs.workload.max_in_flight or run.cluster.num_stages + head_computes
        assert max(held_at_most(run, stage) for stage in run.cluster.stages) <= allowed


@given(pipelines())
def test_gpipe_begins_backwards_when_the_last_microbatch_has_reached_the_loss(run):
    if run.costs.workload.schedule == "gpipe":
        last_forward = max(o.end_seconds for o in run.operations if o.kind == "forward")
        assert last_forward <= min(o.start_seconds for o in run.operations if o.kind == "backward")


@given(st.integers(4, 9), st.integers(1, 20), schedules)
def test_swapping_moves_an_iteration_by_two_slots_at_most_where_transfers_are_free_and_enough_is_in_flight(
    num_stages, num_microbatches, schedule
):
    plain, swapped = (
        a_pipeline(num_stages, num_microbatches, schedule=schedule, plan=plan, max_in_flight=2 * num_stages).seconds
        for plan in (None, IterationPlan(num_microbatches, swapped_routes(num_stages)))
    )
    assert abs(swapped - plain) <= 2 * 3.0


@pytest.mark.parametrize("hop_seconds", [1.0, 10.0])
def test_swapping_does_not_speed_up_a_pipeline_over_slow_links(hop_seconds):
    plain, swapped = (
        a_pipeline(6, 40, hop_seconds=hop_seconds, max_in_flight=12, plan=IterationPlan(40, routes)).seconds
        for routes in (plain_routes(6), swapped_routes(6))
    )
    assert swapped > 0.95 * plain


@dataclass(frozen=True)
class UnevenCosts(Costs):
    """Each layer stage (forward, backward) as given; the head is free."""

    stages: tuple[tuple[float, float], ...] = ()

    def forward_seconds(self, stage: int) -> float:
        return self.stages[stage - 1][0] if stage else 0.0

    def backward_seconds(self, stage: int) -> float:
        return self.stages[stage - 1][1] if stage else 0.0


def uneven(stages: tuple[tuple[float, float], ...], num_microbatches: int, schedule: str) -> PipelineRun:
    """One iteration over uneven stages, without transfer time."""
    even = a_pipeline(len(stages), num_microbatches, schedule=schedule)
    costs = UnevenCosts(even.costs.workload, even.costs.device, stages)
    return fastest_run(even.plan, costs, even.cluster, even.network)


@given(st.lists(st.tuples(seconds, seconds), min_size=2, max_size=6), st.integers(1, 12), schedules)
def test_uneven_stages_take_at_least_the_way_to_each_and_all_its_work(stages, num_microbatches, schedule):
    run = uneven(tuple(stages), num_microbatches, schedule)
    works = [forward + backward for forward, backward in stages]
    bound = max(sum(works[:i]) + num_microbatches * work for i, work in enumerate(works))
    assert run.seconds >= max(bound, sum(works)) * (1 - 1e-9)


@given(st.integers(2, 6), st.integers(1, 12), schedules)
def test_a_slow_last_stage_meets_the_bound(num_stages, num_microbatches, schedule):
    stages = (*[(1.0, 2.0)] * (num_stages - 1), (4.0, 8.0))
    run = uneven(stages, num_microbatches, schedule)
    assert run.seconds == pytest.approx(3.0 * (num_stages - 1) + 12.0 * num_microbatches)


def test_an_iteration_is_priced_by_its_slowest_replica_and_then_the_all_reduce():
    slow = ("a", "b", 2000.0, 1e20)
    network = {
        "same_region": {"latency_ms": 0.0, "bandwidth_mbit_per_s": 1e30},
        "storage": {"latency_ms": 0.0, "bandwidth_mbit_per_s": 1e30},
        "links": (slow,),
    }
    cluster = {"nodes_per_stage": 2, "regions": ("a", "a", "a", "a", "a", "a", "a", "a", "a", "b")}
    world = build_world(a_scenario(num_microbatches=1, network=network, cluster=cluster), 0)
    split = world.pipeline.split(world.plain_plan())
    # Only the last stage's second node is far: four slow hops in its pipeline, 2 (n - 1) latencies in its ring.
    assert split.seconds == pytest.approx(4 * 3.0 + 4 * 2.0 + 2 * 2.0)


@pytest.mark.parametrize("kind", ["none", "redundant", "checkfree_plus"])
def test_the_split_adds_up_to_the_pipeline_and_prices_are_kept(kind):
    scenario = a_scenario(({"kind": kind},))
    world = build_world(scenario, 0)
    plan = a_strategy(scenario.strategies[0]).price(world.plain_plan())
    split = world.pipeline.split(plan)
    run = fastest_run(plan, world.costs, world.cluster, world.network)
    assert split.seconds == pytest.approx(run.seconds, rel=1e-12)
    assert world.pipeline.split(replace(plan)) is split


@given(st.integers(2, 6), st.integers(1, 10), st.booleans())
def test_productive_and_redundant_seconds_are_those_of_the_operations(num_stages, num_microbatches, shadow):
    scenario = a_scenario(num_stages=num_stages, num_microbatches=num_microbatches)
    world = build_world(scenario, 0)
    plan = replace(world.plain_plan(), shadow_forwards=float(shadow))
    split = world.pipeline.split(plan)
    run = fastest_run(plan, world.costs, world.cluster, world.network)
    busy = sum(o.end_seconds - o.start_seconds for o in run.operations) / (num_stages + 1)
    assert split.productive_seconds + split.redundant_seconds == pytest.approx(busy)
    assert split.productive_seconds == pytest.approx(3.0 * num_stages * num_microbatches / (num_stages + 1))


def test_a_schedule_that_deadlocks_is_an_error_not_a_short_iteration(monkeypatch):
    monkeypatch.setattr(pipeline, "logical_time", lambda visit, *_: visit.kind == "forward")  # backwards first
    with pytest.raises(RuntimeError, match="No scheduled events left"):
        a_pipeline(4, 4)
