"""The command `churnlab`. Modules of commands are imported on invocation, since most need pandas and more."""

from __future__ import annotations

import ast
import gc
import io
import os
import sqlite3
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sim.cli.examples import COMMANDS, FIRST_STEPS, GROUPS
from sim.cli.machines import OUTPUT, WITH_JSON, answer, exit_codes, output_options
from sim.cli.options import complain, console

MODULES = {name: listed.module for name, listed in COMMANDS.items()}
"""Module of each command in this package: its `app` has the command, a function with that name, or the name and `_`."""


class Commands(TyperGroup):
    """The commands of `MODULES`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: TyperCommand(name, help=description(name), rich_help_panel=heading)
            for heading, commands in GROUPS.items()
            for name in commands
        }

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Names in the order of the help."""
        return list(MODULES)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that is invoked, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, command(str(name)), rest

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, flags without a type in the help."""
        return without_types_of_flags(super().get_params(ctx))


def command(name: str) -> Any:
    """A command, imported."""
    gc.disable()  # what is imported stays: to look for garbage in it, now and at the end, takes a sixth of the time
    found = typer.main.get_group(import_module(f"sim.cli.{MODULES[name]}").app).commands[name]
    gc.freeze()
    gc.enable()
    if any(option.name == "overrides" for option in found.params):
        found.params += plugin_options()
    if name in WITH_JSON:
        found.params += output_options()
    found.help = unwrapped(found.help or "")
    found.epilog = f"Example: {COMMANDS[name].example}\n\n{found.epilog or exit_codes(name)}"
    for each in (found, *getattr(found, "commands", {}).values()):
        without_types_of_flags(each.get_params(typer.Context(each)))
    return found


def without_types_of_flags(options: list[Any]) -> list[Any]:
    """Options whose flags show no `<bool>` in the help."""
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    return options


def unwrapped(text: str) -> str:
    """A help text whose paragraphs are lines of their own: the terminal wraps them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _allow_plugins(folder: str | None) -> None:
    if folder is not None:
        from sim.core.plugins import FOLDER_VARIABLE

        os.environ[FOLDER_VARIABLE] = folder


def _refuse_plugins(wanted: bool) -> None:
    if wanted:
        from sim.core.plugins import FOLDER_VARIABLE, NO_PLUGINS

        os.environ[FOLDER_VARIABLE] = NO_PLUGINS


PluginFolder = Annotated[
    str | None,
    typer.Option(
        "--plugins",
        metavar="FOLDER",
        callback=_allow_plugins,
        help="Import plug-in modules named in the scenario also from this folder, e.g. `.`. This runs their code.",
    ),
]

NoPlugins = Annotated[
    bool,
    typer.Option("--no-plugins", callback=_refuse_plugins, help="Do not import plug-in modules named in the scenario."),
]


def plugin_options() -> list[Any]:
    """The options of commands that read a scenario, whose kinds may name code to import."""
    sample = typer.Typer(add_completion=False)

    @sample.command()
    def _(plugins: PluginFolder = None, no_plugins: NoPlugins = False) -> None:
        """Take the two options."""

    options = [option for option in typer.main.get_command(sample).params if option.name in ("plugins", "no_plugins")]
    for option in options:
        option.expose_value = False
    return options


def description(name: str) -> str:
    """The docstring of a command, read without importing its module."""
    found = docstrings(MODULES[name])
    return found.get(name) or found[f"{name}_"]


@cache
def docstrings(module: str) -> dict[str, str]:
    """Docstrings of the functions of a module of this package."""
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {function.name: ast.get_docstring(function) or "" for function in functions}


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"churnlab {version('churnlab')}")
        raise typer.Exit


@app.callback(epilog=FIRST_STEPS)
def options_of_all(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Simulate churn-prone decentralized LLM training: loss against wall-clock time."""


def main() -> None:
    """Run the command; errors of the user end it with a message and exit code 2, without a traceback."""
    OUTPUT.is_json = OUTPUT.is_quiet = console.quiet = False  # of a command before, in one process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows another one
            stream.reconfigure(errors="replace")
    try:
        app()
    except BrokenPipeError:  # the reader of the output has gone, as in `churnlab list devices | head -1`
        os._exit(141)
    except (ValueError, OSError) as error:
        if OUTPUT.is_json and (problems := getattr(error, "problems", None)):
            found = [{"place": each.place, "field": each.path, "message": each.message} for each in problems]
            answer({"valid": False, "problems": found})
        complain(str(error), "red")
        sys.exit(2)
    except sqlite3.Error as error:
        complain(
            f"the cache of training states cannot be used ({error}): delete it, or name another with --cache", "red"
        )
        sys.exit(2)
