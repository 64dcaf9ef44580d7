"""Results that another hand has changed: one message with the file and what is missing, and no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sim.experiments.folder import SweepFolder
from support.commands import churnlab

SCENARIO = """
name: s
workload: {model: small, num_stages: 4}
training: {learner: curve, model: {num_stages: 4}, steps: 20, evaluation: {interval_steps: 10}}
failures: {kind: exponential, rate_per_hour: 0.1}
strategies: [none, checkfree]
sweep: {grid: {failures.rate_per_hour: [0.1, 0.2]}}
"""
SWEEP = ("sweep", "s.yaml", "--executor", "serial")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "s.yaml").write_text(SCENARIO)
    assert churnlab(*SWEEP, folder=folder).returncode == 0
    return folder


def without(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        if path.suffix == ".parquet":
            pd.read_parquet(path).drop(columns=[key]).to_parquet(path)
            return
        content: dict[str, Any] = json.loads(path.read_text())
        for row in content["runs"] if path.name == "sweep.json" and key != "runs" else [content]:
            del row[key]
        path.write_text(json.dumps(content))

    return change


def holding(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


@pytest.mark.parametrize(
    ("command", "file", "change", "expected"),
    [
        ("status", "sweep.json", without("runs"), "lacks runs"),
        ("report", "sweep.json", without("parameters"), "lacks parameters"),
        ("plot", "sweep.json", holding('{"runs": [3]}'), "'runs' is no list of mappings"),
        ("report", "sweep.json", holding('{"format": 9, "runs": []}'), "has format 9, this version reads 1"),
        ("status", "progress.json", without("process"), "lacks process"),
        ("report", "runs.parquet", without("outcome"), "lacks outcome"),
        ("plot", "runs.parquet", holding("PAR1"), "is not a parquet file, or damaged"),
        ("timeline", "RUN/summary.json", without("training_seed"), "lacks training_seed"),
        ("timeline", "RUN/summary.json", without("iteration_seconds"), "lacks iteration_seconds"),
        ("timeline", "RUN/run.json", holding('{"format": 2}'), "has format 2, this version reads 1"),
        ("timeline", "RUN/run.json", without("versions"), "lacks versions"),
        ("timeline", "RUN/run.json", Path.unlink, "is missing"),
        ("report", "RUN/run.json", without("corpus"), "lacks corpus"),
        ("plot", "RUN/run.json", without("strategy"), "lacks strategy"),
        *[
            (command, "runs.parquet", without(column), f"lacks {column}")
            for command in ("report", "plot")
            for column in ("wall_clock_seconds", "kind", "learner", "num_fallbacks", "lost_work_seconds", "overhead")
        ],
        ("timeline", "RUN/iterations.parquet", without("step"), "lacks step"),
        ("timeline", "RUN/ledger.parquet", without("seconds"), "lacks seconds"),
    ],
)
def test_what_is_missing_is_named_with_its_file(
    swept: Path, tmp_path: Path, command: str, file: str, change: Callable[[Path], None], expected: str
):
    shutil.copytree(swept / "results", tmp_path / "results")
    results = Path("results/s")
    run = min(path.parent.name for path in (tmp_path / results).glob("checkfree*/summary.json"))
    path = results / file.replace("RUN", run)
    change(tmp_path / path)
    ended = churnlab(command, results / run if "RUN" in file else results, folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{path}")
    assert expected in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_results_that_are_deleted_meanwhile_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    write_table = SweepFolder.write_table

    def write_after_deletion(folder: SweepFolder, runs: Any) -> Any:
        for path in folder.folder.glob("none*"):
            shutil.rmtree(path)
        return write_table(folder, runs)

    monkeypatch.setattr(SweepFolder, "write_table", write_after_deletion)
    ended = churnlab(*SWEEP, folder=tmp_path)
    assert ended.returncode == 1
    assert "failed: its results were deleted in the meantime" in ended.stderr
