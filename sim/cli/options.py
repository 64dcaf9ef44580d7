"""Parts shared by commands: output, common options, the cache folder, errors with lines of the scenario."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sim.core.text import shortened, suggestion

WIDTH_OF_FILES = 120

IN_NOTEBOOK = "ipykernel" in sys.modules
"""In a notebook text is printed as into a file: live displays would leave a line at every step."""

KNOWS_COLUMNS = os.environ.get("COLUMNS", "").strip("0").isdigit()
"""Whether COLUMNS is a width; at 0, which some machines set, rich would print nothing."""

console = Console(
    width=None if KNOWS_COLUMNS or (sys.stdout and sys.stdout.isatty() and not IN_NOTEBOOK) else WIDTH_OF_FILES,
    force_terminal=False if IN_NOTEBOOK else None,
    force_jupyter=False,
    markup=False,  # names and paths of users are never read as markup
    emoji=False,
)

errors = Console(
    stderr=True,
    width=None if KNOWS_COLUMNS or (sys.stderr and sys.stderr.isatty()) else WIDTH_OF_FILES,
    markup=False,
    emoji=False,
)

ScenarioPath = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML file.")]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field, e.g. failures.rate_per_hour=0.1; repeatable."),
]

ResultsFolder = Annotated[Path, typer.Option("--results", metavar="FOLDER", help="Folder for results.")]

CacheFolder = Annotated[
    Path | None, typer.Option("--cache", metavar="FOLDER", help="Folder of the cache of training states.")
]

NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Do not use the cache: retrain everything and keep no states.")
]


def say(line: str, style: str | None = None) -> None:
    """Print a line without wrapping or markup."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def say_next(*words: object) -> None:
    """Suggest the command to run next."""
    say(f"Next: {shlex.join(map(str, words))}")


def complain(line: str, style: str | None = None) -> None:
    """Print a line to standard error, without wrapping or markup."""
    errors.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def cache_folder(cache: Path | None, no_cache: bool) -> Iterator[Path]:
    """The folder of training states: the one named, the default, or a temporary one."""
    from sim.experiments.training import default_cache

    if cache and no_cache:
        raise ValueError("--cache and --no-cache contradict each other: give one")
    if not no_cache:
        yield cache or default_cache()
        return
    with tempfile.TemporaryDirectory(prefix="churnlab-") as folder:
        yield Path(folder)


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """A parser that accepts some names; its error suggests the nearest one."""

    def parsed(found: str) -> str:
        if found not in names:
            raise typer.BadParameter(f"found '{shortened(found)}'{suggestion(found, names)}")
        return found

    return parsed


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser of a whole number within limits; its error says what is allowed."""
    limits = f", at least {least}" + (f", at most {most}" if most is not None else "")

    def parsed(found: str | int) -> int:
        try:
            number = int(found)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise typer.BadParameter(f"found '{shortened(str(found))}'; allowed: a whole number{limits}")
        return number

    return parsed


Jobs = Annotated[
    int | None, typer.Option(parser=whole_number(1), metavar="N", help="Number of workers; default: one per core.")
]


def with_locations(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose DataError becomes a ScenarioError, with the line of the field in the scenario or its sweep."""

    from sim.scenario.document import Document, ScenarioError
    from sim.scenario.loading import DataError, read_scenario_text

    @wraps(command)
    def located(**options: Any) -> None:
        try:
            command(**options)
        except DataError as error:
            path, field = options["scenario_path"], error.field
            document = Document(str(path), read_scenario_text(path))
            document.change(options["overrides"] or ())
            names = {".".join(map(str, field[:length])) for length in range(2, len(field) + 1)}
            swept = (at for at in document.places if at[:1] == ("sweep",) and names.intersection(map(str, at)))
            raise ScenarioError(str(path), [document.problem(next(swept, field), str(error))]) from None

    return located


def bytes_of(size: str, option: str) -> int:
    """The value of an option, in bytes. ValueError if it is not a size."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError:
        raise ValueError(
            f"{option} {shortened(size)}: give a size such as 500MB or 2GB (or KB, TB, KiB, MiB, GiB)"
        ) from None
