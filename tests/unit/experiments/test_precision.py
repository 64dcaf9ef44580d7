"""What a dry run says of the intervals that a design lets expect."""

from pathlib import Path

import pandas as pd
import pytest

from sim.experiments.executors import InProcess
from sim.experiments.sweep import SweepOptions, run_sweep
from sim.results.statistics import summary
from sim.scenario.sweep_points import load_points
from support.sweeps import Notes

TEXT = """
name: precise
sweep: {grid: {failures.rate_per_hour: [0.1, 0.3]}, replicates: 4}
training: {learner: curve, steps: 300, target_validation_loss: 2.3}
cluster: {device: l4}
network: gcp_paper
failures: {kind: exponential}
strategies: [none, {kind: checkpoint, interval_iterations: 20}]
"""
UNKNOWN = "Intervals: their width is unknown until some runs are finished."
OF_FOUR = "With 4 replicates, a 95 % interval is ± 1.59 standard deviations of a run; with 8, ± 0.836."


def told(folder: Path, *overrides: str, dry_run: bool = True, made_for: str = "sweep") -> list[str]:
    path, notes = folder / "precise.yaml", Notes()
    path.write_text(TEXT)
    options = SweepOptions(dry_run=dry_run, made_for=made_for)
    run_sweep(load_points(path, overrides), folder / "results", folder, folder / "cache", InProcess(), notes, options)
    return notes.lines


def test_a_dry_run_tells_the_width_that_finished_runs_let_expect(tmp_path):
    assert told(tmp_path) == [UNKNOWN, OF_FOUR]
    assert told(tmp_path, dry_run=False) == []
    heading, *lines, last = told(tmp_path)
    assert heading == "95 % intervals to expect, from 16 finished runs, of the time to the target loss:"
    assert [line.split(":")[0] for line in lines] == [
        f"  {name} at failures.rate_per_hour={rate}" for name in ("no failures", "checkpointing") for rate in (0.1, 0.3)
    ]
    assert last == OF_FOUR
    runs = pd.read_parquet(tmp_path / "results" / "precise" / "runs.parquet")
    table = summary(runs, ["failures.rate_per_hour"], ["target_reached_seconds"], "none")
    row = table[table["strategy"] == "checkpoint"].iloc[0]
    own, against = (
        (row[high] - row[low]) / 2 / 3600 for low, high in (("low", "high"), ("difference_low", "difference_high"))
    )
    assert f"± {own:.3f} h; difference from no failures ± {against:.3f} h" in lines[2]
    more = told(tmp_path, "sweep.replicates=12")
    assert float(more[3].split("± ")[1].split()[0]) == pytest.approx(own * (0.635 / 1.591), rel=0.01)


def test_runs_of_one_training_seed_do_not_say_all_of_pairs(tmp_path):
    told(tmp_path, "sweep.training_replicates=1", dry_run=False)
    lines = told(tmp_path)
    assert any(" or more" in line for line in lines[:-1])
    crossed = told(tmp_path, "sweep.training_replicates=2")
    assert crossed[-1].startswith("With 4 failure seeds crossed with 2 training seeds, a 95 % interval is ± 1.59 ")
    one = told(tmp_path, "sweep.training_replicates=1")
    assert one[-1].startswith(
        "With 4 replicates, a 95 % interval is ± 1.59 standard deviations of a run under that training"
    )


def test_one_replicate_has_no_interval(tmp_path):
    assert told(tmp_path, "sweep.replicates=1") == [
        "One replicate has no interval: give sweep.replicates, for 3 or more."
    ]
    (line,) = told(tmp_path, "sweep.replicates=1", made_for="run")
    assert "give seeds.failures and seeds.training" in line
