"""Sweeps in one process: the same runs as one by one, each step once, failures kept apart, refusals of the disk."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from models.shared_training import SharedTraining
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import InProcess, ProcessPool
from sim.experiments.folder import SweepFolder, read_status
from sim.experiments.job import SweepJob
from sim.experiments.outline import outline
from sim.experiments.plan import format_value, plan_runs, selected, values_in_name
from sim.experiments.training import Texts
from sim.results import storage as results
from sim.scenario.loading import load_scenario
from sim.scenario.sweep_points import Point, load_points
from support.sweeps import TIME_ONLY, TINY, by_name, do_one_by_one, do_sweep, files_of, write_scenario

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def scenario_path(folder):
    return write_scenario(folder)


@pytest.fixture(scope="module")
def done(folder, scenario_path) -> SweepJob:
    """A finished sweep: three strategies, two rates, two failure seeds."""
    return do_sweep(scenario_path, folder / "results", folder / "cache")


def test_a_sweep_leaves_what_its_runs_leave_one_by_one(done, scenario_path, tmp_path):
    for point in load_points(scenario_path):
        assert do_one_by_one(point, scenario_path.parent, tmp_path) == 6
    alone = files_of(tmp_path / "tiny")
    assert len(alone) == 12 * 6
    assert files_of(done.folder.folder) == alone


def test_every_distinct_step_was_trained_once(done, folder):
    store = TrajectoryStore(folder / "cache")
    assert done.training.num_trained_steps == store.info().num_steps
    checkpointing = [run for run in done.runs if run.strategy.name in ("none", "checkpoint")]
    lines = {lineage for run in checkpointing for lineage in done.demands[run]}
    assert len(lines) == 2, "one line of training for each training seed, whatever the strategy and the rate"
    store.close()


def test_segments_of_any_length_make_the_same_runs(done, scenario_path, tmp_path):
    again = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache", most_steps=3)
    assert files_of(again.folder.folder) == files_of(done.folder.folder)


def test_finished_runs_and_trained_steps_are_not_repeated(done, scenario_path, tmp_path):
    some = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache", runs=range(5))
    assert sum(run.is_finished for run in some.runs) == 5
    times = {run.name: os.stat(run.folder / "summary.json").st_mtime_ns for run in some.runs[:5]}
    rest = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
    assert {name: os.stat(by_name(rest, name).folder / "summary.json").st_mtime_ns for name in times} == times
    assert files_of(rest.folder.folder) == files_of(done.folder.folder)
    shutil.rmtree(tmp_path / "results")
    from_cache = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
    assert from_cache.training.num_trained_steps == 0
    assert files_of(from_cache.folder.folder) == files_of(done.folder.folder)


def test_a_cache_that_keeps_no_states_costs_steps_but_no_bits(done, scenario_path, tmp_path):
    do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache", runs=[0, 1])
    store = TrajectoryStore(tmp_path / "cache")
    store.prune(0)
    store.close()
    rest = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
    assert files_of(rest.folder.folder) == files_of(done.folder.folder)


def test_strategies_share_failures_and_rates_only_scale_them(done):
    events = results.load(done.folder.folder).events
    failures = events[events["kind"] == "failure"].merge(results.load(done.folder.folder).runs, on="run")
    firsts = failures.groupby(["failures.rate_per_hour", "failure_seed", "strategy"])["time_seconds"].min().unstack()
    assert (firsts["checkpoint"].dropna() == firsts["checkfree"].dropna()).all()
    assert len(firsts.dropna())


# ---- what it leaves ------------------------------------------------------------------------------
def test_the_table_has_a_row_for_each_run(done):
    """With values, outcomes, versions and hashes."""
    for run in done.runs:
        about = results.read_json(run.folder / "run.json")
        assert about["num_steps_asked"] >= 24
        assert about["run_hash"] == run.key
        assert about["versions"]["training"]
    table = pd.read_parquet(done.folder.folder / "runs.parquet")
    assert len(table) == 12
    assert set(table["failures.rate_per_hour"]) == {0.1, 0.3}
    assert set(table["outcome"]) == {"finished"}
    assert table["run_hash"].is_unique
    assert {"wall_clock_seconds", "final_validation_loss", "lost_work_seconds"} <= set(table)
    assert {"version_training", "version_source", "version_corpus"} <= set(table)
    summary = results.read_json(done.runs[0].folder / "summary.json")
    row = table[table["run"] == done.runs[0].name].iloc[0]
    assert row["wall_clock_seconds"] == summary["wall_clock_seconds"]


def test_its_status_counts_finished_runs(done, tmp_path):
    status = read_status(done.folder.folder)
    assert (len(status.finished), len(status.failed), len(status.left)) == (12, 0, 0)
    assert not status.is_running
    assert "12 runs: 12 finished, 0 failed, 0 left" in status.lines[0]
    with pytest.raises(ValueError, match=r"contains no sweep: there is no sweep\.json"):
        read_status(tmp_path)


def test_results_are_frames_in_python_and_files_to_query(done):
    folder = done.folder.folder
    found = results.load(folder)
    assert len(found.runs) == 12
    losses = found.iterations.merge(found.runs[["run", "failures.rate_per_hour", "strategy"]], on="run")
    assert set(losses["strategy"]) == {"none", "checkpoint", "checkfree"}
    spent = found.ledger.groupby("run")["seconds"].sum()
    walls = found.runs.set_index("run")["wall_clock_seconds"]
    assert (spent - walls[spent.index]).abs().max() < 1e-6 * walls.max()
    query = f"""
        SELECT r."failures.rate_per_hour" AS rate, r.strategy, count(*) AS num_iterations
        FROM read_parquet('{folder}/*/iterations.parquet', filename = true) AS i
        JOIN '{folder}/runs.parquet' AS r ON r.run = parse_path(i.filename)[-2]
        GROUP BY ALL ORDER BY ALL
    """
    rows = duckdb.sql(query).fetchall()
    assert len(rows) == 6
    assert sum(count for *_, count in rows) == found.runs["num_iterations_run"].sum()


def test_two_sweeps_of_one_folder_at_a_time_are_one_too_many(tmp_path):
    with SweepFolder(tmp_path).locked():
        (tmp_path / "sweep.json").write_text(json.dumps({"runs": []}))
        assert read_status(tmp_path).is_running
        with pytest.raises(ValueError, match="another process runs a sweep"), SweepFolder(tmp_path).locked():
            pass
    assert not read_status(tmp_path).is_running


def test_outcomes_alone_can_be_kept(tmp_path):
    text = TIME_ONLY.replace("replicates: 2", "replicates: 2\n  keep: outcomes")
    job = do_sweep(write_scenario(tmp_path, text), tmp_path / "results", tmp_path / "cache")
    whole = do_sweep(write_scenario(tmp_path, TIME_ONLY), tmp_path / "whole", tmp_path / "cache")
    assert {file.name for file in job.runs[0].folder.iterdir()} == {"scenario.yaml", "run.json", "summary.json"}
    kept, all_of_it = files_of(job.folder.folder), files_of(whole.folder.folder)
    assert all(all_of_it[name] == content for name, content in kept.items())
    assert results.load(job.folder.folder).iterations.empty
    again = do_sweep(write_scenario(tmp_path, TIME_ONLY), tmp_path / "results", tmp_path / "cache")
    assert files_of(again.folder.folder) == all_of_it, "records are made where they are asked for"


# ---- what is to be done --------------------------------------------------------------------------
def names(runs) -> set[str]:
    return {run.name.rpartition("-")[0] for run in runs}


def test_runs_are_chosen_by_strategy_folder_or_value(done):
    rates = ("rate_per_hour_0.1", "rate_per_hour_0.3")
    named = {f"checkfree-f{n}-t{n}-{rate}" for rate in rates for n in (0, 1)}
    assert names(selected(done.runs, ["checkfree"])) == named
    assert len(selected(done.runs, ["checkfree", "failures.rate_per_hour=0.1"])) == 2
    assert names(selected(done.runs, ["*-f1-*"])) == {
        f"{name}-f1-t1-{rate}" for name in ("none", "checkpoint", "checkfree") for rate in rates
    }
    assert len(selected(done.runs, ["none", "checkpoint"])) == 8
    assert selected(done.runs, []) == done.runs
    for only, message in (
        ("checkfre", "--only checkfre: no such strategy or run; nearest: checkfree"),
        ("failures.rate=0.1", "--only failures.rate=...: no such swept field; nearest: failures.rate_per_hour"),
        ("failures.rate_per_hour=0.2", "--only failures.rate_per_hour=0.2: no such value"),
    ):
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            selected(done.runs, [only])
    assert [format_value(value) for value in (1, 0.5, True, None, "l4", 0)] == ["1", "0.5", "true", "null", "l4", "0"]


def test_a_run_keeps_its_folder_whatever_the_sweep(scenario_path, tmp_path):
    texts = Texts(scenario_path.parent, None)
    in_sweep = plan_runs(load_points(scenario_path), scenario_path.parent, tmp_path, texts)
    alone = [Point({}, load_points(scenario_path)[0].scenario)]
    before = plan_runs(alone, scenario_path.parent, tmp_path, texts)
    assert {run.key for run in before} < {run.key for run in in_sweep}
    assert {run.name for run in before}.isdisjoint(run.name for run in in_sweep)
    before[0].folder.mkdir(parents=True)
    again = plan_runs(load_points(scenario_path), scenario_path.parent, tmp_path, texts)
    assert {run.name for run in again} & {run.name for run in before} == {before[0].name}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, []),
        ({"failures.rate_per_hour": 0.079244659}, ["rate_per_hour_0.07924"]),
        (
            {"strategies[checkpoint].interval_iterations": 50, "network": "gcp"},
            ["interval_iterations_50", "network_gcp"],
        ),
        ({"failures": {"kind": "exponential"}, "failures.files": "../a b/*.csv"}, ["files_.._a_b_.csv"]),
    ],
)
def test_run_folders_name_swept_values(parameters, expected):
    assert values_in_name(parameters) == expected


def test_a_plan_counts_steps_alone_distinct_and_left(done, scenario_path, tmp_path):
    job = SweepJob(load_points(scenario_path), scenario_path.parent, tmp_path / "r", tmp_path / "c")
    job.begin(InProcess(), SharedTraining(None))
    work = outline(job, job.runs, job.runs)
    assert (work.num_runs, work.num_points, work.num_finished) == (12, 2, 0)
    assert work.num_steps_alone >= 12 * 24
    assert work.num_steps_left == work.num_steps_distinct == done.training.num_trained_steps
    assert "12 runs at 2 points" in work.lines[0]
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("overrides", "is_crossed"), [((), False), (("sweep.training_replicates=1",), True)])
def test_more_replicates_are_more_runs_and_the_old_ones_stay(scenario_path, tmp_path, overrides, is_crossed):
    job = SweepJob(load_points(scenario_path, overrides), scenario_path.parent, tmp_path, tmp_path)
    added = job.add_replicates({1: 3})
    seeds = [(seed, 0 if is_crossed else seed) for seed in (2, 3, 4)]
    strategies = ("none", "checkpoint", "checkfree")
    end = "rate_per_hour_0.3"
    assert names(added) == {
        f"{name}-f{failure}-t{training}-{end}" for name in strategies for failure, training in seeds
    }
    assert len(job.runs) == 12 + 9
    assert {run.point for run in added} == {1}


# ---- what goes wrong -----------------------------------------------------------------------------


BROKEN = """
from sim.strategies.baselines import NoStrategy
from sim.strategies.base import StrategyConfig

class Broken(NoStrategy):
    kind = "broken"
    summary = "breaks"
    Config = StrategyConfig

    def after_iteration(self, world, position):
        yield from ()
        if position.iteration == 100:
            raise RuntimeError("not today")
"""


def test_a_failing_run_is_kept_with_its_error_and_stops_no_other(done, scenario_path, tmp_path, monkeypatch):
    text = TINY.replace("strategies: [", "strategies: [{kind: 'broken_strategy:Broken', label: bad}, ")
    (tmp_path / "broken_strategy.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    path = write_scenario(tmp_path, text)
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache")
    assert {run.strategy.name for run in job.failures} == {"bad"}
    assert len(job.failures) == 4
    expected = files_of(done.folder.folder)
    others = {name: content for name, content in expected.items() if not name.endswith("scenario.yaml")}
    assert {name: content for name, content in files_of(job.folder.folder).items() if name in others} == others
    status = read_status(job.folder.folder)
    assert (len(status.finished), len(status.failed), len(status.left)) == (12, 4, 0)
    (failure,) = set(status.failed.values())
    assert failure.endswith("RuntimeError: not today")
    (kept, *_) = sorted((job.folder.folder / "failed").iterdir())
    assert "broken_strategy.py" in json.loads(kept.read_text())["details"]
    table = pd.read_parquet(job.folder.folder / "runs.parquet")
    assert list(table[table["strategy"] == "bad"]["outcome"]) == ["failed"] * 4


def broken(tmp_path, monkeypatch, how: str = 'raise RuntimeError("not today")'):
    """A scenario file with a strategy that breaks in iteration 100."""
    (tmp_path / "broken_strategy.py").write_text(BROKEN.replace('raise RuntimeError("not today")', how))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_strategy", raising=False)
    text = TIME_ONLY.replace("strategies: [", "strategies: [{kind: 'broken_strategy:Broken', label: bad}, ")
    return write_scenario(tmp_path, text)


@pytest.mark.slow
def test_a_run_that_kills_its_workers_fails_alone(tmp_path, monkeypatch):
    path = broken(tmp_path, monkeypatch, "import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    path.write_text(path.read_text().replace("replicates: 2", "replicates: 20"))
    pool = ProcessPool(2)
    try:
        job = SweepJob(load_points(path, ("failures.rate_per_hour=0.3",)), tmp_path, tmp_path / "r", tmp_path / "c")
        job.begin(pool, None)
        runs = [run for run in job.runs if run.strategy.name != "bad"]
        killers = [run for run in job.runs if run.strategy.name == "bad"][:1]
        job.do(runs[:10] + killers + runs[10:])
    finally:
        pool.close()
    assert list(job.failures) == killers
    assert "its worker died 3 times" in job.failures[killers[0]][0]
    assert all(run.is_finished for run in runs)


def test_a_forced_run_that_fails_is_not_finished(tmp_path, monkeypatch):
    path = write_scenario(tmp_path, TIME_ONLY)
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache")
    assert all(run.is_finished for run in job.runs)
    again = SweepJob(load_points(path), tmp_path, tmp_path / "results", tmp_path / "cache")
    again.begin(InProcess(), None)
    monkeypatch.setattr("sim.experiments.tasks.simulate", lambda *_: 1 / 0)
    again.do(again.runs[:3])
    status = read_status(again.folder.folder)
    assert (len(status.finished), len(status.failed), len(status.left)) == (9, 3, 0)
    assert set(again.table["outcome"]) == {"finished", "failed"}


def test_what_concerns_a_scenario_as_it_was_goes_when_it_changes(tmp_path, monkeypatch):
    path = broken(tmp_path, monkeypatch)
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache")
    (job.folder.folder / "statistics.csv").write_text("of another scenario")
    assert len(list((job.folder.folder / "failed").iterdir())) == 4
    again = do_sweep(path, tmp_path / "results", tmp_path / "cache", overrides=("cluster.detection_seconds=3",))
    failed = {file.stem for file in (again.folder.folder / "failed").iterdir()}
    assert failed == {run.name for run in again.failures}
    assert not (again.folder.folder / "statistics.csv").exists()


def test_a_summary_that_a_power_cut_left_empty_is_no_summary(done, scenario_path, tmp_path):
    job = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
    (job.runs[0].folder / "summary.json").write_text("")
    (job.folder.folder / "progress.json").write_text("")
    assert read_status(job.folder.folder).left == (job.runs[0].name,)
    again = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
    assert files_of(again.folder.folder) == files_of(done.folder.folder)


def test_a_swept_field_may_be_in_the_summary_too(tmp_path, scenario_path):
    text = TIME_ONLY.replace("failures.rate_per_hour: [0.1, 0.3]", "iterations_per_step: [10, 20]")
    job = do_sweep(write_scenario(tmp_path, text), tmp_path / "results", tmp_path / "cache")
    table = pd.read_parquet(job.folder.folder / "runs.parquet")
    assert set(table["iterations_per_step"]) == {10, 20}
    assert table["iterations_per_step"].dtype == "Int64"
    assert load_scenario(scenario_path).failures.rate_per_hour == 0.3


@pytest.mark.parametrize("design", ["pairs", "crossed"])
def test_replicates_that_were_added_stay_among_the_results(tmp_path, design):
    path = write_scenario(tmp_path, TIME_ONLY)
    overrides = ("sweep.replicates=null", "seeds.failures=[0, 1]", "seeds.training=[0, 1]", f"seeds.design={design}")
    num_planned, num_added = {"pairs": (12, 9), "crossed": (24, 18)}[design]
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache", overrides=overrides)
    job.do(job.add_replicates({1: 3}))
    assert len(pd.read_parquet(job.folder.folder / "runs.parquet")) == num_planned + num_added
    again = SweepJob(load_points(path, overrides), tmp_path, tmp_path / "results", tmp_path / "cache")
    again.begin(InProcess(), None)
    assert len(again.keep_added()) == num_added
    again.do([])
    assert len(pd.read_parquet(again.folder.folder / "runs.parquet")) == num_planned + num_added
    assert read_status(again.folder.folder).progress["state"] == "finished"


def test_runs_of_another_design_of_seeds_are_not_mixed_in(tmp_path):
    path = write_scenario(tmp_path, TIME_ONLY)
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache", overrides=("sweep.training_replicates=1",))
    job.do(job.add_replicates({1: 3}))
    pairs = SweepJob(load_points(path), tmp_path, tmp_path / "results", tmp_path / "cache")
    pairs.begin(InProcess(), None)
    assert pairs.keep_added() == []
    pairs.do([run for run in pairs.runs if not run.is_finished])
    table = pd.read_parquet(pairs.folder.folder / "runs.parquet")
    assert len(table) == 12
    assert (table["failure_seed"] == table["training_seed"]).all()
    crossed = SweepJob(load_points(path, ("sweep.training_replicates=1",)), tmp_path, tmp_path / "results", tmp_path)
    assert all(run.is_finished for run in crossed.runs)  # the files of the others stay


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory, at a new folder."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount a small disk")
@pytest.mark.parametrize("full", ["results", "cache"])
def test_a_full_disk_is_reported_and_loses_nothing(done, scenario_path, tmp_path, full):
    small = tmp_path / full
    with mounted(small, "size=200k"):
        with pytest.raises(OSError, match="free some space"):
            do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
        assert not list(small.rglob("*.part")), "nothing half written is left"
        subprocess.run(["mount", "-o", "remount,size=50m", small], check=True)
        rest = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")
        assert files_of(rest.folder.folder) == files_of(done.folder.folder)


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
def test_a_read_only_folder_is_reported(scenario_path, tmp_path):
    message = r"cannot write results to .*Read-only file system.*--results"
    with mounted(tmp_path / "results", "ro"), pytest.raises(OSError, match=message):
        do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache")


def test_training_that_diverges_stops_its_runs_as_it_does_alone(tmp_path):
    text = TINY.replace("learning_rate: 0.003", "learning_rate: 1.0e30, clip_norm: 1.0e30")
    path = write_scenario(tmp_path, text)
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache")
    assert not job.failures
    for point in load_points(path):
        do_one_by_one(point, tmp_path, tmp_path / "alone")
    assert files_of(job.folder.folder) == files_of(tmp_path / "alone" / "tiny")
    assert set(job.table["outcome"]) == {"stopped"}


@dataclass
class Forgetful(InProcess):
    """Deletes the cache's states behind the sweep's back, now and then."""

    keyframes: object = None
    count: int = 0

    def submit(self, task, *arguments):
        self.count += 1
        if self.count % 9 == 0:
            for file in self.keyframes.iterdir():
                file.unlink()
        return super().submit(task, *arguments)


def test_states_that_vanish_meanwhile_are_trained_again(done, scenario_path, tmp_path):
    executor = Forgetful(tmp_path / "cache" / "keyframes")
    job = do_sweep(scenario_path, tmp_path / "results", tmp_path / "cache", executor)
    assert files_of(job.folder.folder) == files_of(done.folder.folder)
