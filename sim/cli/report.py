"""The command `churnlab report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import say

NAME = "report.html"


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, of a scenario's runs or of one run.")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: report.html in RESULTS.")] = None,
) -> None:
    """Write the results as one HTML page with text, charts and tables. It needs no network and can be mailed."""
    from sim.core.files import atomic_write
    from sim.reporting.html.page import report_page

    path = out or results / NAME
    if path.is_dir() or (out and (path.suffix not in (".html", ".htm") or not path.parent.is_dir())):
        raise ValueError(f"--out {path}: give the name of an HTML file (ending in .html) in a folder that exists")
    page = report_page(results)
    try:
        atomic_write(path, page)
    except OSError as error:
        raise OSError(f"cannot write {path} ({error.strerror}): name another file with --out") from error
    say(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
