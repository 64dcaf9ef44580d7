"""The command `churnlab fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from sim.cli.machines import answer
from sim.cli.options import console, one_of, say, say_next, whole_number
from sim.core.text import shortened
from sim.failures.churn_fit import TOGETHER_SECONDS, ChurnFit, files_read, fit_churn
from sim.failures.trace_files import TraceFiles
from sim.failures.trace_formats import Format, Polarity
from sim.failures.trace_tables import ROLES, TimeUnit

app = typer.Typer()

FORMATS = (*get_args(Format), "lifetimes", "times")


def columns_of(assignments: list[str]) -> dict[str, str | int]:
    """Columns by role, of options `ROLE=NAME`. ValueError for another form."""
    columns: dict[str, str | int] = {}
    for assignment in assignments:
        role, equals, name = assignment.partition("=")
        if not equals or not name or role not in ROLES:
            raise ValueError(
                f"--column {shortened(assignment)}: allowed: ROLE=NAME or ROLE=NUMBER, with {', '.join(ROLES)}"
            )
        columns[role] = int(name) if name.isdecimal() else name
    return columns


@app.command()
def fit(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Churn data; several files, such as one per zone, form one trace."),
    ],
    file_format: Annotated[
        str,
        typer.Option(
            parser=one_of(FORMATS), metavar="NAME", help="Format of the files: intervals, events, counts, ..."
        ),
    ] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="ROLE=NAME", help="A column of a table, e.g. node=vm_id or end=4; repeatable."
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            parser=one_of(get_args(TimeUnit)), metavar="UNIT", help="Unit of the times in a table: seconds, ..."
        ),
    ] = None,
    polarity: Annotated[
        str, typer.Option(parser=one_of(get_args(Polarity)), metavar="WORD", help="Meaning of SkyPilot's counts.")
    ] = "available",
    nodes: Annotated[
        int,
        typer.Option(
            parser=whole_number(1), metavar="N", help="Number of nodes of the system, for files of failure times."
        ),
    ] = 1,
    together: Annotated[
        float, typer.Option(metavar="SECONDS", help="Losses within this time of each other count as one event.")
    ] = TOGETHER_SECONDS,
    scenario_path: Annotated[
        Path | None,
        typer.Option("--scenario", metavar="SCENARIO", help="Compare fit and data in time-only runs of this scenario."),
    ] = None,
    no_compare: Annotated[
        bool, typer.Option("--no-compare", help="Do not compare fit and data in time-only runs.")
    ] = False,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the fit to this PNG, PDF or SVG.")] = None,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="SCENARIO", help="Write the section into this scenario file.")
    ] = None,
) -> None:
    """Fit a failure process to your own churn and print it as a `failures:` section.

    The fit covers the rate, the distribution of uptimes, bulk losses and downtimes. Files are traces in any format,
    lifetimes, or times of failures. The exit code is 2 for a file that cannot be read as one of these.
    """
    if together < 0:
        raise ValueError(f"--together {together:g}: allowed: seconds, at least 0")
    of_files: dict[str, Any] = {
        "format": file_format,
        "columns": columns_of(columns or []),
        "unit": unit,
        "polarity": polarity,
    }
    found = fit_churn(*files, **of_files, num_nodes=nodes, together_seconds=together)
    compared = None if no_compare else comparison(found, files_read(files, **of_files), scenario_path)
    from sim.reporting.churn_fit import fit_figure, fit_record
    from sim.scenario.rewriting import with_failures, write_checked

    written = []
    if write is not None:
        write_checked(write, with_failures(write, found.section(nodes_of(write))))
        written.append(write)
    if figure is not None:
        draw(fit_figure(found), figure)
        written.append(figure)
    answer({**fit_record(found), "comparison": [] if compared is None else compared})
    print_fit(found, compared)
    if written:
        say(f"Written: {', '.join(map(str, written))}")
    if write is not None:
        say_next("churnlab", "validate", write)


def nodes_of(path: Path) -> int:
    """Number of nodes of a scenario's cluster."""
    from sim.cluster.topology import num_nodes
    from sim.scenario.loading import load_scenario

    scenario = load_scenario(path)
    return num_nodes(scenario.cluster, scenario.workload.num_stages)


def comparison(found: ChurnFit, about: TraceFiles, scenario_path: Path | None) -> Any:
    """Time-only runs under the trace and under fits."""
    from sim.cli.pace import working
    from sim.experiments.fit_comparison import compare_fit, default_scenario
    from sim.scenario.loading import load_scenario

    scenario = load_scenario(scenario_path) if scenario_path else default_scenario(found)
    with working("time-only runs") as part_done:
        return compare_fit(found, about, scenario, part_done=part_done)


def draw(figure: Any, path: Path) -> None:
    """Write a figure. ValueError for another ending."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--figure {shortened(str(path))}: allowed: a file that ends in .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def print_fit(found: ChurnFit, compared: Any) -> None:
    """Print sentences, the table of laws, the comparison, and the section."""
    from sim.reporting.churn_fit import comparison_lines, comparison_table, fit_lines, law_table
    from sim.scenario.rewriting import section_text

    say("\n".join(fit_lines(found)))
    if table := law_table(found):
        console.print()
        console.print(table)
    if compared is not None:
        console.print(comparison_table(compared))
        say("\n".join(comparison_lines(compared)))
    say(f"\nFor your scenario:\n\n{section_text('failures', found.section()).rstrip()}")
