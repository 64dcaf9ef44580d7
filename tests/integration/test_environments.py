"""Names of users are never markup, and odd environments end in output or in a message, never in a traceback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import churnlab

ROOT = Path(__file__).parents[2]

SCENARIO = """
name: names
description: "[/red] a $x_{ b $y </script> <b>"
workload: {model: {name: "[/blue]", dim: 64, num_heads: 4, num_layers: 4, hidden_dim: 128, vocabulary_size: 100},
  num_stages: 4}
cluster: {device: {preset: t4, name: "[/red] $x_{ <b> :smile:"}}
network: {preset: gcp, name: "[/green] $y^ </script>"}
training: {learner: curve, model: {num_stages: 4}, steps: 30, evaluation: {interval_steps: 10}}
failures: {kind: exponential, mean_uptime_hours: 100}
strategies: [none, checkfree]
"""


def test_names_of_users_are_never_read_as_markup(tmp_path: Path):
    (tmp_path / "names.yaml").write_text(SCENARIO)
    results = tmp_path / "[/red] $x_{ <b>"
    ended = churnlab("run", "names.yaml", "--results", results, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "[/red] $x_{ <b> :smile:" in " ".join(ended.stdout.split())
    assert "[/green] $y^ </script>" in " ".join(ended.stdout.split())
    drawn = ("--kind", "loss", "--kind", "ledger")
    for command in (("report", results / "names"), ("plot", results / "names", *drawn), ("costs", "names.yaml")):
        ended = churnlab(*command, folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
    page = (results / "names" / "report.html").read_text(encoding="utf-8")
    assert "[/red] $x_{ &lt;b&gt; :smile:" in page
    assert "$y^ </script>" not in page


COMMANDS = """
import sys
from sim.cli.main import main
for arguments in sys.argv[1:]:
    sys.argv = ["churnlab", *arguments.split()]
    expected = 2 if arguments.endswith("=1") else 0
    try:
        main()
    except SystemExit as ended:
        assert (ended.code or 0) == expected, (arguments, ended.code)
"""


def ended(folder: Path, *commands: str, before: tuple[str, ...] = (), **changes: str | None) -> str:
    """What commands in one process leave on standard error. before: a program that starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"} | changes
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [*before, sys.executable, "-c", COMMANDS, *commands]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
    errors = found.stderr.decode("utf-8", "replace")
    assert found.returncode == 0, errors
    return errors


@pytest.mark.parametrize(
    "changes",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"TERM": "dumb", "COLUMNS": "1"},
        {"COLUMNS": "0"},
        {"HOME": None, "CHURNLAB_CACHE": None, "XDG_CACHE_HOME": None},
    ],
)
def test_odd_environments_are_no_tracebacks(tmp_path: Path, changes: dict[str, str | None]):
    (tmp_path / "names.yaml").write_text(SCENARIO.replace(":smile:", "漢字"), encoding="utf-8")
    errors = ended(tmp_path, "validate names.yaml", "validate names.yaml --set 漢=1", "list devices", **changes)
    assert "names.yaml: 1 problem" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "| true", "> /dev/full"])
def test_output_that_cannot_be_written_is_no_traceback(tmp_path: Path, redirection: str):
    command = f"'{sys.executable}' -c 'from sim.cli.main import main; main()' list devices {redirection}"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert b"Traceback" not in found.stderr, found.stderr


UNKNOWN_USER = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""A user without an entry in the table of users, to whom read-only folders are closed even if root runs the tests."""


def can_be_another_user() -> bool:
    try:
        return subprocess.run([*UNKNOWN_USER, "true"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not can_be_another_user(), reason="takes user namespaces")
def test_a_read_only_installation_and_a_user_without_home(tmp_path: Path):
    """All that is written goes to the folders that are named; no cache of a library is needed."""
    installed = tmp_path / "installed"
    for package in ("sim", "models"):
        shutil.copytree(ROOT / package, installed / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (installed, *installed.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    (tmp_path / "names.yaml").write_text(SCENARIO, encoding="utf-8")
    changed = "--set cluster.device=t4 --set network=gcp --set workload.model=small --results results --cache cache"
    commands = ["validate names.yaml", f"run names.yaml {changed}", "report results/names"]
    unset = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "CHURNLAB_CACHE", "MPLCONFIGDIR"))
    try:
        errors = ended(tmp_path, *commands, before=UNKNOWN_USER, PYTHONPATH=str(installed), **unset)
    finally:
        for path in (installed, *installed.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
    assert "Traceback" not in errors
