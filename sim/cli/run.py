"""The commands `churnlab run`, `churnlab sweep` and `churnlab status`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, get_args

import pandas as pd
import typer

from sim.cli.machines import answer
from sim.cli.options import (
    CacheFolder,
    Jobs,
    NoCache,
    Overrides,
    ResultsFolder,
    ScenarioPath,
    bytes_of,
    cache_folder,
    complain,
    console,
    one_of,
    say,
    say_next,
    whole_number,
    with_locations,
)
from sim.cli.progress import Display, RunDisplay
from sim.core.files import atomic_write
from sim.core.text import format_count, shortened, suggestion
from sim.experiments.folder import FAILED, STATISTICS, read_status
from sim.experiments.plan import swept_fields
from sim.experiments.sequential import parse_share
from sim.experiments.sweep import ExecutorKind, SweepOptions, SweepOutcome, new_executor, run_scenario, run_sweep
from sim.reporting.tables import comparison_table, summary_table, write_comparison
from sim.results.statistics import summary
from sim.results.storage import RunFiles, load, refusals_explained
from sim.results.summary import flat
from sim.scenario.loading import parse_scenario, read_scenario_text
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import Point, load_points
from sim.simulation.effort_estimate import foreseen_effort

MOST_FAILURES_NAMED = 5
STOPPED = 3
"""Exit code of `run` if a run stopped before its end."""

app = typer.Typer()


@app.command()
@with_locations
def run(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1),
            metavar="N",
            help="Number of workers; default: as many as needed, at most one per core.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Repeat finished runs.")] = False,
) -> None:
    """Run every strategy of a scenario under the same churn. Print a table and draw figures.

    After an interruption, the same command resumes. Exit code 1: a run failed; 3: a run stopped before its end.
    """
    text = read_scenario_text(scenario_path)
    scenario = parse_scenario(text, str(scenario_path), tuple(overrides or ()), scenario_path.parent)
    if scenario.sweep is not None:
        say(f"The sweep: section is ignored here; churnlab sweep {scenario_path} runs all its points.")
    for line in foreseen_effort(scenario):
        say(line, "yellow")
    with ExitStack() as stack:
        folder = stack.enter_context(cache_folder(cache, no_cache))
        display = stack.enter_context(Display(writes=False) if dry_run else RunDisplay(scenario))
        executor = None
        if jobs is not None:
            executor = stack.enter_context(closing(new_executor("serial" if jobs == 1 else "pool", jobs)))
        outcome = run_scenario(scenario, results, scenario_path.parent, folder, executor, display, force, dry_run)
    files = [] if dry_run else outcome.run_files()
    verdict = print_end(outcome.points[0].scenario, outcome.folder, files) if files else None
    answer(
        {
            "scenario": scenario.name,
            "folder": outcome.folder,
            "verdict": verdict,
            "runs": [flat(each.summary) for each in files],
            "failed": outcome.failures,
        }
    )
    report_failures(outcome, "the others are finished")
    if files:
        say_next("churnlab", "report", outcome.folder)
    if any(run.summary["outcome"] == "stopped" for run in files):
        raise typer.Exit(STOPPED)


def print_end(scenario: Scenario, folder: Path, runs: Sequence[RunFiles]) -> str:
    """Print tables and remarks, and write the table and the figures of the runs. Return the verdict."""
    from sim.reporting.binding import binding_sentences
    from sim.reporting.bottlenecks import run_sentences
    from sim.reporting.ledger import ledger_table
    from sim.reporting.notes import remarks, warnings, worth_knowing
    from sim.reporting.registry import FigureRequest, figure_kinds
    from sim.reporting.style import save
    from sim.reporting.verdict import verdict_on

    console.print()
    paths = [write_comparison(folder, runs)]  # before results are loaded, which have its order
    request, kinds = FigureRequest.of(load(folder)), figure_kinds()
    of_this_run = request.runs[request.runs["run"].isin([files.folder.name for files in runs])]  # others: of a sweep
    for line in binding_sentences(scenario, only_limits=True):
        say(line)
    console.print(comparison_table(runs, scenario))
    verdict = verdict_on(of_this_run)
    if verdict:
        say(verdict)
    for line in (
        *remarks(scenario, runs),
        *run_sentences(scenario, runs, of_this_run),
        *worth_knowing(scenario, runs),
    ):
        say(line, style="yellow")
    for stale in (*folder.glob("convergence.p*"), *folder.glob("ledger.p*")):
        stale.unlink()
    if (request.runs["outcome"] == "finished").any():
        console.print(ledger_table(request.results))
        paths += save(kinds["ledger"].draw(request), folder / "ledger")
    if request.runs["final_validation_loss"].notna().any():
        paths += save(kinds["loss"].draw(request), folder / "convergence")
    for warning in warnings(scenario):
        console.print(warning, style="yellow")
    say("Written: " + ", ".join(str(path) for path in paths))
    return verdict


@app.command()
@with_locations
def sweep(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    kind: Annotated[
        ExecutorKind,
        typer.Option(
            "--executor",
            parser=one_of(get_args(ExecutorKind)),
            metavar="[pool|ray|serial]",
            help="pool: processes on this machine; ray: a Ray cluster; serial: this process.",
        ),
    ] = "pool",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster address: auto or HOST:PORT. Default: start a local cluster for this sweep.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Repeat finished runs.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN", help="Run only these: a strategy, a run folder (with * and ?) or FIELD=VALUE; repeatable."
        ),
    ] = None,
    until_ci: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Add replicates until each 95 % interval is within this share of its mean, e.g. 5%."
        ),
    ] = None,
    max_replicates: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(2),
            metavar="N",
            help=f"Maximum number of replicates at a point with --until-ci; default: {SweepOptions.max_replicates}.",
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="STRATEGY", help="Strategy to compare the others with; default: the first.")
    ] = None,
    cache_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Disk space for training states, e.g. 2GB; default: 4GB.")
    ] = None,
) -> None:
    """Run every point of a scenario's `sweep:` section. Training steps are shared between runs.

    Finished runs are skipped; after an interruption, the same command resumes.
    """
    if max_replicates is not None and until_ci is None:
        raise ValueError("--max-replicates needs --until-ci: it limits the replicates that --until-ci adds")
    points = load_points(scenario_path, tuple(overrides or ()))
    options = SweepOptions(
        force,
        tuple(only or ()),
        dry_run,
        parse_share(until_ci) if until_ci else None,
        max_replicates or SweepOptions.max_replicates,
        bytes_of(cache_budget, "--cache-budget") if cache_budget else None,
    )
    reference = known_reference(points, reference)
    learns = any(point.scenario.training.learner == "torch" for point in points)
    executor = new_executor(kind, jobs, address, learns)
    with closing(executor), cache_folder(cache, no_cache) as folder, Display(not dry_run) as display:
        outcome = run_sweep(points, results, scenario_path.parent, folder, executor, display, options)
    statistics = print_summary(outcome, reference)
    answer(
        {
            "scenario": points[0].scenario.name,
            "folder": outcome.folder,
            "statistics": [] if statistics is None else statistics,
            "failed": outcome.failures,
        }
    )
    report_failures(outcome, "nothing is written" if dry_run else "the others are finished")
    if statistics is not None and not dry_run:
        say_next("churnlab", "report", outcome.folder)


@app.command()
def status(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, below results/.")],
) -> None:
    """Show the progress of a sweep: finished, running, failed and remaining runs."""
    found = read_status(results)
    say("\n".join(found.lines))
    if found.finished and not found.left and not found.is_running:
        say_next("churnlab", "report", results)
    answer(
        {
            "folder": results,
            "finished": found.finished,
            "failed": found.failed,
            "left": found.left,
            "is_running": found.is_running,
        }
    )


def known_reference(points: Sequence[Point], name: str | None) -> str:
    """The strategy that the others are compared with. ValueError for an unknown name."""
    names = list(dict.fromkeys(config.name for point in points for config in point.scenario.strategies))
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(f"--reference {shortened(name)}: no such strategy{suggestion(name, names)}")
    return name


def report_failures(outcome: SweepOutcome, what_now: str) -> None:
    """Print the runs that failed, and exit with 1 if there are any."""
    if not outcome.failures:
        return
    for name, error in list(outcome.failures.items())[:MOST_FAILURES_NAMED]:
        complain(f"{name} failed: {error}", "red")
    if outcome.table is not None:
        what_now += f"; details in {outcome.folder / FAILED}; the same command tries again"
    complain(f"{format_count(len(outcome.failures), 'run')} failed: {what_now}", "red")
    raise typer.Exit(1)


def print_summary(outcome: SweepOutcome, reference: str) -> pd.DataFrame | None:
    """Print the table of a sweep, write `statistics.csv`, print the paths. Return the statistics, if any."""
    runs, folder = outcome.table, outcome.folder
    if runs is None or runs.empty or not (runs["outcome"] != "failed").any():
        return None
    to_compare = reference if (runs["strategy"] == reference).any() else None
    fields = swept_fields(outcome.runs)
    found = summary(runs, fields, reference=to_compare)
    path = folder / STATISTICS
    with refusals_explained(folder):
        atomic_write(path, found.to_csv(index=False))
    targets = {point.scenario.training.target_loss for point in outcome.points} - {None}
    heading = f"loss {targets.pop():g}" if len(targets) == 1 else "target loss"
    console.print()
    console.print(summary_table(outcome.points[0].scenario.name, found, fields, to_compare, heading))
    say(f"Written: {folder / 'runs.parquet'}, {path}, and a folder for each run")
    return found
