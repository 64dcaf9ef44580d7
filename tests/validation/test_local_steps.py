"""Local steps against the closed form of utilisation, and what the form leaves out."""

import pytest

from support.builders import INSTANT, a_link, a_scenario, run

FORWARD_AND_BACKWARD, NUM_STAGES, NUM_MICROBATCHES, PARAMETERS = 3.0, 4, 4, 680
COMPUTE = FORWARD_AND_BACKWARD * (NUM_MICROBATCHES + NUM_STAGES - 1)


def seconds(num_replicas, bytes_per_second, **options):
    """Seconds of an iteration between synchronisations and at one, over 100 iterations without failures."""
    network = {"same_region": a_link(bytes_per_second=bytes_per_second), "storage": INSTANT, "negligible_seconds": 1e9}
    strategy = {"kind": "diloco", **options}
    cluster = {"nodes_per_stage": num_replicas}
    return run(a_scenario((strategy,), cluster=cluster, steps=100, network=network)).wall_clock_seconds / 100


@pytest.mark.parametrize("num_replicas", [2, 5])
@pytest.mark.parametrize("bytes_per_second", [10.0, 1e3, 1e5])
@pytest.mark.parametrize("inner_steps", [1, 10, 50])
@pytest.mark.parametrize(("factor", "sent"), [(1.0, {}), (0.25, {"compression": "int8"}), (0.01, {"sent_share": 0.01})])
def test_utilisation_is_that_of_the_closed_form(num_replicas, bytes_per_second, inner_steps, factor, sent):
    """Compute / (compute + exchange / H), with a ring all-reduce of the differences in fp32."""
    exchange = 2 * (num_replicas - 1) / num_replicas * 4 * PARAMETERS * factor / bytes_per_second
    expected = COMPUTE / (COMPUTE + exchange / inner_steps)
    found = COMPUTE / seconds(num_replicas, bytes_per_second, inner_steps=inner_steps, **sent)
    assert found == pytest.approx(expected, rel=1e-6)


def test_an_overlap_exposes_what_is_longer_than_it():
    exchange = 2 * 2 / 3 * 4 * PARAMETERS / 10.0
    for iterations in (5, 40):
        exposed = max(0.0, exchange - COMPUTE * iterations)
        found = seconds(3, 10.0, inner_steps=50, overlap_iterations=iterations)
        assert found == pytest.approx(COMPUTE + exposed / 100, rel=1e-6)  # the second one is under way at the end
