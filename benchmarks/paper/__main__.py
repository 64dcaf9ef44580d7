"""`python -m benchmarks.paper`: run the sweeps of scenarios/paper, extract the numbers, draw, write docs/paper.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from benchmarks.paper.extract import COMMITTED, Extract, compare, made_on
from benchmarks.paper.figures import draw_all, make_map
from benchmarks.paper.jobs import BRANCHES, JOBS, NEIGHBOURS, SCENARIOS, TABLE_2_JOB, Job
from benchmarks.paper.page import write_page
from models.training_state import digest
from sim.cli.options import CacheFolder, cache_folder, complain, say
from sim.cli.progress import Display
from sim.cli.run import known_reference, print_summary, report_failures
from sim.core.files import atomic_write_table
from sim.experiments.branches.study import branches
from sim.experiments.sweep import SweepOptions, run_sweep
from sim.results.branches import FOLDER
from sim.results.storage import load, write_json
from sim.scenario.sweep_points import load_points

RUNS = COMMITTED.parent

CACHE_BYTES = 20 * 10**9
"""Enough for the final states of all runs and a state every 50 steps, so that no state is trained twice."""


def paper(
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of it, compared with the committed numbers.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="With --quick: replace the committed numbers.")] = False,
    cache: CacheFolder = None,
) -> None:
    """Run all sweeps of scenarios/paper; finished runs are skipped, and no step is trained twice."""
    if keep and not quick:
        raise typer.BadParameter("--keep goes with --quick: the full numbers are always replaced")
    runs = RUNS / ("paper-quick-runs" if quick else "paper-runs")
    made = (COMMITTED / "quick" if keep else RUNS / "paper-quick") if quick else COMMITTED / "full"
    with cache_folder(cache, False) as folder:
        sweep(TABLE_2_JOB, quick, runs, folder)
        perplexity = known_perplexities(runs, quick, folder)
        for job in JOBS[1:]:
            sweep(job, quick, runs, folder)
        for job in JOBS:
            Extract.of(load(runs / job.name)).write(made, job.name)
        perplexity.to_parquet(made / "perplexity.parquet", index=False, compression="zstd")
        write_json(made / "made_on.json", made_on())
        if not quick:
            with Display() as display:
                for scenario, place in ((BRANCHES, made / FOLDER), (NEIGHBOURS, made / NEIGHBOURS.stem)):
                    branches(scenario, cache=folder, observer=display).write(place)
                make_map(runs, made, Extract.read(made, TABLE_2_JOB.name).target()[1], folder, display)
    if not quick:
        draw_all(made)
        write_page()
    elif not keep:
        lines, agrees = compare(made, COMMITTED / "quick")
        say("\n".join(lines))
        if not agrees:
            complain("The quick numbers differ from the committed ones.", "red")
            raise typer.Exit(1)


def known_perplexities(runs: Path, quick: bool, cache: Path) -> pd.DataFrame:
    """Perplexities of the Table 2 runs; computed once, since final states may be deleted from the cache later."""
    from benchmarks.paper.perplexity import NUM_SEQUENCES, OTHER_TEXT, perplexities

    key = (*load(runs / TABLE_2_JOB.name).runs["run_hash"], NUM_SEQUENCES, OTHER_TEXT.model_dump_json(), np.__version__)
    path = runs / f"perplexity-{digest(repr(key))[:8]}.parquet"
    if not path.is_file():
        points = load_points(TABLE_2_JOB.scenario, TABLE_2_JOB.quick if quick else ())
        found = perplexities(points, SCENARIOS, runs, cache, CACHE_BYTES)
        atomic_write_table(path, found)
    return pd.read_parquet(path)


def sweep(job: Job, quick: bool, runs: Path, cache: Path) -> None:
    """Run a job's sweep; finished runs are skipped."""
    say(f"\n{job.name}: {job.scenario.relative_to(SCENARIOS.parents[1])}", "bold")
    points, options = load_points(job.scenario, job.quick if quick else ()), SweepOptions(cache_bytes=CACHE_BYTES)
    with Display() as display:
        outcome = run_sweep(points, runs, SCENARIOS, cache, observer=display, options=options)
    print_summary(outcome, known_reference(points, None))
    report_failures(outcome, "the others are finished")


if __name__ == "__main__":
    typer.run(paper)
