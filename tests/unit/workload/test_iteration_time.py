"""Prices of iterations: the faster of two orders, each plan once, and the same beside other messages."""

from dataclasses import replace

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from models.spec import plain_routes, swapped_routes
from sim.cluster.flows import Flows, FlowState
from sim.cluster.network import STORAGE
from sim.simulation.run import build_world
from sim.workload import iteration_time
from sim.workload.config import IterationPlan, plain_plan
from sim.workload.deployment import assign_slots
from sim.workload.iteration import IterationRun
from sim.workload.iteration_time import IterationTimeCache, IterationTimes, time_among
from sim.workload.iteration_work import IterationWork
from support.builders import a_link, a_scenario, a_site, a_strategy, an_iteration
from support.simpy_iteration import run_alone, run_among

SLOW = {"same_region": a_link(0.2, 262144.0), "storage": a_link(0.5, 1000.0)}
"""An activation takes 1.2 s."""


def a_plan(site) -> IterationPlan:
    return plain_plan(site.costs.workload)


@given(
    st.integers(2, 6),
    st.integers(1, 8),
    st.sampled_from(["gpipe", "1f1b"]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.booleans(),
)
def test_the_faster_order_is_used_and_on_ties_the_textbooks(p, m, schedule, hop, swapped):
    site = a_site(p, m, schedule=schedule, hop_seconds=hop, max_in_flight=20)
    plan = IterationPlan(m, swapped_routes(p) if swapped and p >= 4 else plain_routes(p))
    textbook, arrival = (run_alone(site, plan, order).seconds for order in ("textbook", "arrival"))
    found = an_iteration(site, plan)
    assert found.seconds == min(textbook, arrival)
    assert found.order == ("arrival" if arrival < textbook else "textbook")


@pytest.mark.parametrize(
    ("num_microbatches", "options"),
    [
        (8, {"schedule": "fifo"}),
        (8, {"schedule": "1f1b", "max_in_flight": 2}),
        (12, {"schedule": "1f1b", "max_in_flight": 12, "hop_seconds": 3.0}),
    ],
    ids=["no textbook order", "few in flight", "slow links"],
)
def test_arrival_order_is_used_where_no_textbook_order_is_faster(num_microbatches, options):
    assert an_iteration(a_site(4, num_microbatches, **options)).order == "arrival"


@pytest.mark.parametrize("kind", ["none", "redundant", "checkfree_plus"])
def test_the_split_adds_up_to_the_time_and_times_are_cached(kind):
    scenario = a_scenario(({"kind": kind},))
    world = build_world(scenario, 0)
    plan = a_strategy(scenario.strategies[0]).adapt_plan(world.plain_plan())
    price = world.iteration_times.alone(plan)
    assert price.split.seconds == pytest.approx(price.seconds, rel=1e-15)
    assert price.seconds == an_iteration(world.iteration_times.deployment, plan).seconds
    assert world.iteration_times.alone(replace(plan)) is price
    assert world.iteration_times.split(plan) is price.split


def test_without_jitter_every_execution_takes_equally_long():
    even, jittering = (IterationTimes(a_site(4, 4, cluster={"jitter": sigma}), seed=0) for sigma in (0.0, 0.5))
    plan = a_plan(even.deployment)
    assert all(even.executed(plan, execution) is even.alone(plan) for execution in (1, 2, 1000))
    assert jittering.alone(plan).seconds == even.alone(plan).seconds == 21.0


def test_with_jitter_later_executions_reuse_the_first_samples():
    pipeline = IterationTimes(site := a_site(4, 4, cluster={"jitter": 0.3}), seed=0)
    plan, num_samples = a_plan(site), IterationTimes.NUM_SAMPLES
    samples = [pipeline.executed(plan, execution).seconds for execution in range(1, num_samples + 1)]
    assert len(set(samples)) == num_samples
    later = [pipeline.executed(plan, execution).seconds for execution in range(num_samples + 1, 50 * num_samples)]
    assert set(later) == set(samples)
    again = IterationTimes(site, seed=0)
    assert [again.executed(plan, execution).seconds for execution in range(1, 50 * num_samples)] == samples + later


def uploads(site, num_bytes: float, latency_seconds: float = 0.0) -> tuple[FlowState, ...]:
    return tuple(
        FlowState(site.network.path(node, STORAGE), latency_seconds, num_bytes)
        for stage in site.cluster.stages
        for node in site.cluster.slots_of(stage)
    )


def test_messages_on_other_links_change_no_iteration():
    site = a_site(4, 4, network=SLOW)
    alone = an_iteration(site)
    among = run_among(site, a_plan(site), alone.order, uploads(site, 4000.0))
    assert (among.seconds, among.split) == (alone.seconds, alone.split)
    assert among.arrivals_seconds == (20.0,) * 5
    assert among.left == ()
    pipeline = IterationTimes(site, seed=0)
    first = pipeline.among(a_plan(site), uploads(site, 4000.0))
    assert pipeline.among(a_plan(site), uploads(site, 4000.0)) is first
    assert pipeline.among(a_plan(site), uploads(site, 4001.0)) is not first


def test_uploads_beside_exchanged_pipelines_are_timed_once(monkeypatch):
    access = {"up_mbit_per_s": 262144 / 125000, "down_mbit_per_s": 262144 / 125000}
    site = a_site(4, 4, schedule="fifo", network={**SLOW, "access": access}, cluster={"nodes_per_stage": 3})
    slot, path, timed = site.cluster.slot, site.network.path, []
    monkeypatch.setattr(iteration_time, "time_among", lambda *of: timed.append(of) or time_among(*of))
    cache = IterationTimeCache(site.network)
    found = {}
    for missing, source in ((1, 0), (2, 1), (0, 1)):  # the pipeline without a node at stage 2, and one that uploads
        others = tuple(FlowState(path(slot(stage, source), STORAGE), 0.5, 3e6) for stage in site.cluster.stages)
        assignment = assign_slots([slot(2, missing)], site.cluster)
        found[missing] = IterationTimes(site, 0, cache).among(a_plan(site), others, assignment)
        work = IterationWork(site, a_plan(site), "arrival", assignment)
        assert found[missing] == time_among(work, others), "as without the exchange, with the same links"
    assert len(timed) == 2, "the upload goes from the first of the pipelines without gaps, or from the second"
    assert found[0].seconds == found[1].seconds
    assert found[0].left
    assert found[0].left != found[1].left


def test_messages_on_shared_links_slow_and_keep_their_progress():
    network = {**SLOW, "storage": a_link(0.0, 1e9)}
    access = {"up_mbit_per_s": 262144 / 125000, "down_mbit_per_s": 262144 / 125000}
    site = a_site(4, 4, network={**network, "access": access})
    alone = an_iteration(site)
    among = run_among(site, a_plan(site), alone.order, uploads(site, 10 * 262144.0))
    assert alone.seconds < among.seconds <= 2 * alone.seconds
    assert max(among.arrivals_seconds) > 14.0 > 10.0 == min(among.arrivals_seconds)  # the last has nothing to send yet
    site = a_site(4, 4, network=SLOW)
    seconds, order = (alone := an_iteration(site)).seconds, alone.order
    others = (*uploads(site, 1000.0 * seconds, 1.0)[:2], FlowState(site.network.path(STORAGE, 3), seconds + 2.0, 7.0))
    among = run_among(site, a_plan(site), order, others)
    assert among.arrivals_seconds == (None, None, None)
    assert [(state.latency_seconds, state.path) for state in among.left] == [
        (0.0, others[0].path),
        (0.0, others[1].path),
        (2.0, others[2].path),
    ]
    sent = 1000.0 * (seconds - 1.0) / 2
    assert [state.num_bytes for state in among.left] == pytest.approx([1000.0 * seconds - sent] * 2 + [7.0])


@pytest.mark.parametrize(("order", "missing"), [("textbook", []), ("arrival", [5])])
@pytest.mark.parametrize("at_seconds", [0.0, 0.3, 2.5, 7.1, 11.0])
def test_a_stopped_iteration_leaves_nothing_under_way(at_seconds, order, missing):
    site = a_site(4, 4, network=SLOW, cluster={"nodes_per_stage": 2})
    env = simpy.Environment()
    flows = Flows(env)
    run = IterationRun(IterationWork(site, a_plan(site), order, assign_slots(missing, site.cluster)), env, flows)
    if at_seconds:
        env.run(until=at_seconds)
    run.stop()
    num_operations, num_messages = len(run.operations), len(run.messages)
    assert not flows.under_way
    env.run()
    assert (len(run.operations), len(run.messages)) == (num_operations, num_messages)
    assert all(each.end_seconds <= at_seconds for each in (*run.operations, *run.messages))
