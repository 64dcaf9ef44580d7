"""Failure processes as plug-ins: options, equal luck, what they are made of, presets. Laws are in test_failure_laws."""

import math
from itertools import islice

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from sim.core.rng import stream
from sim.failures import PROCESSES, FailureProcess
from sim.failures.base import RatedConfig, Renewal
from support.builders import a_scenario, of_kind, run
from support.processes import FLEET, SPARES, lost, process, uptimes

RATED = [kind for kind, process in PROCESSES.items() if issubclass(process.Config, RatedConfig)]
LAWS = [kind for kind in RATED if issubclass(PROCESSES[kind], Renewal)]
OUTAGE = {"kind": "outage", "rate_per_hour": 0.2, "shared_part": 0.5}
SOME = {"at_hours": 1.0, "stages": (1,)}


# ---- options and luck ---------------------------------------------------------------------------------
def test_the_kinds_are_in_this_order():
    in_order = ["exponential", "weibull", "lognormal", "diurnal", "poisson", "bernoulli", "outage", "bulk", "script"]
    assert [kind for kind in PROCESSES if kind in in_order] == in_order
    assert list(PROCESSES)[-2:] == ["compose", "never"]
    assert all(process.kind == kind for kind, process in PROCESSES.items())


@pytest.mark.parametrize("kind", RATED)
def test_processes_of_equal_rate_have_equal_means(kind):
    """20,000 uptimes; the standard error of a Weibull mean of shape 0.6 is 1.2 % of it."""
    some = process(kind, rate_per_hour=0.1)
    assert some.mean_uptime_seconds == pytest.approx(3600.0 / -math.log(0.9))
    seconds = uptimes(some, 20_000)
    assert abs(seconds.mean() / some.mean_uptime_seconds - 1) < 3 * stats.sem(seconds) / some.mean_uptime_seconds
    assert process(kind, mean_uptime_hours=3.0).mean_uptime_seconds == 10800.0


@pytest.mark.parametrize("kind", LAWS)
def test_two_rates_under_one_seed_share_their_draws(kind):
    low, high = process(kind, rate_per_hour=0.05), process(kind, rate_per_hour=0.16)
    ratio = low.mean_uptime_seconds / high.mean_uptime_seconds
    assert uptimes(low, 1000) == pytest.approx(uptimes(high, 1000) * ratio, rel=1e-12)


def test_exponential_uptimes_are_unit_draws_times_the_mean():
    unit_draws = stream(0, "failures", process="exponential", domain=1).standard_exponential(1000)
    low = process("exponential", rate_per_hour=0.05)
    assert (uptimes(low, 1000) == unit_draws * low.mean_uptime_seconds).all()
    often, seldom = (process("exponential", mean_uptime_hours=hours) for hours in (3.0, 6.0))
    assert (2 * uptimes(often, 1000).cumsum() == uptimes(seldom, 1000).cumsum()).all()


@pytest.mark.parametrize("kind", [*RATED, "bernoulli"])
def test_equal_seeds_give_equal_times_and_stages_differ(kind):
    some = process(kind)
    assert (uptimes(some, 100) == uptimes(some, 100)).all()
    assert not (uptimes(some, 100) == uptimes(some, 100, seed=1)).any()
    assert not (uptimes(some, 100) == uptimes(some, 100, domain=2)).any()


@pytest.mark.parametrize("kind", [*RATED, "outage", "bulk"])
def test_nothing_fails_at_a_rate_of_zero(kind):
    some = process(kind, rate_per_hour=0.0).for_members(FLEET)
    for _, part in some.parts:
        assert math.isinf(part.mean_uptime_seconds)
        assert np.isinf(uptimes(part, 3)).all()
    assert "never fails" in some.describe() or kind == "exponential"


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
    ("kind", "options", "complaint"),
    [
        ("exponential", {"rate_per_hour": -0.1}, "rate_per_hour"),
        ("exponential", {"rate_per_hour": 1.0}, "rate_per_hour"),
        ("exponential", {"scope": "cluster"}, "scope"),
        ("bernoulli", {"per_iteration_probability": -0.1}, "per_iteration_probability"),
        ("bernoulli", {"per_iteration_probability": 1.0}, "per_iteration_probability"),
        ("weibull", {"shape": 0.0}, "shape"),
        ("lognormal", {"sigma": 0.0}, "sigma"),
        ("diurnal", {"profile": (1.0,) * 23}, "profile"),
        ("diurnal", {"profile": (0.0,) * 24}, "all 24 weights are 0"),
        ("diurnal", {"start_hour": 24.0}, "start_hour"),
        ("outage", {"scope": "node"}, "scope"),
        ("outage", {"share_hit": 0.0}, "share_hit"),
        ("bulk", {"scope": "stage"}, "scope"),
        ("bulk", {"mean_size": 0.9}, "mean_size"),
        ("script", {"losses": ({"stages": (1,)},)}, "give one of at_seconds, at_hours"),
        ("script", {"losses": ({"at_hours": 1.0, "at_seconds": 1.0, "stages": (1,)},)}, "give one of"),
        ("script", {"losses": ({"at_hours": 1.0, "replica": 1},)}, "give stages, a region, or both"),
        ("script", {"losses": (SOME,), "immune_stages": (0, 1)}, r"stages \[1\] have losses"),
        ("compose", {"processes": ()}, "processes"),
        ("compose", {"processes": ({"kind": "compose", "processes": ("never",)},)}, "processes"),
        ("compose", {"processes": ("never",), "notice_seconds": 1.0}, "notice_seconds of compose"),
        ("compose", {"processes": ("never",), "immune_stages": (0,)}, "immune_stages of compose"),
    ],
)
def test_options_without_sense_are_errors(kind, options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        process(kind, **options)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("exponential", {}, "each stage fails within an hour with a chance of 10 %"),
        ("exponential", {"mean_uptime_hours": 6334.6, "scope": "node"}, "each node fails every 6,335 h on average"),
        ("weibull", {"rate_per_hour": 0.0}, "each stage never fails (Weibull, shape 0.6)"),
        ("lognormal", {"mean_uptime_hours": 2.0}, "each stage fails every 2 h on average (lognormal, sigma 1)"),
        (
            "diurnal",
            {"mean_uptime_hours": 2.0, "profile": (0.0,) * 12 + (2.0,) + (1.0,) * 11},
            "each stage fails every 2 h on average (by the hour of day, 3.69 × as often at 12:00)",
        ),
        ("outage", {"mean_uptime_hours": 2.0}, "each node fails every 2 h on average, always with its whole region"),
        (
            "outage",
            {"mean_uptime_hours": 2.0, "shared_part": 0.4, "share_hit": 0.3},
            "each node fails every 2 h on average, 40 % of the times with 30 % of its region",
        ),
        ("outage", {"mean_uptime_hours": 2.0, "shared_part": 0.0}, "each node fails every 2 h on average, alone"),
        ("bulk", {"mean_uptime_hours": 2.0}, "each node fails every 2 h on average, 2 at once on average"),
        ("script", {"losses": (SOME,)}, "1 loss by script"),
        (
            "compose",
            {"processes": ("exponential", "bernoulli")},
            "each stage fails within an hour with a chance of 10 %; "
            "and each stage fails in an iteration with a chance of 0.2 %",
        ),
    ],
)
def test_captions_say_what_fails_how_often(kind, options, words):
    assert process(kind, **options).describe() == words


def test_a_domain_is_lost_whole_for_its_downtime():
    """One downtime for each strike: those lost together come back together."""
    downtime = {"mean_hours": 2.0, "distribution": "fixed"}
    some = process("weibull", downtime=downtime)
    assert lost(some, FLEET[:3]) == [0, 1, 2]
    assert list(islice(some.downtimes(np.random.default_rng(0), 1), 3)) == [7200.0] * 3
    assert list(process("weibull").downtimes(np.random.default_rng(0), 1)) == []
    for _, part in process("outage", downtime=downtime).parts:
        assert next(part.downtimes(np.random.default_rng(0), 1)) == 7200.0


# ---- script ---------------------------------------------------------------------------------------------
def test_a_script_fails_given_nodes_at_times_that_do_not_drift():
    losses = (
        {"at_hours": 2.0, "region": "A"},
        {"at_seconds": 60.0, "stages": (2, 3), "replica": 1, "downtime_hours": 0.5},
        {"at_seconds": 60.0, "stages": (1, 4), "region": "B"},
        {"at_seconds": 0.0, "stages": (0,)},
        {"at_seconds": 60.0, "stages": (7,)},
    )
    some = process("script", losses=losses)
    assert some.scope == "cluster"
    assert list(np.cumsum(uptimes(some, 10))) == [0.0, 60.0, 60.0, 60.0, 7200.0]
    of_region_a = [node.number for node in FLEET if node.stage in (0, 2, 4)] + [20]
    found = [lost(some, FLEET + SPARES, index) for index in range(5)]
    assert found == [[0, 1, 2, 3], [9, 13], [4, 5, 6, 7], [], of_region_a]
    assert list(some.downtimes(np.random.default_rng(0), "cluster")) == [None, 1800.0, None, None, None]
    assert some.mean_uptime_seconds == 7200.0 / 5
    some = process("script")
    assert len(uptimes(some, 1)) == 0
    assert math.isinf(some.mean_uptime_seconds)
    # Thirds of a second are no whole ticks, but each time is within half a tick of what is written.
    losses = tuple({"at_seconds": third / 3, "stages": (1,)} for third in range(1, 3001))
    gaps = uptimes(process("script", losses=losses), 3000)
    times = np.cumsum(gaps)
    assert (gaps % 2.0**-26 == 0.0).all()
    assert np.abs(times - np.arange(1, 3001) / 3).max() <= 2.0**-27


# ---- compose --------------------------------------------------------------------------------------------
def composed() -> FailureProcess:
    node = {"kind": "weibull", "scope": "node", "notice_seconds": 5.0}
    return process("compose", processes=(node, {"kind": "bernoulli", "immune_stages": (0,)}, OUTAGE, node, "bulk"))


def test_a_composed_process_keeps_its_parts_as_they_are():
    parts = composed().for_members(FLEET).parts
    assert [(name, part.scope, part.unit) for name, part in parts] == [
        ("0/weibull", "node", "seconds"),
        ("1/bernoulli", "stage", "iterations"),
        ("2/outage/shared", "region", "seconds"),
        ("2/outage/own", "node", "seconds"),
        ("3/weibull", "node", "seconds"),
        ("4/bulk", "cluster", "seconds"),
    ]
    assert [part.config.notice_seconds for _, part in parts] == [5.0, 0.0, 0.0, 0.0, 5.0, 0.0]
    assert parts[1][1].config.immune_stages == (0,)
    alone = process("weibull", scope="node")
    assert (uptimes(parts[0][1], 50) == uptimes(alone, 50)).all()
    assert parts[5][1].mean_uptime_seconds == process("bulk").for_members(FLEET).mean_uptime_seconds
    for some in (composed(), process("outage")):
        with pytest.raises(NotImplementedError, match="draw from these"):
            some.uptimes(np.random.default_rng(0), 1)


def test_losses_of_a_composed_process_are_those_of_all_its_parts():
    """Two Poisson processes at once are one, of the sum of their rates."""
    both = process("compose", processes=({"kind": "exponential", "mean_uptime_hours": 1.0}, OUTAGE))
    parts = [part for _, part in both.parts if part.scope != "node"]
    seconds = [np.cumsum(uptimes(part, 30_000, seed=seed)) for seed, part in enumerate(parts)]
    until = min(times[-1] for times in seconds)
    times = np.sort(np.concatenate(seconds))
    rate = 1 / 3600 - 0.5 * math.log(0.8) / 3600
    assert stats.kstest(np.diff(times[times < until]), stats.expon(scale=1 / rate).cdf).pvalue > 0.01


# ---- processes by iteration ---------------------------------------------------------------------------
@pytest.mark.parametrize("probability", [0.0009, 0.3])
def test_bernoulli_fails_each_iteration_with_the_same_chance(probability):
    some = process("bernoulli", per_iteration_probability=probability, instant="start")
    assert some.mean_uptime_iterations == 1 / probability
    gaps = np.diff(np.cumsum(uptimes(some, 5_000)), prepend=-1.0)  # iterations up to and with the next that fails
    law = stats.geom(probability)
    edges = np.unique(law.ppf(np.linspace(0.0, 1.0, 21)[1:-1]))
    observed = np.histogram(gaps, [0.5, *(edges + 0.5), np.inf])[0]
    expected = np.diff([0.0, *law.cdf(edges), 1.0]) * len(gaps)
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_bernoulli_fails_once_an_iteration_within_it_or_at_start():
    fractions = np.cumsum(uptimes(process("bernoulli", per_iteration_probability=0.3), 5_000)) % 1.0
    assert stats.kstest(fractions, "uniform").pvalue > 0.01
    starts = np.cumsum(uptimes(process("bernoulli", per_iteration_probability=0.3, instant="start"), 5_000))
    assert (starts % 1.0 == 0.0).all()
    iterations = np.floor(np.cumsum(uptimes(process("bernoulli", per_iteration_probability=0.9), 5_000)))
    assert (np.diff(iterations) >= 1).all()


@pytest.mark.parametrize(("jitter", "fidelity"), [(0.0, "iteration"), (1.0, "iteration"), (1.0, "microbatch")])
def test_shorter_iterations_miss_no_failure(jitter, fidelity):
    """Failures by iteration are independent of how long the iteration takes."""
    chance, steps = 0.1, 400
    failures = {"kind": "bernoulli", "per_iteration_probability": chance, "immune_stages": (0, 2, 3, 4)}
    cluster = {"jitter": jitter, "startup_seconds": 5.0}
    strategy = {"kind": "checkfree", "end_stages": "copy"}
    scenario = a_scenario((strategy,), steps=steps, failures=failures, cluster=cluster)
    result = run(scenario.model_copy(update={"fidelity": fidelity}))
    assert stats.binomtest(result.num_failures, steps, chance).pvalue > 0.01
