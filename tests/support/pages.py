"""The documentation as tests read it: its pages, and the files that stand in their blocks of code."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / name / "README.md" for name in ("results", "notebooks"))]
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path, *languages: str) -> list[str]:
    """Blocks of code in some languages."""
    return [block for language, block in FENCED.findall(text_of(page)) if language in languages]


def files_of(page: Path) -> dict[str, str]:
    """What a page's blocks of code say that stands in which file: the first line names it."""
    files: dict[str, str] = {}
    for _, block in FENCED.findall(text_of(page)):
        named = re.match(r"# (\S+\.\w+)\n", block)
        if named:
            files[named[1]] = files.get(named[1], "") + block[named.end() :]
    return files
