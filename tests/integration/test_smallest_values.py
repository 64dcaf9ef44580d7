"""Times, rates and sizes at the least value that is allowed: `run` does not divide by zero, hang or overflow."""

from pathlib import Path

import pytest

from support.commands import churnlab
from support.mutations import limited

SCENARIO = """
name: least
workload: {model: small, num_stages: 4, num_microbatches: 2}
training: {learner: none, steps: 6}
cluster: {device: t4}
network: home_us
failures: {kind: exponential, rate_per_hour: 0.2}
strategies: [none, {kind: checkpoint, interval_iterations: 4}]
give_up_after_events: 20000
"""
CHECKPOINT = "strategies=[none,{kind: checkpoint, "


@pytest.mark.parametrize(
    "changed",
    [
        "cluster.device.utilisation=1.0e-6",
        "cluster.stragglers=[{stage: 1, replica: 0, slowdown: 1.0e-6}]",
        "failures.downtime={mean_hours: 1.0e-9}",
        "failures.mean_uptime_hours=0.000278",
        "network.bandwidth_factor=1.0e-6",
    ],
)
def test_the_least_allowed_value_is_no_traceback(tmp_path: Path, changed: str):
    (tmp_path / "a.yaml").write_text(SCENARIO)
    with limited(30.0):
        ended = churnlab("run", "a.yaml", "--set", changed, folder=tmp_path)
    assert ended.returncode in (0, 3), ended.stderr


@pytest.mark.parametrize(
    "changed",
    [
        "cluster.device.utilisation=5.0e-324",
        "failures.downtime={mean_hours: 5.0e-324}",
        CHECKPOINT + "interval_seconds: 5.0e-324}]",
    ],
)
def test_smaller_values_are_refused_with_the_least_one(tmp_path: Path, changed: str):
    (tmp_path / "a.yaml").write_text(SCENARIO)
    ended = churnlab("validate", "a.yaml", "--set", changed, folder=tmp_path)
    assert ended.returncode == 2
    assert "allowed: a number, at least 1e-0" in ended.stderr
