"""Writes the notebooks from their Python halves, without outputs: python notebooks/pair.py

Equal text gives equal files: cells are numbered, and nothing of the machine gets in.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def halves() -> list[Path]:
    """The Python halves."""
    return sorted(HERE.glob("[0-9]*.py"))


def paired(half: Path) -> nbformat.NotebookNode:
    """The notebook of a Python half."""
    notebook = jupytext.read(half)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def text_of(notebook: nbformat.NotebookNode) -> str:
    """A notebook as its file has it."""
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    for half in halves():
        half.with_suffix(".ipynb").write_text(text_of(paired(half)), encoding="utf-8")
        print(half.with_suffix(".ipynb"))
