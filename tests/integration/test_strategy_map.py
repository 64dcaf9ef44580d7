"""Maps against brute force, and what they say and draw."""

from __future__ import annotations

import math
from concurrent.futures import wait
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from sim.core.units import SECONDS_PER_HOUR
from sim.experiments.strategy_map.job import MapJob
from support import maps
from support.sweeps import do_sweep

SWEEP = """
sweep:
  grid:
    failures.rate_per_hour: [0.05, 0.15, 0.3, 0.6]
    network.bandwidth_factor: [0.25, 1, 4]
  replicates: 3
"""
LOSSLESS = ("checkpoint", "redundant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("map")


@pytest.fixture(scope="module")
def job(folder: Path) -> MapJob:
    return maps.evaluated(maps.write(folder))


@pytest.fixture(scope="module")
def table(job: MapJob) -> pd.DataFrame:
    return job.map.table


@pytest.fixture(scope="module")
def brute(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, dict[int, float]]]:
    """Seconds to the target of real runs by cell, strategy and failure seed: every run done, twice as long."""
    folder = tmp_path_factory.mktemp("brute")
    path = maps.write(folder, maps.TEXT.replace("steps: 60", "steps: 120") + SWEEP)
    runs = do_sweep(path, folder / "results", folder).table
    found: dict[tuple[int, int], dict[str, dict[int, float]]] = {}
    rates, factors = [0.05, 0.15, 0.3, 0.6], [0.25, 1, 4]
    for _, run in runs.iterrows():
        cell = rates.index(run["failures.rate_per_hour"]), factors.index(run["network.bandwidth_factor"])
        taken = found.setdefault(cell, {}).setdefault(run["strategy"], {})
        taken[run["failure_seed"]] = run["target_reached_seconds"]
    return found


def test_without_weight_changes_cells_equal_brute_force(job, brute):
    """To the bit."""
    for cell, result in job.results.items():
        for name in LOSSLESS:
            for (seed, _), seconds in result.first_passages[name].seconds.items():
                assert seconds == brute[cell][name][seed]


def test_what_changes_weights_takes_about_what_brute_force_takes(job, brute):
    """Within the interval that is told, widened by what reading between knots may be off; three seeds are few."""
    held = []
    for cell, result in job.results.items():
        true = list(brute[cell]["checkfree"].values())
        passed = result.first_passages["checkfree"]
        told = list(passed.seconds.values())
        if any(map(math.isnan, [*true, *told])):
            continue
        assert fmean(told) == pytest.approx(fmean(true), rel=0.25)
        error = job.to_target[job.grid.group(cell, "checkfree")].error_at(passed.failures_per_iteration)
        (takes,) = [one.takes for one in result.ranking.standings if one.strategy == "checkfree"]
        held.append(takes.low * (1 - error) <= fmean(true) <= takes.high * (1 + error))
    assert len(held) >= 8
    assert sum(held) >= len(held) - 1


def test_rankings_agree_with_brute_force_or_plain_speed(job, brute):
    num_sure = num_tested = 0
    for cell, result in job.results.items():
        true = {name: fmean(taken.values()) for name, taken in brute[cell].items() if name != "none"}
        best = min((name for name in true if not math.isnan(true[name])), key=true.__getitem__)
        if result.ranking.best is None:  # too few failures to decide
            continue
        num_tested += 1
        names = {result.ranking.best.strategy, *(one.strategy for one in result.ranking.contenders)}
        num_sure += len(names) == 1
        assert best in names
    assert num_sure >= 1
    assert num_tested >= 3
    # At the lowest rate and the fastest links: redundant work alone costs something.
    result = job.results[0, 2]
    assert result.ranking.standings[-1].strategy == "redundant"


def test_the_table_has_a_row_per_cell_and_strategy_and_one_best(job, table):
    assert len(table) == 4 * 3 * 3
    for _, rows in table.groupby(["failures.rate_per_hour", "network.bandwidth_factor"]):
        best = rows[rows["is_best"]]
        assert len(best) == rows["is_tested"].all()
        if best.empty:
            continue
        assert best["behind"].item() == 0.0
        assert (rows.loc[rows["num_reached"] == rows["num_runs"], "hours"] >= best["hours"].item()).all()
    cell = table[(table["failures.rate_per_hour"] == 0.15) & (table["network.bandwidth_factor"] == 1)]
    mean = fmean(job.results[1, 1].first_passages["redundant"].seconds.values()) / SECONDS_PER_HOUR
    assert cell.loc[cell["strategy"] == "redundant", "hours"].item() == pytest.approx(mean)
    assert (table["hours_low"].fillna(0) <= table["hours"].fillna(0)).all()


def test_the_order_in_which_workers_are_done_changes_nothing(job, tmp_path, monkeypatch):
    def wait_backwards(futures, **options):
        done, rest = wait(futures, **options)
        return [future for future in reversed(list(futures)) if future in done], rest

    monkeypatch.setattr("sim.experiments.executors.wait", wait_backwards)
    again = maps.evaluated(maps.write(tmp_path))
    assert list(again.trained) == list(job.trained)
    assert repr(again.to_target) == repr(job.to_target)  # NaN is not NaN
    pd.testing.assert_frame_equal(again.map.table, job.map.table)


def test_interpolated_cells_lie_between_their_neighbours(tmp_path):
    """Strategies that change no weights, on a grid fine enough that most of it is read: against looking at all."""
    lossless = maps.TEXT.replace("  - {kind: checkfree, end_stages: copy}\n", "")
    axes = {
        "x": "failures.rate_per_hour=0.01,0.02,0.03,0.05,0.08,0.1,0.12,0.2,0.3",
        "y": "network.bandwidth_factor=1,2",
    }
    job = maps.evaluated(maps.write(tmp_path, lossless), **axes)
    table = job.map.table
    read = table[~table["is_looked_at"]]
    assert len(read) >= 4
    every = {cell: job.grid.points[cell] for cell in job.grid.points}
    job.results.clear()
    job.meshes = []
    known = job._simulate([(cell, name) for cell in every for name in LOSSLESS], job.to_target)
    for (cell, name), passed in known.items():
        rate, factor = (every[cell].parameters[axis.field] for axis in job.grid.axes)
        row = read[(read[job.grid.axes[0].field] == rate) & (read[job.grid.axes[1].field] == factor)]
        row = row[row["strategy"] == name]
        if len(row):
            assert row["hours"].item() == pytest.approx(fmean(passed.seconds.values()) / SECONDS_PER_HOUR, rel=0.05)
            assert math.isnan(row["hours_low"].item())


def test_the_own_cell_is_evaluated_inside_a_mesh_whose_corners_agree(tmp_path):
    path = maps.write(
        tmp_path, maps.TEXT.replace("checkpoint, interval_iterations: 10", "checkpoint, interval_iterations: 1")
    )
    x, y = (
        "failures.rate_per_hour=0.29,0.292,0.294,0.296,0.3,0.302,0.304,0.306,0.308",
        "network.bandwidth_factor=1,1.01,1.02",
    )
    job = maps.evaluated(path, x, y, time_seeds=(0,), num_samples=1)
    assert job.grid.own_cell == (4, 0)
    assert job.grid.own_cell in job.results
    assert len(job.results) < len(job.grid.points)
