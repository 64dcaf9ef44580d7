"""Random streams decide every published number, so their paths and first draws are frozen here.

A red test means that results move: undo it, or say so in the changelog under [RESULTS].
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import PATHS, derived_seed, stream

seeds = st.integers(0, 2**63 - 1)
domains = st.integers(0, 1000)


def test_paths_are_frozen():
    assert PATHS == {
        "failures": "failures/{process}/{domain}",
        "downtimes": "downtimes/{process}/{domain}",
        "victims": "victims/{process}/{domain}",
        "provisioning": "provisioning/{node}",
        "places": "places",
        "jitter": "jitter/{execution}/{node}",
        "jitter_sample": "jitter/sample/{execution}",
        "training_init": "training/init",
        "training_data": "training/data",
    }


@pytest.mark.parametrize(
    ("seed", "process", "domain", "first_draws"),
    [
        (0, "exponential", 1, (0.14198236568922426, 0.9873198888059617, 2.4265529706540216)),
        (0, "exponential", 6, (0.25819424520302464, 0.029278259428476918, 2.8306344819132914)),
        (7, "exponential", 1, (0.7532547985741387, 0.6563205899491191, 0.7207857737228323)),
        (0, "bernoulli", 1, (2.984567938095699, 0.07441102845207315, 0.8520742964678402)),
    ],
)
def test_first_draws_are_frozen(seed, process, domain, first_draws):
    rng = stream(seed, "failures", process=process, domain=domain)
    assert tuple(rng.standard_exponential(3)) == first_draws


def test_first_draws_of_churn_are_frozen():
    drawn = (
        stream(0, "failures", process="weibull", domain="node 3").standard_exponential(),
        stream(0, "downtimes", process="exponential", domain="us-central1").standard_exponential(),
        stream(0, "victims", process="bulk", domain="cluster").random(),
        stream(0, "provisioning", node=3).standard_normal(),
        stream(0, "places").random(),
    )
    assert drawn == (0.24785930502300782, 0.958609509944431, 0.9119748207046827, 1.0220083898629744, 0.7786329324662931)


@pytest.mark.parametrize(
    ("seed", "name", "value"),
    [
        (0, "training_init", 1500052982822973246),
        (0, "training_data", 8431171384228942617),
        (1, "training_init", 5544655354948267768),
    ],
)
def test_derived_seeds_are_frozen(seed, name, value):
    assert derived_seed(seed, name) == value


@given(seeds, domains, domains)
def test_drawing_from_one_path_moves_no_other(seed, drawn, other):
    untouched = stream(seed, "failures", process="exponential", domain=other).random(4).tolist()
    stream(seed, "failures", process="exponential", domain=drawn).random(100)
    np.random.default_rng(seed).random(100)
    assert stream(seed, "failures", process="exponential", domain=other).random(4).tolist() == untouched


def test_streams_of_different_paths_and_seeds_are_unrelated():
    draws = np.array(
        [
            stream(seed, "failures", process=process, domain=domain).standard_normal(2000)
            for seed in (0, 1)
            for process in ("exponential", "bernoulli")
            for domain in (0, 1, 2, 11)
        ]
    )
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.1


@given(seeds)
def test_derived_seeds_fit_a_signed_64_bit_integer_and_differ(seed):
    init, data = derived_seed(seed, "training_init"), derived_seed(seed, "training_data")
    assert 0 <= init < 2**63
    assert 0 <= data < 2**63
    assert init != data


def test_an_unknown_path_is_an_error():
    with pytest.raises(KeyError):
        stream(0, "coin")
    with pytest.raises(KeyError):
        stream(0, "failures", process="exponential")
