"""The commands of sweeps as a user meets them: plan, progress, table, status, cache, errors, interruption."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from sim.cli.cache import in_bytes
from sim.experiments.folder import read_status
from sim.experiments.sequential import parse_share
from support.commands import COMMAND, Ended, churnlab
from support.sweeps import TIME_ONLY, TINY, files_of, write_scenario


def sweep(folder: Path, *arguments: object, text: str = TIME_ONLY, code: int = 0) -> Ended:
    """How `churnlab sweep` of a scenario ended, in a folder of its own and in this process."""
    write_scenario(folder, text)
    ended = churnlab("sweep", "tiny.yaml", "--executor", "serial", *arguments, folder=folder)
    assert ended.returncode == code, ended.stderr
    return ended


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished sweep that trained, and what the command printed."""
    folder = tmp_path_factory.mktemp("sweep")
    write_scenario(folder)
    done = churnlab("sweep", "tiny.yaml", "--jobs", 2, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_sweep_prints_its_plan_and_leaves_a_table_and_files(finished):
    folder, output = finished
    assert "12 runs at 2 points: 0 finished before, 12 to do." in output
    assert "distinct ones; 0 of them known" in output
    assert "on 2 workers" in output
    for words in ("failure rate", "hours", "% against", "no failures", "checkpointing", "CheckFree", "10", "30"):
        assert words in output
    assert "statistics.csv" in output
    statistics = pd.read_csv(folder / "results" / "tiny" / "statistics.csv")
    assert set(statistics["metric"]) == {
        "wall_clock_seconds", "target_reached_seconds", "final_validation_loss", "goodput"
    }  # fmt: skip
    assert len(files_of(folder / "results" / "tiny")) == 12 * 6


def test_the_same_command_again_does_nothing(finished):
    folder, _ = finished
    statistics = (folder / "results" / "tiny" / "statistics.csv").read_bytes()
    again = sweep(folder, text=TINY).stdout
    assert "12 runs at 2 points: 12 finished before, 0 to do." in again
    assert "final" in again
    assert (folder / "results" / "tiny" / "statistics.csv").read_bytes() == statistics
    first, second, third = churnlab("status", "results/tiny", folder=folder).stdout.splitlines()
    assert first == "results/tiny: 12 runs: 12 finished, 0 failed, 0 left"
    assert second.startswith("Not running: finished ")
    assert third == "Next: churnlab report results/tiny"


def test_the_cache_is_described_and_pruned(finished, tmp_path):
    folder, _ = finished
    described = churnlab("cache", "info", folder=folder).stdout
    assert " lines" in described
    assert "states: " in described
    code, pruned, _ = churnlab("cache", "prune", "--to", "100KB", folder=folder)
    assert code == 0
    assert "states deleted" in pruned
    assert sum(file.stat().st_size for file in (folder / "cache" / "keyframes").iterdir()) <= 100_000
    churnlab("cache", "prune", folder=folder)
    assert "0 states: 0B; database: " in churnlab("cache", "info", folder=folder).stdout
    assert in_bytes(2_300_000) == "2.3MB"
    # One that is not there is no error, and is not made.
    info = churnlab("cache", "info", folder=tmp_path)
    assert info == (0, f"{tmp_path / 'cache'}: no training states yet\n", "")
    assert churnlab("cache", "prune", folder=tmp_path).returncode == 0
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_plans_or_reports_errors_and_writes_nothing(tmp_path, monkeypatch):
    write_scenario(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    plan = sweep(tmp_path, "--dry-run", text=TINY).stdout
    assert "12 runs at 2 points" in plan
    assert "ms per step, measured just now" in plan
    plan = sweep(tmp_path, "--dry-run", "--set", "training.learner=curve").stdout
    assert "Training: losses come from the parametric curve." in plan
    monkeypatch.setattr("models.training_plan.DemandRecorder.train_loss", lambda *_: 1 / 0)
    errors = sweep(tmp_path, "--dry-run", text=TINY, code=1).stderr
    assert "12 runs failed: nothing is written" in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_time_alone_needs_no_training(tmp_path):
    output = sweep(tmp_path).stdout
    assert "Training: none, times only." in output
    assert "val. loss" not in output
    assert not (tmp_path / "cache").exists()
    assert len(pd.read_parquet(tmp_path / "results" / "tiny" / "runs.parquet")) == 12


def test_replicates_are_added_until_the_interval_is_small_enough(tmp_path):
    arguments = ("--until-ci", "4%", "--max-replicates", 40)
    assert "Intervals wider than 4 % at" in sweep(tmp_path, *arguments).stdout
    statistics = pd.read_csv(tmp_path / "results" / "tiny" / "statistics.csv")
    seconds = statistics[statistics["metric"] == "wall_clock_seconds"]
    half_widths = (seconds["high"] - seconds["low"]) / 2 / seconds["mean"]
    assert half_widths.max() <= 0.04
    assert seconds["num_failure_seeds"].max() > 2
    assert " 0 to do." in sweep(tmp_path, *arguments).stdout
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results" / "tiny" / "statistics.csv"), statistics)
    still_wide = sweep(tmp_path / "new", "--until-ci", "0.0001", "--max-replicates", 4).stdout
    assert "with 4 replicates (--max-replicates)" in still_wide
    assert parse_share("5%") == parse_share("0.05") == parse_share("5 %") == 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "checkfre"], "--only checkfre: no such strategy or run; nearest: checkfree"),
        (["--until-ci", "often"], "--until-ci often: give a share of the mean between 0 and 1, such as 5% or 0.05"),
        (["--until-ci", "150%"], "--until-ci 150%: give a share of the mean between 0 and 1"),
        (["--until-ci", "5%", "--only", "none"], "give it without --only"),
        (
            ["--reference", "non"],
            "--reference non: no such strategy; nearest: none; allowed: none, checkpoint, checkfree\n",
        ),
        (["--executor", "serial", "--jobs", "2"], "leave out --jobs 2"),
        (["--executor", "rya"], "'--executor': found 'rya'; nearest: ray; allowed: "),
        (["--address", "auto"], "give it with --executor ray"),
        (["--max-replicates", "5"], "--max-replicates needs --until-ci"),
        (["--cache-budget", "much"], "--cache-budget much: give a size such as 500MB or 2GB"),
        (["--cache", "x", "--no-cache"], "--cache and --no-cache contradict each other"),
        (["--set", "sweep.grid={failures.rate_per_huor: [1]}"], "failures.rate_per_huor: unknown key"),
        (["--set", "sweep.replicates=0"], "sweep.replicates: found 0; allowed: a whole number, at least 1"),
    ],
)
def test_user_errors_are_one_message_and_nothing_is_written(tmp_path, arguments, message):
    write_scenario(tmp_path, TIME_ONLY)
    before = sorted(tmp_path.rglob("*"))
    code, _, errors = churnlab("sweep", "tiny.yaml", *arguments, folder=tmp_path)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "command", ["validate", "run", "sweep", "advise", "map --x failures.rate_per_hour=0.1,0.3 --dry-run"]
)
def test_missing_text_is_reported_with_its_line(tmp_path, command):
    (tmp_path / "tiny.yaml").write_text(TINY)
    name, *options = command.split()
    code, _, errors = churnlab(name, "tiny.yaml", *options, folder=tmp_path)
    assert code == 2
    where = "tiny.yaml: 1 problem\n  line 9, training.data.files: data source 'text': "
    assert errors.startswith(f"{where}'text/*.txt' matches no")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_missing_text_is_reported_where_it_was_given(tmp_path):
    path = write_scenario(tmp_path)
    errors = churnlab("validate", path, "--set", "training.data.files=[no.md]").stderr
    assert "--set training.data.files=[no.md], training.data.files: data source 'text': 'no.md' matches no" in errors
    path.write_text(TINY.replace("failures.rate_per_hour: [0.1, 0.3]", "training.data.files: [[text/*.txt], [no.md]]"))
    errors = churnlab("validate", path).stderr
    assert "line 4, sweep.grid.training.data.files: data source 'text': 'no.md' matches no" in errors


def test_a_scenario_with_a_sweep_runs_alone_with_a_note(tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    code, _, errors = churnlab("status", tmp_path)
    assert code == 2
    assert "contains no sweep" in errors
    code, output, _ = churnlab("run", "tiny.yaml", folder=tmp_path)
    assert code == 0
    assert "churnlab sweep tiny.yaml" in output
    assert "at 2 points" in churnlab("validate", "tiny.yaml", folder=tmp_path).stdout


def test_an_interrupted_sweep_resumes_where_it_was(finished, tmp_path):
    folder, _ = finished
    write_scenario(tmp_path)
    environment = {**os.environ, "CHURNLAB_CACHE": str(tmp_path / "cache")}
    longer = "--set", "sweep.replicates=12"  # so that it is not over when it is interrupted
    process = subprocess.Popen(
        [*COMMAND, "sweep", "tiny.yaml", "--jobs", "2", *longer],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    store = tmp_path / "cache" / "keyframes"
    while process.poll() is None and not (store.is_dir() and list(store.iterdir())):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == (
        "Interrupted. Finished runs and nearly all training steps are kept; the same command resumes."
    )
    status = read_status(tmp_path / "results" / "tiny")
    assert status.progress["state"] == "interrupted"
    sweep(tmp_path, text=TINY)
    expected = files_of(folder / "results" / "tiny", but=("run.json", "scenario.yaml"))  # its text lies elsewhere
    found = files_of(tmp_path / "results" / "tiny", but=("run.json", "scenario.yaml"))
    assert {name: found.get(name) for name in expected} == expected


def test_one_strategy_alone_is_not_compared(tmp_path):
    output = sweep(tmp_path, "--only", "checkfree").stdout
    assert "CheckFree" in output
    assert "% against" not in output
    sweep(tmp_path, "--only", "checkfree")


def test_failing_and_diverging_runs_are_named(tmp_path, monkeypatch):
    diverging = TINY.replace("learning_rate: 0.003", "learning_rate: 1.0e30, clip_norm: 1.0e30")
    assert "On 1 worker." in sweep(tmp_path, "--only", "none", text=diverging).stdout
    assert set(pd.read_parquet(tmp_path / "results" / "tiny" / "runs.parquet")["outcome"]) == {"stopped"}
    monkeypatch.setattr("models.training_plan.DemandRecorder.train_loss", lambda *_: 1 / 0)
    errors = sweep(tmp_path, "--only", "none-f0-*", text=TINY, code=1).stderr
    assert "failed: division by zero" in errors
    assert "2 runs failed" in errors


def test_a_run_follows_a_sweep_that_kept_outcomes_alone(tmp_path):
    sweep(tmp_path, text=TIME_ONLY.replace("replicates: 2", "keep: outcomes"))
    folder = next((tmp_path / "results" / "tiny").glob("checkfree-*"))
    code, _, errors = churnlab("timeline", folder)
    assert code == 2
    assert "only outcomes were kept (sweep.keep)" in errors
    assert churnlab("run", "tiny.yaml", folder=tmp_path).returncode == 0
