"""Output for programs: one JSON object in place of text, or nothing but errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any

import typer

from sim.cli.options import console, one_of


@dataclass
class Output:
    """Form of the output of the invoked command."""

    is_json: bool = False
    is_quiet: bool = False


OUTPUT = Output()

MISFIT = "2: invalid input or option"
EXIT_CODES = {
    "run": f"0: all runs finished; 1: a run failed; {MISFIT}; 3: a run stopped before its end",
    "sweep": f"0: all runs finished; 1: a run failed; {MISFIT}",
    "validate": "0: valid; 2: not valid",
}
OTHER_EXIT_CODES = f"0: done; {MISFIT}"
ALWAYS = "130: interrupted; 141: the output pipe was closed"

WITH_JSON = ("run", "sweep", "status", "costs", "advise", "validate", "list", "fit", "interval")
"""Commands with `--format` and `--quiet`: those that print a table or an answer."""


def _choose_format(value: str) -> str:
    OUTPUT.is_json = value == "json"
    console.quiet = OUTPUT.is_json or OUTPUT.is_quiet
    return value


def _be_quiet(value: bool) -> bool:
    OUTPUT.is_quiet = value
    console.quiet = OUTPUT.is_json or OUTPUT.is_quiet
    return value


FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        parser=one_of(("text", "json")),
        metavar="[text|json]",
        callback=_choose_format,
        is_eager=True,
        help="json: print one JSON object, described in docs/programs.md.",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_be_quiet,
        is_eager=True,
        help="Print only errors (and the JSON object, if requested).",
    ),
]


def output_options() -> list[Any]:
    """The options of commands that print a table or an answer."""
    sample = typer.Typer(add_completion=False)

    @sample.command()
    def _(output: FormatOption = "text", quiet: QuietOption = False) -> None:
        """Take the two options."""

    options = [option for option in typer.main.get_command(sample).params if option.name in ("output", "quiet")]
    for option in options:
        option.expose_value = False
    return options


def exit_codes(name: str) -> str:
    """The exit codes of a command, for its help."""
    return f"Exit codes: {EXIT_CODES.get(name, OTHER_EXIT_CODES)}; {ALWAYS}."


def answer(record: Mapping[str, Any]) -> None:
    """Print the result of a command as JSON, if JSON was requested."""
    if OUTPUT.is_json:
        print(json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """The result of a command as plain data: tables as lists of rows, numbers that are not finite as null."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a DataFrame, without importing pandas
        return plain(value.to_dict("records"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return plain(value.item()) if hasattr(value, "item") else str(value)
