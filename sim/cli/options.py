"""What the commands share: where they print, options that several take, the cache they use."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console

from sim.core.text import shortened, suggestion
from sim.scenario.document import Document, ScenarioError
from sim.scenario.loading import DataError, read_scenario_text
from sim.scenario.schema import Location

Choice = TypeVar("Choice", bound=StrEnum)

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
    from sim.experiments.training import default_cache

    if cache and no_cache:
        raise ValueError("--cache and --no-cache contradict each other: give one")
    if not no_cache:
        yield cache or default_cache()
        return
    with tempfile.TemporaryDirectory(prefix="churnlab-") as folder:
        yield Path(folder)


def one_of(kinds: type[Choice]) -> Callable[[str], Choice]:
    """A parser of one of the values of an enumeration, which names the nearest where there is none."""

    def parsed(found: str) -> Choice:
        try:
            return kinds(found)
        except ValueError:
            raise typer.BadParameter(f"found '{shortened(found)}'{suggestion(found, kinds)}") from None

    return parsed


class Stoppable(Protocol):
    """A live display."""

    def stop(self) -> None:
        """Leave the screen to others."""
        ...


@contextmanager
def resumable(display: Stoppable) -> Iterator[None]:
    """Work that an interrupt ends with a hint and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        display.stop()
        complain("Interrupted. Finished runs and all but the last steps of training are kept: run it again.")
        raise typer.Exit(130) from None


# Problems of what a scenario names, found when that is read: where in the scenario's file they stand.


def with_places(command: Callable[..., None]) -> Callable[..., None]:
    """A command on a scenario whose DataError becomes a ScenarioError, with the line in the file."""

    @wraps(command)
    def placing(**options: Any) -> None:
        try:
            command(**options)
        except DataError as error:
            path = options["scenario_path"]
            document = Document(str(path), read_scenario_text(path))
            document.change(options["overrides"] or ())
            problem = document.problem(swept_place(document, error.field), str(error))
            raise ScenarioError(str(path), [problem]) from None

    return placing


def swept_place(document: Document, field: Location) -> Location:
    """The field, or the sweep's values of it where a sweep has some."""
    names = {".".join(map(str, field[:length])) for length in range(2, len(field) + 1)}
    swept = (path for path in document.places if path[:1] == ("sweep",) and names.intersection(map(str, path)))
    return next(swept, field)


def bytes_of(size: str, option: str) -> int:
    """A size that an option gives, in bytes. ValueError if it is none."""
    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError:
        raise ValueError(
            f"{option} {shortened(size)}: give a size such as 500MB or 2GB (or KB, TB, KiB, MiB, GiB)"
        ) from None
