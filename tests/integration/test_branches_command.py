"""`churnlab branches`: single failures from common states, against whole runs, by hand and by command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from models.training_state import Position
from sim.experiments.branches.study import branches
from sim.experiments.sweep import simulate_run
from sim.experiments.training import Texts, open_training
from sim.failures import PROCESSES
from sim.failures.script import Loss, ScriptConfig
from sim.results.branches import FOLDER, load_branches
from sim.scenario.loading import load_scenario
from support.commands import churnlab
from support.sweeps import ALONE, write_scenario

SECTION = "branches: {steps: [6, 12], after_steps: [0, 6], replicates: 2}\n"
TEXT = (ALONE + SECTION).replace("iterations_per_step: 40\n", "")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder in which the command was given, and what it printed."""
    folder = tmp_path_factory.mktemp("branches")
    path = write_scenario(folder, TEXT)
    ended = churnlab("branches", path, "--results", folder / "results", "--jobs", "1", folder=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_it_prints_tables_and_sentences_and_writes_files(measured):
    folder, printed = measured
    assert "12 branches of checkfree: 6 failures, 2 training seeds." in printed
    assert "What one failure costs, by the stage that is lost" in printed
    assert "One failure costs, 6 steps later and in nats per token of validation loss: CheckFree" in printed
    assert "Checkpointing changes no weights: the excess loss is 0." in printed
    assert "tiny: whole runs predicted from single failures, hours to loss 4.9" in printed
    names = {path.name for path in (folder / "results" / "tiny" / FOLDER).iterdir()}
    expected = (
        "branches.json",
        "branches.parquet",
        "branches.csv",
        "branches.png",
        "branches.pdf",
        "trunks.parquet",
        "predicted_runs.csv",
    )
    assert set(expected) <= names


def test_the_excess_is_that_of_whole_runs_with_one_failure(measured):
    folder, _ = measured
    scenario, found = load_scenario(folder / "tiny.yaml"), load_branches(folder / "results" / "tiny")
    row = found.table.query("strategy == 'checkfree' and stage == 2 and step == 12 and after_steps == 6").iloc[1]
    seed, never = int(row["training_seed"]), PROCESSES["never"].Config(kind="never")
    without = list(
        simulate_run(scenario.model_copy(update={"failures": never}), "checkfree", train=False).run.iterations
    )
    seconds = (without[11].ended_seconds + without[12].ended_seconds) / 2
    failures = ScriptConfig(losses=(Loss(at_seconds=seconds, stages=(2,)),))
    training = scenario.training.model_copy(update={"steps": 18})
    alone = scenario.model_copy(update={"failures": failures, "training": training})
    run = simulate_run(alone, "checkfree", training_seed=seed).run
    trained = open_training(scenario, Texts(folder, None).of(scenario), seed)
    loss = trained.validation_loss(Position(trained.root(trained.spec.routes).lineage, 18))
    assert run.iterations[-1].validation_loss - loss == row["excess"]
    assert row["seconds"] == pytest.approx(run.wall_clock_seconds - without[17].ended_seconds)


def test_the_bits_are_those_of_any_number_of_workers_and_any_cache(measured):
    folder, _ = measured
    found = load_branches(folder / "results" / "tiny")
    again = branches(folder / "tiny.yaml", jobs=2)
    pd.testing.assert_frame_equal(again.table, found.table, check_exact=True)
    pd.testing.assert_frame_equal(again.trunks, found.trunks, check_exact=True)


def test_what_was_trained_is_not_trained_again(measured):
    folder, _ = measured
    ended = churnlab("branches", folder / "tiny.yaml", "--dry-run", "--results", "other", folder=folder)
    assert ended.returncode == 0, ended.stderr
    assert "Training: 120 steps; 120 of them known, 0 to train." in ended.stdout
    assert not (folder / "other").exists()


def test_the_report_and_the_figures_of_a_scenario_include_them(measured):
    folder, _ = measured
    assert churnlab("run", "tiny.yaml", "--set", "training.steps=6", folder=folder).returncode == 0
    ended = churnlab("report", "results/tiny", folder=folder)
    assert ended.returncode == 0, ended.stderr
    page = Path(folder / "results" / "tiny" / "report.html").read_text()
    assert "What one failure costs" in page
    assert "CheckFree loses most by S" in page
    assert churnlab("plot", "results/tiny", "--kind", "branches", folder=folder).returncode == 0
    assert (folder / "results" / "tiny" / "figures" / "branches.csv").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "branches.steps=[20]",
            "6 steps after it (branches.after_steps) end after training.steps, 24; allowed: at most 18",
        ),
        ("branches.stages=[0]", "stage 0 is among failures.immune_stages: it cannot be lost"),
        ("branches.stages=[9]", "no stage 9; allowed: 0 (embedding and head) to 3"),
        ("branches.after_steps=[24]", "found 24 steps after a loss; allowed: less than training.steps, 24"),
        ("branches.after=[2]", "after_steps"),
        ("training.learner=none", "found 'none': branches need losses; allowed: 'torch', 'curve'"),
        ("strategies=[none]", "no strategy is affected by failures"),
    ],
)
def test_faulty_scenarios_have_one_clear_message(measured, change, message):
    folder, _ = measured
    ended = churnlab("branches", "tiny.yaml", "--set", change, "--results", "other", folder=folder)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "tiny.yaml" in ended.stderr
    assert not (folder / "other").exists()


def test_neighbours_are_lost_at_once(tmp_path):
    saving = [f"{{kind: {kind}, interval_iterations: 4}}" for kind in ("checkpoint", "checkfree_hybrid")]
    strategies = f"strategies: [none, {', '.join(saving)}]\n"
    text = TEXT[: TEXT.index("strategies:")] + strategies + TEXT[TEXT.index("branches:") :]
    text = text.replace("num_stages: 3", "num_stages: 4").replace("replicates: 2}", "replicates: 2, lost_at_once: 2}")
    path = write_scenario(tmp_path, text)
    ended = churnlab("branches", path, "--results", tmp_path / "results", "--jobs", "1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "What one failure costs, by the stages that are lost" in ended.stdout
    assert "S2 and S3" in ended.stdout
    assert "PREDICTED" not in ended.stdout  # whole runs lose single stages
    found = load_branches(tmp_path / "results" / "tiny")
    assert (found.lost_at_once, found.stages) == (2, [1, 2, 3])
    with pytest.raises(ValueError, match="single lost stages; here 2 are lost at once"):
        found.predictions()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("branches.stages=[3]", "branches.stages: no stage 4; allowed: 0 (embedding and head) to 3"),
        (
            "failures.immune_stages=[0,2]",
            "branches.lost_at_once: found 2; so many consecutive stages that can be lost do not",
        ),
    ],
)
def test_stages_that_cannot_be_lost_together_are_refused(tmp_path, change, message):
    path = write_scenario(tmp_path, TEXT.replace("replicates: 2}", "replicates: 2, lost_at_once: 2}"))
    ended = churnlab("branches", path, "--set", change, "--results", tmp_path / "results", folder=tmp_path)
    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.split())
    assert not (tmp_path / "results").exists()
