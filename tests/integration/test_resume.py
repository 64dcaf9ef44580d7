"""Killed at any moment and started again, a run gives the files it would have given, and trains nothing twice."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

SCENARIO = """
name: tiny
workload: {num_stages: 4, num_microbatches: 4}
training:
  model: {dim: 16, num_heads: 2, num_stages: 4}
  sequences_per_batch: 4
  sequence_length: 16
  steps: 400
  evaluation: {interval_steps: 20, num_sequences: 8}
cluster: {device: l4}
failures: {kind: exponential, rate_per_hour: 0.9}
strategies: [none, {kind: checkpoint, interval_iterations: 30}, redundant, checkfree_plus]
"""


def command(folder: Path, name: str, *extra: str) -> list[str]:
    (folder / "tiny.yaml").write_text(SCENARIO)
    options = ["--results", str(folder / name), "--cache", str(folder / f"{name}-cache"), *extra]
    return [sys.executable, "-c", "from sim.cli.main import main; main()", "run", str(folder / "tiny.yaml"), *options]


def run(folder: Path, name: str, *extra: str) -> str:
    done = subprocess.run(command(folder, name, *extra), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path, name: str) -> dict[str, bytes]:
    """Everything written but `run.json`, which tells how long it took."""
    root = folder / name
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def num_known_steps(folder: Path, name: str) -> int:
    database = folder / f"{name}-cache" / "trajectory.sqlite"
    if not database.exists():
        return 0
    try:
        return sqlite3.connect(database).execute("SELECT COUNT(*) FROM steps").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0


def num_trained_steps(folder: Path, name: str) -> dict[str, int]:
    abouts = [json.loads(path.read_text()) for path in (folder / name).rglob("run.json")]
    return {about["strategy"]["kind"]: about["num_trained_steps"] for about in abouts}


def kill_when(folder: Path, name: str, num_steps: int) -> None:
    """Start the run and `kill -9` it once so many steps are in the store."""
    process = subprocess.Popen(command(folder, name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while num_known_steps(folder, name) < num_steps:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder, "results")
    return folder


def test_killed_on_the_trunk_it_goes_on_at_the_last_commit(whole, tmp_path):
    kill_when(tmp_path, "results", 100)
    known = num_known_steps(tmp_path, "results")
    assert 100 <= known < 400
    run(tmp_path, "results")
    assert files(tmp_path, "results") == files(whole, "results")
    assert num_trained_steps(tmp_path, "results")["none"] == 400 - known
    assert num_trained_steps(tmp_path, "results")["checkpoint"] == 0


def test_killed_among_edits_it_gives_the_same_files(whole, tmp_path):
    kill_when(tmp_path, "results", 550)
    before = set((tmp_path / "results").rglob("summary.json"))
    assert len(before) == 3  # all but checkfree_plus were finished
    run(tmp_path, "results")
    assert files(tmp_path, "results") == files(whole, "results")


def test_the_same_command_again_runs_and_trains_nothing(whole):
    expected = files(whole, "results")
    assert run(whole, "results").count("finished before, not run again") == 4
    run(whole, "results", "--force")
    assert files(whole, "results") == expected
    assert num_trained_steps(whole, "results") == {"none": 0, "checkpoint": 0, "redundant": 0, "checkfree_plus": 0}


def test_the_order_of_strategies_and_the_cache_move_no_bit(whole, tmp_path):
    run(
        tmp_path,
        "results",
        "--set",
        "strategies=[checkfree_plus, {kind: checkpoint, interval_iterations: 30}, redundant, none]",
    )
    found, expected = files(tmp_path, "results"), files(whole, "results")
    parquet = {name for name in expected if name.endswith(("parquet", "summary.json"))}
    assert len(parquet) == 4 * 5
    assert {name: found[name] for name in parquet} == {name: expected[name] for name in parquet}


def test_redundant_keeps_every_bit_and_a_rollback_repeats_losses(whole):
    frames = {path.parent.name.split("-")[0]: pd.read_parquet(path) for path in whole.rglob("iterations.parquet")}
    reference = frames["none"].set_index("iteration")["train_loss"]
    assert (frames["redundant"]["train_loss"].to_numpy() == reference.to_numpy()).all()
    rerun = frames["checkpoint"]
    assert rerun["execution"].max() > 1
    assert (rerun["train_loss"].to_numpy() == reference.loc[rerun["iteration"]].to_numpy()).all()
