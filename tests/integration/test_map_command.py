"""`churnlab map` and `churnlab advise` as a user has them: files, words, errors."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from sim.cli.main import app, main
from sim.results import storage as results
from support import maps

AXES = ("--x", "failures.rate_per_hour=0.05,0.15,0.3", "--y", "network.bandwidth_factor=0.25,4")
SMALL = ("--time-replicates", "2", "--knots", "2")


def invoke(folder: Path, *arguments: str) -> Result:
    options = ("--results", str(folder / "results"), "--cache", str(folder / "cache"), "--jobs", "1")
    return CliRunner().invoke(app, [*arguments, *options])


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("mapped")
    path = str(maps.write(folder))
    return folder, invoke(folder, "map", path, *AXES, *SMALL)


def test_map_writes_a_figure_and_its_table(mapped):
    folder, result = mapped
    assert result.exit_code == 0, result.output
    written = folder / "results" / "mapped-map"
    assert {"map.csv", "map.png", "map.pdf", "runs.parquet"} <= {path.name for path in written.iterdir()}
    table = pd.read_csv(written / "map.csv")
    assert set(table["strategy"]) == {"checkpoint", "redundant", "checkfree"}  # `none` is no choice
    assert table["is_best"].sum() == 6
    runs = pd.read_parquet(written / "runs.parquet")
    assert set(runs["strategy"]) == {"none", "checkfree"}  # only what changes weights is really run under failures


def test_map_names_the_best_strategy_and_its_evidence(mapped):
    output = mapped[1].output
    assert re.search(r"checkpointing +\d+", output)
    nearest = (
        "In the cell nearest to the scenario (failures.rate_per_hour 0.3, the scenario's 0.3; network.bandwidth_factor"
    )
    assert nearest in output.replace(", network", "; network")
    assert "4 real trainings at each of 2 cells" in output
    assert "PARAMETRIC CURVE" in output


def test_asked_again_it_says_the_same_and_runs_nothing_again(mapped):
    folder, before = mapped
    path = str(folder / "mapped.yaml")
    csv = (folder / "results" / "mapped-map" / "map.csv").read_bytes()
    after = invoke(folder, "map", path, *AXES, *SMALL)
    assert "to do" not in after.output
    table = "mapped: strategies that reach the target first"
    assert after.output.partition(table)[2] == before.output.partition(table)[2] != ""
    assert (folder / "results" / "mapped-map" / "map.csv").read_bytes() == csv


def test_a_map_folder_is_no_sweep_folder(mapped):
    folder = mapped[0] / "results" / "mapped-map"
    before = sorted(folder.rglob("*"))
    for command in ("plot", "report"):
        result = CliRunner().invoke(app, [command, str(folder)])
        assert result.exit_code == 1
        assert result.output == ""
        assert str(result.exception).startswith(f"{folder} holds the real runs that a map or an advice rests on")
        assert "map.png" in str(result.exception)
    assert sorted(folder.rglob("*")) == before
    assert set(results.load(folder).runs["strategy"]) == {"none", "checkfree"}


def test_a_dry_run_lists_the_real_runs_and_writes_nothing(tmp_path):
    path = str(maps.write(tmp_path))
    result = invoke(tmp_path, "map", path, "--x", maps.RATES, "--time-replicates", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "5 runs at 2 points: 0 finished before, 5 to do." in result.output
    assert not (tmp_path / "results").exists()


def test_advice_is_five_lines(tmp_path):
    path = str(maps.write(tmp_path))
    result = invoke(tmp_path, "advise", path, "--time-replicates", "3")
    assert result.exit_code == 0, result.output
    lines = result.output.strip().splitlines()[-5:]
    assert re.match(r"Use \w+.* reaches loss 3.5 first, after [\d.]+ h \(95 % interval .*\) and \$\d+\.", lines[0])
    assert lines[1].startswith("Then ")
    assert "CheckFree" in lines[1]
    assert lines[2].startswith("Confidence: ")
    assert lines[3].startswith(("The order changes with failures.rate_per_hour: ", "The same holds at other"))
    assert lines[4].startswith("Assumptions: a lost stage costs 'medium' in 3 stages as many iterations")


def test_list_values_and_coinciding_points_are_accepted(tmp_path):
    path = str(maps.write(tmp_path))
    lists = invoke(tmp_path, "map", path, "--x", "failures.immune_stages=[0],[0,1]", "--y", maps.RATES, *SMALL)
    assert lists.exit_code == 0, lists.output
    table = pd.read_csv(tmp_path / "results" / "mapped-map" / "map.csv")
    assert set(table["failures.immune_stages"]) == {"[0]", "[0, 1]"}
    longer = invoke(tmp_path, "map", path, "--x", "training.steps=60,120", *SMALL, "--replicates", "1")
    assert longer.exit_code == 0, longer.output


def test_advice_by_money_names_the_cheapest(tmp_path):
    path = str(maps.write(tmp_path))
    result = invoke(tmp_path, "advise", path, "--time-replicates", "2", "--objective", "money", "--replicates", "1")
    assert result.exit_code == 0, result.output
    assert "more money" in result.output


def test_advice_without_a_rate_says_that_no_other_was_tried(tmp_path):
    text = maps.TEXT.replace(
        "{kind: exponential, rate_per_hour: 0.3, immune_stages: [0]}",
        "{kind: script, losses: [{at_seconds: 2000, stages: [1]}, {at_seconds: 9000, stages: [2]}]}",
    )
    result = invoke(tmp_path, "advise", str(maps.write(tmp_path, text)), "--time-replicates", "2")
    assert result.exit_code == 0, result.output
    assert "Other failure rates: not evaluated" in result.output


def test_without_weight_changes_only_failure_free_runs_train(tmp_path):
    lossless = maps.TEXT.replace(", {kind: checkfree, end_stages: copy}", "")
    result = invoke(tmp_path, "map", str(maps.write(tmp_path, lossless)), "--x", maps.RATES, "--time-replicates", "2")
    assert result.exit_code == 0, result.output
    assert "1 run at 1 point: 0 finished before, 1 to do." in result.output
    assert "no strategy here changes weights" in result.output


ONE_STRATEGY = (
    "  --set strategies=[none, checkfree], strategies: only 1 strategy is affected by failures; give at least two"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--x", "failures.rate_per_hour=0.1,2"), "--x failures.rate_per_hour=0.1,2, failures.rate_per_hour: found 2"),
        (("--x", "network.bandwith_factor=1,2"), "nearest: bandwidth_factor"),
        (("--x", "failures.rate_per_hour", "--y", "failures.rate_per_hour"), "the same field as --x"),
        (("--x", "failures.rate_per_hour", "--set", "training.learner=none"), "training.learner is none"),
        (("--x", "failures.rate_per_hour", "--set", "strategies=[none, checkfree]"), ONE_STRATEGY),
        (
            ("--x", "failures.rate_per_hour", "--set", "training.target_validation_loss=null"),
            "target_validation_loss is not",
        ),
        (
            ("--x", "failures.rate_per_hour=0.1,0.2", "--set", "training.target_validation_loss=1.3"),
            "is not reached in",
        ),
        (("--x", "strategies[checkfree].learning_rate_factor=1..2"), "learns differently at"),
        (("--x", "seeds.failures=[0],[1]"), "'seeds.failures' changes nothing that a map shows"),
        (("--x", "strategies=[checkpoint,redundant],[redundant,checkpoint]"), "the same names, in the same order"),
        (("--x", "workload.num_microbatches=4.2..4.4"), "there are not two between these"),
        (
            ("--x", "failures.rate_per_hour", "--objective", "money", "--set", "cluster.device=h100_pcie"),
            "no spot price of device 'h100_pcie' is known",
        ),
    ],
)
def test_what_cannot_be_mapped_says_why_and_how_to_mend_it(tmp_path, monkeypatch, capsys, arguments, message):
    path = str(maps.write(tmp_path))
    options = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), "--time-replicates", "2"]
    monkeypatch.setattr("sys.argv", ["churnlab", "map", path, *arguments, *options, "--jobs", "1", "--cells", "8"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told.replace("\n", " ")
    assert "Traceback" not in told
