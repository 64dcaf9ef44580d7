"""Killed at any moment and started again, a run gives the files it would have given, and trains nothing twice."""

import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from support.commands import COMMAND, churnlab

SCENARIO = """
name: tiny
workload: {num_stages: 4, num_microbatches: 4}
training:
  model: {dim: 16, num_heads: 2, num_stages: 4}
  sequences_per_batch: 4
  sequence_length: 16
  steps: 160
  evaluation: {interval_steps: 20, num_sequences: 8}
cluster: {device: l4}
failures: {kind: exponential, rate_per_hour: 0.9}
strategies: [none, {kind: checkpoint, interval_iterations: 30}, redundant, checkfree_plus]
"""


def arguments(folder: Path) -> list[str]:
    (folder / "tiny.yaml").write_text(SCENARIO)
    folders = ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
    return ["run", str(folder / "tiny.yaml"), *folders, "--jobs", "1"]  # test_kills.py kills workers


def run(folder: Path, *extra: str) -> str:
    done = churnlab(*arguments(folder), *extra)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    """Everything but `run.json`, which counts steps, and what a kill left half written: that is kept for an hour."""
    root = folder / "results"
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if ".part" not in str(path)}


def num_known_steps(folder: Path) -> int:
    database = folder / "cache" / "trajectory.sqlite"
    if not database.exists():
        return 0
    try:
        return sqlite3.connect(database).execute("SELECT COUNT(*) FROM steps").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0


def num_steps_to_train(output: str) -> int:
    """The steps that a run says it has to train."""
    return int(re.search(r"([\d,]+) to train", output)[1].replace(",", ""))


def num_finished(folder: Path) -> int:
    return len(list(folder.glob("results/tiny/[!.]*/summary.json")))


def kill_when(folder: Path, is_time: Callable[[], bool]) -> None:
    """Start the run and `kill -9` it once it is time."""
    process = subprocess.Popen([*COMMAND, *arguments(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not is_time():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_killed_on_the_trunk_it_goes_on_at_the_last_commit(whole, tmp_path):
    kill_when(tmp_path, lambda: num_known_steps(tmp_path) >= 50)
    known, num_distinct = num_known_steps(tmp_path), num_known_steps(whole)
    assert 50 <= known < 160 <= num_distinct
    assert num_steps_to_train(run(tmp_path)) == num_distinct - known
    assert files(tmp_path) == files(whole)
    assert num_known_steps(tmp_path) == num_distinct


@pytest.mark.slow  # test_kills.py kills sweeps too
def test_killed_after_some_runs_it_gives_the_same_files(whole, tmp_path):
    kill_when(tmp_path, lambda: num_finished(tmp_path) > 0)
    num_before = num_finished(tmp_path)
    assert 0 < num_before < 4
    assert run(tmp_path).count("already finished, skipped") == num_before
    assert files(tmp_path) == files(whole)


def test_the_same_command_again_runs_and_trains_nothing(whole):
    expected = files(whole)
    assert run(whole).count("already finished, skipped") == 4
    assert num_steps_to_train(run(whole, "--force")) == 0
    assert files(whole) == expected


def test_the_order_of_strategies_and_the_cache_move_no_bit(whole, tmp_path):
    reversed_order = "[checkfree_plus, {kind: checkpoint, interval_iterations: 30}, redundant, none]"
    run(tmp_path, "--set", f"strategies={reversed_order}")
    found, expected = files(tmp_path), files(whole)
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
