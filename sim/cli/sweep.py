"""The commands of sweeps: `churnlab sweep`, `churnlab status`, `churnlab cache info|prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from sim.cli.options import (
    CacheFolder,
    NoCache,
    Overrides,
    ResultsFolder,
    ScenarioPath,
    bytes_of,
    cache_folder,
    complain,
    console,
    say,
)
from sim.core.files import atomic_write
from sim.core.text import shortened, suggestion
from sim.experiments.folder import STATISTICS, fields_of, refusals_explained
from sim.experiments.sweep import Kind, SweepJob, locked, opened, opened_workshop
from sim.reporting.tables import summary_table
from sim.results.statistics import summary

MOST_FAILURES_TOLD = 5

MOST_REPLICATES = 100


def sweep(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Workers; default: every core of this machine.")] = None,
    kind: Annotated[
        Kind, typer.Option("--executor", help="pool: processes here; ray: a Ray cluster; serial: this process.")
    ] = Kind.pool,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: auto, or HOST:PORT; default: a local one for this sweep.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do again what is finished already.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Do these runs alone: a strategy, a run's folder (with * and ?) or FIELD=VALUE; repeatable."),
    ] = None,
    until_ci: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Add replicates until the 95 % interval is within this share, e.g. 5%."),
    ] = None,
    max_replicates: Annotated[
        int, typer.Option(min=2, help="Of --until-ci: no more failure seeds than this at any point.")
    ] = MOST_REPLICATES,
    reference: Annotated[
        str | None, typer.Option(help="Strategy that the others are compared with; default: the first.")
    ] = None,
    cache_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of training states on disk, e.g. 2GB; default: 4GB.")
    ] = None,
) -> None:
    """Do all runs of a scenario's `sweep:` section, and train no step twice. Ends with a table.

    What is finished is skipped; killed, or out of disk, the same command goes on where it was.
    """
    from sim.cli.progress import SweepDisplay
    from sim.experiments.plan import chosen
    from sim.experiments.sweep import SweepJob
    from sim.scenario.sweep_points import load_points

    pass
    from sim.experiments.sequential import share_of, tighten

    points = load_points(scenario_path, tuple(overrides or ()))
    share = share_of(until_ci) if until_ci else None
    budget_bytes = bytes_of(cache_budget, "--cache-budget") if cache_budget else None
    with cache_folder(cache, no_cache) as folder, SweepDisplay() as display:
        job = SweepJob(points, scenario_path.parent, results, folder, display)
        reference = known_reference(job, reference)
        runs = chosen(job.runs, only or ())
        if share is not None and only:
            raise ValueError("--until-ci adds replicates of all strategies at a point: give it without --only")
        to_do = runs if force else [run for run in runs if not run.is_finished]
        if share is None and (kept := job.keep_added()):
            say(f"{len(kept):,} finished runs of failure seeds that --until-ci has added stay among the results.")
        with opened(kind, jobs, address, job.learns) as executor, locked(job, dry_run):
            job.begin(executor, opened_workshop(job, folder, budget_bytes, dry_run))
            try:
                for line in job.outline(runs, to_do).in_words():
                    say(line)
                if dry_run:
                    tell_failures(job, "nothing is written")
                    return
                job.do(to_do)
                if share is not None:
                    tighten(job, share, max_replicates, force, say)
            except KeyboardInterrupt:
                display.stop()
                complain("Interrupted. Finished runs and all but the last steps of training are kept: run it again.")
                raise typer.Exit(130) from None
    print_summary(job, reference)
    tell_failures(job, f"the others are finished; details in {job.folder.folder / 'failed'}; run it again to try again")


def status(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, below results/.")],
) -> None:
    """Say what of a sweep is done, running, failed and left."""
    from sim.experiments.folder import read_status

    for line in read_status(results).in_words():
        say(line)


def known_reference(job: SweepJob, name: str | None) -> str:
    """The strategy that the others are compared with. ValueError if there is none of the name."""
    names = list(dict.fromkeys(run.planned.name for run in job.runs))
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(f"--reference {shortened(name)}: no such strategy{suggestion(name, names)}")
    return name


def tell_failures(job: SweepJob, what_now: str) -> None:
    """Name runs that failed, and exit with 1 if any did."""
    if not job.failures:
        return
    for run, (error, _) in list(job.failures.items())[:MOST_FAILURES_TOLD]:
        complain(f"{run.name} failed: {error}", "red")
    runs = "1 run" if len(job.failures) == 1 else f"{len(job.failures)} runs"
    complain(f"{runs} failed: {what_now}", "red")
    raise typer.Exit(1)


# The end of a sweep: its table is printed and written as CSV, and where all of it lies is said.


def print_summary(job: SweepJob, reference: str) -> None:
    """Print the table, write `statistics.csv`, and say where all of it lies."""
    runs, folder = job.table(), job.folder.folder
    if runs.empty or not (runs["outcome"] != "failed").any():
        return
    fields = fields_of(job.runs)
    to_compare = reference if (runs["strategy"] == reference).any() else None
    found = summary(runs, fields, reference=to_compare)
    path = write_statistics(folder, found)
    targets = {point.scenario.training.target_validation_loss for point in job.points} - {None}
    heading = f"loss {targets.pop():g}" if len(targets) == 1 else "target loss"
    console.print()
    console.print(summary_table(job.points[0].scenario.name, found, fields, to_compare, heading))
    say(f"Written: {folder / 'runs.parquet'}, {path}, and a folder for each run")


def write_statistics(folder: Path, found: pd.DataFrame) -> Path:
    """Write means, intervals and differences as CSV."""
    path = folder / STATISTICS
    with refusals_explained(folder):
        atomic_write(path, found.to_csv(index=False))
    return path
