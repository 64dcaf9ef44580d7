"""Output for programs: one JSON object, nothing else on standard output; exit codes; completion."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sim.cli.machines import WITH_JSON, plain
from sim.cli.main import MODULES
from support.commands import churnlab

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
SCENARIO = """
name: small
workload: {num_stages: 4, num_microbatches: 8}
training:
  {learner: curve, model: {num_stages: 4}, steps: 30, evaluation: {interval_steps: 10}, target_validation_loss: 5.0}
failures: {kind: exponential, mean_uptime_hours: 10}
strategies: [none, {kind: checkpoint, interval_iterations: 10}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    (tmp_path / "swept.yaml").write_text(SCENARIO + "sweep: {replicates: 2}\n")
    (tmp_path / "churn.csv").write_text("lifetime\n" + "\n".join(str(3600 + 100 * n) for n in range(20)))
    return tmp_path


def keys_on_page(command: str) -> set[str]:
    """Names in the row of a command."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{command}`"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


def found(folder: Path, *arguments: object) -> dict:
    done = churnlab(*arguments, "--format", "json", folder=folder)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert set(record) <= keys_on_page(str(arguments[0]))
    return record


def test_each_command_prints_its_documented_object(folder):
    assert found(folder, "validate", "small.yaml")["runs"] == 2
    assert {row["name"] for row in found(folder, "list", "devices")["rows"]} >= {"a100", "h100"}
    assert [row["strategy"] for row in found(folder, "run", "small.yaml")["runs"]] == ["none", "checkpoint"]
    assert found(folder, "sweep", "swept.yaml", "--executor", "serial")["statistics"]
    assert len(found(folder, "status", "results/small")["finished"]) == 4
    costs = found(folder, "costs", "small.yaml")
    assert costs["recovers"]["checkpoint"] == dict.fromkeys(("apart", "adjacent", "first", "last", "stage 0"), True)
    assert found(folder, "interval", "--mtbf", "6h", "--save", "40s")["simulated"] == []
    assert found(folder, "fit", "churn.csv", "--no-compare")["num_lost"] == 20


def test_advice_is_an_object_too(folder):
    options = ("--replicates", 2, "--time-replicates", 2, "--jobs", 1)
    (folder / "more.yaml").write_text(SCENARIO.replace("[none,", "[checkfree, redundant,"))
    advice = found(folder, "advise", "more.yaml", *options)
    assert advice["scenario"] == "small"
    assert advice["lines"]


def test_problems_are_an_object_with_places(folder):
    done = churnlab("validate", "small.yaml", "--set", "cluster.devic=a100", "--format", "json", folder=folder)
    assert done.returncode == 2
    record = json.loads(done.stdout)
    assert record["valid"] is False
    assert record["problems"][0]["field"] == "cluster.devic"
    assert "unknown key" in done.stderr


@pytest.mark.parametrize("arguments", [("validate", "small.yaml"), ("run", "small.yaml"), ("list", "devices")])
def test_quiet_commands_print_nothing(folder, arguments):
    assert churnlab(*arguments, "--quiet", folder=folder)[:2] == (0, "")
    assert churnlab("list", "devices", folder=folder).stdout  # the next command prints again


@pytest.mark.parametrize("command", MODULES)
def test_help_states_exit_codes(command):
    said = " ".join(churnlab(command, "--help").stdout.split())
    if command != "cache":  # a group
        assert "Exit codes: 0:" in said
    assert ("--quiet" in said) == (command in WITH_JSON)


def test_every_command_with_json_is_documented():
    assert all(keys_on_page(command) for command in WITH_JSON)


def test_shells_complete_commands_and_options():
    for words, number, expected in (("churnlab in", 1, {"init", "interval"}), ("churnlab fit --fi", 2, {"--figure"})):
        words_of_shell = {"_CHURNLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        code = "import sys; sys.argv = ['churnlab']; from sim.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **words_of_shell}, capture_output=True, text=True
        )
        assert expected <= set(done.stdout.split()), done.stderr


def test_values_become_plain_data():
    import numpy as np
    import pandas as pd

    table = pd.DataFrame({"a": [1, 2], "b": [np.nan, 1.5]})
    assert plain(table) == [{"a": 1, "b": None}, {"a": 2, "b": 1.5}]
    assert plain({"x": np.float64("inf"), "y": (np.int64(3), Path("a/b"), True, None)}) == {
        "x": None,
        "y": [3, "a/b", True, None],
    }
