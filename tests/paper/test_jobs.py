"""The scenarios of scenarios/paper."""

import pytest

from benchmarks.paper.jobs import BRANCHES, JOBS, NEIGHBOURS, SCENARIOS, TABLE_2_JOB
from benchmarks.paper.published import RATES
from benchmarks.paper.tables import RATE
from sim.scenario.loading import load_scenario
from sim.scenario.sweep_points import load_points

SWEEPS = [path.stem for path in sorted(SCENARIOS.glob("*.yaml")) if path not in (BRANCHES, NEIGHBOURS)]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_scenario_is_a_valid_job_full_and_quick(name):
    (job,) = (job for job in JOBS if job.name == name)
    full, quick = load_points(job.scenario), load_points(job.scenario, job.quick)
    assert len(full) == len(quick)
    assert full[0].scenario.name == name
    assert all(a.scenario.training.steps > 2 * b.scenario.training.steps for a, b in zip(full, quick, strict=True))


def test_scenarios_share_the_clock_and_rates_of_the_paper():
    reference = load_scenario(SCENARIOS.parent / "paper_throughput.yaml")
    for path in (*(job.scenario for job in JOBS), BRANCHES, NEIGHBOURS):
        scenario = load_points(path)[0].scenario
        assert scenario.workload == reference.workload, path
        assert scenario.network == reference.network, path
        if path.stem != "correlated":
            assert scenario.cluster == reference.cluster, path
    assert [point.parameters[RATE] for point in load_points(TABLE_2_JOB.scenario)] == list(RATES)
