"""Failure processes against the laws they are named for, by plain statistics at level 0.01. Seeds are fixed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.core.distributions import Delay
from sim.core.rng import stream
from sim.failures import FailureProcess
from sim.failures.base import Member
from sim.failures.renewal import Day
from support.processes import FLEET, SPARES, process, uptimes

HOUR = 3600.0
BUSY = (0.01,) * 3 + (0.05,) * 12 + (0.25,) * 8 + (0.0,)
"""Weights of hours as in Bamboo's simulator, and one hour without any failure."""


def strikes(process: FailureProcess, members: list[Member], hours: float) -> list[tuple[float, tuple[int, ...]]]:
    """Times, in hours, and victims of all strikes, of nodes that come back at once."""
    found = []
    for name, part in process.for_members(members).parts:
        domain_of = {"node": "number", "stage": "stage", "region": "region", "cluster": None}[part.scope]
        domains = dict.fromkeys(getattr(member, domain_of) if domain_of else "cluster" for member in members)
        for domain in domains:
            inside = [member for member in members if not domain_of or getattr(member, domain_of) == domain]
            rng = stream(0, "victims", process=name, domain=domain)
            ends = itertools.accumulate(part.uptimes(stream(0, "failures", process=name, domain=domain), domain))
            for index, end in enumerate(itertools.takewhile(lambda end: end < hours * HOUR, ends)):
                found.append((end / HOUR, tuple(part.lost_nodes(rng, inside, index))))
    return sorted(found)


def counts(strikes: list[tuple[float, tuple[int, ...]]], members: list[Member], hours: float) -> np.ndarray:
    """Losses of each member (rows) in each hour (columns)."""
    losses = np.zeros((max(member.number for member in members) + 1, int(hours)))
    for time, lost_nodes in strikes:
        losses[list(lost_nodes), int(time)] += 1
    return losses[[member.number for member in members]]


# ---- lifetimes ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [0.05, 0.10, 0.16, 0.9])
def test_the_rate_is_the_chance_of_a_failure_within_an_hour(rate):
    seconds = uptimes(process("exponential", rate_per_hour=rate), 20_000)
    assert stats.kstest(seconds, stats.expon(scale=-HOUR / math.log(1.0 - rate)).cdf).pvalue > 0.01
    assert stats.binomtest(int((seconds < HOUR).sum()), len(seconds), rate).pvalue > 0.01


@pytest.mark.parametrize("shape", [0.393, 0.6, 1.0, 2.5])
def test_shape_and_scale_of_a_weibull_law_are_recovered(shape):
    """Within three standard errors of the maximum likelihood fit: 0.780 k / √n and 1.053 scale / (k √n)."""
    count, scale = 10_000, 2.0 / math.gamma(1 + 1 / shape)
    hours = uptimes(process("weibull", shape=shape, mean_uptime_hours=2.0), count) / HOUR
    assert stats.kstest(hours, stats.weibull_min(shape, scale=scale).cdf).pvalue > 0.01
    found_shape, _, found_scale = stats.weibull_min.fit(hours, floc=0.0)
    assert abs(found_shape - shape) < 3 * 0.780 * shape / math.sqrt(count)
    assert abs(found_scale - scale) < 3 * 1.053 * scale / shape / math.sqrt(count)


@pytest.mark.parametrize("sigma", [0.5, 1.84])
def test_mu_and_sigma_of_a_lognormal_law_are_recovered(sigma):
    count, mu = 10_000, math.log(2.0) - sigma**2 / 2
    logarithms = np.log(uptimes(process("lognormal", sigma=sigma, mean_uptime_hours=2.0), count) / HOUR)
    assert stats.kstest(logarithms, stats.norm(mu, sigma).cdf).pvalue > 0.01
    assert abs(logarithms.mean() - mu) < 3 * sigma / math.sqrt(count)
    assert abs(logarithms.std() - sigma) < 3 * sigma / math.sqrt(2 * count)


@pytest.mark.parametrize(
    ("distribution", "spread", "law"),
    [
        ("exponential", None, stats.expon(scale=3.0)),
        ("weibull", 0.7, stats.weibull_min(0.7, scale=3.0 / math.gamma(1 + 1 / 0.7))),
        ("weibull", None, stats.expon(scale=3.0)),
        ("lognormal", 2.0, stats.lognorm(2.0, scale=3.0 * math.exp(-2.0))),
        ("lognormal", None, stats.lognorm(1.0, scale=3.0 * math.exp(-0.5))),
    ],
)
def test_delays_have_their_mean_and_law(distribution, spread, law):
    delay, rng = Delay(mean_hours=3.0, distribution=distribution, spread=spread), np.random.default_rng(0)
    assert law.mean() == pytest.approx(3.0)
    assert stats.kstest([delay.seconds(rng) / HOUR for _ in range(5_000)], law.cdf).pvalue > 0.01


# ---- diurnal --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{"profile": BUSY}, {"amplitude": 1.0, "peak_hour": 9.25}])
def test_failures_spread_over_the_day_as_the_profile_says(options):
    some = process("diurnal", mean_uptime_hours=5.0, start_hour=6.5, **options)
    hours = some.config.start_hour + np.cumsum(uptimes(some, 20_000)) / HOUR
    weights = np.array(some.config.weights)
    per_hour = np.bincount((hours % 24).astype(int), minlength=24)
    assert not per_hour[weights == 0].any()
    expected = 20_000 * weights / weights.sum()
    assert stats.chisquare(per_hour[weights > 0], expected[weights > 0]).pvalue > 0.01
    ten_days = np.histogram(hours, np.arange(240.0, hours[-1], 240.0))[0]  # Poisson counts of mean 240 h / 5 h
    dispersion = ((ten_days - 48.0) ** 2 / 48.0).sum()
    assert 0.005 < stats.chi2(len(ten_days)).cdf(dispersion) < 0.995


def test_a_smooth_day_peaks_at_its_hour_and_averages_to_one():
    weights = process("diurnal", amplitude=0.8, peak_hour=15.0).config.weights
    assert sum(weights) == pytest.approx(24.0)
    assert max(weights) == weights[14] == pytest.approx(weights[15]) == pytest.approx(1.8, abs=0.01)
    assert min(weights) == pytest.approx(weights[2]) == pytest.approx(0.2, abs=0.01)
    assert set(process("diurnal", amplitude=0.0).config.weights) == {1.0}


def hazard(weights: tuple[float, ...], mean_hours: float, begin: float, end: float) -> float:
    """The rate added up from one time by the clock to another, piece by piece."""
    average, total = sum(weights) / 24, 0.0
    while begin < end:
        piece_end = min(math.floor(begin) + 1.0, end)
        total += (piece_end - begin) * weights[math.floor(begin) % 24] / average / mean_hours
        begin = piece_end
    return total


profiles = st.lists(st.sampled_from([0.0, 0.01, 1.0, 3.7]), min_size=24, max_size=24).filter(any)


@given(profiles, st.floats(0.0, 23.99), st.floats(0.1, 50.0))
def test_the_rate_adds_up_to_the_unit_draw_between_two_failures(profile, start_hour, mean_hours):
    """Inversion is exact, so that any two rates meet the same luck."""
    some = process("diurnal", profile=tuple(profile), start_hour=start_hour, mean_uptime_hours=mean_hours)
    unit_draws = stream(0, "failures", process="diurnal", domain=1).standard_exponential(20)
    ends = start_hour + np.cumsum(uptimes(some, 20)) / HOUR
    between = itertools.pairwise([start_hour, *ends])
    found = [hazard(some.config.weights, mean_hours, begin, end) for begin, end in between]
    assert found == pytest.approx(list(unit_draws), rel=1e-6, abs=1e-7)


@given(profiles, st.floats(0.0, 1000.0))
def test_weighted_hours_and_the_clock_are_inverse(profile, hours):
    day = Day(tuple(profile))
    assert day.weighted(day.by_clock(hours)) == pytest.approx(hours, abs=1e-8)
    assert day.weighted(24.0 * 7) == pytest.approx(24.0 * 7)


def test_an_hour_without_weight_is_over_at_once():
    day = Day((0.0, 2.0, 0.0, 2.0, *(0.0,) * 20))
    assert [day.by_clock(hours) for hours in (0.0, 6.0, 12.0, 18.0, 24.0)] == [1.0, 1.5, 3.0, 3.5, 25.0]
    # All failures are within one hour of the day, so the first of a node that comes is less than a day away.
    some = process("diurnal", profile=(0.0,) * 20 + (1.0,) + (0.0,) * 3, mean_uptime_hours=1e-3, scope="node")
    for comes_at_hour, fails_after_hours in ((0.0, 20.0), (22.5, 21.5), (20.5, 0.0)):
        seconds = uptimes(some.starting_at(comes_at_hour * HOUR), 1)[0]
        assert seconds / HOUR == pytest.approx(fails_after_hours, abs=1e-3)


# ---- outage ---------------------------------------------------------------------------------------------

LOSSES = {"mean_uptime_hours": 4.0, "shared_part": 0.6, "share_hit": 0.5}


def test_every_node_is_lost_at_its_rate_and_with_its_region():
    hours = 4000.0
    found = strikes(process("outage", **LOSSES), FLEET, hours)
    per_node = counts(found, FLEET, hours).sum(axis=1)
    each = stats.poisson(hours / 4.0)
    assert ((each.ppf(0.0005) <= per_node) & (per_node <= each.ppf(0.9995))).all()
    variance = hours / 4.0 * (20 + 2 * 0.3 * sum(math.comb(num, 2) for num in (12, 8)))
    assert abs(per_node.sum() - 20 * hours / 4.0) < 3 * math.sqrt(variance)
    # Counts of two Marshall-Olkin nodes correlate by shared_part × share_hit; those of two regions not at all.
    hours = 8000.0
    losses = counts(strikes(process("outage", **LOSSES), FLEET, hours), FLEET, hours)
    correlations = np.corrcoef(losses)
    for one, other in itertools.combinations(range(len(FLEET)), 2):
        expected = 0.3 if FLEET[one].region == FLEET[other].region else 0.0
        assert abs(correlations[one, other] - expected) < 5.0 / math.sqrt(hours)


def test_the_shared_part_of_a_nodes_losses_comes_by_shocks():
    some = process("outage", **(LOSSES | {"share_hit": 1.0}))
    found = strikes(some, FLEET, 4000.0)
    shocks = [lost_nodes for _, lost_nodes in found if len(lost_nodes) > 1]
    num_shared = sum(0 in lost_nodes for lost_nodes in shocks)
    num_losses = sum(0 in lost_nodes for _, lost_nodes in found)
    assert stats.binomtest(num_shared, num_losses, 0.6).pvalue > 0.01
    whole = {tuple(member.number for member in FLEET if member.region == region) for region in "AB"}
    assert set(shocks) == whole, "where share_hit is 1, a shock takes the whole region"


def test_shocks_are_poisson_and_take_each_node_with_equal_chance():
    (_, shared), _ = process("outage", **LOSSES).for_members(FLEET).parts
    seconds = uptimes(shared, 10_000)
    assert stats.kstest(seconds / HOUR, stats.expon(scale=4.0 * 0.5 / 0.6).cdf).pvalue > 0.01
    region, rng = [member for member in FLEET if member.region == "B"], np.random.default_rng(0)
    sizes = [len(shared.lost_nodes(rng, region, index)) for index in range(4000)]
    expected = stats.binom(len(region), 0.5).pmf(range(len(region) + 1)) * 4000
    assert stats.chisquare(np.bincount(sizes, minlength=len(region) + 1), expected).pvalue > 0.01


def test_empty_shocks_do_not_count_in_the_mean_between_losses():
    """Regions of one and of two nodes, a shock every hour in each, a node hit with a half: 1/2 + 3/4 an hour in all."""
    members = [Member(0, "A", 0), Member(1, "B", 1), Member(2, "B", 2), Member(3, "B", 9)]
    some = process("outage", mean_uptime_hours=2.0, share_hit=0.5, immune_stages=(9,))
    (_, shared), (_, own) = some.for_members(members).parts
    assert shared.mean_uptime_seconds == pytest.approx(2 * HOUR / 1.25)
    assert dict(some.parts)["outage/shared"].mean_uptime_seconds == HOUR
    assert math.isinf(own.mean_uptime_seconds)


# ---- bulk -------------------------------------------------------------------------------------------------
@given(st.floats(1.0, 50.0), st.integers(1, 60), st.none() | st.integers(1, 60))
def test_the_mean_number_lost_is_that_of_a_geometric_one_cut_off(mean_size, num_members, max_size):
    p, most = 1.0 / mean_size, min(num_members, max_size or num_members)
    by_sum = sum(size * p * (1 - p) ** (size - 1) for size in range(1, most)) + most * (1 - p) ** (most - 1)
    some = process("bulk", mean_size=mean_size, max_size=max_size)
    assert some.mean_lost(num_members) == pytest.approx(by_sum, rel=1e-9)


@pytest.mark.parametrize(("scope", "max_size"), [("cluster", None), ("cluster", 3), ("region", None), ("region", 2)])
def test_every_node_is_lost_at_its_rate_whatever_is_lost_with_it(scope, max_size):
    """The nodes of immune stages are nobody's, and spares are lost like others."""
    some = process("bulk", mean_uptime_hours=4.0, mean_size=3.0, max_size=max_size, scope=scope, immune_stages=(4,))
    members, hours = [member for member in FLEET + SPARES if member.stage != 4], 20_000.0
    found = strikes(some.for_members(FLEET + SPARES), members, hours)
    per_node = counts(found, members, hours).sum(axis=1)
    assert stats.chisquare(per_node).pvalue > 0.01
    sizes = np.array([len(lost_nodes) for _, lost_nodes in found])
    error = math.sqrt(len(found) * (sizes**2).mean())
    assert abs(per_node.sum() - len(members) * hours / 4.0) < 3 * error
    num_domains = 1 if scope == "cluster" else 2
    mean_seconds = some.for_members(FLEET + SPARES).mean_uptime_seconds
    expected = num_domains * hours * HOUR / mean_seconds
    assert abs(len(found) - expected) < 3 * math.sqrt(expected)


def test_sizes_are_geometric_and_events_poisson():
    some, rng, count = process("bulk", mean_size=3.0, max_size=9), np.random.default_rng(0), 10_000
    sizes = [len(set(some.lost_nodes(rng, FLEET[:7], index))) for index in range(count)]
    law = stats.geom(1 / 3)
    expected = [*law.pmf(range(1, 7)), law.sf(6)]
    assert stats.chisquare(np.bincount(sizes, minlength=8)[1:], np.array(expected) * count).pvalue > 0.01
    capped = process("bulk", mean_size=30.0, max_size=2)
    assert max(len(capped.lost_nodes(rng, FLEET, index)) for index in range(100)) == 2
    assert list(capped.lost_nodes(rng, [], 0)) == []
    some = process("bulk", mean_uptime_hours=4.0, mean_size=3.0).for_members(FLEET)
    law = stats.expon(scale=some.mean_uptime_seconds)
    assert stats.kstest(uptimes(some, 10_000, domain="cluster"), law.cdf).pvalue > 0.01


def test_neighbours_are_among_the_lost_as_often_as_counting_says():
    """k of S stages lost at once, by lot: two of them adjacent with 1 - C(S - k + 1, k) / C(S, k)."""
    stages, rng = [Member(number=s, region="A", stage=s) for s in range(1, 9)], np.random.default_rng(0)
    some = process("bulk", mean_size=3.0)
    lost = [sorted(some.lost_nodes(rng, stages, index)) for index in range(10_000)]
    for k in range(2, 6):
        of_size = [lost_nodes for lost_nodes in lost if len(lost_nodes) == k]
        adjacent = sum(any(b - a == 1 for a, b in itertools.pairwise(lost_nodes)) for lost_nodes in of_size)
        chance = 1 - math.comb(8 - k + 1, k) / math.comb(8, k)
        assert len(of_size) > 500
        if chance < 1:
            assert stats.binomtest(adjacent, len(of_size), chance).pvalue > 0.01
        else:
            assert adjacent == len(of_size)
