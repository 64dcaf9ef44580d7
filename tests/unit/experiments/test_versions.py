"""The source hash: it changes with code that decides a run's numbers, and with no other."""

import shutil
from pathlib import Path

import pytest

from sim.experiments.versions import SOURCE_HASH, source_hash

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A copy of the sources."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("sim", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def hash_after_an_edit(root: Path, name: str) -> str:
    path = root / name
    content = path.read_bytes()
    path.write_bytes(content + b"\n# edited\n")
    try:
        return source_hash(root)
    finally:
        path.write_bytes(content)


def test_a_copy_has_the_same_hash(copied):
    assert source_hash(copied) == SOURCE_HASH


@pytest.mark.parametrize(
    "name",
    [
        "sim/simulation/run.py",
        "sim/core/ledger.py",
        "sim/core/presets/devices.yaml",
        "sim/cluster/network.py",
        "sim/workload/iteration.py",
        "sim/failures/base.py",
        "sim/strategies/checkfree.py",
        "sim/scenario/scenario.py",
        "sim/results/summary.py",
        "sim/experiments/training.py",
        "models/trainer.py",
    ],
)
def test_code_that_decides_numbers_changes_the_hash(copied, name):
    assert hash_after_an_edit(copied, name) != SOURCE_HASH


@pytest.mark.parametrize(
    "name",
    [
        "sim/reporting/loss.py",
        "sim/reporting/html/page.py",
        "sim/results/statistics.py",
        "sim/experiments/scheduler.py",
        "sim/cli/main.py",
    ],
)
def test_figures_commands_and_sweeps_leave_it_as_it_is(copied, name):
    assert hash_after_an_edit(copied, name) == SOURCE_HASH
