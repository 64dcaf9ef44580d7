"""The command `churnlab plot`: figures of finished runs as PNG and PDF, and their data as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sim.cli.options import say
from sim.core.text import shortened, suggestion


class PlotCommand(TyperCommand):
    """The command with a list of the kinds in its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        from sim.reporting.registry import figure_kinds

        kinds = ", ".join(figure_kinds())
        self.epilog = f"Kinds: {kinds}."
        super().format_help(ctx, formatter)


def plot(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, of a scenario's runs, or of one run.")
    ],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Draw this kind alone; repeatable. Default: all that the results can give."),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option("--x", metavar="FIELD", help="Swept field on the x axis; default: the first that suits."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: figures/ in RESULTS.")] = None,
    slide: Annotated[bool, typer.Option("--slide", help="For a slide: 16:9, larger letters.")] = False,
) -> None:
    """Draw figures of results: PNG and PDF, and beside each the data drawn, as CSV."""
    from sim.reporting.registry import FigureRequest, drawable, figure_kinds
    from sim.reporting.style import PAPER, SLIDE
    from sim.results.selection import MissingError
    from sim.results.storage import load_comparison

    known = figure_kinds()
    for name in kinds or ():
        if name not in known:
            raise ValueError(f"--kind {shortened(name)}: no such figure{suggestion(name, known)}")
    request = FigureRequest.of(load_comparison(results), SLIDE if slide else PAPER, field)
    tables, missing = drawable(request, kinds or known)
    for name, error in missing.items():
        if kinds:
            raise MissingError(f"--kind {name} cannot be drawn of {results}: {error}")
        say(f"{name}: left out, {error}")
    if not tables:
        raise ValueError(f"no figure can be drawn of {results}")
    folder = out or results / "figures"
    if folder.is_file():
        raise ValueError(f"--out {folder}: there is a file of that name; name a folder")
    for name, drawn in tables.items():
        paths = known[name].write(request, drawn, folder)
        say(f"{name}: {known[name].summary}: {', '.join(map(str, paths))}")
