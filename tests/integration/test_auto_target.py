"""The target loss `auto`: that of training without failures after 5/12 of the steps, in every command."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from models.spec import plain_routes
from sim.experiments.executors import InProcess
from sim.experiments.sweep import run_sweep, simulate_run
from sim.experiments.training import Texts, open_training
from sim.scenario.loading import load_scenario
from sim.scenario.sweep_points import load_points
from support.commands import churnlab
from support.sweeps import TINY, Notes, files_of, write_scenario

AUTO = (
    TINY.replace("target_validation_loss: 4.9", "target_validation_loss: auto")
    .replace("steps: 24", "steps: 30")
    .replace("iterations_per_step: 40", "iterations_per_step: 2")
)
CURVE = AUTO.replace("training:\n", "training:\n  learner: curve\n")
KNOWN = "that of training without failures after 12 of 30 steps"


def swept(folder: Path, overrides: tuple[str, ...] = ()) -> tuple[pd.DataFrame, list[str]]:
    notes = Notes()
    points = load_points(folder / "tiny.yaml", overrides)
    outcome = run_sweep(points, folder / "results", folder, folder / "cache", InProcess(), notes)
    assert outcome.table is not None
    return outcome.table, notes.lines


def failure_free_loss(folder: Path, seeds: tuple[int, ...], step: int) -> float:
    """The loss at a step, by a trainer of each seed, rounded up to a thousandth."""
    scenario = load_scenario(folder / "tiny.yaml")
    losses = []
    for seed in seeds:
        training = open_training(scenario, Texts(folder, None).of(scenario), seed)
        start = training.root(plain_routes(scenario.workload.num_stages))
        losses.append(training.validation_loss(start.after(step * scenario.iterations_per_step)))
    return math.ceil(1000 * sum(losses) / len(losses)) / 1000


def test_the_target_is_the_failure_free_loss_of_all_training_seeds(tmp_path):
    write_scenario(tmp_path, AUTO)
    table, (line,) = swept(tmp_path, ("seeds.training=[0, 5]", "seeds.design=crossed"))
    expected = failure_free_loss(tmp_path, (0, 5), 12)
    assert table["target_validation_loss"].unique().tolist() == [expected]
    assert line == f"Target loss (auto): {expected:g}, {KNOWN}, mean of 2 training seeds."


def test_runs_hold_the_number_and_are_those_of_a_scenario_with_it(tmp_path):
    write_scenario(tmp_path, CURVE)
    target = swept(tmp_path)[0]["target_validation_loss"][0]
    runs = files_of(tmp_path / "results" / "tiny")
    assert runs
    shutil.rmtree(tmp_path / "results")
    swept(tmp_path, (f"training.target_validation_loss={target}",))
    assert files_of(tmp_path / "results" / "tiny") == runs
    written = load_scenario(next(tmp_path.glob("results/tiny/checkpoint-*/scenario.yaml")))
    assert written.training.target_validation_loss == target


def test_the_target_needs_no_strategy_none_and_no_failures(tmp_path):
    """It is that of the scenario with other strategies and rates."""
    write_scenario(tmp_path, CURVE)
    target = swept(tmp_path)[0]["target_validation_loss"].unique().tolist()
    other = ("strategies=[checkfree]", "training.target_validation_loss=auto", "failures.rate_per_hour=0.2")
    write_scenario(tmp_path, CURVE.replace("  grid: {failures.rate_per_hour: [0.1, 0.3]}\n", ""))
    assert swept(tmp_path, other)[0]["target_validation_loss"].unique().tolist() == target


def test_points_with_other_steps_have_targets_of_their_own(tmp_path):
    write_scenario(tmp_path, CURVE.replace("failures.rate_per_hour: [0.1, 0.3]", "training.steps: [30, 60]"))
    table, lines = swept(tmp_path)
    assert table.groupby("training.steps")["target_validation_loss"].nunique().tolist() == [1, 1]
    assert table["target_validation_loss"].nunique() == len(lines) == 2


def test_a_dry_run_trains_nothing_and_says_so(tmp_path):
    write_scenario(tmp_path, AUTO)
    ended = churnlab("sweep", "tiny.yaml", "--dry-run", folder=tmp_path)
    assert ended.returncode == 0
    assert "Target loss (auto): not known before the failure-free training, 12 of 30 steps" in " ".join(
        ended.stdout.split()
    )
    assert not list(tmp_path.glob("results/*"))
    swept(tmp_path)
    known = " ".join(churnlab("sweep", "tiny.yaml", "--dry-run", folder=tmp_path).stdout.split())
    assert f"{KNOWN}, mean of 2 training seeds." in known
    assert "12 finished before, 0 to do" in known


@pytest.mark.parametrize("command", ["run", "advise", "map --x failures.rate_per_hour=0.1,0.3"])
def test_every_command_takes_the_same_number(tmp_path, command):
    write_scenario(tmp_path, CURVE)
    target = swept(tmp_path)[0]["target_validation_loss"][0]
    name, *options = command.split()
    ended = churnlab(name, "tiny.yaml", *options, "--jobs", "1", "--results", "other", folder=tmp_path)
    assert ended.returncode == 0
    assert f"Target loss (auto): {target:g}, {KNOWN}." in " ".join(ended.stdout.split())
    found = [json.loads(file.read_text())["target_validation_loss"] for file in tmp_path.glob("other/*/*/summary.json")]
    assert set(found) == {target}
    assert simulate_run(tmp_path / "tiny.yaml", "checkpoint").summary["target_validation_loss"] == target


def test_without_a_learner_there_is_no_target(tmp_path):
    write_scenario(tmp_path, AUTO.replace("training:\n", "training:\n  learner: none\n"))
    table, lines = swept(tmp_path)
    assert table["target_validation_loss"].isna().all()
    assert not lines


def test_a_target_that_no_validation_comes_before_is_refused(tmp_path):
    write_scenario(tmp_path, AUTO.replace("interval_steps: 6", "interval_steps: 13"))
    ended = churnlab("validate", "tiny.yaml", folder=tmp_path)
    assert ended.returncode == 2
    assert "at least 32 training.steps" in ended.stderr
