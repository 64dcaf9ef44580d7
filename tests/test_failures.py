"""Failure processes by plain statistics, without a run. Seeds are fixed, so no test is flaky."""

import math
from itertools import islice

import numpy as np
import pytest
from conftest import a_scenario, of_kind, run
from scipy import stats

from sim.failures import PROCESSES, FailureProcess
from sim.rng import stream


def process(kind: str, **options: object) -> FailureProcess:
    return PROCESSES[kind](PROCESSES[kind].Config(**options))


def uptimes(process: FailureProcess, count: int, seed: int = 0, stage: int = 1) -> np.ndarray:
    rng = stream(seed, "failures", process=process.kind, domain=stage)
    return np.array(list(islice(process.uptimes(rng, stage), count)))


@pytest.mark.parametrize("rate", [0.05, 0.10, 0.16, 0.9])
def test_the_rate_is_the_chance_of_a_failure_within_an_hour(rate):
    seconds = uptimes(process("exponential", rate_per_hour=rate), 20_000)
    mean_seconds = -3600.0 / math.log(1.0 - rate)
    assert stats.kstest(seconds, stats.expon(scale=mean_seconds).cdf).pvalue > 0.01
    failed_within_an_hour = int((seconds < 3600.0).sum())
    assert stats.binomtest(failed_within_an_hour, len(seconds), rate).pvalue > 0.01


def test_two_rates_under_one_seed_see_the_same_luck():
    low, high = process("exponential", rate_per_hour=0.05), process("exponential", rate_per_hour=0.16)
    unit_draws = stream(0, "failures", process="exponential", domain=1).standard_exponential(1000)
    assert (uptimes(low, 1000) == unit_draws * low.mean_seconds).all()
    assert (uptimes(high, 1000) == unit_draws * high.mean_seconds).all()


@pytest.mark.parametrize("probability", [0.0009, 0.3])
def test_bernoulli_fails_each_iteration_with_the_same_chance(probability):
    cumulated = np.cumsum(uptimes(process("bernoulli", per_iteration_probability=probability, instant="start"), 5_000))
    gaps = np.diff(cumulated, prepend=-1.0)  # executed iterations up to and with the next that fails: geometric
    law = stats.geom(probability)
    edges = np.unique(law.ppf(np.linspace(0.0, 1.0, 21)[1:-1]))
    observed = np.histogram(gaps, [0.5, *(edges + 0.5), np.inf])[0]
    expected = np.diff([0.0, *law.cdf(edges), 1.0]) * len(gaps)
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_bernoulli_strikes_at_any_time_within_the_iteration_or_at_its_start():
    fractions = np.cumsum(uptimes(process("bernoulli", per_iteration_probability=0.3), 5_000)) % 1.0
    assert stats.kstest(fractions, "uniform").pvalue > 0.01
    starts = np.cumsum(uptimes(process("bernoulli", per_iteration_probability=0.3, instant="start"), 5_000))
    assert (starts % 1.0 == 0.0).all()


def test_bernoulli_fails_at_most_once_an_iteration():
    iterations = np.floor(np.cumsum(uptimes(process("bernoulli", per_iteration_probability=0.9), 5_000)))
    assert (np.diff(iterations) >= 1).all()


@pytest.mark.parametrize("kind", ["exponential", "bernoulli"])
def test_equal_seeds_give_equal_times_and_stages_differ(kind):
    some = process(kind)
    assert (uptimes(some, 100) == uptimes(some, 100)).all()
    assert not (uptimes(some, 100) == uptimes(some, 100, seed=1)).any()
    assert not (uptimes(some, 100) == uptimes(some, 100, stage=2)).any()


@pytest.mark.parametrize(
    "failures",
    [
        {"kind": "never"},
        {"kind": "exponential", "rate_per_hour": 0.0},
        {"kind": "bernoulli", "per_iteration_probability": 0.0},
    ],
)
def test_a_rate_of_zero_never_fails(failures):
    result = run(a_scenario(({"kind": "restart"},), failures=failures, steps=200))
    assert result.num_failures == 0
    assert not of_kind(result, "failure")


@pytest.mark.parametrize(
    ("kind", "field"), [("exponential", "rate_per_hour"), ("bernoulli", "per_iteration_probability")]
)
@pytest.mark.parametrize("chance", [-0.1, 1.0])
def test_a_chance_lies_between_zero_and_one(kind, field, chance):
    with pytest.raises(ValueError, match=field):
        process(kind, **{field: chance})


@pytest.mark.parametrize(("jitter", "fidelity"), [(0.0, "iteration"), (1.0, "iteration"), (1.0, "microbatch")])
def test_no_failure_of_an_iteration_is_missed_because_it_is_shorter_than_usual(jitter, fidelity):
    """Failures by iteration are independent of how long the iteration takes."""
    chance, steps = 0.1, 400
    failures = {"kind": "bernoulli", "per_iteration_probability": chance, "immune_stages": (0, 2, 3, 4)}
    cluster = {"jitter": jitter, "startup_seconds": 5.0}
    strategy = {"kind": "checkfree", "end_stages": "copy"}
    scenario = a_scenario((strategy,), steps=steps, failures=failures, cluster=cluster)
    result = run(scenario.model_copy(update={"fidelity": fidelity}))
    num_executed = steps + result.num_failures
    assert stats.binomtest(result.num_failures, num_executed, chance).pvalue > 0.01
