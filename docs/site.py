"""Hooks of mkdocs: the site has the layout of the repository, so that its Markdown links work in both places.

Pages stay where code hosts show them. Files of code that a page links to become pages with highlighted text, folders
become lists, notebooks lead to their executed pages, and the Python reference is made from docstrings.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = (
    "README.md",
    "CHANGELOG.md",
    "docs/*.md",
    "results/README.md",
    "notebooks/README.md",
    "notebooks/pages/*.md",
)
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCED = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
SUFFIXES = {".py": "python", ".yaml": "yaml", ".csv": "text", ".json": "json"}
HEADING = re.compile(r"(?<=<th>)[^<]+(?=</th>)")
PICTURES = (".png", ".svg", ".gif")
API = "docs/api.md"
STYLE = """
.md-grid { max-width: 76rem; }
.md-typeset table:not([class]) { font-size: .68rem; }
.md-typeset table:not([class]) td, .md-typeset table:not([class]) th { padding: .5em; min-width: 0; }
.md-typeset td code { word-break: normal; overflow-wrap: normal; }
.md-typeset td:first-child code { white-space: nowrap; }
"""


def on_files(files: Files, config: Any) -> Files:
    """The pages of the repository, what they link to, and the pages made from code."""
    found = Files([file for file in files if file.src_dir != config.docs_dir])  # those of the theme
    pages = sorted({path for pattern in MARKDOWN for path in ROOT.glob(pattern)})
    linked: set[Path] = set()
    for page in pages:
        add(found, page, config)
        linked |= {path for target in targets(page) if (path := (page.parent / target).resolve()).exists()}
    folders = {path for path in linked if path.is_dir()}
    inner = {path for folder in folders for path in folder.rglob("*")}
    for path in sorted((linked | inner) - set(pages)):
        if path.suffix in SUFFIXES:
            made(found, f"{name_of(path)}.md", code_page(path), config)
        elif path.suffix in PICTURES:
            add(found, path, config)
    for folder in sorted(folders):
        made(found, f"{name_of(folder)}/index.md", folder_page(folder), config)
    found.append(File.generated(config, API, content=api_page()))
    found.append(File.generated(config, "site.css", content=STYLE))
    found.append(File("iframe-worker.js", str(ROOT / "docs"), config.site_dir, config.use_directory_urls))
    return found


def on_page_content(html: str, **_: Any) -> str:
    """The HTML of a page, in which long names in the headings of tables can be broken after an underscore."""
    return HEADING.sub(lambda heading: heading[0].replace("_", "_<wbr>"), html)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of a page, with links to code, folders and notebooks that lead to their pages."""
    here = PurePosixPath(page.file.src_uri).parent

    def led(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        name = normpath(str(here / target))
        path = ROOT / name
        if re.match(r"[a-z]+:", target) or not path.exists():
            return match[0]
        if path.is_dir():
            return relpath(f"{name}/index.md", str(here))
        if path.suffix == ".ipynb":
            return relpath(f"notebooks/pages/{path.stem}.md", str(here))
        return (f"{target}.md" if path.suffix in SUFFIXES else target) + anchor

    parts, last = [], 0
    for code in FENCED.finditer(markdown):
        plain = (
            code[0] if code[0].startswith("```") else code[0].replace("\\|", "|")
        )  # as tables of this Markdown have it
        parts += [LINK.sub(led, markdown[last : code.start()]), plain]
        last = code.end()
    text = "".join([*parts, LINK.sub(led, markdown[last:])])
    if page.file.src_uri == "CHANGELOG.md":
        text = re.sub(r"(?:\*\*)?\[([A-Z]+)\](?:\*\*)?(?!\()", r"**\1**", text)  # tags
    if page.file.src_uri == "docs/library.md":
        text += "\nEach function and class, with its parameters: [the library by name](api.md).\n"
    return text


def name_of(path: Path) -> str:
    """The path in the repository."""
    return path.relative_to(ROOT).as_posix()


def add(files: Files, path: Path, config: Any) -> None:
    """A file of the repository, under its path there."""
    if files.get_file_from_path(name_of(path)) is None:
        files.append(File(name_of(path), str(ROOT), config.site_dir, config.use_directory_urls))


def targets(page: Path) -> list[str]:
    """The relative links of a page."""
    text = FENCED.sub("", page.read_text("utf-8"))
    return [match[1] for match in LINK.finditer(text) if not re.match(r"[a-z]+:", match[1])]


def made(files: Files, name: str, text: str, config: Any) -> None:
    """A page that is made here and that other pages lead to."""
    files.append(File.generated(config, name, content=text, inclusion=InclusionLevel.NOT_IN_NAV))


def code_page(path: Path) -> str:
    """A page with the text of a file."""
    fence = "`" * 6
    return f"# {name_of(path)}\n\n{fence}{SUFFIXES[path.suffix]}\n{path.read_text('utf-8')}\n{fence}\n"


def folder_page(folder: Path) -> str:
    """A page that lists the files of a folder."""
    inner = [path for path in sorted(folder.rglob("*")) if path.suffix in (*SUFFIXES, *PICTURES)]
    lines = [f"- [{path.relative_to(folder)}]({path.relative_to(folder)})" for path in inner]
    return f"# {name_of(folder)}\n\n" + "\n".join(lines) + "\n"


def api_page() -> str:
    """The page of the library: every public name, from its docstring."""
    sys.path[:0] = [str(ROOT), str(ROOT / "sim" / "library")]
    import churnlab

    about = (churnlab.__doc__ or "").replace("`docs/library.md`", "[The library by example](library.md)")
    functions_first = sorted(churnlab.__all__, key=lambda name: (name[0].isupper(), name))
    return "\n\n".join(["# The library by name", about, *(f"::: churnlab.{name}" for name in functions_first)]) + "\n"
