"""`churnlab interval`: one number for a shell, by formulas and by simulation."""

import json
import math

import churnlab as library
import numpy as np
import pytest
from scipy import optimize

from sim.experiments.interval import intervals_for, intervals_of
from support.commands import churnlab


def cost(seconds: float, mtbf: float, save: float) -> float:
    """Expected time for a second of work (Daly 2006), but for a factor."""
    return math.expm1((seconds + save) / mtbf) / seconds


@pytest.mark.parametrize(("mtbf", "save"), [(21_600, 40), (3600, 600), (100, 90), (1e6, 1)])
def test_the_exact_interval_is_the_minimum(mtbf, save):
    found = intervals_for(mtbf, save)
    best = optimize.minimize_scalar(cost, bounds=(1e-3, 10 * mtbf), args=(mtbf, save), method="bounded")
    assert cost(found.best_seconds, mtbf, save) == pytest.approx(best.fun, rel=1e-9)
    assert found.young_seconds == pytest.approx(math.sqrt(2 * mtbf * save))
    if save < mtbf / 100:
        assert found.daly_seconds == pytest.approx(found.best_seconds, rel=1e-3)


def test_one_number_is_printed_for_a_shell():
    done = churnlab("interval", "--mtbf", "6h", "--save", "40s")
    assert (done.returncode, done.stdout) == (0, "1288\n")
    assert "young 1,315 s, daly 1,288 s, best 1,288 s (exact)" in done.stderr
    assert churnlab("interval", "--mtbf", "21600", "--save", "40", "--by", "young", "--quiet")[1:] == ("1314.53\n", "")
    found = json.loads(churnlab("interval", "--mtbf", "6h", "--save", "40s", "--format", "json").stdout)
    assert found["daly_seconds"] == pytest.approx(1288, abs=1)
    assert found["simulated"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --mtbf and --save, or --scenario"),
        (["--mtbf", "6h"], "give --mtbf and --save, or --scenario"),
        (["--mtbf", "6h", "--save", "1s", "--scenario", "x.yaml"], "give --mtbf and --save, or --scenario"),
        (["--mtbf", "6 parsecs", "--save", "1s"], "--mtbf 6 parsecs: allowed: a number of seconds, or a time such as"),
        (["--mtbf", "6h", "--save", "0"], "save: found 0 s; allowed: a time above 0"),
        (["--mtbf", "6h", "--save", "1s", "--by", "yung"], "nearest: young"),
        (["--scenario", "nowhere.yaml"], "cannot be read: no such file"),
    ],
)
def test_what_does_not_fit_is_one_message(options, message):
    done = churnlab("interval", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in " ".join(done.stderr.split())


def test_the_simulated_optimum_is_near_dalys():
    """Saves that stop training for 45 s, stages that fail at a constant rate: the optimum is flat there."""
    scenario = library.build_scenario(
        name="interval",
        workload={
            "num_stages": 4,
            "measured": {"forward_seconds": 0.05, "backward_seconds": 0.1},
            "num_microbatches": 16,
        },
        training={"learner": "none", "steps": 4000},
        network={
            "storage": {"latency_ms": 1, "bandwidth_mbit_per_s": 500},
            "same_region": {"latency_ms": 0.1, "bandwidth_mbit_per_s": 100000},
        },
        cluster={"detection_seconds": 1, "startup_seconds": 1},
        failures={"kind": "exponential", "mean_uptime_hours": 4},
        strategies=[{"kind": "checkpoint", "blocking_share": 1.0}],
    )
    found = intervals_of(scenario, failure_seeds=range(3))
    hours = dict(found.simulated)
    assert 0.4 < found.best_seconds / found.daly_seconds < 2.5
    near = min(hours, key=lambda seconds: abs(math.log(seconds / found.daly_seconds)))
    assert hours[near] == pytest.approx(min(hours.values()), rel=0.03)
    assert max(hours.values()) > 1.05 * min(hours.values())
    assert np.isfinite(list(hours.values())).all()
