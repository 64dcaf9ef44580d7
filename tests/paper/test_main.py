"""`python -m benchmarks.paper` on a small sweep."""

import shutil

import pandas as pd
import pytest
import typer

from benchmarks.paper import __main__ as main
from benchmarks.paper import jobs, perplexity
from support.sweeps import TINY, write_scenario


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The command with a small sweep as its only job."""
    folder = tmp_path / "scenarios" / "paper"
    folder.mkdir(parents=True)
    write_scenario(folder, TINY)
    job = jobs.Job("tiny", ("training.steps=12",))
    monkeypatch.setattr(jobs, "SCENARIOS", folder)
    monkeypatch.setattr(main, "SCENARIOS", folder)
    monkeypatch.setattr(main, "JOBS", (job,))
    monkeypatch.setattr(main, "TABLE_2_JOB", job)
    monkeypatch.setattr(main, "RUNS", tmp_path / "results")
    monkeypatch.setattr(main, "COMMITTED", tmp_path / "results" / "paper")
    monkeypatch.setattr(perplexity, "RATE_PER_HOUR", 0.3)
    monkeypatch.setattr(perplexity, "NUM_SEQUENCES", 8)
    return tmp_path


def test_quick_run_compares_with_the_committed_numbers(workplace, capsys):
    main.paper(quick=True, keep=True, cache=workplace / "cache")
    committed = workplace / "results" / "paper" / "quick"
    assert {path.name for path in committed.iterdir()} == {
        *("tiny_runs.parquet", "tiny_losses.parquet", "perplexity.parquet", "made_on.json")
    }
    for leftover in (workplace / "results").glob("paper-quick-runs"):
        shutil.rmtree(leftover)
    capsys.readouterr()
    main.paper(quick=True, cache=workplace / "another_cache")
    assert f"3 of 3 tables agree with {committed} to the bit." in capsys.readouterr().out
    losses = pd.read_parquet(committed / "tiny_losses.parquet")
    losses["validation_loss"] *= 1.001
    losses.to_parquet(committed / "tiny_losses.parquet", index=False)
    with pytest.raises(typer.Exit) as exit_:
        main.paper(quick=True, cache=workplace / "cache")
    assert exit_.value.exit_code == 1


def test_keep_needs_quick(workplace):
    with pytest.raises(typer.BadParameter, match="--quick"):
        main.paper(keep=True, cache=workplace / "cache")
