"""Mutations of the shipped scenarios: `validate` accepts or explains each, and the ledger of valid ones adds up."""

from pathlib import Path

import pytest

from support.commands import churnlab
from support.mutations import SCENARIOS, limited, mutated

MOST_CPU_SECONDS = 10.0


def validates(seeds: range, folder: Path) -> None:
    """Validate mutations; fail with the text of the first that ends in any other way than a verdict."""
    (folder / "traces").symlink_to(SCENARIOS / "traces")
    file = folder / "mutated.yaml"
    for seed in seeds:
        text = mutated(seed)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            with limited(MOST_CPU_SECONDS):
                ended = churnlab("validate", file.name, folder=folder)
            assert ended.returncode in (0, 2)
            assert bool(ended.stderr) == (ended.returncode == 2)
            assert "Traceback" not in ended.stderr
        except BaseException as error:
            pytest.fail(f"mutation {seed} ends in {type(error).__name__}: {error}\n{text}")


def test_mutated_scenarios_are_valid_or_explained(tmp_path: Path):
    validates(range(300), tmp_path)


@pytest.mark.slow
def test_ten_thousand_mutations_are_valid_or_explained(tmp_path: Path):
    validates(range(300, 10_300), tmp_path)
