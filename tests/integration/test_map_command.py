"""`churnlab map` and `churnlab advise` as a user has them: files, words, errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from sim.results import storage as results
from support import maps
from support.commands import Ended, churnlab
from support.sweeps import ALONE, write_scenario

AXES = ("--x", "failures.rate_per_hour=0.05,0.15,0.3", "--y", "network.bandwidth_factor=0.25,4")
SMALL = ("--time-replicates", "2", "--knots", "2")


def invoke(folder: Path, command: str, *arguments: str, text: str = maps.TEXT, code: int = 0) -> Ended:
    """How `churnlab map` or `churnlab advise` of a scenario ended."""
    options = ("--results", folder / "results", "--cache", folder / "cache", "--jobs", "1")
    ended = churnlab(command, maps.write(folder, text), *arguments, *options, folder=folder)
    assert ended.returncode == code, ended.stderr
    return ended


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("mapped")
    return folder, invoke(folder, "map", *AXES, *SMALL).stdout


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder, and what advice on a scenario with real training printed."""
    folder = tmp_path_factory.mktemp("predicted")
    path = write_scenario(folder, ALONE)
    options = ("--results", folder / "results", "--cache", folder / "cache", "--jobs", "1", "--time-replicates", "3")
    ended = churnlab("advise", path, "--replicates", "2", *options, folder=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_advice_with_training_rests_on_single_failures(predicted):
    folder, output = predicted
    assert "3 single failures under 2 training seeds, from which whole runs are predicted." in output
    assert "learning predicted from 3 single failures" in output
    assert not (folder / "results").exists()  # no run was trained
    again = churnlab(
        "advise", folder / "tiny.yaml", "--replicates", "2", "--dry-run", "--cache", folder / "cache", folder=folder
    )
    assert "Training: 66 steps; 66 of them known, 0 to train." in again.stdout


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A folder, and the losses of training without failures at step 220, by the end of the last branch, and at 320."""
    folder = tmp_path_factory.mktemp("longer")
    path = write_scenario(
        folder, ALONE.replace("steps: 24", "steps: 320").replace("interval_steps: 6", "interval_steps: 20")
    )
    path.write_text(path.read_text().replace("learning_rate: 0.003", "learning_rate: 0.0003"))  # the loss still falls
    ended = churnlab("run", path, "--set", "strategies=[none]", folder=folder)
    assert ended.returncode == 0, ended.stderr
    losses = results.load(folder / "results" / "tiny").iterations.dropna(subset=["validation_loss"])
    by_step = losses.groupby("step")["validation_loss"].min()
    return folder, [float(by_step.loc[:220].min()), float(by_step.loc[320])]


@pytest.mark.parametrize("is_early", [True, False])
def test_trunks_end_with_the_last_branch_unless_the_target_comes_later(longer, is_early):
    folder, (by_220, at_320) = longer
    assert at_320 < by_220
    target = by_220 + 0.01 if is_early else at_320
    changed = [f"--set=training.target_validation_loss={target}", "--set=failures.rate_per_hour=0.01"]
    few = ["--time-replicates=2", "--replicates=1", "--check=0", "--jobs=1"]
    ended = churnlab("advise", "tiny.yaml", *changed, *few, "--results", folder / "made", folder=folder)
    assert ended.returncode == 0, ended.stderr
    goes_on = "not near at step 220 without failures: training without failures goes on to step 320."
    assert (goes_on in " ".join(ended.stdout.split())) is not is_early


def test_a_map_with_training_is_written_without_runs(predicted):
    folder, _ = predicted
    options = ("--results", folder / "maps", "--cache", folder / "cache", "--jobs", "1", "--time-replicates", "3")
    x = "failures.rate_per_hour=0.1,0.3"
    ended = churnlab("map", "tiny.yaml", "--x", x, "--replicates", "2", *options, folder=folder)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in (folder / "maps" / "tiny-map").iterdir()} == {
        "map.csv",
        "map.png",
        "map.pdf",
        "map.txt",
    }
    assert "PREDICTED from 3 single failures under 2 training seeds" in " ".join(ended.stdout.split())


def test_crossed_seeds_have_as_many_training_seeds(predicted):
    folder, _ = predicted
    options = ("--cache", folder / "cache", "--jobs", "1", "--replicates", "2", "--set", "seeds.design=crossed")
    ended = churnlab("advise", "tiny.yaml", "--dry-run", *options, folder=folder)
    assert "3 single failures under 2 training seeds" in ended.stdout


@pytest.mark.parametrize("number", ["0", "2"])
def test_whole_runs_check_the_prediction(predicted, tmp_path, number):
    folder, _ = predicted
    strategies = "strategies=[{kind: checkpoint, interval_iterations: 40}, {kind: checkfree, end_stages: copy}]"
    options = (
        "--cache",
        folder / "cache",
        "--jobs",
        "1",
        "--replicates",
        "2",
        "--time-replicates",
        "3",
        "--check",
        number,
    )
    changed = ("--set", "failures.rate_per_hour=0.9", "--set", strategies, "--results", tmp_path, "--format", "json")
    record = json.loads(churnlab("advise", "tiny.yaml", *options, *changed, folder=folder).stdout)
    if number == "0":
        assert record["checks"] == []
        assert not list(tmp_path.iterdir())
        return
    (check,) = record["checks"]
    runs = results.load(tmp_path / "tiny-advice").runs
    assert set(zip(runs["failure_seed"], runs["training_seed"], strict=True)) == {(0, 0), (1, 1)}
    assert check["real"] == runs["target_reached_iteration"].tolist()
    (line,) = [line for line in record["lines"] if line.startswith("Check of the prediction")]
    assert (
        f"in 2 whole runs: CheckFree {sum(check['real']) / 2:.0f} (predicted {sum(check['predicted']) / 2:.0f})" in line
    )


def test_trained_runs_are_asked_for_by_name(predicted):
    folder, _ = predicted
    options = ("--cache", folder / "cache", "--jobs", "1", "--time-replicates", "2", "--replicates", "2")
    ended = churnlab("advise", "tiny.yaml", "--trained", "--dry-run", *options, folder=folder)
    assert ended.returncode == 0, ended.stderr
    assert "single failures" not in ended.stdout
    assert "runs at" in ended.stdout


def test_map_writes_a_figure_and_its_table_and_names_the_best(mapped):
    folder, output = mapped
    written = folder / "results" / "mapped-map"
    assert {"map.csv", "map.png", "map.pdf", "runs.parquet"} <= {path.name for path in written.iterdir()}
    table = pd.read_csv(written / "map.csv")
    assert set(table["strategy"]) == {"checkpoint", "redundant", "checkfree"}  # `none` is no choice
    is_tested = table.groupby(["failures.rate_per_hour", "network.bandwidth_factor"])["is_tested"].all()
    assert 0 < table["is_best"].sum() == is_tested.sum() < 6  # few failures decide nothing
    runs = pd.read_parquet(written / "runs.parquet")
    assert set(runs["strategy"]) == {"none", "checkfree"}  # only what changes weights is really run under failures
    assert re.search(r"checkpointing +\d+", output)
    nearest = "failures.rate_per_hour 0.3, the scenario's 0.3, network.bandwidth_factor"
    assert f"In the cell nearest to the scenario ({nearest}" in output
    assert "4 training seeds at each of 2 cells" in output
    assert "PARAMETRIC CURVE" in output


def test_asked_again_it_says_the_same_and_runs_nothing_again(mapped):
    folder, before = mapped
    csv = (folder / "results" / "mapped-map" / "map.csv").read_bytes()
    after = invoke(folder, "map", *AXES, *SMALL).stdout
    assert "to do" not in after
    table = "mapped: strategies that reach the target first"
    assert after.partition(table)[2] == before.partition(table)[2] != ""
    assert (folder / "results" / "mapped-map" / "map.csv").read_bytes() == csv


def test_a_map_folder_is_no_sweep_folder(mapped):
    folder = mapped[0] / "results" / "mapped-map"
    before = sorted(folder.rglob("*"))
    for command in ("plot", "report"):
        code, output, errors = churnlab(command, folder)
        assert (code, output) == (2, "")
        assert errors.startswith(f"{folder} holds the real runs that a map or an advice rests on")
        assert "map.png" in errors
    assert sorted(folder.rglob("*")) == before
    assert set(results.load(folder).runs["strategy"]) == {"none", "checkfree"}


def test_a_dry_run_lists_the_real_runs_and_writes_nothing(tmp_path):
    output = invoke(tmp_path, "map", "--x", maps.RATES, "--time-replicates", "2", "--dry-run").stdout
    assert "8 runs at 2 points: 0 finished before, 8 to do." in output
    assert not (tmp_path / "results").exists()


def test_advice_is_five_lines(tmp_path):
    lines = invoke(tmp_path, "advise", "--time-replicates", "4").stdout.strip().splitlines()[-6:-1]
    assert re.match(r"Use \w+.* reaches loss 3.5 first, after [\d.]+ h \(95 % interval .*\) and \$\d+\.", lines[0])
    assert lines[1].startswith("Then ")
    assert "CheckFree" in lines[1]
    assert lines[2].startswith("Confidence: ")
    assert lines[3].startswith(("The order changes with failures.rate_per_hour: ", "The same holds at other"))
    assert lines[4].startswith("Assumptions: a lost stage costs 'medium' in 3 stages as many iterations")


def test_list_values_and_coinciding_points_are_accepted(tmp_path):
    invoke(tmp_path, "map", "--x", "failures.immune_stages=[0],[0,1]", "--y", maps.RATES, *SMALL)
    table = pd.read_csv(tmp_path / "results" / "mapped-map" / "map.csv")
    assert set(table["failures.immune_stages"]) == {"[0]", "[0, 1]"}
    invoke(tmp_path, "map", "--x", "training.steps=60,120", *SMALL, "--replicates", "1")


def test_advice_says_what_it_rests_on(tmp_path):
    by_money = invoke(tmp_path, "advise", "--time-replicates", "2", "--objective", "money", "--replicates", "1").stdout
    assert "more money" in by_money
    text = maps.TEXT.replace(
        "{kind: exponential, rate_per_hour: 0.3, immune_stages: [0]}",
        "{kind: script, losses: [{at_seconds: 2000, stages: [1]}, {at_seconds: 9000, stages: [2]}]}",
    )
    without_rate = invoke(tmp_path, "advise", "--time-replicates", "2", text=text).stdout
    assert "Other failure rates: not evaluated" in without_rate


def test_without_weight_changes_only_failure_free_runs_train(tmp_path):
    lossless = maps.TEXT.replace("  - {kind: checkfree, end_stages: copy}\n", "")
    output = invoke(tmp_path, "map", "--x", maps.RATES, "--time-replicates", "2", text=lossless).stdout
    assert "4 runs at 1 point: 0 finished before, 4 to do." in output
    assert "here no recovery changes weights" in output


RATE = "failures.rate_per_hour"
ONE_STRATEGY = (
    "  --set strategies=[none, checkfree], strategies: only 1 strategy is affected by failures; give at least two"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--x", f"{RATE}=0.1,2"), "--x failures.rate_per_hour=0.1,2, failures.rate_per_hour: found 2"),
        (("--x", "network.bandwith_factor=1,2"), "nearest: bandwidth_factor"),
        (("--x", RATE, "--y", RATE), "the same field as --x"),
        (("--x", RATE, "--set", "training.learner=none"), "training.learner is none"),
        (("--x", RATE, "--set", "strategies=[none, checkfree]"), ONE_STRATEGY),
        (("--x", RATE, "--set", "training.target_validation_loss=null"), "target_validation_loss is not"),
        (("--x", f"{RATE}=0.1,0.2", "--set", "training.target_validation_loss=1.3"), "is not reached in"),
        (("--x", "strategies[checkfree].learning_rate_factor=1..2"), "learns differently at"),
        (("--x", "seeds.failures=[0],[1]"), "'seeds.failures' has no effect on a map"),
        (("--x", "strategies=[checkpoint,redundant],[redundant,checkpoint]"), "the same names, in the same order"),
        (("--x", "workload.num_microbatches=4.2..4.4"), "there are not two between these"),
        (
            ("--x", RATE, "--objective", "money", "--set", "cluster.device=h100_pcie"),
            "no spot price of device 'h100_pcie' is known",
        ),
    ],
)
def test_what_cannot_be_mapped_says_why_and_how_to_fix_it(tmp_path, arguments, message):
    errors = invoke(tmp_path, "map", *arguments, "--time-replicates", "2", "--cells", "8", code=2).stderr
    assert message in errors.replace("\n", " ")
    assert "Traceback" not in errors
