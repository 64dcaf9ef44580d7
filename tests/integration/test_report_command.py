"""`churnlab report` as a user meets it: where it writes, what it says, and how it refuses."""

import html
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sim.cli.results import plot
from sim.results import storage as results
from support.commands import Ended, churnlab
from support.reports import a_run, a_sweep
from support.sweeps import TIME_ONLY, do_sweep, write_scenario


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return a_sweep(tmp_path_factory.mktemp("sweep"), TIME_ONLY)


def report(*arguments: object) -> Ended:
    return churnlab("report", *arguments)


def test_the_report_of_a_sweep_lies_beside_its_runs(folder):
    code, said, _ = report(folder)
    path = folder / "report.html"
    assert (code, said) == (0, f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser\n")
    page = path.read_text(encoding="utf-8")
    assert "<title>Training under churn: tiny</title>" in page
    assert "Too few failures to choose" in page
    assert "churnlab sweep tiny.yaml --results again" in page
    assert "No chart of losses" in page


def test_a_run_and_all_runs_of_a_scenario_have_reports_too(tmp_path):
    folder = a_run(tmp_path)
    one = next(path for path in folder.iterdir() if path.name.startswith("checkpoint"))
    elsewhere = tmp_path / "one.html"
    assert report(one, "--out", elsewhere)[0] == 0
    assert "Checkpointing reaches loss 4.9 after" in elsewhere.read_text(encoding="utf-8")
    assert not (one / "report.html").exists()
    assert report(folder)[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Too few failures to choose: " in page
    assert "churnlab run tiny.yaml --results again" in page


def test_a_folder_without_results_is_refused_in_a_line(folder, tmp_path):
    without = "contains no finished runs: name a folder that `churnlab run` or `churnlab sweep` wrote"
    found = f"{folder.name}x: no such folder; nearest: {folder}"
    missing = tmp_path / "not" / "there"
    for where, expected in ((tmp_path, without), (missing, "no such folder"), (Path(f"{folder}x"), found)):
        code, output, errors = report(where)
        assert (code, output) == (2, "")
        assert expected in errors
        assert errors.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
    table = pd.read_parquet(folder / "runs.parquet").assign(outcome="failed", error="no memory")
    table.to_parquet(tmp_path / "runs.parquet")
    code, _, errors = report(tmp_path)
    assert code == 2
    assert errors.strip().endswith("all 12 runs failed, the first with: no memory")
    (tmp_path / "runs.parquet").unlink()
    shutil.copy(folder / "sweep.json", tmp_path)
    code, _, errors = report(tmp_path)
    assert code == 2
    assert "is under way, or was killed" in errors
    assert f"`churnlab status {tmp_path}`" in errors


def test_a_sweep_without_finished_runs_is_reported(tmp_path):
    job = do_sweep(write_scenario(tmp_path, TIME_ONLY), tmp_path / "results", tmp_path / "cache", runs=[])
    folder = job.folder.folder
    assert len(pd.read_parquet(folder / "runs.parquet")) == 0
    before = sorted(folder.iterdir())
    code, said, complaint = report(folder)
    assert (code, said) == (2, "")
    assert complaint.startswith(f"no run in {folder} is finished yet: `churnlab status {folder}` shows its progress")
    for read in (results.load, plot):
        with pytest.raises(ValueError, match=r"no run in .* is finished yet"):
            read(folder)
    (folder / "runs.parquet").unlink()
    with pytest.raises(ValueError, match=r"no run in .* is finished yet"):
        results.load(folder)
    assert [path for path in before if path.name != "runs.parquet"] == sorted(folder.iterdir())


def test_an_unwritable_out_is_reported_by_name(folder, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    for out in (".", "page.txt", "no/such/page.html"):
        code, _, errors = report(folder, "--out", tmp_path / out)
        assert code == 2
        assert "give the name of an HTML file (ending in .html) in a folder that exists" in errors
    monkeypatch.setattr("sim.core.files.flush_to_disk", refuse)
    code, _, errors = report(folder, "--out", tmp_path / "x.html")
    assert code == 2
    assert errors == f"cannot write {tmp_path / 'x.html'} (Permission denied): name another file with --out\n"
    assert list(tmp_path.iterdir()) == []


def test_runs_that_a_sweep_has_still_to_do_are_counted(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "part")
    pd.read_parquet(folder / "runs.parquet").iloc[:7].to_parquet(tmp_path / "part" / "runs.parquet")
    assert report(tmp_path / "part")[0] == 0
    page = (tmp_path / "part" / "report.html").read_text(encoding="utf-8")
    assert "5 runs of the sweep are unfinished: the same command resumes it." in page


def test_the_report_says_what_binds_as_run_and_costs_do(tmp_path):
    text = "name: slow\nnetwork: home_us\nworkload: {model: small, num_stages: 4, num_microbatches: 8}\n"
    text += "training: {learner: none, steps: 5}\nstrategies: [none, {kind: checkpoint, interval_iterations: 10}]\n"
    (tmp_path / "slow.yaml").write_text(text)
    lines = {}
    for command in ("run slow.yaml", "costs slow.yaml"):
        output = churnlab(*command.split(), folder=tmp_path).stdout
        (lines[command],) = {line for line in output.splitlines() if line.startswith("Bound by the")}
    churnlab("report", "results/slow", folder=tmp_path)
    page = (tmp_path / "results" / "slow" / "report.html").read_text(encoding="utf-8")
    assert len(set(lines.values())) == 1
    assert lines["run slow.yaml"] in html.unescape(page)
    assert "checkpointing never saves" in page
