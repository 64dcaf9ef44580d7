"""What the commands share: where they print, options that several take, the cache they use."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

WIDTH_OF_FILES = 120
IN_NOTEBOOK = "ipykernel" in sys.modules
"""There text comes out like in a file: live displays would leave a line at every step."""
console = Console(
    width=None if "COLUMNS" in os.environ or (sys.stdout.isatty() and not IN_NOTEBOOK) else WIDTH_OF_FILES,
    force_terminal=False if IN_NOTEBOOK else None,
    force_jupyter=False,
)
errors = Console(stderr=True)

ScenarioPath = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field, e.g. failures.rate_per_hour=0.1; repeatable."),
]
ResultsFolder = Annotated[Path, typer.Option("--results", help="Folder that results go to.")]
CacheFolder = Annotated[Path | None, typer.Option("--cache", help="Folder of cached training states.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Train everything anew and keep no states.")]


def say(line: str, style: str | None = None) -> None:
    """Print a line as it is, however long."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def complain(line: str, style: str | None = None) -> None:
    """The same, beside the output."""
    errors.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def cache_folder(cache: Path | None, no_cache: bool) -> Iterator[Path]:
    """The folder for training states: the one named, the default, or one that is gone afterwards."""
    from sim.runner import default_cache

    if cache and no_cache:
        raise ValueError("--cache and --no-cache contradict each other: give one")
    if not no_cache:
        yield cache or default_cache()
        return
    with tempfile.TemporaryDirectory(prefix="churnlab-") as folder:
        yield Path(folder)
