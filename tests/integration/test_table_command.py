"""`churnlab table`: the means of results for the terminal and for papers."""

import csv
import re

import pytest

from support.commands import churnlab
from support.pictured import SCENARIO, of_sweep, run_all


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return of_sweep(tmp_path_factory.mktemp("swept")).folder


def test_latex_has_a_row_for_each_strategy_at_each_point(swept):
    ended = churnlab("table", swept, "--format", "latex", "--reference", "none")
    assert ended.returncode == 0, ended.stderr
    first, begin, *rows, end = ended.stdout.strip().splitlines()
    assert first.startswith("% dry: means ± half of their 95 % intervals; in brackets")
    assert begin == r"\begin{tabular}{l" + "r" * 8 + "}"
    assert end == r"\end{tabular}"
    assert [row for row in rows if row.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    cells = [row.removesuffix(r" \\").split(" & ") for row in rows if row.endswith(r"\\")]
    assert {len(row) for row in cells} == {9}
    assert cells[0][1] == r"failure rate (\% per hour)"
    assert cells[0][2] == "checkpoint interval (iterations)"
    assert len(cells) - 1 == 2 * 5
    assert {row[1] for row in cells[1:]} == {"60", "90"}
    assert all(re.fullmatch(r"[\w+ ]+", row[0]) for row in cells)
    assert "±" not in "".join(rows)
    assert any(r"$\pm$" in row for row in rows)


def test_all_formats_have_the_same_cells(swept, tmp_path):
    ended = churnlab("table", swept, "--format", "csv", "--out", tmp_path / "t.csv")
    assert ended.stdout == f"Written: {tmp_path / 't.csv'}\n"
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    markdown = churnlab("table", swept, "--format", "markdown").stdout
    text = churnlab("table", swept).stdout
    assert head[0] == "strategy"
    for row in rows:
        assert "| " + " | ".join(row) + " |" in markdown
        assert any(all(cell in line for cell in row) for line in text.splitlines())


def test_a_scenario_without_a_sweep_has_a_table(tmp_path):
    folder = run_all(tmp_path, SCENARIO.replace("learner: curve", "learner: none").replace("[0, 1]", "[0]"))
    ended = churnlab("table", folder, "--format", "latex")
    assert ended.returncode == 0, ended.stderr
    assert "strategy & runs & hours to end" in ended.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--reference", "non"), "--reference non: no run of that strategy; nearest: none"),
        (("--format", "latex", "--out", "t.csv"), "give the name of a latex file (ending in .tex)"),
        (("--format", "html"), "found 'html'; "),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_one_message(swept, tmp_path, options, expected):
    ended = churnlab("table", swept, *options, folder=tmp_path)
    assert ended.returncode == 2
    assert expected in " ".join(ended.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []
