"""The command `churnlab table`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.options import console, one_of, say
from sim.cli.results import output_path
from sim.core.text import shortened, suggestion

if TYPE_CHECKING:
    from sim.reporting.table import Table

app = typer.Typer()

WIDTH_OF_TEXT = 200
ENDINGS = {"text": ".txt", "latex": ".tex", "markdown": ".md", "csv": ".csv"}


@app.command()
def table(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep or of a scenario's runs.")],
    format_: Annotated[
        Any,
        typer.Option(
            "--format", parser=one_of(tuple(ENDINGS)), metavar="[text|latex|markdown|csv]", help="Format of the table."
        ),
    ] = "text",
    reference: Annotated[
        str | None, typer.Option(metavar="STRATEGY", help="Strategy to compare the hours with, in percent.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; default: standard output.")] = None,
) -> None:
    """Print means of results with half-widths of their 95 % intervals, for the terminal or a paper."""
    from sim.core.files import atomic_write
    from sim.reporting.markup import csv_table, latex_table, markdown_table

    path = output_path(out, Path("table"), f"a {format_}", (ENDINGS[format_],)) if out else None
    found = means(results, reference)
    if format_ == "text" and path is None:
        console.print(found)
        return
    written = {"latex": latex_table, "markdown": markdown_table, "csv": csv_table}
    content = written[format_](found) if format_ in written else as_text(found)
    if path is None:
        say(content)
        return
    atomic_write(path, f"{content}\n")
    say(f"Written: {path}")


def means(folder: Path, reference: str | None) -> Table:
    """The means of results, with swept fields in words. ValueError if there is no run of the reference."""
    from sim.reporting.notes import describe_target
    from sim.reporting.table import Column
    from sim.reporting.tables import summary_table
    from sim.reporting.words import words_of
    from sim.results.selection import comparable, swept_fields
    from sim.results.statistics import summary
    from sim.results.storage import load_comparison

    results = comparable(load_comparison(folder))
    runs, fields = results.runs.dropna(subset=["kind"]), swept_fields(results)
    known = list(dict.fromkeys(runs["strategy"]))
    if reference is not None and reference not in known:
        raise ValueError(f"--reference {shortened(reference)}: no run of that strategy{suggestion(reference, known)}")
    name, target = str(runs["scenario"].iloc[0]), describe_target(runs).removeprefix("the ")
    found = summary_table(name, summary(runs, fields, reference=reference), fields, reference, target)
    if reference is None:
        found = replace(found, title=found.title.partition(";")[0])
    first, rest = found.columns[0], found.columns[1 + len(fields) :]
    swept = [Column(words_of(field).label, format=words_of(field).value) for field in fields]
    return replace(found, columns=(first, *swept, *rest))


def as_text(found: Table) -> str:
    """The table as the terminal shows it."""
    from rich.console import Console

    with (plain := Console(width=WIDTH_OF_TEXT)).capture() as captured:
        plain.print(found)
    return captured.get().rstrip()
