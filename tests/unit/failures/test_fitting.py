"""Fits give known laws back within their intervals, censored or not; what is lost together is told apart."""

import math

import numpy as np
import pytest

from sim.failures.churn_fit import ChurnFit, fit_churn
from sim.failures.fitting import Durations, Law, distribution, fit_law, fit_laws, rate_per_hour
from sim.failures.trace_text import TraceError
from support.examples import examples

LAWS: list[tuple[Law, float]] = [("exponential", 1.0), ("weibull", 0.6), ("weibull", 1.6), ("lognormal", 1.0)]
MEAN_HOURS = 5.0


def drawn(law: Law, spread: float, seed: int, number: int = 100, censored: bool = True) -> Durations:
    """Uptimes in seconds, of which about half are censored at random."""
    rng = np.random.default_rng(seed)
    hours = distribution(law, MEAN_HOURS, spread).rvs(size=number, random_state=rng)
    watched = rng.exponential(1.6 * MEAN_HOURS, number) if censored else np.full(number, np.inf)
    return Durations(np.minimum(hours, watched) * 3600.0, hours <= watched)


@pytest.mark.parametrize("censored", [False, True])
@pytest.mark.parametrize(("law", "spread"), LAWS)
def test_intervals_cover_the_truth_as_often_as_stated(law, spread, censored):
    """95 %, within four standard errors of so many samples."""
    number = examples(12, 200)
    fits = [fit_law(law, drawn(law, spread, seed, censored=censored)) for seed in range(100, 100 + number)]
    least = 0.95 - 4 * math.sqrt(0.95 * 0.05 / number)
    assert np.mean([fit.mean_hours.low <= MEAN_HOURS <= fit.mean_hours.high for fit in fits]) >= least
    if law != "exponential":
        assert np.mean([fit.spread.low <= spread <= fit.spread.high for fit in fits]) >= least
    assert np.mean([fit.fits for fit in fits]) >= least - 0.02
    assert np.mean([fit.mean_hours.value for fit in fits]) == pytest.approx(MEAN_HOURS, rel=0.25)


@pytest.mark.parametrize(("law", "spread"), LAWS)
def test_the_law_of_many_uptimes_is_found(law, spread):
    found = fit_laws(drawn(law, spread, 0, 3000))
    best = found[0] if found[0].aic + 2 < found[-1].aic and law != "exponential" else None
    if law == "exponential":
        by_law = {fit.law: fit for fit in found}
        assert by_law["exponential"].aic < found[0].aic + 4
        assert by_law["weibull"].spread.low <= 1.0 <= by_law["weibull"].spread.high
    else:
        assert best.law == law
        assert best.spread.value == pytest.approx(spread, rel=0.1)
        assert not next(fit for fit in found if fit.law == "exponential").fits


def test_a_rate_has_garwoods_interval():
    """Garwood 1936, table of limits of a Poisson mean: 10 events, 4.80 to 18.4; none, 0 to 3.69."""
    assert rate_per_hour(10, 1.0).low == pytest.approx(4.795, abs=1e-3)
    assert rate_per_hour(10, 1.0).high == pytest.approx(18.39, abs=1e-2)
    assert (rate_per_hour(0, 1.0).low, rate_per_hour(0, 2.0).high) == (0.0, pytest.approx(3.689 / 2, abs=1e-3))


def test_survival_is_that_of_kaplan_and_meier():
    durations = Durations(np.array([1.0, 2.0, 2.0, 3.0, 4.0]) * 3600, np.array([True, True, False, True, False]))
    hours, share, low, high = durations.survival
    assert hours.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert share.tolist() == pytest.approx([0.8, 0.6, 0.3, 0.3])
    assert (low <= share).all()
    assert (share <= high).all()


# ---- files ------------------------------------------------------------------------------------------
def fitted(tmp_path, lines, **options) -> ChurnFit:
    path = tmp_path / "churn.csv"
    path.write_text("\n".join(lines))
    return fit_churn(path, **options)


def test_censored_lifetimes_are_no_losses(tmp_path):
    """As in a public set of preemptible machines: 717 of 1,442 preempted, after 13.8 h; a naive mean says 8.4 h.

    (kadupitiya/goog-preemption-data, arXiv 1911.05160; here drawn, with the same numbers.)
    """
    lost, kept = np.full(717, 13.8), np.full(725, (8.4 * 1442 - 13.8 * 717) / 725)
    lines = ["hours,censored", *(f"{h},0" for h in lost), *(f"{h},1" for h in kept)]
    fit = fitted(tmp_path, lines)
    assert fit.num_lost == 717
    assert 1.0 / fit.rate.value == pytest.approx(8.4 * 1442 / 717)  # 16.9 h
    lines = fit_words(fit)
    assert "725 of 1,442 uptimes are censored: hours of presence over losses are 16.9 h" in lines
    assert "The mean of all uptimes, 8.40 h, and of those that ended, 13.8 h, are too short." in lines


def fit_words(fit: ChurnFit) -> str:
    from sim.reporting.churn_fit import fit_lines

    return "\n".join(fit_lines(fit))


def test_nodes_lost_together_are_told_from_chance(tmp_path):
    rng = np.random.default_rng(0)
    bulk, alone = ["node,start,end"], ["node,start,end"]
    for event, at in enumerate(1800 + np.cumsum(rng.uniform(600, 6000, 40))):
        bulk += [f"n{event}-{node},{at - 1800:.1f},{at:.1f}" for node in range(4)]
        alone.append(f"n{event},{at - 1800:.1f},{at:.1f}")
    together = fitted(tmp_path, bulk)
    section = together.section()
    assert (section["kind"], section["mean_size"], section["max_size"]) == ("bulk", 4.0, 4)
    assert "100 % of losses come in events of two or more, 4.00 an event" in fit_words(together)
    assert fitted(tmp_path, alone).section()["kind"] != "bulk"


def test_sizes_of_bulk_losses_are_those_of_the_cluster(tmp_path):
    """Two of ten nodes are lost: of five of them 1 on average, and if any, 1 / (1 - C(5, 2) / C(10, 2)) = 9/7."""
    lines = ["node,start,end"]
    for event in range(30):
        lines += [f"e{event}n{node},{100 * event},{100 * event + (90 if node < 2 else 95)}" for node in range(10)]
    fit = fitted(tmp_path, lines, together_seconds=1)
    assert fit.bulk is not None
    assert {**fit.bulk.sizes} == {2: 30, 8: 30}
    from dataclasses import replace

    two = replace(fit.bulk, sizes={2: 30}, mean_present=10.0)
    assert two.mean_size_of(5) == pytest.approx(9 / 7)
    assert two.mean_size_of(10) == two.mean_size_of(99) == 2.0


def test_regions_that_lose_nodes_together_are_found(tmp_path):
    lines = ["node,zone,start,end"]
    for event in range(20):
        zone = "ab"[event % 2]
        lines += [f"n{event}-{node},{zone},{100 * event},{100 * event + 99}" for node in range(3)]
    assert fitted(tmp_path, lines, together_seconds=0).section()["scope"] == "region"


def test_downtimes_of_nodes_that_return_are_fitted(tmp_path):
    rng, lines = np.random.default_rng(0), ["node,start,end"]
    for node in range(20):
        at = 0.0
        while at < 5e5:
            up, away = rng.exponential(36_000), rng.lognormal(math.log(1800) - 0.5, 1.0)
            lines.append(f"n{node},{at:.0f},{f'{at + up:.0f}' if at + up < 5e5 else ''}")
            at += up + away
    fit = fitted(tmp_path, lines)
    downtime = fit.section()["downtime"]
    assert downtime["distribution"] == "lognormal"
    assert downtime["mean_hours"] == pytest.approx(0.5, rel=0.25)
    assert downtime["spread"] == pytest.approx(1.0, rel=0.15)


def test_nodes_that_are_gone_for_good_are_no_downtimes(tmp_path):
    """Nodes that are last seen at different times, long before the end, had they returned as soon as all others."""
    rng, lines = np.random.default_rng(0), ["node,start,end"]
    for node in range(20):
        at = 0.0
        for _ in range(10 + 2 * node):
            up = rng.exponential(36_000)
            lines.append(f"n{node},{at:.0f},{at + up:.0f}")
            at += up + rng.exponential(1800)
    fit = fitted(tmp_path, lines)
    assert fit.num_gone == 19
    assert fit.section()["downtime"]["mean_hours"] == pytest.approx(0.5, rel=0.15)


def test_hours_of_the_day_are_tested(tmp_path):
    rng = np.random.default_rng(0)

    def by_hour(hours) -> ChurnFit:
        times = np.sort(24 * rng.integers(0, 20, 600) + hours)
        lines = ["node,start,end", *(f"n{i},{max(0, at - 5):.4f},{at:.4f}" for i, at in enumerate(times))]
        return fitted(tmp_path, lines, unit="hours")

    even, day = by_hour(rng.random(600) * 24), by_hour(6 + rng.random(600) * 12)
    assert not even.by_hour.varies
    assert day.by_hour.varies
    assert len(day.by_hour.weights) == 24
    assert min(day.by_hour.weights[7:17]) > max(day.by_hour.weights[:5])
    assert "Hour of the day: nodes are lost" in fit_words(day)


def test_failure_times_of_a_system_give_the_rate_of_a_node(tmp_path):
    fit = fitted(tmp_path, ["time", *map(str, range(3600, 3600 * 21, 3600))], num_nodes=10)
    assert fit.rate.value == pytest.approx(0.1)
    assert fit.section() == {"kind": "exponential", "mean_uptime_hours": 10.0, "scope": "node"}


def test_few_losses_give_no_law(tmp_path):
    fit = fitted(tmp_path, ["lifetime", "3600", "7200", "9000"])
    assert fit.chosen is None
    assert fit.section()["kind"] == "exponential"
    assert "Only 3 losses: too few to distinguish distributions" in fit_words(fit)


def test_counts_give_a_rate_and_no_law(tmp_path):
    fit = fitted(tmp_path, ["0,4", "3600,3", "7200,4", "10800,2", "14400,2"])
    assert (fit.num_lost, fit.presence_hours) == (3, 4 + 3 + 4 + 2)
    assert fit.uptimes is None
    assert "the distribution of uptimes cannot be fitted" in fit_words(fit)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["node,start,end", "a,0,", "b,9,"], "no node is lost in"),
        (["lifetime,censored", "5,1"], "all lifetimes are censored; a fit needs losses"),
        (["time", "5", "5"], None),
        (["time", "-5", "5"], "found the time -5 s; allowed: at least 0"),
        (["0,4", "9,4"], "no node is lost in 0.01 h of presence"),
    ],
)
def test_files_without_losses_are_refused(tmp_path, lines, message):
    if message is None:
        assert fitted(tmp_path, lines).num_lost == 2
        return
    with pytest.raises(TraceError, match=message):
        fitted(tmp_path, lines)


def test_unknown_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="columns: found 'nod'; nearest: node"):
        fitted(tmp_path, ["a,b,c", "x,0,1"], columns={"nod": "a"})
