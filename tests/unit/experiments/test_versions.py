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


NUMBERS = """
    sim/simulation/run.py sim/core/ledger.py sim/core/presets/devices.yaml sim/cluster/network.py
    sim/workload/iteration.py sim/failures/base.py sim/strategies/checkfree.py sim/scenario/scenario.py
    sim/results/summary.py sim/experiments/training.py models/trainer.py
"""
FIGURES_COMMANDS_AND_SWEEPS = """
    sim/reporting/loss.py sim/reporting/html/page.py sim/results/statistics.py sim/experiments/job.py
    sim/cli/main.py
"""


@pytest.mark.parametrize("name", NUMBERS.split())
def test_code_that_decides_numbers_changes_the_hash(copied, name):
    assert source_hash(copied) == SOURCE_HASH
    assert hash_after_an_edit(copied, name) != SOURCE_HASH


@pytest.mark.parametrize("name", FIGURES_COMMANDS_AND_SWEEPS.split())
def test_other_code_leaves_the_hash_as_it_is(copied, name):
    assert hash_after_an_edit(copied, name) == SOURCE_HASH
