"""The default window hides the hops as far as memory allows; without hops it is the schedule's own."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.devices import Device
from sim.core.units import BYTES_PER_GIB
from sim.scenario.loading import parse_scenario
from sim.scenario.memory_check import plan_on
from sim.simulation.run import build_site, simulate, time_only
from sim.workload.iteration_time import fastest_time
from sim.workload.memory import needed_bytes
from sim.workload.window import plain_plan_on, window_that_hides_hops
from support.builders import a_link, a_site
from support.examples import examples

SLOW = """
name: slow
workload: {model: small, num_stages: 4, num_microbatches: 64}
cluster: {device: t4}
network: spot_cluster
training: {learner: none, steps: 4, model: {num_stages: 4}}
failures: never
strategies: [none, checkfree_plus, {kind: redundant, preset: bamboo}]
"""


@given(st.integers(2, 8), st.integers(1, 40), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from(["1f1b", "fifo"]))
def test_without_hops_it_is_the_schedules_own(p, m, head_seconds, schedule):
    site = a_site(p, m, schedule=schedule, head_seconds=head_seconds)
    assert plain_plan_on(site).max_in_flight is None
    assert site.costs.schedule(plain_plan_on(site)).in_flight_limit == min(m, p + (head_seconds > 0.0))


@settings(max_examples=examples(20, 60))
@given(st.integers(2, 6), st.integers(1, 40), st.floats(0.05, 4.0), st.booleans(), st.sampled_from(["1f1b", "fifo"]))
def test_more_in_flight_would_save_next_to_nothing(p, m, hop_seconds, has_access, schedule):
    """Equal stages of 1 + 2 s; hops of latency, or of a rate that all messages of a node share."""
    network = {"access": {"up_mbit_per_s": 4e-3, "down_mbit_per_s": 4e-3}} if has_access else {}
    site = a_site(p, m, 1.0, 2.0, schedule, hop_seconds=hop_seconds, network=network)
    plan = plain_plan_on(site)
    seconds, least_seconds = (fastest_time(site, each).seconds for each in (plan, replace(plan, max_in_flight=m)))
    assert seconds <= (1.03 if plan.max_in_flight else 1.06) * least_seconds  # short hops are not hidden


def test_the_larger_of_two_pipelines_counts():
    near = a_site(2, 40, hop_seconds=0.1, cluster={"nodes_per_stage": 2})
    network = {"same_region": a_link(0.1), "links": (("a", "b", 3000.0, 1e9),)}
    placed = {"regions": ("a", "a", "a", "b", "a", "a"), "nodes_per_stage": 2, "placement": "by_hand"}
    far = a_site(2, 40, network=network, cluster=placed)
    assert window_that_hides_hops(far, plain_plan_on(far)) > window_that_hides_hops(near, plain_plan_on(near))


def test_a_window_that_the_scenario_sets_stays():
    site = build_site(parse_scenario(SLOW.replace("64}", "64, max_in_flight: 3}")))
    assert site.costs.schedule(plain_plan_on(site)).in_flight_limit == 3


@pytest.mark.parametrize("memory_gib", [9.0, 12.0, 16.0, 24.0])
def test_it_is_the_largest_that_fits_in_memory(memory_gib):
    scenario = parse_scenario(SLOW)
    device = Device(**{**scenario.cluster.device.model_dump(), "memory_gib": memory_gib})
    site = build_site(scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update={"device": device})}))
    plan = plain_plan_on(site)
    window = site.costs.schedule(plan).in_flight_limit

    def fits(number: int) -> bool:
        larger = replace(plan, max_in_flight=number)
        return all(needed_bytes(site.costs, larger, stage) <= memory_gib * BYTES_PER_GIB for stage in range(5))

    assert fits(window)
    assert window == window_that_hides_hops(site, plan) or not fits(window + 1)


def test_a_strategys_memory_makes_it_smaller():
    scenario = parse_scenario(SLOW)
    site = build_site(scenario)
    windows = {
        each.kind: plan_on(scenario, each, site, plain_plan_on(site)).max_in_flight for each in scenario.strategies
    }
    assert windows["none"] == plain_plan_on(site).max_in_flight == 15
    assert windows["redundant"] < 15
    for each in scenario.strategies:
        run = simulate(scenario, each, 0, 0, time_only(scenario))
        assert run.iteration_seconds == fastest_time(site, plan_on(scenario, each, site, plain_plan_on(site))).seconds
        assert run.ideal_iteration_seconds == fastest_time(site, plain_plan_on(site)).seconds


def test_an_upload_does_not_make_an_iteration_shorter():
    """In the order of arrival it did, by 2.5 % with five microbatches in flight."""
    text = SLOW.replace("64}", "64, max_in_flight: 5}").replace(
        "none, checkfree_plus", "none, {kind: checkpoint, interval_iterations: 2}"
    )
    scenario = parse_scenario(text)
    runs = [simulate(scenario, each, 0, 0, time_only(scenario)) for each in scenario.strategies[:2]]
    assert runs[1].wall_clock_seconds > runs[0].wall_clock_seconds


def test_seconds_of_a_jittered_iteration_are_the_runs_mean():
    scenario = parse_scenario(SLOW.replace("t4", "t4, jitter: 0.05"))
    run = simulate(scenario, scenario.strategies[0], 0, 0, time_only(scenario))
    assert run.iteration_seconds == pytest.approx(run.wall_clock_seconds / 4, rel=1e-12)
