"""What every iteration obeys, whatever its schedule, routes, links and costs."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import plain_routes, swapped_routes
from sim.cluster.network import STORAGE
from sim.core.units import to_ticks
from sim.simulation.run import build_world
from sim.workload.config import IterationPlan, plain_plan
from sim.workload.iteration_time import IterationTimes
from sim.workload.schedule import OneForwardOneBackward
from support.builders import (
    BYTES_PER_SECOND,
    TICK,
    PricedIteration,
    a_link,
    a_pipeline,
    a_scenario,
    a_site,
    a_strategy,
    an_iteration,
)
from support.examples import examples
from support.iterations import options_of, schedules, seconds, shapes
from support.simpy_iteration import FinishedIteration, run_alone

FEWER = settings(max_examples=examples(20, 50))


def iterations() -> st.SearchStrategy[PricedIteration]:
    """Iterations of all shapes."""
    return shapes().map(lambda shape: an_iteration(*shape))


def of_kind(run: PricedIteration, *kinds: str) -> list:
    return [operation for operation in run.operations if operation.kind in kinds]


def in_flight_at_most(run: PricedIteration, replica: int = 0) -> int:
    """Most microbatches of a pipeline between the start of their first forward and the end of their last backward."""
    by_microbatch = defaultdict(list)
    for o in of_kind(run, "forward", "backward"):
        if o.replica == replica:
            by_microbatch[o.microbatch].append(o)
    changes = [(min(o.start_seconds for o in each), 1) for each in by_microbatch.values()]
    changes += [(max(o.end_seconds for o in each), -1) for each in by_microbatch.values()]
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


def messages(run: PricedIteration, what: str) -> list:
    return [message for message in run.messages if message.what.startswith(what)]


# ---- whatever the shape -------------------------------------------------------------------------------
@FEWER
@given(iterations())
def test_microbatches_go_to_the_loss_and_back_as_scheduled(run):
    schedule = run.run.schedule
    by_microbatch = defaultdict(list)
    for o in of_kind(run, "forward", "backward"):
        by_microbatch[o.replica, o.microbatch].append(o)
    assert len(by_microbatch) == run.plan.num_microbatches * run.deployment.cluster.config.nodes_per_stage
    for (_, microbatch), operations in by_microbatch.items():
        way = [(visit.kind, schedule.stage(visit)) for visit in schedule.visits(microbatch)]
        assert [(o.kind, o.stage) for o in operations] == way
        assert all(before.end_seconds <= o.start_seconds for before, o in pairwise(operations))
        assert run.seconds >= sum(o.end_seconds - o.start_seconds for o in operations)  # sums of ticks are exact
    for replica in run.deployment.cluster.replicas:
        assert in_flight_at_most(run, replica) <= run.run.schedule.in_flight_limit
        if run.deployment.costs.workload.schedule == "gpipe":
            here = [o for o in run.operations if o.replica == replica]
            last_forward = max(o.end_seconds for o in here if o.kind == "forward")
            assert last_forward <= min(o.start_seconds for o in here if o.kind == "backward")


@FEWER
@given(iterations())
def test_everything_happens_after_the_pause_in_whole_ticks(run):
    workload = run.deployment.costs.workload
    spans = [(each.start_seconds, each.end_seconds) for each in (*run.operations, *run.messages)]
    assert min(start for start, _ in spans) >= to_ticks(workload.pause_seconds)
    assert max(end for _, end in spans) <= run.seconds == to_ticks(run.seconds)
    assert all(instant == to_ticks(instant) for span in spans for instant in span)
    assert all(message.arrived for message in run.messages)
    optimizer_from_seconds = max(o.end_seconds for o in run.operations)
    assert run.seconds >= optimizer_from_seconds + to_ticks(workload.optimizer_seconds)


@FEWER
@given(iterations())
def test_no_message_is_faster_than_alone(run):
    for message in run.messages:
        path = run.deployment.network.path(message.source, message.target)
        alone = path.latency_seconds + message.num_bytes / path.alone_bytes_per_second
        assert message.end_seconds - message.start_seconds >= alone * (1 - 1e-9) - 20 * TICK
        assert STORAGE not in (message.source, message.target)
    sent = [m for m in run.messages if m.what.split()[0] in ("activation", "gradient") and "exchange" not in m.what]
    num_bytes = run.plan.microbatch_size * run.deployment.costs.activation_bytes
    assert {message.num_bytes for message in sent} == {num_bytes}


# ---- schedules ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("num_stages", range(4, 13))
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "fifo"])
def test_swapped_routes_end(num_stages, schedule):
    for num_microbatches in (1, 2, 3, 4, 7, 10, 16, 30)[:: examples(2, 1)]:
        plan = IterationPlan(num_microbatches, swapped_routes(num_stages))
        for head_seconds in (0.0, 1.5):
            run = a_pipeline(num_stages, num_microbatches, schedule=schedule, head_seconds=head_seconds, plan=plan)
            assert len(run.operations) == 2 * num_microbatches * (num_stages + 1)


@given(st.integers(2, 6), st.integers(1, 12), st.integers(1, 8), seconds, seconds, seconds)
def test_fifo_serves_in_order_of_arrival_at_most_k_in_flight(p, m, k, forward, backward, hop):
    run = a_pipeline(p, m, forward, backward, "fifo", hop_seconds=hop, max_in_flight=k)
    assert in_flight_at_most(run) <= k
    assert in_flight_at_most(run) == min(k, m) or hop > 0.0
    if k == 1:
        assert run.seconds == m * (p * (forward + backward) + 2 * (p + 1) * hop)
    arrived = defaultdict(list)
    for message in sorted(messages(run, "activation") + messages(run, "gradient"), key=lambda m: m.end_seconds):
        arrived[message.target, message.what].append(message.end_seconds)
    for stage in range(1, p + 1):
        begun = sorted(of_kind(run, "forward", "backward"), key=lambda o: o.start_seconds)
        came = [
            arrived[stage, f"{'activation' if o.kind == 'forward' else 'gradient'} {o.microbatch}"][0]
            for o in begun
            if o.stage == stage
        ]
        assert came == sorted(came)


@pytest.mark.parametrize("v", [2, 4])
def test_chunks_divide_a_stages_work_and_the_pipeline_fill(v):
    run = a_pipeline(4, 8, schedule="interleaved_1f1b", chunks_per_stage=v)
    assert run.seconds == (8 + 3 / v) * 3.0
    forwards = [o.end_seconds - o.start_seconds for o in of_kind(run, "forward") if o.stage == 2]
    assert forwards == [1.0 / v] * 8 * v


@FEWER
@given(st.integers(2, 8), st.integers(0, 12), seconds)
def test_gradients_of_weights_fill_the_bubble(p, more, forward):
    """ZB-H1 (arXiv 2401.10241, table 2): the bubble is (p - 1)(t_F + t_B - t_W), a third of 1f1b's if all are equal."""
    run = a_pipeline(p, p + more, forward, 2 * forward, "zero_bubble")
    assert run.seconds == (p + more) * 3 * forward + (p - 1) * forward
    assert a_pipeline(p, p + more, forward, 2 * forward).seconds == run.seconds + (p - 1) * 2 * forward


@given(st.integers(4, 9), st.integers(1, 20), st.sampled_from(["gpipe", "1f1b"]))
def test_swapping_moves_an_iteration_by_two_slots_at_most(num_stages, num_microbatches, schedule):
    """Where transfers are free and enough microbatches are in flight."""
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


def test_a_deadlocking_schedule_is_an_error(monkeypatch):
    backwards_first = lambda self, visits: (visits.forward, visits.microbatch, visits.position)  # noqa: E731
    monkeypatch.setattr(OneForwardOneBackward, "logical_time", backwards_first)
    with pytest.raises(RuntimeError, match="No scheduled events left"):
        a_pipeline(4, 4)


# ---- the gradient exchange ------------------------------------------------------------------------------

EXCHANGES = pytest.mark.parametrize("exchange", ["ring", "all_to_all"])


def replicated(n: int, exchange: str, *, access: float | None = None, overlap: bool = True):
    """n pipelines of 4 stages; gradients of 2720 bytes at 272 bytes a second, activations at no cost."""
    network = {"same_region": a_link(0.5, 272.0), "negligible_seconds": 1e9}
    if access:
        network["access"] = dict.fromkeys(("up_mbit_per_s", "down_mbit_per_s"), access * BYTES_PER_SECOND)
    options = {"gradient_exchange": exchange, "overlap_gradient_exchange": overlap}
    return a_pipeline(4, 4, nodes_per_stage=n, network=network, **options)


@EXCHANGES
@pytest.mark.parametrize("overlap", [True, False])
def test_a_stage_exchanges_when_its_replicas_or_all_are_done(exchange, overlap):
    run = replicated(2, exchange, overlap=overlap)
    ends = [max(o.end_seconds for o in run.operations if o.stage == stage) for stage in range(5)]
    assert ends[1:] == [21.0, 19.0, 17.0, 15.0]  # drained from the last stage on
    for stage in range(1, 5):
        started = {message.start_seconds for message in messages(run, f"gradient exchange of stage {stage}")}
        assert started == ({ends[stage]} if overlap else {21.0})
    home = {message.start_seconds for message in messages(run, "gradient exchange of stage 0")}
    assert home == {21.0}  # the embedding's gradient is complete when the last microbatch is back


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_ring_takes_its_formula_for_every_stage(n):
    """2 (n - 1) latencies and 2 (n - 1) / n of the bytes over each node's link; stage 1 is the last to begin."""
    run = replicated(n, "ring")
    expected = 2 * (n - 1) * 0.5 + 2 * (n - 1) / n * 10.0
    assert run.seconds == pytest.approx(21.0 + expected, abs=4 * TICK)
    for stage in range(5):
        exchange = messages(run, f"gradient exchange of stage {stage}")
        assert [message.num_bytes for message in exchange] == pytest.approx([2 * (n - 1) / n * 2720.0] * n)
        nodes = run.deployment.cluster.slots_of(stage)
        assert [(message.source, message.target) for message in exchange] == list(
            zip(nodes, (*nodes[1:], nodes[0]), strict=True)
        )


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize(("access", "slowness"), [(None, lambda n: 1), (272.0, lambda n: n - 1)])
def test_all_to_all_shares_access_links(n, access, slowness):
    run = replicated(n, "all_to_all", access=access)
    assert run.seconds == pytest.approx(21.0 + 0.5 + 10.0 * slowness(n), abs=n * TICK)
    exchange = messages(run, "gradient exchange of stage 3")
    assert len(exchange) == n * (n - 1) == len({(message.source, message.target) for message in exchange})
    assert {message.num_bytes for message in exchange} == {2720.0}


@EXCHANGES
def test_one_replica_exchanges_nothing(exchange):
    run = replicated(1, exchange)
    assert (run.seconds, run.messages) == (21.0, [])


def test_an_exchange_beside_the_pipeline_shares_its_links():
    """Activations of 262144 bytes take a second over 262144 bytes a second, and longer beside an exchange."""
    access = 262144 * BYTES_PER_SECOND
    network = {"same_region": a_link(), "access": {"up_mbit_per_s": access, "down_mbit_per_s": access}}
    alone, replicas = (a_pipeline(4, 4, network=network, nodes_per_stage=n).seconds for n in (1, 2))
    free = a_pipeline(4, 4, network={**network, "sharing": "none"}, nodes_per_stage=2).seconds
    exchange_seconds = 2720 / 262144
    assert alone < replicas <= alone + 5 * 2 * exchange_seconds
    assert free <= replicas


def test_an_iteration_is_its_slowest_replica_plus_all_reduce():
    network = {"same_region": a_link(), "storage": a_link(), "links": (("a", "b", 2000.0, 1e20),)}
    cluster = {"nodes_per_stage": 2, "placement": "by_hand", "regions": ("a",) * 9 + ("b",)}
    world = build_world(a_scenario(num_microbatches=1, network=network, cluster=cluster), 0)
    # Only the last stage's second node is far: four slow hops in its pipeline. Stage 4 exchanges over 2 (n - 1)
    # latencies while the gradient goes home and through the stages before it, which takes longer.
    run = an_iteration(world.iteration_times.deployment)
    assert run.seconds == world.iteration_times.alone(world.plain_plan()).seconds == 4 * 3.0 + 4 * 2.0
    assert [message.start_seconds for message in messages(run, "gradient exchange of stage 4")] == [12.0] * 2
    after = build_world(
        a_scenario(num_microbatches=1, network=network, cluster=cluster, overlap_gradient_exchange=False), 0
    )
    assert after.iteration_times.alone(after.plain_plan()).seconds == 4 * 3.0 + 4 * 2.0 + 2 * 2.0


# ---- pause and optimizer --------------------------------------------------------------------------------
@given(schedules, seconds, seconds)
def test_the_pause_comes_first_and_the_optimizer_last(schedule, pause, optimizer):
    options = {**options_of(schedule), "hop_seconds": 0.25}
    plain = a_pipeline(3, 6, **options)
    both = a_pipeline(3, 6, pause_seconds=pause, optimizer_seconds=optimizer, **options)
    assert both.seconds == plain.seconds + pause + optimizer
    assert [o.start_seconds for o in both.operations] == [o.start_seconds + pause for o in plain.operations]
    assert both.split.productive_seconds == pytest.approx(plain.split.productive_seconds + optimizer)
    assert both.split.bubble_seconds == pytest.approx(plain.split.bubble_seconds + pause)


# ---- uneven nodes ---------------------------------------------------------------------------------------
@given(st.integers(1, 4), st.sampled_from([0.5, 1.5, 4.0]), schedules)
def test_a_straggling_stage_is_a_stage_with_that_much_more_work(stage, slowdown, schedule):
    stages = [(1.0, 2.0)] * 4
    stages[stage - 1] = (slowdown, 2 * slowdown)
    stragglers = ({"stage": stage, "slowdown": slowdown},)
    expected = a_pipeline(4, 8, stages=stages, **options_of(schedule))
    slow = a_pipeline(4, 8, cluster={"stragglers": stragglers}, **options_of(schedule))
    assert slow.seconds == expected.seconds
    assert slow.operations == expected.operations


def test_stragglers_slow_their_own_pipeline_and_all_wait_for_it():
    stragglers = (
        {"stage": 2, "replica": 1, "slowdown": 2.0},
        {"stage": 2, "slowdown": 1.5},
        {"stage": 0, "slowdown": 9.0},
    )
    run = a_pipeline(4, 4, cluster={"nodes_per_stage": 3, "stragglers": stragglers})

    def durations(stage: int, replica: int) -> set[float]:
        here = [o for o in run.operations if (o.stage, o.replica, o.kind) == (stage, replica, "forward")]
        return {o.end_seconds - o.start_seconds for o in here}

    assert [durations(2, replica) for replica in range(3)] == [{1.5}, {3.0}, {1.5}]
    assert [durations(3, replica) for replica in range(3)] == [{1.0}] * 3
    ends = [max(o.end_seconds for o in run.operations if o.replica == replica) for replica in range(3)]
    assert ends[1] > ends[0] == ends[2]
    assert run.seconds == ends[1]


def jittered(sigma: float, seed: int, executions: range, **options) -> list[FinishedIteration]:
    """The iterations that a run executes first, as they are priced, with what each consisted of."""
    site = a_site(
        options.pop("num_stages", 4), options.pop("num_microbatches", 4), cluster={"jitter": sigma}, **options
    )
    pipeline, plan = IterationTimes(site, seed), plain_plan(site.costs.workload)
    order = pipeline.alone(plan).order
    found = [run_alone(site, plan, order, pipeline.time_factor(execution)) for execution in executions]
    assert [run.time for run in found] == [pipeline.executed(plan, execution) for execution in executions]
    return found


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_jittering_operations_take_their_usual_time_on_average(sigma):
    forwards = [
        o.end_seconds - o.start_seconds
        for run in jittered(sigma, 0, range(1, 65), num_microbatches=16)
        for o in run.run.operations
        if o.kind == "forward" and o.stage > 0
    ]
    assert len(forwards) == 64 * 16 * 4
    error = math.sqrt(math.expm1(sigma**2) / len(forwards))  # variance of the factor: exp(sigma^2) - 1
    assert abs(math.fsum(forwards) / len(forwards) - 1.0) < 3 * error
    logarithms = [math.log(duration) for duration in forwards]
    mean = math.fsum(logarithms) / len(logarithms)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logarithms) / len(logarithms))
    assert spread == pytest.approx(sigma, rel=0.05)


def test_jitter_differs_by_iteration_node_and_seed_alone():
    runs = jittered(0.3, 0, range(1, 9))
    assert len({run.seconds for run in runs}) == 8
    assert [run.seconds for run in runs] == [run.seconds for run in jittered(0.3, 0, range(1, 9))]
    assert runs[0].seconds != jittered(0.3, 1, range(1, 2))[0].seconds
    first = {(o.stage, o.kind): o.end_seconds - o.start_seconds for o in runs[0].run.operations if o.microbatch == 0}
    assert len({first[stage, "forward"] for stage in range(1, 5)}) == 4

    def durations(num_stages: int) -> list[float]:
        (run,) = jittered(0.3, 0, range(1, 2), num_stages=num_stages, schedule="gpipe")
        return [o.end_seconds - o.start_seconds for o in run.run.operations if o.stage == 1]

    assert durations(4) == durations(6)


# ---- redundant computation --------------------------------------------------------------------------------
def test_a_shadow_forward_costs_a_third_more_compute():
    for preset, share in (("paper_text", 1.0), ("paper_table2", 2.0)):
        scenario = a_scenario(({"kind": "redundant", "preset": preset, "microbatch_size_factor": share / 2},))
        world = build_world(scenario, 0)
        plain = world.iteration_times.split(world.plain_plan())
        shadowed = world.iteration_times.split(a_strategy(scenario.strategies[0]).adapt_plan(world.plain_plan()))
        assert shadowed.productive_seconds == pytest.approx(share * plain.productive_seconds)
        compute = shadowed.productive_seconds + shadowed.redundant_seconds
        assert compute / shadowed.productive_seconds == pytest.approx(4 / 3)


@given(
    st.lists(st.tuples(seconds, seconds), min_size=2, max_size=5),
    st.integers(1, 8),
    st.sampled_from(["gpipe", "1f1b"]),
    st.sampled_from([0.0, 1.5, 6.0]),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from(["embedding_stage", "last_stage"]),
    st.sampled_from([1.0, 3.0]),
)
def test_a_shadow_that_waits_is_the_same_work_and_never_later(stages, m, schedule, head, hop, loss_at, slow):
    """In a fixed order: lazy, while the node waits; eager, once the activation has left; or before it leaves."""
    p = len(stages)
    cluster = {"stragglers": ({"stage": 1, "slowdown": slow},)}
    site = a_site(
        p, m, 1.0, 2.0, schedule, head, hop, stages=stages, loss_at=loss_at, cluster=cluster, max_in_flight=20
    )
    plan = IterationPlan(m, plain_routes(p), shadow_forwards=1.0)
    lazy, eager, with_forward = runs = [run_alone(site, replace(plan, shadow=s), "textbook") for s in SHADOWS]
    assert lazy.seconds <= eager.seconds <= with_forward.seconds
    assert lazy.run.busy_seconds == eager.run.busy_seconds == with_forward.run.busy_seconds
    by_stage = [Counter() for _ in runs]
    for counter, each in zip(by_stage, runs, strict=True):
        for o in each.run.operations:
            if o.kind == "shadow" and o.end_seconds > o.start_seconds:
                counter[o.stage] += o.end_seconds - o.start_seconds
    assert by_stage[0] == by_stage[1] == by_stage[2]


SHADOWS = ("lazy", "eager", "with_forward")


def test_when_a_shadow_runs():
    """One microbatch through 4 stages, 12 s. S1 to S3 shadow the next stage, the head's node S1."""
    plan = IterationPlan(1, plain_routes(4), shadow_forwards=1.0)
    lazy, eager, with_forward = (a_pipeline(4, 1, plan=replace(plan, shadow=shadow)) for shadow in SHADOWS)
    assert lazy.seconds == a_pipeline(4, 1).seconds == 12.0
    assert eager.seconds == 12.0 + 1.0  # the head's node shadows S1 before its backward
    assert with_forward.seconds == 12.0 + 4.0

    def spans(run: PricedIteration) -> list[tuple[str, float, float]]:
        return [(o.kind, o.start_seconds, o.end_seconds) for o in run.operations if o.stage == 2]

    assert spans(lazy) == [("forward", 1.0, 2.0), ("shadow", 2.0, 3.0), ("backward", 8.0, 10.0)]
    assert spans(eager) == [("forward", 1.0, 2.0), ("shadow", 2.0, 3.0), ("backward", 9.0, 11.0)]
    assert spans(with_forward) == [("forward", 2.0, 3.0), ("shadow", 3.0, 4.0), ("backward", 12.0, 14.0)]
    # In gaps that are long enough a shadow costs nothing.
    plan, plain = replace(plan, num_microbatches=8), a_pipeline(4, 8, hop_seconds=5.0).seconds
    lazy, eager, with_forward = (
        a_pipeline(4, 8, plan=replace(plan, shadow=shadow), hop_seconds=5.0).seconds for shadow in SHADOWS
    )
    assert plain == lazy < eager < with_forward


@pytest.mark.parametrize("loss_at", ["embedding_stage", "last_stage"])
def test_each_stage_shadows_the_next_and_the_last_one_the_head(loss_at):
    plan = IterationPlan(3, plain_routes(4), shadow_forwards=1.0)
    stages = [(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0)]
    run = a_pipeline(4, 3, stages=stages, head_seconds=1.5, plan=plan, loss_at=loss_at)  # the head's forward: 0.5 s
    shadow = Counter()
    for o in of_kind(run, "shadow"):
        shadow[o.stage] += o.end_seconds - o.start_seconds
    head_on_stage_4 = loss_at == "last_stage"
    assert [shadow[stage] / 3 for stage in (0, 1, 2)] == [1.0, 2.0, 3.0]
    assert shadow[3] / 3 == (4.5 if head_on_stage_4 else 4.0)
    assert shadow[4] / 3 == pytest.approx(0.0 if head_on_stage_4 else 0.5)


@pytest.mark.parametrize("num_transfers", [1, 2])
def test_shadow_transfers_follow_the_optimizer_in_sequence(num_transfers):
    network = {"same_region": a_link(0.5, 272.0), "negligible_seconds": 1e9}
    plan = IterationPlan(4, plain_routes(4), shadow_transfers=num_transfers)
    run = a_pipeline(4, 4, network=network, plan=plan, optimizer_seconds=2.0, nodes_per_stage=1)
    assert run.seconds == 21.0 + 2.0 + num_transfers * (0.5 + 10.0)
    sent = messages(run, "shadow")
    assert {message.start_seconds for message in sent} == {23.0 + 10.5 * n for n in range(num_transfers)}
    assert Counter((message.source, message.target) for message in sent) == Counter(
        {(0, 4): num_transfers, **{(stage, stage - 1): num_transfers for stage in range(1, 5)}}
    )
    assert {message.num_bytes for message in sent} == {2720.0}


# ---- CheckFree+ -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bytes_per_second", [34.0, 64.0, 68.0, 1360.0])
def test_embedding_copies_shorter_than_the_iteration_are_free(bytes_per_second):
    """Half of stage 0's gradient has 1360 bytes; the iteration takes a pause of 2 s and 21 s."""
    network = {"same_region": a_link(0.0, bytes_per_second), "negligible_seconds": 1e9}
    plan = IterationPlan(4, plain_routes(4), embedding_copies=True)
    run = a_pipeline(4, 4, network=network, plan=plan, pause_seconds=2.0, nodes_per_stage=1)
    assert run.seconds == max(2.0 + 21.0, 2.0 + 1360 / bytes_per_second)
    sent = messages(run, "copy")
    assert [(message.source, message.target, message.num_bytes) for message in sent] == [(0, 1, 1360.0), (0, 4, 1360.0)]
    assert {message.start_seconds for message in sent} == {2.0}
    two_pipelines = a_pipeline(4, 4, plan=plan, nodes_per_stage=2)
    sent = messages(two_pipelines, "copy")
    assert [(message.source, message.target) for message in sent] == [(0, 2), (1, 3), (0, 8), (1, 9)]


def test_embedding_copies_take_their_share_of_the_links():
    """Activations of 262144 bytes at one a second; copies slow them on the way they share, or on none."""
    plan = IterationPlan(4, plain_routes(4), embedding_copies=True)
    rate = 262144 * BYTES_PER_SECOND
    for sharing, is_slower in (("node_pair", True), ("none", False)):
        network = {
            "same_region": a_link(),
            "access": {"up_mbit_per_s": rate, "down_mbit_per_s": rate},
            "sharing": sharing,
        }
        without, with_copies = (
            a_pipeline(4, 4, network=network, plan=each) for each in (replace(plan, embedding_copies=False), plan)
        )
        assert (with_copies.seconds > without.seconds) == is_slower
        assert with_copies.seconds <= without.seconds + 2 * 1360 / 262144 + 20 * TICK


# ---- hops ---------------------------------------------------------------------------------------------------
def test_hops_take_software_time_and_none_without_a_head():
    network = {"software_seconds_per_hop": 0.25}
    assert a_pipeline(4, 1, network=network).seconds == 12.0 + 10 * 0.25
    network |= {"same_region": a_link(0.5), "negligible_seconds": 1.0}
    assert a_pipeline(4, 1, network=network).seconds == 12.0 + 10 * 0.25
    network["negligible_seconds"] = 0.5
    assert a_pipeline(4, 1, network=network).seconds == 12.0 + 10 * 0.75
    there, here = (
        a_pipeline(4, 1, head_seconds=1.5, hop_seconds=1.0, loss_at=loss_at).seconds
        for loss_at in ("embedding_stage", "last_stage")
    )
    assert (there, here) == (12.0 + 1.5 + 10.0, 12.0 + 1.5 + 8.0)


def test_hops_share_the_line_between_their_regions():
    """Four microbatches of four pipelines go from a to b at once: one line of a second each, or a path for each."""
    num_bytes = 262144.0
    network = {"same_region": a_link(), "links": (("a", "b", 0.0, num_bytes / 2**30),)}
    cluster = {"nodes_per_stage": 4, "placement": "by_hand", "regions": tuple("aaaa" * 2 + "bbbb")}
    slow, fast = (
        a_pipeline(2, 1, network={**network, "sharing": sharing}, cluster=cluster, overlap_gradient_exchange=False)
        for sharing in ("region_pair", "node_pair")
    )

    def seconds_of(run: PricedIteration) -> set[float]:
        hops = [m for m in messages(run, "activation") if (m.source < 8) != (m.target < 8)]
        return {m.end_seconds - m.start_seconds for m in hops}

    assert seconds_of(slow) == {4.0}
    assert seconds_of(fast) == {1.0}
    assert slow.seconds - fast.seconds == 4 * 3.0  # to stage 2, to the head, and both ways back
