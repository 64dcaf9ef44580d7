"""Pages of the documentation, and the files in their code blocks."""

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
    """Files in a page's code blocks, named by each block's first line."""
    files: dict[str, str] = {}
    for _, block in FENCED.findall(text_of(page)):
        named = re.match(r"# (\S+\.\w+)\n", block)
        if named:
            files[named[1]] = files.get(named[1], "") + block[named.end() :]
    return files
