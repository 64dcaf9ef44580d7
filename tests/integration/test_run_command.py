"""The command as a user meets it: run, list, validate, schema, and what the files and the figure show."""

import json
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from sim.core.records import BUCKETS
from sim.reporting.ledger import ledger_table
from sim.reporting.notes import notes, warnings
from sim.reporting.tables import comparison_table, hours, hours_to_target, spread
from sim.results.selection import comparable
from sim.results.storage import load, load_run
from sim.scenario.loading import parse_scenario
from sim.simulation.run import simulate, time_only
from support.commands import COMMAND, churnlab
from support.sweeps import ALONE, write_scenario

SCENARIO = """
name: dry
workload: {num_stages: 4, num_microbatches: 4}
training:
  learner: curve
  model: {num_stages: 4}
  steps: 300
  target_validation_loss: 2.5
failures: {kind: exponential, rate_per_hour: 0.3}
strategies:
  - none
  - {kind: checkpoint, interval_iterations: 40}
  - {kind: redundant, synchronisation: none}
  - checkfree
  - checkfree_plus
fallback: {kind: checkpoint, interval_iterations: 50}
seeds: {failures: [0, 1]}
iterations_per_step: 2
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    (folder / "dry.yaml").write_text(SCENARIO)
    done = churnlab("run", "dry.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def runs(finished):
    folder, _ = finished
    return [load_run(path.parent) for path in sorted(folder.rglob("summary.json"))]


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    (tmp_path / "dry.yaml").write_text(SCENARIO)
    done = churnlab("run", "dry.yaml", "--dry-run", "--jobs", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 runs at 1 point: 0 finished before, 10 to do.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["dry.yaml"]


def test_a_run_ends_in_a_table_a_figure_and_files(finished):
    folder, output = finished
    for words in (
        "no failures", "checkpointing", "redundant", "CheckFree+", "to end", "loss 2.5", "over-", "(fallb.)",
        "per iter.", "Where the hours went", "recovery", "Money: $0.25 for each hour", "PARAMETRIC CURVE",
        "One proxy step stands for 2 target iterations",
    ):  # fmt: skip
        assert words in output
    out = folder / "results" / "dry"
    figures = {f"{name}.{ending}" for name in ("convergence", "ledger") for ending in ("png", "pdf", "txt")}
    assert {path.name for path in out.iterdir() if path.is_file()} == {*figures, "comparison.csv"}
    run_folders = [path for path in out.iterdir() if path.is_dir()]
    assert len(run_folders) == 5 * 2
    tables = {f"{name}.parquet" for name in ("iterations", "events", "ledger", "nodes")}
    for path in run_folders:
        assert {file.name for file in path.iterdir()} == {"scenario.yaml", "run.json", "summary.json", *tables}
    assert (out / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "convergence.pdf").read_bytes().startswith(b"%PDF")
    assert len(pd.read_csv(out / "comparison.csv")) == 10


def test_files_agree_with_each_other(runs):
    for run in runs:
        summary, iterations = run.summary, run.iterations
        assert tuple(run.ledger["bucket"]) == BUCKETS
        assert run.ledger["seconds"].sum() == pytest.approx(summary["wall_clock_seconds"], rel=1e-9)
        assert summary["num_iterations"] == iterations["iteration"].max() == 600
        assert summary["num_iterations_run"] == len(iterations)
        assert summary["num_iterations_rerun"] == (iterations["execution"] > 1).sum()
        assert summary["num_failures"] == (run.events["kind"] == "failure").sum()
        assert (iterations["ended_seconds"] >= iterations["started_seconds"]).all()
        assert iterations["ended_seconds"].is_monotonic_increasing
        validated = iterations.dropna(subset=["validation_loss"])
        reached = validated[validated["validation_loss"] <= 2.5]
        assert summary["target_reached_seconds"] == (reached["ended_seconds"].iloc[0] if len(reached) else None)
        assert summary["final_validation_loss"] == validated["validation_loss"].iloc[-1]
        assert iterations["train_loss"].notna().sum() == (iterations["iteration"] % 2 == 0).sum()


def test_the_resolved_scenario_runs_again_to_the_same_bits(finished, runs, tmp_path):
    run = next(run for run in runs if run.summary["strategy"] == "checkfree_plus")
    done = churnlab("run", str(run.folder / "scenario.yaml"), "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    again = load_run(tmp_path / "dry" / run.folder.name)
    pd.testing.assert_frame_equal(again.iterations, run.iterations)
    assert again.summary == run.summary


def columns_of(table):
    """The cells of a table by heading."""
    headings = [column.heading for column in table.columns]
    return dict(zip(headings, zip(*table.cells, strict=True), strict=True))


def test_the_ledger_table_has_hours_and_seconds_per_recovery(finished, runs):
    found = comparable(load(finished[0] / "results" / "dry"))
    columns = columns_of(ledger_table(found))
    assert "waiting\nfor nodes" not in columns
    cells = {header: dict(zip(columns["strategy"], cells, strict=True)) for header, cells in columns.items()}
    chosen = [run for run in runs if run.summary["strategy"] == "checkpoint"]
    of_one = [run.summary for run in chosen]
    assert cells["all"]["checkpointing"] == f"{np.mean([s['wall_clock_seconds'] for s in of_one]) / 3600:.4f}"
    for run in chosen:
        spent = run.ledger.set_index("bucket")["seconds"][["detection", "provisioning", "state_transfer"]].sum()
        num_recoveries = (run.events["kind"] == "recovered").sum()
        expected = pytest.approx(spent / num_recoveries) if num_recoveries else None
        assert run.summary["mean_recovery_seconds"] == expected
    assert cells["seconds per\nrecovery"]["no failures"] == "-"
    mean = np.mean([summary["mean_recovery_seconds"] for summary in of_one if summary["num_failures"]])
    assert cells["seconds per\nrecovery"]["checkpointing"] == f"{mean:.1f}"


def test_the_table_shows_the_spread_over_seeds(runs):
    cells = columns_of(comparison_table(runs, parse_scenario(SCENARIO)))
    assert len(cells["strategy"]) == 5
    hours_of = dict(zip(cells["strategy"], cells["hours\nto end"], strict=True))
    assert [name for name, cell in hours_of.items() if "±" not in cell] == ["no failures"]  # the same for all seeds
    assert not any("±" in cell for cell in cells["seconds\nper iter."])
    frame = pd.DataFrame({"target_reached_seconds": [3600.0, None]})
    assert hours_to_target(frame) == "1.00 (1 of 2)"
    assert hours_to_target(frame[1:]) == "-"
    assert [hours(pd.Series([3600 * x])) for x in (0.0421, 1.0, 22.61, 1234.4)] == ["0.0421", "1.00", "22.6", "1234"]
    assert spread(pd.Series([1.0, 3.0]), "{:.1f}") == "2.0 ± 1.4"
    assert spread(pd.Series([-1e-14]), "{:+.0f} %") == "+0 %"


def test_progress_counts_no_failures_where_they_are_ignored():
    scenario, counts = parse_scenario(SCENARIO), {}
    for config in scenario.strategies[:2]:
        told = []
        simulate(scenario, config, 0, 0, time_only(scenario), watch=told.append)
        counts[config.name] = told[-1].num_failures
    assert counts["none"] is None
    assert counts["checkpoint"] > 0


def test_notes_keep_seconds_and_losses_apart():
    scenario = parse_scenario(SCENARIO)
    first, second, third = notes(scenario, "no text")
    assert first.startswith("Seconds: simulated, target model 'medium' (468M parameters) in 4 stages on 5 × ")
    assert second.startswith("Losses:")
    assert "iterations_per_step" in third
    assert warnings(scenario) == [third]
    overrides = ("workload.model.num_layers=48", "workload.model.vocabulary_size=100", "cluster.device=h100")
    own_model = parse_scenario(SCENARIO, overrides=overrides)
    assert "(806M parameters)" in notes(own_model, "no text")[0]  # 48 × (4 d² + 3 d f + 2 d) + 2 V d + d


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("strategies", "checkfree_plus"),
        ("failures", "bernoulli"),
        ("schedules", "interleaved_1f1b"),
        ("devices", "rtx4090"),
        ("models", "medium"),
        ("networks", "gcp_paper"),
    ],
)
def test_list_names_what_a_scenario_can_name(what, name):
    done = churnlab("list", what)
    assert done.returncode == 0
    assert name in done.stdout


@pytest.mark.parametrize("arguments", [[], ["sweep"], ["cache", "prune"]])
def test_flags_have_no_type_in_the_help(arguments):
    done = churnlab(*arguments, "--help")
    assert done.returncode == 0
    assert "bool" not in done.stdout.lower()


def test_wrong_command_lines_are_errors():
    kinds = "strategies, failures, schedules, devices, models, networks"
    wrong = churnlab("list", "stategies")
    assert wrong == (2, "", f"churnlab list: found 'stategies'; nearest: strategies; allowed: {kinds}\n")
    for number in ("x", "3.5", "0"):
        done = churnlab("sweep", "x.yaml", "--jobs", number)
        told = " ".join(done.stderr.replace("│", " ").split())
        assert f"Invalid value for '--jobs': found '{number}'; allowed: a whole number, at least 1" in told
    for arguments in (["run"], ["run", "x.yaml", "--nonsense"], ["nonsense"]):
        done = churnlab(*arguments)
        assert done.returncode == 2
        assert "Error" in done.stderr
        assert "Traceback" not in done.stderr


def test_validate_and_schema_describe_scenarios(finished):
    done = churnlab("validate", "dry.yaml", folder=finished[0])
    assert (done.returncode, done.stdout) == (
        0,
        "dry.yaml: valid; 5 strategies, 10 runs of 600 iterations\nNext: churnlab run dry.yaml\n",
    )
    schema = json.loads(churnlab("schema").stdout)
    assert {"workload", "training", "cluster", "network", "failures", "strategies"} <= set(schema["properties"])


def test_unusable_folders_and_texts_are_reported(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "file").write_text("not a folder")
    for option in ("--results", "--cache"):
        arguments = ["run", str(folder / "dry.yaml"), "--set", "training.learner=torch", "--set", "training.steps=1"]
        done = churnlab(*arguments, option, str(tmp_path / "file"), folder=tmp_path)
        assert done.returncode == 2, option
        assert str(tmp_path / "file") in done.stderr
        assert "Traceback" not in done.stderr
        if option == "--results":
            assert done.stderr.endswith(f"{tmp_path / 'file'} is a file; name a folder with --results\n")
    (tmp_path / "a.txt").write_text("too short")
    training = "{data: {source: text, files: [a.txt]}, sequence_length: 64}"
    (tmp_path / "s.yaml").write_text(f"name: s\nstrategies: [none]\ntraining: {training}\n")
    done = churnlab("run", "s.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("s.yaml: 1 problem\n  line 3, training.data: the training text has ")
    assert not (tmp_path / "results" / "s").exists()


def test_an_interrupted_run_says_what_is_kept(tmp_path):
    command = [*COMMAND, "run", str(write_scenario(tmp_path, ALONE)), "--set", "training.steps=1000"]
    command += ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "c")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("c/keyframes/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Finished runs and nearly all" in errors
    assert "Traceback" not in errors


def test_a_diverging_strategy_is_an_outcome_the_others_go_on(tmp_path):
    (tmp_path / "d.yaml").write_text(
        "name: d\nworkload: {num_stages: 3, num_microbatches: 2}\n"
        "training: {model: {dim: 16, num_heads: 2, num_stages: 3}, steps: 40, sequences_per_batch: 4,\n"
        "  optimizer: {learning_rate: 1.0e+12, clip_norm: null}}\n"
        "failures: never\nstrategies: [none, checkpoint]\n"
    )
    done = churnlab("run", "d.yaml", "--cache", "cache", folder=tmp_path)
    assert done.returncode == 3, done.stderr  # the table says that no run finished
    assert "training diverged" in done.stdout
    assert "no failures (0 of 1 finished)" in " ".join(done.stdout.split())
    assert (tmp_path / "results" / "d" / "comparison.csv").exists()
    for path in tmp_path.rglob("summary.json"):
        assert json.loads(path.read_text())["outcome"] == "stopped"


def test_list_without_an_argument_names_the_lists():
    listed = " ".join(churnlab("list").stdout.split())
    for words in ("churnlab list strategies", "checkfree_plus", "churnlab list devices", "rtx4090", "1f1b", "home_us"):
        assert words in listed
