"""Published arithmetic of stalls: how much of the time is left for training where every lost node stops all others.

FT-HSDP (arXiv 2602.00277, abstract): at O(100,000) GPUs stalls of 3 minutes a failure in place of 10 raise the
effective training time from 44 to 80 %. With failures at random, one every M on average, and stalls s in which
further failures begin the stall anew, the share is exp(-s / M): M minutes of training for each M (exp(s / M) - 1)
minutes of stall.
"""

import math

import pytest

from support.builders import a_scenario, no_training, run

STALLS_MINUTES = (10.0, 3.0)
MTBF_MINUTES = STALLS_MINUTES[0] / -math.log(0.44)  # at which stalls of ten minutes leave 44 %


def test_the_closed_form_gives_the_claim():
    assert math.exp(-STALLS_MINUTES[1] / MTBF_MINUTES) == pytest.approx(0.78, abs=0.005)  # "80 %"


@pytest.mark.parametrize("strategy", ["constant_batch", "elastic"])
@pytest.mark.parametrize("stall_minutes", STALLS_MINUTES)
def test_simulated_stalls_leave_as_much(strategy, stall_minutes):
    """Eight pipelines of three nodes, replaced at once, with an iteration of 3.6 s: 800 losses of a node."""
    cluster = {"nodes_per_stage": 8, "regroup_seconds": 60.0 * stall_minutes, "num_spares": 8}
    uptime_hours = 24 * MTBF_MINUTES / 60.0
    scenario = a_scenario(
        ({"kind": strategy},),
        num_stages=2,
        num_microbatches=2,
        steps=int(800 * MTBF_MINUTES * 60.0 / 3.6),
        cluster={**cluster, "detection_seconds": 0.0, "startup_seconds": 0.0},
        failures={"kind": "exponential", "scope": "node", "mean_uptime_hours": uptime_hours},
        measured={"forward_seconds": 0.4, "backward_seconds": 0.8},
    )
    found = run(scenario, training=no_training(scenario))
    share = 1.0 - (found.ledger["provisioning"] + found.ledger["lost_work"]) / found.wall_clock_seconds
    assert found.stopped is None
    assert found.num_nodes_lost > 800
    assert share == pytest.approx(math.exp(-stall_minutes / MTBF_MINUTES), rel=0.06)
