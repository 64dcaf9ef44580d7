"""The commands that read finished results: `churnlab plot`, `churnlab report` and `churnlab timeline`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from sim.cli.options import say
from sim.cli.pace import working
from sim.core.text import shortened, suggestion

if TYPE_CHECKING:
    from sim.reporting.style import Form

LEAST_INCHES, MOST_INCHES = 2.5, 20.0

app = typer.Typer()


class PlotCommand(TyperCommand):
    """The command, with the kinds of figures in its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        from sim.reporting.registry import figure_kinds

        self.epilog = f"Kinds: {', '.join(figure_kinds())}.\n\n{self.epilog or ''}"
        super().format_help(ctx, formatter)


@app.command(cls=PlotCommand)
def plot(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, of a scenario's runs, or of one run.")
    ],
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Draw only this kind; repeatable. Default: every kind that the results allow.",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option("--x", metavar="FIELD", help="Swept field on the x axis; default: the first suitable one."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write to; default: figures/ in RESULTS.")
    ] = None,
    slide: Annotated[bool, typer.Option("--slide", help="Draw for slides: 16:9, larger text.")] = False,
    width: Annotated[
        str | None,
        typer.Option(metavar="INCHES", help="Width: column (3.3), text (5.5), full (7, the default), or inches."),
    ] = None,
    formats: Annotated[str, typer.Option("--format", metavar="A,B", help="Formats: png, pdf, svg, pgf.")] = "png,pdf",
    caption: Annotated[
        bool, typer.Option("--caption", help="Draw captions below the figures. They are also written to .txt and .tex.")
    ] = False,
    x_label: Annotated[str | None, typer.Option("--xlabel", metavar="TEXT", help="Label of the x axis.")] = None,
    y_label: Annotated[str | None, typer.Option("--ylabel", metavar="TEXT", help="Label of the y axis.")] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Title above the figure.")] = None,
) -> None:
    """Draw figures of results. The caption and the data of each figure are written to separate files."""
    from sim.reporting.registry import FigureRequest, drawable, figure_kinds
    from sim.reporting.relabel import Labels, relabel
    from sim.results.selection import MissingError
    from sim.results.storage import load_comparison

    known = figure_kinds()
    for name in kinds or ():
        if name not in known:
            raise ValueError(f"--kind {shortened(name)}: no such figure{suggestion(name, known)}")
    endings = formats_of(formats)
    request = FigureRequest.of(load_comparison(results), form_of(slide, width, caption), field)
    asked = dict.fromkeys(kinds or known)
    with working("data of figures", len(asked)) as part_done:
        tables, missing = drawable(request, asked, is_asked=bool(kinds), part_done=part_done)
    for name, error in missing.items():
        if kinds:
            raise MissingError(f"--kind {name} cannot be drawn from {results}: {error}")
        say(f"{name}: left out, {error}")
    if not tables:
        raise ValueError(f"no figure can be drawn from {results}")
    folder = out or results / "figures"
    if folder.is_file():
        raise ValueError(f"--out {folder}: found a file; give a folder")
    lines, labels, figures = [], Labels(x_label, y_label, title), {}
    with working("figures drawn", 2 * len(tables)) as part_done:
        for name, drawn in tables.items():
            figures[name] = list(known[name].figures(request, drawn))
            for _, figure in figures[name]:
                relabel(figure, labels, name)
            part_done()
        for name, drawn in tables.items():
            paths = known[name].write(figures[name], drawn, folder, endings)
            lines.append(f"{name}: {known[name].summary}: {', '.join(map(str, paths))}")
            part_done()
    say("\n".join(lines))


def formats_of(text: str) -> list[str]:
    """The formats of `--format`. ValueError for an unknown one, or PGF without LaTeX."""
    from sim.reporting.style import FORMATS, latex_program

    found = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in FORMATS:
            raise ValueError(f"--format {shortened(name)}: no such format{suggestion(name, FORMATS)}")
    if not found:
        raise ValueError(f"--format: name one or more of {', '.join(FORMATS)}")
    if "pgf" in found:
        latex_program()  # before anything is computed
    return list(dict.fromkeys(found))


def form_of(is_slide: bool, width: str | None, has_caption: bool) -> Form:
    """The form of figures that the options of `plot` set. ValueError for an invalid width, or a width of a slide."""
    from sim.reporting.style import SLIDE, WIDTHS_INCHES, print_form

    if is_slide:
        if width is not None:
            raise ValueError("--width and --slide contradict each other: the width of a slide is fixed")
        return replace(SLIDE, has_caption=has_caption)
    try:
        inches = WIDTHS_INCHES["full"] if width is None else WIDTHS_INCHES.get(width) or float(width)
    except ValueError:
        inches = math.nan
    if not LEAST_INCHES <= inches <= MOST_INCHES:
        presets = ", ".join(f"{name} ({value:g})" for name, value in WIDTHS_INCHES.items())
        raise ValueError(
            f"--width {shortened(str(width))}: allowed: {presets}, or inches from {LEAST_INCHES:g} to {MOST_INCHES:g}"
        )
    return print_form(inches, has_caption)


@app.command()
def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, of a scenario's runs or of one run.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML file to write; default: report.html in RESULTS.")
    ] = None,
) -> None:
    """Write the results as one HTML page with text, charts and tables. It works offline and can be sent by mail."""
    from sim.core.files import atomic_write
    from sim.reporting.html.page import report_page

    path = output_path(out, results / "report.html", "an HTML", (".html", ".htm"))
    page = report_page(results, path.parent, working)
    try:
        atomic_write(path, page)
    except OSError as error:
        raise OSError(f"cannot write {path} ({error.strerror}): name another file with --out") from error
    say(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")


@app.command()
def timeline(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, below results/.")],
    from_seconds: Annotated[
        float, typer.Option("--from", metavar="SECONDS", help="Start of the window, in simulated seconds.")
    ] = 0.0,
    to_seconds: Annotated[
        float | None,
        typer.Option("--to", metavar="SECONDS", help="End of the window; default: two iterations after its start."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file to write; default: timeline.json in RUN.")
    ] = None,
) -> None:
    """Write the timeline of a run: a Chrome trace (opens in Perfetto) and, if it is short, a Gantt chart."""
    from sim.reporting.gantt import MOST_OPERATIONS, gantt_figure
    from sim.reporting.style import save
    from sim.results.timeline import timeline as timeline_of
    from sim.results.timeline import write_chrome_trace

    path = output_path(out, run_folder / "timeline.json", "a JSON", (".json",))
    found = timeline_of(run_folder, from_seconds, to_seconds)
    write_chrome_trace(found, path)
    paths = [path]
    for stale in (path.with_suffix(".png"), path.with_suffix(".pdf")):
        stale.unlink(missing_ok=True)
    num_operations, num_messages = len(found.trace.operations), len(found.trace.messages)
    if num_operations <= MOST_OPERATIONS:
        title = f"{found.scenario.name}: {found.strategy}"
        paths += save(gantt_figure(found, title), path.with_suffix(""))
    else:
        say(f"No chart: more than {MOST_OPERATIONS} operations; choose a shorter window.")
    counts = f"{num_operations} operations, {num_messages} messages, {len(found.events)} events"
    say(f"{counts}. Open the JSON file in ui.perfetto.dev or chrome://tracing.")
    say("Written: " + ", ".join(map(str, paths)))


def output_path(out: Path | None, default: Path, kind: str, suffixes: tuple[str, ...]) -> Path:
    """The file of `--out`, or the default. ValueError if no such file can be written."""
    path = out or default
    if path.is_dir() or (out and (path.suffix not in suffixes or not path.parent.is_dir())):
        raise ValueError(
            f"--out {path}: give the name of {kind} file (ending in {suffixes[0]}) in a folder that exists"
        )
    return path
