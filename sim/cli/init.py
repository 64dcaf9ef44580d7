"""The command `churnlab init`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli.options import one_of, say, say_next, whole_number
from sim.core.files import atomic_write
from sim.core.presets import presets
from sim.core.text import FOLDER_NAME, FOLDER_NAME_IN_WORDS, shortened, suggestion
from sim.scenario.templates import SCHEMA_FILE, TEMPLATES, Template, changed, scenario_text

app = typer.Typer()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Scenario file to write.")] = Path("my_cluster.yaml"),
    template: Annotated[
        str | None,
        typer.Option(parser=one_of(TEMPLATES), metavar=f"[{'|'.join(TEMPLATES)}]", help="Template to start from."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(parser=whole_number(1), metavar="N", help="Total number of nodes, including spares.")
    ] = None,
    stages: Annotated[
        int | None, typer.Option(parser=whole_number(1), metavar="N", help="Number of pipeline stages.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="PRESET", help="See `churnlab list devices`.")] = None,
    model: Annotated[str | None, typer.Option(metavar="PRESET", help="See `churnlab list models`.")] = None,
    network: Annotated[str | None, typer.Option(metavar="PRESET", help="See `churnlab list networks`.")] = None,
    failures: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PRESET", help="A preset (see `churnlab list failures`) or a file of your own churn to fit."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a valid, commented scenario from options, or from answers to questions in a terminal.

    The JSON Schema, which lets editors complete and check the scenario, is written beside it. The exit code is 2 if
    nothing can be written.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{shortened(str(path))}: allowed: a file that ends in .yaml")
    name = scenario_name(path)
    if path.exists() and not force:
        raise ValueError(f"{path} exists already: name another file, or overwrite it with --force")
    given = {"num_nodes": nodes, "num_stages": stages, "device": device, "model": model, "network": network}
    wanted: dict[str, Any] = {**given, "failures": failures}
    if template is None and not any(wanted.values()) and sys.stdin.isatty():
        template, wanted = answers()
    chosen = with_choices(TEMPLATES[template or "spot"], wanted)
    text = scenario_text(chosen, name)
    write(path, text)


def scenario_name(path: Path) -> str:
    """The name of a scenario in a file. ValueError for one that cannot name a folder."""
    import re

    if not re.match(FOLDER_NAME, path.stem):
        raise ValueError(f"{shortened(str(path))}: allowed: a name {FOLDER_NAME_IN_WORDS}")
    return path.stem


def answers() -> tuple[str, dict[str, Any]]:
    """Ask for the values of the options; those of the template are the defaults."""
    template = typer.prompt(f"Template ({', '.join(TEMPLATES)})", default="spot", value_proc=one_of(TEMPLATES))
    base = TEMPLATES[template]
    wanted: dict[str, Any] = {
        "num_nodes": typer.prompt("Total number of nodes", default=base.num_nodes, value_proc=whole_number(1)),
        "num_stages": typer.prompt("Pipeline stages", default=base.num_stages, value_proc=whole_number(1)),
    }
    for field, what in (("device", "Device"), ("model", "Model"), ("network", "Network")):
        answer = typer.prompt(f"{what} (`churnlab list {field}s`)", default=getattr(base, field))
        wanted[field] = None if answer == getattr(base, field) else answer
    kept = base.failures if isinstance(base.failures, str) else base.failures["preset"]
    answer = typer.prompt("Failures (a preset, or a file of your own churn)", default=kept)
    return template, {**wanted, "failures": None if answer == kept else answer}


def with_choices(template: Template, wanted: Mapping[str, Any]) -> Template:
    """The template with what was chosen. ValueError for an unknown preset, or a file that cannot be fitted."""
    for field in ("device", "model", "network"):
        found, known = wanted[field], presets(f"{field}s")
        if found is not None and found not in known:
            raise ValueError(f"--{field} {shortened(found)}: no such preset{suggestion(found, known)}")
    chosen = changed(template, **{field: value for field, value in wanted.items() if field != "failures"})
    failures, known = wanted["failures"], presets("failures")
    if failures is None:
        return chosen
    if failures in known:
        return changed(chosen, failures=failures, why=(known[failures]["description"],))
    if not Path(failures).exists():
        raise ValueError(
            f"--failures {shortened(failures)}: no such file, and no such preset{suggestion(failures, known)}"
        )
    return changed(chosen, **fitted(Path(failures), chosen.num_nodes))


def fitted(path: Path, num_nodes: int) -> dict[str, Any]:
    """The section that is fitted to a file of churn, and a sentence on its basis."""
    from sim.failures.churn_fit import fit_churn
    from sim.reporting.churn_fit import fit_lines

    fit = fit_churn(path)
    return {"failures": fit.section(num_nodes), "why": tuple(f"{line.strip()}" for line in fit_lines(fit)[:1])}


def write(path: Path, text: str) -> None:
    """Write a scenario and its schema. ValueError for one that is not valid, with its problems."""
    from sim.cli.check import schema_text
    from sim.scenario.document import ScenarioError
    from sim.scenario.loading import parse_scenario

    try:
        parse_scenario(text, str(path), base_folder=path.parent)
    except ScenarioError as error:
        problems = "\n".join(f"  {problem.path}: {problem.message}" for problem in error.problems)
        raise ValueError(f"these choices are not compatible:\n{problems}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text)
    atomic_write(path.with_name(SCHEMA_FILE), schema_text() + "\n")
    say(f"Written: {path}, and {path.with_name(SCHEMA_FILE)} for editors")
    say_next("churnlab", "validate", path)
