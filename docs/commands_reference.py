"""Writes docs/commands.md, the reference of the commands, from the command line: python docs/commands_reference.py"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from sim.cli.examples import COMMANDS, GROUPS
from sim.cli.machines import exit_codes
from sim.cli.main import command

PAGE = Path(__file__).with_name("commands.md")
INTRODUCTION = """# Commands

`--help` after `churnlab` lists the commands; after a command it shows the text that is here.
`--install-completion` installs completion for bash, zsh, fish and PowerShell.
"""
COMMON = ("plugins", "no_plugins", "output", "quiet")
"""Options of many commands, described once."""


def page() -> str:
    """The whole page."""
    shared = [each for each in command("run").params if each.name in COMMON]
    parts = [INTRODUCTION, f"## Common options\n\n{table(shared)}\n\nThe JSON objects: [programs](programs.md).\n"]
    for heading, commands in GROUPS.items():
        parts.append(f"## {heading.partition(',')[0]}\n\n{summaries(commands)}")
        parts += [section(name) for name in commands]
    return "\n".join(parts)


def summaries(commands: Any) -> str:
    """The table of a group's commands."""
    lines = [f"| [`{name}`](#churnlab-{name}) | {first_line(command(name).help)} |" for name in commands]
    return "\n".join(["| command | what it does |", "|---|---|", *lines, ""])


def section(name: str) -> str:
    """The help of a command."""
    found = command(name)
    parts = [f"### churnlab {name}", text_of(found.help), f"```bash\n{COMMANDS[name].example}\n```"]
    inner = getattr(found, "commands", {})
    for own, each in inner.items():
        parts += [f"`{name} {own}`: {first_line(each.help)}", options(each)]
    if not inner:
        parts.append(options(found))
    return "\n\n".join([*(part for part in parts if part), exit_codes(name)]) + "\n"


def options(found: Any) -> str:
    """The arguments and options of a command: a table of its own ones, and the names of common ones."""
    own = [each for each in found.params if each.name not in COMMON]
    also = ", ".join(code(each.opts[0]) for each in found.params if each.name in COMMON)
    lines = [table(own)] if own else []
    return "\n\n".join([*lines, f"Also {also}: [common options](#common-options)."] if also else lines)


def table(options: list[Any]) -> str:
    """The table of some arguments and options."""
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *map(row, options)])


def row(each: Any) -> str:
    """An argument or option: how it is written, its default, what it does."""
    names = [] if each.param_type_name == "argument" else [", ".join(each.opts)]
    written = " ".join([*names, each.metavar or ""]).strip()
    return f"| {code(written)} | {default(each)} | {cell(each.help)} |"


def default(each: Any) -> str:
    """The default, where the help shows one."""
    if each.required:
        return "**required**"
    if getattr(each, "is_flag", False) or each.default in (None, ()) or not each.show_default:
        return ""
    return code(str(each.default))


def code(text: str) -> str:
    """Text as code in a cell."""
    return f"`{cell(text)}`" if text else ""


def cell(text: str | None) -> str:
    """Text for a cell of a table."""
    return " ".join((text or "").replace("|", "\\|").split())


def first_line(text: str | None) -> str:
    """The first paragraph of a help text."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def text_of(text: str | None) -> str:
    """A help text, a line for each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
