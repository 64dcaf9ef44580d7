"""The extract of a sweep: what is read from loss curves, files, and comparison with the committed numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper.extract import (
    COMMITTED,
    NUM_LAST,
    OTHER_TEXT_TOLERANCE,
    TOLERANCE,
    TRAINED,
    Extract,
    compare,
    differences,
    final_losses,
    made_on,
    rollback_factor,
    smoothed,
    target_iteration,
    target_loss,
    with_target,
)
from benchmarks.paper.jobs import JOBS
from benchmarks.paper.published import RELEASED_PROBABILITIES
from benchmarks.paper.tables import RATE
from sim.results.storage import load, read_json
from support.sweeps import TINY, do_sweep, write_scenario


def curve(losses: list[float], every: int = 10, run: str = "a", kind: str = "none", training_seed: int = 0):
    iterations = [every * (number + 1) for number in range(len(losses))]
    about = {"run": run, "kind": kind, "strategy": kind, "failure_seed": 0, "training_seed": training_seed}
    columns = {"iteration": iterations, "executed": iterations, "ended_seconds": [2.0 * it for it in iterations]}
    return pd.DataFrame({**columns, "validation_loss": losses}).assign(**about)


def test_target_is_the_mean_failure_free_loss_at_5_of_12():
    """The loss after 5/12 of the steps, rounded up to a thousandth."""
    plain = [
        curve([5, 4, 3, 2.5, 2.2, 2.1, 2, 2, 2, 2, 2, 2]),
        curve([5, 4, 3, 2.5, 2.4, 2.1, 2, 2, 2, 2, 2, 2], run="b", training_seed=1),
    ]
    other = curve([1.0] * 12, run="c", kind="checkfree")
    losses = pd.concat([*plain, other])
    assert target_iteration(losses) == 50
    assert target_loss(losses, 50) == pytest.approx(2.3)
    assert target_loss(losses.assign(validation_loss=2.30001), 50) == 2.301
    with pytest.raises(ValueError, match="iteration 55"):
        target_loss(losses, 55)


def test_target_is_reached_at_the_first_low_validation():
    """Iterations repeated after a rollback count as executed."""
    rolled_back = curve([5.0, 4.0, 3.0, 4.0, 2.0])
    rolled_back["iteration"] = [10, 20, 30, 20, 30]
    runs = pd.DataFrame({"run": ["a", "b"]})
    losses = pd.concat([rolled_back, curve([5.0], run="b")])
    found = with_target(runs, losses, 2.5)
    assert found["target_reached_iteration"].tolist()[0] == 30
    assert found["target_reached_executed"].tolist()[0] == 50
    assert found["target_reached_seconds"].tolist()[0] == 100.0
    assert found.iloc[1][["target_reached_iteration", "target_reached_seconds"]].isna().all()


def test_final_losses_and_running_means_are_of_single_runs():
    ended = curve([9.0, *[2.0] * (NUM_LAST - 1), 3.0], run="a")
    rolled_back = curve([9.0] * NUM_LAST + [1.0] * NUM_LAST, run="b")
    rolled_back["iteration"] = [10 * number for number in (*range(1, NUM_LAST + 1), *range(1, NUM_LAST + 1))]
    found = final_losses(pd.concat([rolled_back, ended]))
    assert found["a"] == pytest.approx(2.0 + 1 / NUM_LAST)
    assert found["b"] == 1.0
    found = smoothed(pd.concat([curve([1.0, 4.0, 1.0], run="a"), curve([7.0, 7.0], run="b")]), 3)
    assert found["validation_loss"].tolist() == [2.5, 2.0, 2.5, 7.0, 7.0]


@given(st.floats(1e-6, 0.01), st.integers(1, 200), st.integers(1, 12))
def test_rollback_factor_grows_with_the_interval(probability, interval, num_stages):
    factor = rollback_factor(probability, interval, num_stages)
    assert 1 < factor < rollback_factor(probability, interval + 1, num_stages)
    released = [rollback_factor(each, 100, 6) for each in RELEASED_PROBABILITIES]
    assert released == pytest.approx([1.33, 1.93, 4.18], abs=0.01)


def test_extract_has_every_run_and_validation(tiny):
    folder, _, extract = tiny
    results = load(folder / "results" / "tiny")
    assert extract.fields == (RATE,)
    assert len(extract.runs) == len(results.runs) == 12
    assert len(extract.losses) == results.iterations["validation_loss"].notna().sum()
    counts = extract.losses.groupby("run")["executed"].max()
    run = extract.runs.set_index("run")["num_iterations_run"]
    assert (counts <= run[counts.index]).all()
    for name, own in extract.losses.groupby("run"):
        assert own["ended_seconds"].is_monotonic_increasing, name
        assert own["executed"].is_monotonic_increasing, name


def test_extract_is_written_read_and_cut_to_a_point(tiny, tmp_path):
    _, _, extract = tiny
    extract.write(tmp_path, "tiny")
    again = Extract.read(tmp_path, "tiny")
    assert again.fields == extract.fields
    assert differences(again.runs, extract.runs) == differences(again.losses, extract.losses) == {}
    part = extract.at({RATE: 0.3, "strategy": "checkfree"})
    assert len(part.runs) == 2
    assert set(part.losses["run"]) == set(part.runs["run"])
    assert part.fields == ()


def test_swept_lists_are_kept_as_text(tmp_path):
    text = TINY.replace("grid: {failures.rate_per_hour: [0.1, 0.3]}", "grid: {failures.immune_stages: [[0], [0, 1]]}")
    path = write_scenario(tmp_path, text.replace("training:\n", "training:\n  learner: curve\n"))
    do_sweep(path, tmp_path / "results", tmp_path / "cache")
    extract = Extract.of(load(tmp_path / "results" / "tiny"))
    assert list(extract.runs["failures.immune_stages"].unique()) == ["[0]", "[0, 1]"]


def test_differences_are_reported_by_column():
    old = pd.DataFrame({"a": [1.0, 2.0, np.nan], "b": ["x", "y", "z"]})
    assert differences(old.copy(), old) == {}
    assert differences(old.assign(a=[1.0, 2.02, np.nan]), old) == {"a": pytest.approx(0.01)}
    assert math.isnan(differences(old.assign(b=["x", "y", "q"]), old)["b"])
    assert differences(old.iloc[:2], old) == {"rows or columns": math.inf}
    assert differences(old[["b", "a"]], old) == {"rows or columns": math.inf}


@pytest.fixture
def two_folders(tiny, tmp_path):
    """Two folders, new and old, with the same extract."""
    _, _, extract = tiny
    for name in ("new", "old"):
        extract.write(tmp_path / name, "tiny")
        (tmp_path / name / "made_on.json").write_text(json.dumps(made_on()))
    return tmp_path / "new", tmp_path / "old"


def scale(folder: Path, file: str, column: str, factor: float) -> None:
    table = pd.read_parquet(folder / file)
    table.assign(**{column: table[column] * factor}).to_parquet(folder / file, index=False)


def pretend_made_with(folder: Path, **values: str) -> None:
    (folder / "made_on.json").write_text(json.dumps(read_json(folder / "made_on.json") | values))


def test_on_the_same_machine_numbers_agree_to_the_bit_only(two_folders):
    """With the same text, torch and CPU family any difference is too much."""
    assert compare(*two_folders) == ([f"2 of 2 tables agree with {two_folders[1]} to the bit."], True)
    scale(two_folders[0], "tiny_losses.parquet", "validation_loss", 1 + 1e-12)
    lines, agrees = compare(*two_folders)
    assert not agrees
    assert "validation_loss differs" in lines[0]
    assert lines[0].endswith("too much")


def test_losses_agree_within_the_tolerance_elsewhere(two_folders):
    new, old = two_folders
    pretend_made_with(old, cpu="another")
    scale(new, "tiny_losses.parquet", "validation_loss", 1 + 0.9 * TOLERANCE)
    lines, agrees = compare(new, old)
    assert agrees
    assert lines[0].startswith("Made here with cpu ")
    scale(new, "tiny_losses.parquet", "validation_loss", 1 + TOLERANCE)
    assert not compare(new, old)[1]


def test_losses_may_differ_more_on_another_text(two_folders):
    new, old = two_folders
    pretend_made_with(old, text="another")
    scale(new, "tiny_losses.parquet", "validation_loss", 1 + 0.9 * OTHER_TEXT_TOLERANCE)
    assert compare(new, old)[1]


@pytest.mark.parametrize("folder", [0, 1])
def test_missing_tables_are_a_difference(two_folders, folder):
    (two_folders[folder] / "tiny_losses.parquet").unlink()
    lines, agrees = compare(*two_folders)
    assert not agrees
    assert lines[0].startswith("tiny_losses.parquet: ")


def test_missing_tables_and_other_seconds_never_agree(two_folders):
    new, old = two_folders
    pretend_made_with(old, cpu="another")
    scale(new, "tiny_runs.parquet", "wall_clock_seconds", 1.001)
    assert not compare(new, old)[1]
    for path in [*two_folders[0].glob("*.parquet"), *two_folders[1].glob("*.parquet")]:
        path.unlink()
    assert not compare(*two_folders)[1]


def test_quick_numbers_are_reproduced(tmp_path):
    """The first iterations of the quick run of Figure 4c, all of whose losses are in the quick run as well."""
    (job,) = (job for job in JOBS if job.name == "figure4c")
    overrides = (*job.quick, "training.steps=75")
    do_sweep(job.scenario, tmp_path / "results", tmp_path / "cache", overrides=overrides)
    new = Extract.of(load(tmp_path / "results" / "figure4c")).losses
    old = Extract.read(COMMITTED / "quick", "figure4c").losses
    old = old[old["iteration"] <= 75].reset_index(drop=True)
    there = read_json(COMMITTED / "quick" / "made_on.json")
    same = all(there[name] == value for name, value in made_on().items())
    assert len(new) == 6
    found = differences(new.reset_index(drop=True), old)
    assert set(found) <= (set() if same else set(TRAINED))
    assert all(difference <= TOLERANCE for difference in found.values())
