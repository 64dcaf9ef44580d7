"""The command `churnlab branches`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import (
    CacheFolder,
    Jobs,
    NoCache,
    Overrides,
    ResultsFolder,
    ScenarioPath,
    cache_folder,
    console,
    say,
    say_next,
    with_locations,
)
from sim.cli.progress import Display
from sim.experiments.branches.study import opened
from sim.experiments.branches.whole_runs import predicted_runs
from sim.results.branches import FOLDER
from sim.scenario.axes import ScenarioTemplate

app = typer.Typer()


@app.command()
@with_locations
def branches(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the planned work and exit.")] = False,
) -> None:
    """Measure the cost of one failure: lose stages from common training states, then train on the same batches.

    The scenario's `branches` section sets the steps and stages of the failures, how many stages are lost at once, the
    number of steps after a failure, and the number of training seeds. After an interruption, the same command resumes.
    """
    template = ScenarioTemplate(scenario_path, overrides or ())
    scenario, base_folder = template.scenario, template.base_folder
    with (
        cache_folder(cache, no_cache) as folder,
        Display(not dry_run) as display,
        opened(scenario, base_folder, cache=folder, jobs=jobs, observer=display, dry_run=dry_run) as job,
    ):
        say("\n".join(job.outline()))
        if dry_run:
            return
        job.train()
        found = job.found()
        runs = predicted_runs(template, found, job.executor) if found.lost_at_once == 1 else None
    from sim.reporting.branches import (  # matplotlib takes seconds to import
        branch_tables,
        branches_figure,
        sentences,
        whole_runs_sentences,
        whole_runs_table,
    )
    from sim.reporting.style import save

    place = results / scenario.name / FOLDER
    paths = found.write(place)
    found.excess().to_csv(place / "branches.csv", index=False)
    if found.rebuilding:
        paths += save(branches_figure(found), place / "branches")
        for table in branch_tables(found):
            console.print()
            console.print(table)
    say("\n".join(["", *sentences(found)]))
    paths.append(place / "branches.csv")
    if runs:
        console.print()
        console.print(whole_runs_table(runs, scenario.name))
        say("\n".join(whole_runs_sentences(runs, found.rebuilding)))
        paths.append(place / "predicted_runs.csv")
        runs.table.to_csv(paths[-1], index=False)
    say("Written: " + ", ".join(map(str, paths)))
    say_next("churnlab", "advise", scenario_path)
