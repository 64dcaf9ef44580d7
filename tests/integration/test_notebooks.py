"""The notebooks run from the first cell to the last, and their two halves say the same, without outputs."""

import os
import re
import runpy
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NAMES = [path.stem for path in sorted(FOLDER.glob("[0-9]*.py"))]


@cache
def pair() -> dict:
    return runpy.run_path(str(FOLDER / "pair.py"))


def test_every_notebook_has_two_halves():
    names = (
        "01_quickstart 02_failure_rates 03_your_own_strategy 04_real_spot_trace 05_reading_results 06_your_own_churn"
    )
    assert names.split() == NAMES == [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_say_the_same_and_explain_every_result(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    paired = pair()["paired"](FOLDER / f"{name}.py")
    assert text == pair()["text_of"](paired), "run `make notebook-pairs`"
    cells = paired.cells
    assert cells[0].source.startswith(f"# {int(name[:2])}. ")
    for number, cell in enumerate(cells[:-1]):
        if cell.cell_type == "code" and "figure(" in cell.source.splitlines()[-1]:
            assert "**What to see.**" in "".join(later.source for later in cells[number + 1 : number + 3])
    assert cells[-1].source.splitlines()[-1].strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_page_with_outputs_has_every_cell(name):
    page = (FOLDER / "pages" / f"{name}.md").read_text(encoding="utf-8")
    at = 0
    for cell in pair()["paired"](FOLDER / f"{name}.py").cells:
        text = cell.source if cell.cell_type == "code" else cell.source.split("](")[0]
        at = page.find(text, at)
        assert at >= 0, f"run `make notebook-pages`: the page lacks {text!r}"
        at += len(text)
    pictures = re.findall(r"\]\(images/([^)]+)\)", page)
    assert pictures
    assert all((FOLDER / "pages" / "images" / picture).is_file() for picture in pictures)
    assert not re.search(r"/tmp|/home|Traceback|\x1b", page)


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


FAST = ("01_quickstart",)  # each starts a kernel that imports everything


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in NAMES])
def test_it_runs(name, tmp_path, monkeypatch, cache_folder):
    """In a kernel of its own, with few steps, in a folder that is not the project's."""
    monkeypatch.setenv("CHURNLAB_SHORT", "1")
    monkeypatch.setenv("CHURNLAB_CACHE", str(cache_folder))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT}/sim/library")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = sorted(path.name for path in FOLDER.iterdir())
    notebook = pair()["paired"](FOLDER / f"{name}.py")
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert sorted(path.name for path in FOLDER.iterdir()) == before
    assert any((tmp_path / "results").rglob("summary.json"))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    told = "".join(output.text for output in outputs if output.output_type == "stream")
    assert not re.search(r"\x1b|Warning", told), told
