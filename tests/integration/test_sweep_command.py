"""The commands of sweeps as a user meets them: plan, progress, table, status, cache, errors, interruption."""

import os
import signal
import subprocess
import time

import pandas as pd
import pytest

from sim.cli.cache import in_bytes
from sim.experiments.folder import read_status
from sim.experiments.sequential import share_of
from support.commands import COMMAND, churnlab
from support.sweeps import TIME_ONLY, TINY, files_of, write_scenario


@pytest.fixture
def here(tmp_path):
    return lambda *arguments, folder=tmp_path: churnlab(*arguments, folder=folder)


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
    for words in ("rate per", "hours", "% against", "no failures", "checkpointing", "CheckFree", "0.1", "0.3"):
        assert words in output
    assert "statistics.csv" in output
    statistics = pd.read_csv(folder / "results" / "tiny" / "statistics.csv")
    assert set(statistics["metric"]) == {
        "wall_clock_seconds", "target_reached_seconds", "final_validation_loss", "goodput"
    }  # fmt: skip
    assert len(files_of(folder / "results" / "tiny")) == 12 * 6


def test_the_same_command_again_does_nothing(finished, here):
    folder, _ = finished
    statistics = (folder / "results" / "tiny" / "statistics.csv").read_bytes()
    code, again, _ = here("sweep", "tiny.yaml", "--executor", "serial", folder=folder)
    assert code == 0
    assert "12 runs at 2 points: 12 finished before, 0 to do." in again
    assert "final" in again
    assert (folder / "results" / "tiny" / "statistics.csv").read_bytes() == statistics


def test_its_status(finished, here):
    folder, _ = finished
    _, output, _ = here("status", "results/tiny", folder=folder)
    first, second = output.splitlines()
    assert first == "results/tiny: 12 runs: 12 finished, 0 failed, 0 left"
    assert second.startswith("Not running: finished ")


def test_the_cache_is_described_and_pruned(finished, here):
    folder, _ = finished
    _, told, _ = here("cache", "info", folder=folder)
    assert " lines" in told
    assert "states: " in told
    code, told, _ = here("cache", "prune", "--to", "100KB", folder=folder)
    assert code == 0
    assert "states deleted" in told
    size = sum(file.stat().st_size for file in (folder / "cache" / "keyframes").iterdir())
    assert size <= 100_000
    here("cache", "prune", folder=folder)
    assert "0 states: 0B; database: " in here("cache", "info", folder=folder)[1]


def test_a_cache_that_is_not_there_is_no_error_and_is_not_made(here, tmp_path):
    assert here("cache", "info") == (0, f"{tmp_path / 'cache'}: no training states yet\n", "")
    assert here("cache", "prune")[0] == 0
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_writes_nothing(here, tmp_path):
    write_scenario(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, output, _ = here("sweep", "tiny.yaml", "--dry-run", "--executor", "serial")
    assert code == 0
    assert "12 runs at 2 points" in output
    assert "ms a step, measured just now" in output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_says_where_losses_come_from(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    code, output, _ = here("sweep", "tiny.yaml", "--dry-run", "--set", "training.learner=curve")
    assert code == 0
    assert "Training: losses come from the parametric curve." in output


def test_time_alone_needs_no_training(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    code, output, _ = here("sweep", "tiny.yaml", "--executor", "serial")
    assert code == 0
    assert "nothing is trained, time only" in output
    assert "val. loss" not in output
    assert not (tmp_path / "cache").exists()
    assert len(pd.read_parquet(tmp_path / "results" / "tiny" / "runs.parquet")) == 12


def test_replicates_are_added_until_the_interval_is_small_enough(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    arguments = ("sweep", "tiny.yaml", "--executor", "serial", "--until-ci", "4%", "--max-replicates", 40)
    code, output, _ = here(*arguments)
    assert code == 0
    assert "Intervals wider than 4 % at" in output
    statistics = pd.read_csv(tmp_path / "results" / "tiny" / "statistics.csv")
    seconds = statistics[statistics["metric"] == "wall_clock_seconds"]
    half_widths = (seconds["high"] - seconds["low"]) / 2 / seconds["mean"]
    assert half_widths.max() <= 0.04
    assert seconds["num_failure_seeds"].max() > 2
    again, output_again, _ = here(*arguments)
    assert again == 0
    assert " 0 to do." in output_again
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results" / "tiny" / "statistics.csv"), statistics)


def test_intervals_that_stay_wide_are_reported(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    code, output, _ = here("sweep", "tiny.yaml", "--executor", "serial", "--until-ci", "0.0001", "--max-replicates", 4)
    assert code == 0
    assert "with 4 failure seeds (--max-replicates)" in output


def test_shares_of_the_mean():
    assert share_of("5%") == share_of("0.05") == share_of("5 %") == 0.05


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
        (["--max-replicates", "5"], "give it with --until-ci"),
        (["--cache-budget", "much"], "--cache-budget much: give a size such as 500MB or 2GB"),
        (["--cache", "x", "--no-cache"], "--cache and --no-cache contradict each other"),
        (["--set", "sweep.grid={failures.rate_per_huor: [1]}"], "failures.rate_per_huor: unknown key"),
        (["--set", "sweep.replicates=0"], "sweep.replicates: found 0; allowed: a whole number, at least 1"),
    ],
)
def test_user_errors_are_one_message_and_nothing_is_written(here, tmp_path, arguments, message):
    write_scenario(tmp_path, TIME_ONLY)
    before = sorted(tmp_path.rglob("*"))
    code, _, errors = here("sweep", "tiny.yaml", *arguments)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "command", ["validate", "run", "sweep", "advise", "map --x failures.rate_per_hour=0.1,0.3 --dry-run"]
)
def test_missing_text_is_reported_with_its_line(here, tmp_path, command):
    (tmp_path / "tiny.yaml").write_text(TINY)
    name, *options = command.split()
    code, _, errors = here(name, "tiny.yaml", *options)
    assert code == 2
    assert errors.startswith(
        "tiny.yaml: 1 problem\n  line 9, training.data.files: data source 'text': 'text/*.txt' matches no"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_missing_text_is_reported_where_it_was_given(here, tmp_path):
    path = write_scenario(tmp_path)
    _, _, errors = here("validate", path, "--set", "training.data.files=[no.md]")
    assert "--set training.data.files=[no.md], training.data.files: data source 'text': 'no.md' matches no" in errors
    path.write_text(TINY.replace("failures.rate_per_hour: [0.1, 0.3]", "training.data.files: [[text/*.txt], [no.md]]"))
    _, _, errors = here("validate", path)
    assert "line 4, sweep.grid.training.data.files: data source 'text': 'no.md' matches no" in errors


def test_a_folder_without_a_sweep_is_an_error(here, tmp_path):
    code, _, errors = here("status", tmp_path)
    assert code == 2
    assert "holds no sweep" in errors


def test_a_scenario_with_a_sweep_runs_alone_with_a_note(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    code, output, _ = here("run", "tiny.yaml")
    assert code == 0
    assert "churnlab sweep tiny.yaml" in output
    assert "at 2 points" in here("validate", "tiny.yaml")[1]


def test_an_interrupted_sweep_resumes_where_it_was(finished, tmp_path):
    folder, _ = finished
    write_scenario(tmp_path)
    environment = {**os.environ, "CHURNLAB_CACHE": str(tmp_path / "cache")}
    command = [*COMMAND, "sweep", "tiny.yaml", "--jobs", "2"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    store = tmp_path / "cache" / "keyframes"
    while process.poll() is None and not (store.is_dir() and list(store.iterdir())):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == (
        "Interrupted. Finished runs and all but the last steps of training are kept: run it again."
    )
    status = read_status(tmp_path / "results" / "tiny")
    assert status.progress["state"] == "interrupted"
    assert churnlab("sweep", "tiny.yaml", "--executor", "serial", folder=tmp_path).returncode == 0
    expected = files_of(folder / "results" / "tiny", but=("run.json", "scenario.yaml"))  # its text lies elsewhere
    assert files_of(tmp_path / "results" / "tiny", but=("run.json", "scenario.yaml")) == expected


def test_runs_that_fail_are_named_and_the_command_ends_with_1(here, tmp_path, monkeypatch):
    write_scenario(tmp_path, TINY)
    monkeypatch.setattr("models.training_plan.DemandRecorder.train_loss", lambda *_: 1 / 0)
    code, _, errors = here("sweep", "tiny.yaml", "--executor", "serial", "--only", "none-f0-*")
    assert code == 1
    assert "failed: division by zero" in errors
    assert "2 runs failed" in errors


def test_sizes_in_words():
    assert in_bytes(2_300_000) == "2.3MB"


def test_one_strategy_alone_is_not_compared(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY)
    code, output, _ = here("sweep", "tiny.yaml", "--executor", "serial", "--only", "checkfree")
    assert code == 0
    assert "CheckFree" in output
    assert "% against" not in output
    assert here("sweep", "tiny.yaml", "--executor", "serial", "--only", "checkfree")[0] == 0


def test_a_dry_run_reports_runs_that_cannot_be_simulated(here, tmp_path, monkeypatch):
    write_scenario(tmp_path, TINY)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("models.training_plan.DemandRecorder.train_loss", lambda *_: 1 / 0)
    code, _, errors = here("sweep", "tiny.yaml", "--executor", "serial", "--dry-run")
    assert code == 1
    assert "12 runs failed: nothing is written" in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_training_that_diverges_at_once_is_an_outcome(here, tmp_path):
    write_scenario(tmp_path, TINY.replace("learning_rate: 0.003", "learning_rate: 1.0e30, clip_norm: 1.0e30"))
    code, output, _ = here("sweep", "tiny.yaml", "--executor", "serial", "--only", "none")
    assert code == 0
    assert "On 1 worker." in output
    assert set(pd.read_parquet(tmp_path / "results" / "tiny" / "runs.parquet")["outcome"]) == {"stopped"}


def test_a_run_follows_a_sweep_that_kept_outcomes_alone(here, tmp_path):
    write_scenario(tmp_path, TIME_ONLY.replace("replicates: 2", "keep: outcomes"))
    assert here("sweep", "tiny.yaml", "--executor", "serial")[0] == 0
    folder = next((tmp_path / "results" / "tiny").glob("checkfree-*"))
    code, _, errors = here("timeline", folder)
    assert code == 2
    assert "outcomes alone were kept (sweep.keep)" in errors
    assert here("run", "tiny.yaml")[0] == 0
