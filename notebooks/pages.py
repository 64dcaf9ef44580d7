"""Runs the notebooks and writes them with their outputs as Markdown and pictures: python notebooks/pages.py [NAME...]

The pages in `notebooks/pages/` are what a reader sees without running anything. They take some minutes.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from pair import HERE, halves, paired

PAGES = HERE / "pages"
PROGRESS = re.compile(r"^(After \d.* (left|done|surveyed|steps|simulated).*|.*: \d+ of \d+.* left)$\n?", re.MULTILINE)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def executed(half: Path, folder: Path) -> Any:
    """The notebook of a Python half, run from the first cell to the last in a folder."""
    notebook = paired(half)
    NotebookClient(
        notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def page_of(notebook: Any, name: str, folder: Path) -> tuple[str, dict[str, bytes]]:
    """The page of an executed notebook, and its pictures by name."""
    parts, pictures = [], {}
    for cell in notebook.cells:
        parts.append(with_links(cell.source) if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![Output of the cell above](images/{picture})")
            elif "<table" in data.get("text/html", ""):
                parts.append(table_of(data["text/html"]))
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(as_block(text.replace(f"{folder}/", "").replace(str(folder), ".")))
    how = f"Made by running [{name}.ipynb](../{name}.ipynb) with `make notebook-pages`; do not edit."
    return "\n\n".join([*(part for part in parts if part), f"---\n\n{how}"]) + "\n", pictures


def with_links(text: str) -> str:
    """Text with links as they are from a folder below: to the pages of other notebooks, and to files above."""
    text = re.sub(r"\]\((\d\w+)\.ipynb\)", r"](\1.md)", text)
    return re.sub(r"\]\((?!https?:|#|\d\w+\.md)", "](../", text)


def table_of(html: str) -> str:
    """An HTML table without styles, which code hosts leave out."""
    plain = re.sub(r"<style.*?</style>\s*|</?div>\s*", "", html, flags=re.DOTALL)
    return re.sub(r"^\s+", "", re.sub(r"<table[^>]*>", "<table>", plain), flags=re.MULTILINE).strip()


def as_block(text: str) -> str:
    """Printed text, without the lines and colours of progress."""
    kept = PROGRESS.sub("", ESCAPES.sub("", text)).strip("\n")
    return "```text\n" + "\n".join(line.rstrip() for line in kept.splitlines()) + "\n```" if kept.strip() else ""


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all, in one folder: later ones read the results of earlier ones."""
    (PAGES / "images").mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = f"{HERE.parent}{os.pathsep}{HERE.parent / 'sim' / 'library'}"
    with tempfile.TemporaryDirectory() as place:
        for half in halves():
            if names and half.stem not in names:
                continue
            text, pictures = page_of(executed(half, Path(place)), half.stem, Path(place))
            for stale in (PAGES / "images").glob(f"{half.stem}-*.png"):
                stale.unlink()
            for picture, content in pictures.items():
                (PAGES / "images" / picture).write_bytes(content)
            (PAGES / f"{half.stem}.md").write_text(text, encoding="utf-8")
            print(f"{half.stem}: {len(pictures)} pictures", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
