"""Mutations of the shipped scenarios: `validate` accepts or explains each, and the ledger of valid ones adds up."""

import math
from pathlib import Path
from unittest.mock import patch

import pytest

from sim.scenario.document import ScenarioError
from sim.scenario.loading import parse_scenario
from sim.simulation.effort_estimate import expected_events, foreseen_effort
from sim.simulation.run import build_site, simulate, time_only
from sim.workload.arrays.compilation import COMPILATION, is_numba_installed, is_writable, machine_code_folder
from sim.workload.config import plain_plan
from sim.workload.iteration_time import fastest_time
from support.commands import churnlab
from support.mutations import SCENARIOS, limited, mutated

MOST_CPU_SECONDS = 10.0


@pytest.fixture(scope="module")
def compiled_loop() -> None:
    """The machine code of the loop over arrays, whose making takes longer than any mutation may."""
    scenario = parse_scenario("name: a\nstrategies: [none]")
    if is_numba_installed() and (folder := machine_code_folder()) and is_writable(folder):
        with patch.object(COMPILATION, "pays", return_value=True):
            fastest_time(build_site(scenario), plain_plan(scenario.workload))


def validates(seeds: range, folder: Path) -> None:
    """Validate mutations; fail with the text of the first that ends in any other way than a verdict."""
    (folder / "traces").symlink_to(SCENARIOS / "traces")
    file = folder / "mutated.yaml"
    for seed in seeds:
        text = mutated(seed)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            with limited(MOST_CPU_SECONDS):
                ended = churnlab("validate", file.name, folder=folder)
            assert ended.returncode in (0, 2)
            assert bool(ended.stderr) == (ended.returncode == 2)
            assert "Traceback" not in ended.stderr
        except BaseException as error:
            pytest.fail(f"mutation {seed} ends in {type(error).__name__}: {error}\n{text}")


def test_mutated_scenarios_are_valid_or_explained(tmp_path: Path):
    validates(range(200), tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_loop")
def test_ten_thousand_mutations_are_valid_or_explained(tmp_path: Path):
    validates(range(200, 10_200), tmp_path)


def adds_up(seeds: range, most_events: int) -> None:
    """Simulate what is valid of some mutations, for times only; fail where a ledger is not the wall-clock time."""
    for seed in seeds:
        text = mutated(seed)
        try:
            scenario = parse_scenario(text, base_folder=SCENARIOS)
        except ScenarioError:
            continue
        scenario = scenario.model_copy(update={"give_up_after_events": most_events})
        for config in scenario.strategies:
            try:
                with limited(MOST_CPU_SECONDS):
                    run = simulate(scenario, config, 0, 0, time_only(scenario))
                assert run.stopped or run.num_iterations == scenario.training.steps * scenario.iterations_per_step
                assert min(run.ledger.values()) >= 0.0
                assert math.isclose(math.fsum(run.ledger.values()), run.wall_clock_seconds, rel_tol=1e-9, abs_tol=1e-9)
            except BaseException as error:
                pytest.fail(f"mutation {seed}, {config.name} ends in {type(error).__name__}: {error}\n{text}")


def test_ledgers_of_mutated_scenarios_add_up():
    adds_up(range(40), most_events=5_000)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_loop")
def test_ledgers_of_a_thousand_mutations_add_up():
    adds_up(range(40, 4000), most_events=50_000)


def test_uploads_beside_most_iterations_are_foreseen():
    """Without them, iterations are skipped in leaps and take no events."""
    text = "name: a\nstrategies: [none, {kind: checkpoint, interval_iterations: 2}]\ntraining: {learner: none}\n"
    slow_store = ["workload.model=small", "network={preset: spot_cluster, storage: {bandwidth_mbit_per_s: 500}}"]
    few, many = (parse_scenario(text, overrides=[*slow_store, f"training.steps={n}"]) for n in (2_000, 2_000_000))
    (line,) = foreseen_effort(many)
    assert "2,000,000 iterations, many of them beside uploads (checkpoint)" in line
    assert foreseen_effort(few) == foreseen_effort(many.model_copy(update={"strategies": many.strategies[:1]})) == []
    run = simulate(few, few.strategies[1], 0, 0, time_only(few), stops_on_failures=False)
    (events,) = (found for cause, found in expected_events(many).items() if "beside uploads" in cause)
    assert run.num_events * 1_000 == pytest.approx(events, rel=0.1)


@pytest.mark.parametrize(
    "changed",
    [
        ["network={preset: single_cluster, same_region: {latency_ms: 1, bandwidth_mbit_per_s: 1.0e-6}}"],
        ["workload.num_microbatches=10000"],
        ["failures={kind: exponential, scope: region, mean_uptime_hours: 0.0003}", "network=gcp"],
        ["failures={kind: exponential, scope: node, mean_uptime_hours: 0.0003}", "cluster.nodes_per_stage=4"],
        ["fidelity=microbatch", "workload.num_microbatches=1000"],
    ],
)
def test_what_takes_too_many_events_is_foreseen_and_ends(changed: list[str]):
    text = "name: a\nstrategies: [none, checkpoint]\ntraining: {learner: none}\ngive_up_after_events: 20000\n"
    scenario = parse_scenario(text, overrides=changed)
    (line,) = foreseen_effort(scenario)
    assert line.endswith("That is more than give_up_after_events, 20,000: it will be stopped before its end.")
    for config in scenario.strategies:
        with limited(MOST_CPU_SECONDS):
            run = simulate(scenario, config, 0, 0, time_only(scenario))
        assert run.stopped is not None
        assert "events to simulate (give_up_after_events)" in run.stopped
        assert math.isclose(math.fsum(run.ledger.values()), run.wall_clock_seconds, rel_tol=1e-9)
