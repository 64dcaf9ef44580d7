"""The library's face: every name loads, and each function does without a command line what its command does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import churnlab
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sim.experiments.executors import InProcess
from sim.experiments.sweep import run_scenario
from sim.scenario.loading import load_scenario, parse_scenario
from sim.scenario.sweep_points import load_points
from sim.strategies.checkpoint import CheckpointConfig

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios"
SMALL = {
    "name": "small",
    "workload": {"num_stages": 4, "num_microbatches": 8},
    "training": {"learner": "curve", "model": {"num_stages": 4}, "steps": 40, "target_validation_loss": 4.0},
    "failures": {"kind": "exponential", "rate_per_hour": 0.5},
    "strategies": ["none", {"kind": "checkpoint", "interval_iterations": 10}, "checkfree_plus"],
}


def build(**sections):
    return churnlab.build_scenario(SMALL, **sections)


def test_importing_it_loads_nothing_heavy():
    code = "import sys, churnlab; print(*{name.partition('.')[0] for name in sys.modules})"
    path = [str(ROOT / "sim" / "library"), str(ROOT)]
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}"], capture_output=True, text=True, check=True
    )
    assert not set(found.stdout.split()) & {"torch", "numpy", "pandas", "pydantic", "matplotlib", "sim"}


@pytest.mark.parametrize("name", churnlab.__all__)
def test_every_name_is_there_with_its_docstring(name):
    assert getattr(churnlab, name).__doc__


def test_no_other_names_are_there():
    assert dir(churnlab) == sorted(set(churnlab.__all__))
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        churnlab.simulat  # noqa: B018


# ---- scenarios -----------------------------------------------------------------------------------
def test_text_mapping_and_keywords_build_equal_scenarios():
    text = """
name: small
workload: {num_stages: 4, num_microbatches: 8}
training: {learner: curve, model: {num_stages: 4}, steps: 40, target_validation_loss: 4.0}
failures: {kind: exponential, rate_per_hour: 0.5}
strategies: [none, {kind: checkpoint, interval_iterations: 10}, checkfree_plus]
"""
    from_text = churnlab.build_scenario(text)
    assert from_text == churnlab.build_scenario(SMALL) == churnlab.build_scenario(**SMALL)
    assert churnlab.build_scenario(text, name="other") == churnlab.build_scenario(SMALL, {"name": "other"})


def test_sections_may_be_objects_and_overrides_values_by_field():
    options = CheckpointConfig(interval_iterations=10)
    scenario = build(
        strategies=("none", options),
        seeds={"failures": range(3), "training": np.array([4])},
        failures={"rate_per_hour": np.float64(0.5), "kind": "exponential"},
    )
    assert scenario.strategies[1] == options
    assert scenario.seeds.failures == (0, 1, 2)
    assert scenario.seeds.training == (4,)
    by_value = build_small({"failures.rate_per_hour": 0.25, "strategies[checkpoint].interval_iterations": 5})
    as_text = build_small(["failures.rate_per_hour=0.25", "strategies[checkpoint].interval_iterations=5"])
    assert by_value == as_text
    assert by_value.strategies[1].interval_iterations == 5


def build_small(overrides):
    return churnlab.build_scenario(SMALL, overrides)


def test_all_problems_name_field_and_nearest_name():
    with pytest.raises(churnlab.ScenarioError) as caught:
        build(failures={"kind": "exponentail"}, cluster={"num_spare": 1})
    first, field, kind = str(caught.value).splitlines()
    assert first == "scenario: 2 problems"
    assert kind.startswith("  failures.kind: found 'exponentail'; nearest: exponential")
    assert field.startswith("  cluster.num_spare: unknown key; nearest: num_spares")
    with pytest.raises(churnlab.ScenarioError, match=r"training\.model\.num_stages: "):
        build(workload={"num_stages": 6})
    with pytest.raises(churnlab.ScenarioError, match=r"overrides, failures\.rate_per_hour: "):
        build_small({"failures.rate_per_hour": -1})
    with pytest.raises(churnlab.ScenarioError, match="no entry 'chekpoint' in 'strategies'; nearest: checkpoint"):
        build_small({"strategies[chekpoint].interval_iterations": 5})


@pytest.mark.parametrize("name", ["quickstart", "checkpoint_interval", "paper/table2", "paper/figure2", "spot_trace"])
def test_a_loaded_scenario_has_the_points_of_its_file(name):
    path = SCENARIOS / f"{name}.yaml"
    loaded = churnlab.load_scenario(path)
    from_file = load_points(path)
    from_object = load_points(loaded)
    assert [point.parameters for point in from_object] == [point.parameters for point in from_file]
    hidden = {"training": {"data": True}}
    for one, other in zip(from_object, from_file, strict=True):
        assert one.scenario.model_dump(exclude=hidden) == other.scenario.model_dump(exclude=hidden)
        assert one.strategy_of == other.strategy_of


def test_a_loaded_scenario_can_be_used_from_any_folder(tmp_path, monkeypatch):
    path = SCENARIOS / "quickstart.yaml"
    changes = ["training.data={source: text, files: [../docs/*.md]}"]
    loaded = load_scenario(path, changes)
    monkeypatch.chdir(tmp_path)
    assert loaded.training.data.files == (str(SCENARIOS.resolve() / "../docs/*.md"),)
    assert parse_scenario(path.read_text(), overrides=changes).training.data.files == ("../docs/*.md",)


# ---- simulating without files --------------------------------------------------------------------
@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty current folder, which is still empty afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_simulated_run_is_the_run_of_a_command_without_files(nowhere, tmp_path_factory):
    run = churnlab.simulate(build(), "checkpoint", failure_seed=1)
    assert repr(run) == "<SimulatedRun checkpoint-f1-t0: 40 iterations, 0 failures>"
    folder = tmp_path_factory.mktemp("results")
    scenario = build(seeds={"failures": [1]})
    on_disk = {record.run["strategy"]["kind"]: record for record in run_scenario(scenario, folder, nowhere).run_files()}
    same = on_disk["checkpoint"]
    assert run.summary == same.summary
    for table in ("iterations", "events"):
        pd.testing.assert_frame_equal(getattr(run, table), getattr(same, table))
    assert run.ledger.to_dict() == same.ledger.set_index("bucket")["seconds"].to_dict()
    assert run.ledger.sum() == pytest.approx(run.summary["wall_clock_seconds"])
    assert run.nodes["num_nodes"].max() == 5
    assert run.losses["validation_loss"].dropna().iloc[-1] == run.summary["final_validation_loss"]
    assert (run.losses["hours"].diff().dropna() > 0).all()


def test_models_train_with_a_cache_or_not_and_times_need_none(nowhere, tmp_path_factory):
    changes = {"training.learner": "torch", "training.steps": 4, "training.model.dim": 16}
    scenario, cache = churnlab.build_scenario(SMALL, changes), tmp_path_factory.mktemp("cache")
    alone, kept = (churnlab.simulate(scenario, "none", cache=folder, training_seed=3) for folder in (None, cache))
    assert alone.losses["train_loss"].notna().all()
    pd.testing.assert_frame_equal(alone.losses, kept.losses)
    assert list(cache.iterdir())
    with_learner, without = (churnlab.simulate(build(), "checkfree_plus", train=train) for train in (True, False))
    assert without.losses.empty
    assert without.ledger.equals(with_learner.ledger)


def test_the_strategy_and_what_to_compare_are_asked_for():
    with pytest.raises(ValueError, match="has 3 strategies: name one of none, checkpoint, checkfree_plus"):
        churnlab.simulate(build())
    with pytest.raises(ValueError, match="strategy 'chekpoint': not in the scenario; nearest: checkpoint"):
        churnlab.simulate(build(), "chekpoint")
    assert churnlab.simulate(build(strategies=["redundant"])).run.kind == "redundant"
    with pytest.raises(churnlab.ScenarioError, match=r"x failures\.rate=1,2, failures\.rate: unknown key"):
        churnlab.strategy_map(build(), "failures.rate=1,2")
    with pytest.raises(ValueError, match=r"y failures\.rate_per_hour: the same field as x"):
        churnlab.strategy_map(build(), "failures.rate_per_hour", "failures.rate_per_hour")
    with pytest.raises(ValueError, match="only 1 strategy is affected by failures; give at least two"):
        churnlab.advise(build(strategies=["checkpoint"]))


def test_simulated_runs_have_statistics_and_figures(nowhere):
    runs = [churnlab.simulate(build(), name, failure_seed=seed) for name in ("none", "checkpoint") for seed in (0, 1)]
    results = churnlab.as_results(runs)
    means = churnlab.summary(results.runs, [], ["wall_clock_seconds"])
    assert means.set_index("strategy")["num_runs"].to_dict() == {"none": 2, "checkpoint": 2}
    assert results.nodes.groupby("run").size().index.tolist() == sorted(run.name for run in runs)


# ---- sweeps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [None, 1])
def test_a_sweep_gives_results_and_repeats_nothing(tmp_path, jobs):
    swept = build(sweep={"grid": {"failures.rate_per_hour": [0.1, 0.5]}, "replicates": 2})
    outcome = churnlab.run_sweep(swept, tmp_path, jobs=jobs)

    assert outcome.failures == {}
    runs = outcome.results().runs
    assert len(runs) == 2 * 2 * 3
    assert set(runs["failures.rate_per_hour"]) == {0.1, 0.5}
    simulated = churnlab.simulate(build_small({"failures.rate_per_hour": 0.1}), "checkpoint", failure_seed=1)
    same = runs[(runs["failures.rate_per_hour"] == 0.1) & (runs["strategy"] == "checkpoint")].iloc[1]
    assert same["wall_clock_seconds"] == simulated.summary["wall_clock_seconds"]
    assert churnlab.run_sweep(swept, tmp_path, jobs=jobs).outline.num_finished == 12


def test_a_sweep_of_a_file_is_that_of_its_command(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps({**SMALL, "sweep": {"replicates": 2}}))
    outcome = churnlab.run_sweep(path, tmp_path / "results", options=churnlab.SweepOptions(dry_run=True))
    assert outcome.outline.num_runs == 6
    assert not (tmp_path / "results").exists()


# ---- maps, advice, costs, panels -----------------------------------------------------------------

OPTIONS = churnlab.MapOptions(replicates=2, time_replicates=2, num_samples=1, jobs=1)


def test_a_map_is_an_object_and_leaves_no_files(nowhere):
    found = churnlab.strategy_map(build(), "failures.rate_per_hour=0.1,0.5", options=OPTIONS)
    assert isinstance(found, churnlab.StrategyMap)
    assert found.strategies == ("checkpoint", "checkfree_plus")
    assert len(found.table) == 4
    assert found.own.ranking.reaching[0].strategy in found.strategies
    axes = "failures.rate_per_hour=0.1,0.5", "network.bandwidth_factor=0.5,1"
    of_two_fields = churnlab.strategy_map(build(strategies=["checkpoint", "redundant"]), *axes, options=OPTIONS)
    _, (left, right) = plt.subplots(1, 2)
    churnlab.draw(left, found)
    churnlab.draw(right, of_two_fields)
    assert len(left.lines) == 2
    assert len(right.collections) == 1  # regions
    assert churnlab.strategy_map_figure(found).axes
    plt.close("all")


def test_advice_is_an_object_with_its_map(nowhere):
    advice = churnlab.advise(build(), options=OPTIONS)
    nothing = "too few failures to decide"
    assert repr(advice) == f"<Advice: {' or '.join((advice.best or nothing, *advice.contenders))}>"
    standings = advice.result.ranking.standings
    assert advice.best in (standings[0].strategy, None)
    assert (advice.best is None) == (advice.result.ranking.num_lost < 10)
    assert advice.lead == standings[1].behind
    assert set(advice.contenders) <= {one.strategy for one in standings[1:]}
    assert advice.is_certain == (advice.best is not None and not advice.contenders)
    assert set(advice.learning_costs) == {"checkfree_plus"}
    assert set(advice.table["failures.rate_per_hour"]) == {0.25, 0.35, 0.5, 0.7}
    bound, *five = churnlab.advice_lines(advice)
    assert bound.startswith("Bound by memory: ")
    assert len(five) == 5


def test_advice_goes_on_from_the_runs_of_a_results_folder(tmp_path):
    for folder in (tmp_path / "results", tmp_path / "results"):
        advice = churnlab.advise(build(), options=OPTIONS, results=folder, cache=tmp_path / "cache")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")}
    again = churnlab.advise(build(), options=OPTIONS, results=folder, cache=tmp_path / "cache")
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")} != {}
    pd.testing.assert_frame_equal(again.table, advice.table)


def test_costs_and_recoveries_are_tables():
    costs = pd.DataFrame(churnlab.overheads(build())).set_index("strategy")
    assert costs.loc["checkpoint", "stored_bytes"] > 0
    recovered = pd.DataFrame(churnlab.recoveries(build())).T
    assert recovered.loc["checkpoint"].all()
    assert set(recovered.columns) == {"apart", "adjacent", "first", "last", "stage 0"}


def test_each_kind_of_panel_is_drawn_on_an_axis():
    results = churnlab.as_results([churnlab.simulate(build(), name) for name in ("none", "checkpoint")])
    for kind in ("loss", "loss_by_iteration", "ledger", "nodes", "time_to_loss", "money_to_loss"):
        axis = plt.figure().subplots()
        churnlab.draw(axis, results, kind)
        assert axis.has_data()
        assert axis.get_xlabel()
    with pytest.raises(ValueError, match="kind ledgr: no such panel; nearest: ledger"):
        churnlab.draw(axis, results, "ledgr")
    plt.close("all")


def test_a_panel_of_one_point_asks_for_the_point(tmp_path):
    sweep = {"grid": {"failures.rate_per_hour": [0.2, 0.5]}, "keep": "records"}
    churnlab.run_sweep(build(sweep=sweep), tmp_path, jobs=1)
    results = churnlab.load_results(tmp_path / "small")
    for kind in ("loss", "ledger", "nodes"):
        with pytest.raises(
            ValueError, match=f"kind {kind} shows one point of a sweep.* are 2: .*, such as failures.rate_per_hour 0.2"
        ):
            churnlab.draw(plt.figure().subplots(), results, kind)
        churnlab.draw(plt.figure().subplots(), results, kind, at={"failures.rate_per_hour": 0.5})
    plt.close("all")


# ---- the page that shows all of it ---------------------------------------------------------------


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    """All blocks of docs/library.md, in order, in one namespace, without workers, which would import everything."""
    monkeypatch.setattr("sim.experiments.sweep.ProcessPool", lambda _: InProcess())
    (tmp_path / "scenarios").symlink_to(SCENARIOS)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 10
    assert all(len(block.splitlines()) <= 12 for block in blocks)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), namespace)
    plt.close("all")
    assert namespace["advice"].best == "checkpoint"
    assert namespace["advice"].is_certain
    assert {path.name for path in tmp_path.iterdir()} == {"scenarios", "results", "time_to_loss.png", "two_panels.png"}
