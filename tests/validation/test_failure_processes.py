"""Failure processes against their textbook laws. Seeds are fixed."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.core.records import EventRecord
from sim.simulation.run import build_world
from sim.simulation.world import World
from sim.strategies import STRATEGIES, UnrecoverableError
from support.builders import of_kind
from support.closed_forms import a_job, run


def a_world(num_stages: int, failures: dict[str, Any], iteration_seconds: float = 21.0) -> World:
    """Stages that fail, and nobody who heeds it."""
    scenario = a_job({"kind": "none"}, 1, iteration_seconds, num_stages=num_stages, failures=failures)
    return build_world(scenario, 0, stops_on_failures=False)


def failures_of(world: World, hours: float) -> list[EventRecord]:
    def wait():
        yield from world.attempt(hours * 3600.0, "productive_compute")

    world.run(wait())
    return world.events


def test_n_exponential_stages_are_one_at_n_times_the_rate():
    events = failures_of(a_world(4, {"kind": "exponential", "rate_per_hour": 0.5}), 2000)
    gaps = np.diff([event.time_seconds for event in events], prepend=0.0)
    mean_seconds = 3600.0 / (5 * math.log(2))
    assert len(gaps) > 5000
    assert stats.kstest(gaps, stats.expon(scale=mean_seconds).cdf).pvalue > 0.01
    assert stats.chisquare(np.bincount([event.stage for event in events])).pvalue > 0.01


def test_stages_fail_by_number_not_by_what_they_hold():
    """The victim of n exponential processes: each with its rate's share, whatever came before."""
    world = a_world(4, {"kind": "exponential", "rate_per_hour": 0.5, "immune_stages": (0,)})
    pairs = np.zeros((4, 4))
    for before, after in itertools.pairwise(event.stage for event in failures_of(world, 2000)):
        pairs[before - 1, after - 1] += 1
    assert stats.chi2_contingency(pairs).pvalue > 0.01


def per_iteration(per_hour: float, iteration_seconds: float) -> float:
    """p = 1 - (1 - h)^{t / 3600}."""
    return -math.expm1(iteration_seconds / 3600 * math.log1p(-per_hour))


@pytest.mark.parametrize(
    ("iteration_seconds", "published"), [(91.32, (0.00130, 0.00267, 0.00441)), (151.04, (0.00215, 0.00441, 0.00729))]
)
def test_chances_by_the_hour_give_these_by_iteration(iteration_seconds, published):
    """5, 10 and 16 % at the iteration times of arXiv 2506.15461, table 2: slower iterations meet more failures."""
    found = [per_iteration(per_hour, iteration_seconds) for per_hour in (0.05, 0.10, 0.16)]
    assert found == pytest.approx(published, abs=5.1e-6)


@pytest.mark.parametrize("iteration_seconds", [91.32, 151.04])
def test_iterations_fail_in_proportion_to_their_length(iteration_seconds):
    """16 % per hour, 50 stages, 4000 iterations: the share of stages that fail in an iteration, once or more often."""
    num_stages, num_iterations = 50, 4000
    world = a_world(
        num_stages, {"kind": "exponential", "rate_per_hour": 0.16, "immune_stages": (0,)}, iteration_seconds
    )
    ends = []

    def iterate():
        for _ in range(num_iterations):
            yield from world.run_iteration(world.plain_plan())
            ends.append(world.now_seconds)

    world.run(iterate())
    assert ends[-1] == pytest.approx(num_iterations * iteration_seconds, rel=1e-6)
    struck = {(int(np.searchsorted(ends, event.time_seconds)), event.stage) for event in world.events}
    expected, tries = per_iteration(0.16, iteration_seconds), num_stages * num_iterations
    error = math.sqrt(expected * (1 - expected) / tries)
    assert error < 0.04 * expected
    assert abs(len(struck) / tries - expected) < 3 * error


@pytest.mark.parametrize(
    "strategy", [{"kind": "none"}, {"kind": "checkfree", "end_stages": "copy"}, {"kind": "restart"}]
)
def test_stages_fail_as_often_as_iterations_and_chance_say(strategy):
    """By iteration: n S p losses whatever is executed again, and 1 - (1 - p)^S of the iterations have one or more."""
    chance, steps, num_stages = 0.05, 2000, 4
    failures = {"kind": "bernoulli", "per_iteration_probability": chance, "immune_stages": (0,)}
    scenario = a_job(strategy, steps, 21.0, num_stages=num_stages, failures=failures)
    if strategy["kind"] == "restart":
        scenario = scenario.model_copy(update={"give_up_after": 1e6, "give_up_after_events": 10**8})
    struck = [(event.iteration, event.stage) for event in of_kind(run(scenario, 0), "failure")]
    assert stats.binomtest(len(struck), steps * num_stages, chance).pvalue > 0.01
    assert len(set(struck)) == len(struck)
    expected = 1 - (1 - chance) ** num_stages
    assert stats.binomtest(len({iteration for iteration, _ in struck}), steps, expected).pvalue > 0.01


@given(st.integers(4, 10), st.integers(1, 4))
def test_neighbours_are_among_the_lost_as_often_as_counting_says(num_stages, num_lost):
    """k of S lost at once, uniformly: two of them adjacent with 1 - C(S - k + 1, k) / C(S, k)."""
    config = STRATEGIES["checkfree"].Config(end_stages="copy")
    strategy = STRATEGIES["checkfree"](config, num_stages)

    def is_recovered(lost: tuple[int, ...]) -> bool:
        try:
            return len(strategy.edits(frozenset(lost))) == num_lost
        except UnrecoverableError:
            return False

    recovered = sum(is_recovered(lost) for lost in itertools.combinations(range(1, num_stages + 1), num_lost))
    assert recovered == math.comb(num_stages - num_lost + 1, num_lost)
