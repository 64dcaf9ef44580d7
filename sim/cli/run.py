"""The command `churnlab run`, and the summary at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.options import CacheFolder, NoCache, Overrides, ResultsFolder, ScenarioPath, cache_folder, console, say
from sim.cli.progress import RunDisplay
from sim.cli.sweep import report_failures
from sim.experiments.sweep import run_scenario
from sim.scenario.loading import parse_scenario, read_scenario_text

if TYPE_CHECKING:
    from sim.results.storage import RunFiles
    from sim.scenario.scenario import Scenario


def run(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    force: Annotated[bool, typer.Option("--force", help="Run again what is finished already.")] = False,
) -> None:
    """Run a scenario: every strategy under the same churn. Ends with a table and a figure.

    After an interruption, the same command resumes.
    """
    text = read_scenario_text(scenario_path)
    scenario = parse_scenario(text, str(scenario_path), tuple(overrides or ()), scenario_path.parent)
    if scenario.sweep is not None:
        say(f"The sweep: section is ignored here; churnlab sweep {scenario_path} runs all its points.")
    with cache_folder(cache, no_cache) as folder, RunDisplay(scenario) as display:
        outcome = run_scenario(scenario, results, scenario_path.parent, folder, observer=display, force=force)
    if files := outcome.run_files():
        print_end(scenario, outcome.folder, files)
    report_failures(outcome, "the others are finished")


def print_end(scenario: Scenario, folder: Path, runs: Sequence[RunFiles]) -> None:
    """Print tables and remarks, and write the table and the figures of the runs."""
    from sim.reporting.ledger import ledger_table
    from sim.reporting.notes import remarks, warnings, worth_knowing
    from sim.reporting.registry import FigureRequest, figure_kinds
    from sim.reporting.style import save
    from sim.reporting.tables import comparison_table, write_comparison
    from sim.results.storage import load

    console.print()
    console.print(comparison_table(runs, scenario))
    for line in (*remarks(scenario, runs), *worth_knowing(scenario, runs)):
        say(line, style="yellow")
    for stale in (*folder.glob("convergence.p*"), *folder.glob("ledger.p*")):
        stale.unlink()
    paths = [write_comparison(folder, runs)]
    request, kinds = FigureRequest.of(load(folder)), figure_kinds()
    if (request.runs["outcome"] == "finished").any():
        console.print(ledger_table(request.results))
        paths += save(kinds["ledger"].draw(request), folder / "ledger")
    if request.runs["final_validation_loss"].notna().any():
        paths += save(kinds["loss"].draw(request), folder / "convergence")
    for warning in warnings(scenario):
        console.print(warning, style="yellow")
    say("Written: " + ", ".join(str(path) for path in paths))
