"""Presets of failure processes against what their sources say."""

import math

import pytest
from scipy import integrate

from sim.core.presets import presets
from sim.failures import PROCESSES, FailureProcess
from sim.failures.base import MeanConfig, Member

DAY = 24.0


def preset(name: str) -> FailureProcess:
    options = presets("failures")[name]
    return PROCESSES[options["kind"]](PROCESSES[options["kind"]].Config.model_validate(options))


def mean_hours(config: object) -> float:
    assert isinstance(config, MeanConfig)
    return config.mean_uptime_seconds / 3600.0


def of_weibull(shape: float, scale: float) -> float:
    return scale * math.gamma(1 + 1 / shape)


def of_lognormal(mu: float, sigma: float) -> float:
    return math.exp(mu + sigma**2 / 2)


@pytest.mark.parametrize("name", presets("failures"))
def test_every_preset_builds_and_says_what_it_is_and_whence(name):
    config = preset(name).config
    assert config.name == name
    assert config.description
    assert config.source
    assert "\n" not in preset(name).describe()
    again = type(config).model_validate(config.model_dump())
    assert again == config


def test_these_presets_come_with_the_program():
    assert list(presets("failures")) == [
        *(f"paper_{rate}" for rate in (5, 10, 16)),
        *(f"paper_{rate}_per_iteration" for rate in (5, 10, 16)),
        *("bamboo_ec2_p3", "gcp_a100", "gcp_v100", "aws_spot_good", "aws_spot_bad"),
        *("llama3_h100", "rsc1", "rsc2"),
        *("volunteer_seti", "desktop_ms99", "p2p_overnet", "skype", "regional_outage"),
    ]


@pytest.mark.parametrize(("percent", "per_iteration"), [(5, 0.0009), (10, 0.002), (16, 0.004)])
def test_the_papers_rates_are_of_stages_but_the_first(percent, per_iteration):
    by_hour, by_iteration = preset(f"paper_{percent}"), preset(f"paper_{percent}_per_iteration")
    assert mean_hours(by_hour.config) == pytest.approx(-1 / math.log(1 - percent / 100))
    assert by_iteration.mean_uptime_iterations == pytest.approx(1 / per_iteration)
    for some in (by_hour, by_iteration):
        assert some.scope == "stage"
        assert some.config.immune_stages == (0,)


@pytest.mark.parametrize(
    ("name", "mean", "shape"),
    [
        ("llama3_h100", 16384 / 8 * 54 * DAY / 419, None),
        ("rsc1", DAY / 6.5e-3, None),
        ("rsc2", DAY / 2.34e-3, None),
        ("volunteer_seti", of_weibull(0.393, 2.964), 0.393),
        ("desktop_ms99", of_weibull(0.55, 35.30), 0.55),
        ("p2p_overnet", of_weibull(0.85, 2.04), 0.85),
        ("skype", of_weibull(0.64, 10.86), 0.64),
    ],
)
def test_nodes_stay_as_long_as_measured(name, mean, shape):
    some = preset(name)
    assert some.scope == "node"
    assert mean_hours(some.config) == pytest.approx(mean, rel=1e-3)
    assert getattr(some.config, "shape", None) == shape


@pytest.mark.parametrize(
    ("name", "mean", "distribution", "spread"),
    [
        ("volunteer_seti", of_lognormal(-0.586, 2.844), "lognormal", 2.844),
        ("desktop_ms99", of_weibull(0.60, 9.34), "weibull", 0.60),
        ("p2p_overnet", of_weibull(0.44, 2.98), "weibull", 0.44),
        ("skype", of_weibull(0.63, 9.48), "weibull", 0.63),
        ("regional_outage", of_lognormal(math.log(3.0), 1.0), "lognormal", 1.0),
    ],
)
def test_nodes_stay_away_as_long_as_measured(name, mean, distribution, spread):
    config = preset(name).config
    assert isinstance(config, MeanConfig)
    assert config.downtime
    assert config.downtime.mean_hours == pytest.approx(mean, rel=1e-3)
    assert (config.downtime.distribution, config.downtime.spread) == (distribution, spread)


@pytest.mark.parametrize(
    ("name", "per_node_hour", "mean_size", "max_size"),
    [("bamboo_ec2_p3", 0.611, 4.9, 17), ("gcp_a100", 0.10, 4.3, 36), ("gcp_v100", 0.32, 8.8, 40)],
)
def test_clouds_take_back_as_many_at_once_as_traces_show(name, per_node_hour, mean_size, max_size):
    some = preset(name)
    assert mean_hours(some.config) == pytest.approx(1 / per_node_hour, rel=1e-3)
    assert (some.config.mean_size, some.config.max_size) == (mean_size, max_size)


def test_bamboos_24_nodes_have_three_events_an_hour():
    """What the trace shows beside the rate that the preset is built from."""
    some = preset("bamboo_ec2_p3").for_members([Member(number, "A", number) for number in range(24)])
    assert 3600 / some.mean_uptime_seconds == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize(("name", "mean"), [("aws_spot_good", 10.0), ("aws_spot_bad", 0.7)])
def test_both_losses_of_a_spot_machine_give_mean_and_shock_share(name, mean):
    """Mean of the smaller of a Weibull and an exponential time: ∫ P(both are longer than t) dt."""
    alone, shock = preset(name).config.processes
    assert (alone.kind, alone.scope, alone.shape) == ("weibull", "node", 0.6)
    assert (shock.kind, shock.shared_part, shock.share_hit) == ("outage", 1.0, 1.0)
    scale = mean_hours(alone) / math.gamma(1 + 1 / 0.6)
    longer = integrate.quad(
        lambda hours: math.exp(-hours / mean_hours(shock) - (hours / scale) ** 0.6), 0, 50 * mean, limit=200
    )[0]
    assert longer == pytest.approx(mean, rel=1e-3)
    assert longer / mean_hours(shock) == pytest.approx(0.43, rel=1e-3)
    assert alone.downtime == shock.downtime
    assert alone.downtime.mean_hours == pytest.approx(of_weibull(0.7, 1.32), rel=1e-3)
