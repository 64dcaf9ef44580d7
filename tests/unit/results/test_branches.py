"""Means of branches over training seeds, and their files."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sim.results.branches import ABOUT, FOLDER, TABLE, TRUNKS, Branches, load_branches
from support.builders import a_scenario


def some_branches(excess, seeds=range(3)):
    """Branches of two strategies, two stages and one step. excess: of strategy, stage, steps after, and seed."""
    rows = [
        {
            **{"strategy": strategy, "stage": stage, "step": 10, "after_steps": after, "training_seed": seed},
            **{"excess": excess(strategy, stage, after, seed), "is_rebuilt": True, "seconds": 5.0, "stopped": None},
        }
        for strategy in ("checkfree", "reinit")
        for stage in (1, 2)
        for after in (0, 5)
        for seed in seeds
    ]
    trunks = pd.DataFrame(
        [
            (name, seed, 10, 2.0 + 0.1 * seed + shift)
            for name, shift in (("checkfree", 0.0), ("reinit", 0.25))
            for seed in seeds
        ],
        columns=["strategy", "training_seed", "step", "loss"],
    )
    scenario = a_scenario(({"kind": "checkfree"}, {"kind": "reinit"}))
    return Branches(scenario, "some text", pd.DataFrame(rows), trunks)


def test_the_interval_is_students_over_training_seeds():
    values = {0: 0.1, 1: 0.3, 2: 0.2}
    found = some_branches(lambda strategy, stage, after, seed: values[seed] * stage).excess(("strategy", "after_steps"))
    own = np.array(list(values.values())) * 1.5  # each seed's mean over both stages
    half_width = stats.t.ppf(0.975, 2) * own.std(ddof=1) / math.sqrt(3)
    row = found[(found["strategy"] == "reinit") & (found["after_steps"] == 5)].iloc[0]
    assert row["mean"] == pytest.approx(own.mean())
    assert row["high"] - row["mean"] == pytest.approx(half_width)
    assert row["num_seeds"] == 3


def test_differences_are_paired_by_failure_and_seed():
    found = some_branches(lambda strategy, stage, after, seed: seed + stage + (0.5 if strategy == "reinit" else 0.0))
    row = found.difference("reinit", "checkfree").iloc[0]
    assert row["mean"] == pytest.approx(0.5)
    assert found.excess()["high"].sub(found.excess()["low"]).min() > 1.0  # by themselves seeds differ
    assert found.without_failures("reinit", "checkfree")["mean"].tolist() == pytest.approx([0.25])


def test_an_unknown_excess_leaves_the_mean_unknown():
    found = some_branches(lambda strategy, stage, after, seed: math.nan if stage == 2 else 0.1)
    means = found.excess(("strategy", "stage", "after_steps")).set_index(["strategy", "stage", "after_steps"])["mean"]
    assert means["reinit", 1, 0] == pytest.approx(0.1)
    assert math.isnan(means["reinit", 2, 0])
    assert found.excess(("strategy",))["mean"].isna().all()


def test_files_are_read_as_written(tmp_path):
    found = some_branches(lambda strategy, stage, after, seed: 0.1 * seed)
    found.write(tmp_path / FOLDER)
    again = load_branches(tmp_path)
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.trunks, found.trunks)
    assert again.scenario == found.scenario
    with pytest.raises(ValueError, match="there are no branches: `churnlab branches SCENARIO` measures them"):
        load_branches(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (ABOUT, "{", "is not JSON"),
        (ABOUT, "[1]", "contains no JSON object"),
        (ABOUT, '{"format": 99}', "has format 99, this version reads 1"),
        (ABOUT, '{"format": 1}', "lacks corpus"),
        (TABLE, "PAR1", "is not a parquet file"),
        (TRUNKS, None, "is missing"),
        ("scenario.yaml", "strategies: 3", "strategies"),
        ("scenario.yaml", None, "no such file"),
    ],
)
def test_faulty_files_are_named(file, text, expected, tmp_path):
    some_branches(lambda strategy, stage, after, seed: 0.1 * seed).write(tmp_path / FOLDER)
    path = tmp_path / FOLDER / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=rf"{file}.*[\s\S]*{expected}"):
        load_branches(tmp_path)


def test_missing_columns_are_named(tmp_path):
    found = some_branches(lambda strategy, stage, after, seed: 0.1 * seed)
    found.write(tmp_path / FOLDER)
    found.table.drop(columns=["excess", "stage"]).to_parquet(tmp_path / FOLDER / TABLE)
    with pytest.raises(ValueError, match=r"branches\.parquet lacks stage, excess"):
        load_branches(tmp_path)
