"""The command `churnlab list`, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

import typer

from models.spec import Config
from sim.cli.machines import answer
from sim.cli.options import console
from sim.core.plugins import PluginError
from sim.core.presets import presets
from sim.core.text import suggestion
from sim.failures import known_processes
from sim.reporting.table import Column, Row, Table
from sim.strategies import known_strategies
from sim.workload.schedule import SCHEDULES

app = typer.Typer()


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="strategies, failures, schedules, devices, models or networks")
    ] = "",
) -> None:
    """List the names that a scenario can use. Without an argument, show the available lists."""
    table = list_table(what) if what else lists_table()
    console.print(table)
    headings = [column.title for column in table.columns]
    answer({"list": what, "rows": [dict(zip(headings, cells, strict=True)) for cells in table.cells]})


LISTS = ("strategies", "failures", "schedules", "devices", "models", "networks")

WORDS = ("kind", "name", "description", "source")


def lists_table() -> Table:
    """The table of all lists: the command for each, and its names."""
    names = {
        "strategies": known_strategies(),
        "failures": [*known_processes(), *presets("failures")],
        "schedules": SCHEDULES,
    }
    rows = [
        Row((f"churnlab list {what}", ", ".join(names[what] if what in names else presets(what)))) for what in LISTS
    ]
    return Table("", (Column("command", "left"), Column("names", "left")), tuple(rows))


def list_table(what: str) -> Table:
    """The table of a list. ValueError for an unknown list."""
    if what == "schedules":
        schedules = [Row((name, first_line(schedule.__doc__))) for name, schedule in SCHEDULES.items()]
        return Table("", (Column("name", "left"), Column("what it is", "left")), tuple(schedules))
    rows: list[Row] = []
    if what == "strategies":
        rows += component_rows(known_strategies())
    elif what == "failures":
        rows += component_rows(known_processes())
    elif what not in LISTS:
        raise ValueError(f"churnlab list: found '{what}'{suggestion(what, LISTS)}")
    details = "options" if rows else "figures"
    if what != "strategies":
        rows += (Row((name, *figures(entry))) for name, entry in presets(what).items())
    columns = (Column(heading, "left") for heading in ("name", "what it is", details))
    return Table("", tuple(columns), tuple(rows))


def component_rows(known: Mapping[str, Any]) -> Iterator[Row]:
    """A row per kind with its options, including kinds of installed packages, or the reason why one cannot be used."""
    for kind, found in known.items():
        if isinstance(found, PluginError):
            yield Row((kind, f"cannot be used: {found}", ""))
        else:
            yield Row((kind, getattr(found, "summary", first_line(found.__doc__)), options(found.Config)))


def options(config: type[Config]) -> str:
    """The options of a component besides its kind."""
    fields = {name: field for name, field in config.model_fields.items() if name not in WORDS}
    presets_of = {name: f" ({' | '.join(get_args(fields[name].annotation))})" for name in fields if name == "preset"}
    return ", ".join(f"{name}{presets_of.get(name, '')}" for name in fields)


def figures(preset: dict[str, Any]) -> tuple[str, str]:
    """The description of a preset, with its source, and its figures."""
    parts = [f"kind: {preset['kind']}"] if "kind" in preset else []
    parts += [f"{key}: {value:g}" for key, value in preset.items() if isinstance(value, int | float)]
    links = {key: link for key, link in preset.items() if isinstance(link, dict)}
    for key, link in links.items():
        if "bandwidth_mbit_per_s" in link:
            parts.append(f"{key}: {link['latency_ms']} ms, {link['bandwidth_mbit_per_s']:g} Mbit/s")
    for key, link in links.items():
        if "up_mbit_per_s" in link:
            parts.append(f"{key}: {link['up_mbit_per_s']:g} Mbit/s up, {link['down_mbit_per_s']:g} down")
    if regions := dict.fromkeys(region for link in preset.get("links", ()) for region in link[:2]):
        parts.append(f"regions: {', '.join(regions)}")
    return f"{preset['description']} ({preset['source']})", "; ".join(parts)


def first_line(docstring: str | None) -> str:
    """The first line of a docstring."""
    return (docstring or "").strip().split("\n")[0]
