"""`python -m benchmarks.paper`: run the sweeps of scenarios/paper, keep the numbers, draw, write docs/paper.md."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from benchmarks.paper.answers import Answers
from benchmarks.paper.crossings import make_maps
from benchmarks.paper.extract import Extract
from benchmarks.paper.jobs import JOBS, SCENARIOS, Job
from benchmarks.paper.kept import KEPT, compared, made_on
from benchmarks.paper.page import write_page
from benchmarks.paper.pictures import draw_all
from models.training_state import digest
from sim.cli.options import CacheFolder, bytes_of, cache_folder, complain, say
from sim.cli.sweep import sweep
from sim.core.files import atomic_write, atomic_write_table
from sim.results.storage import load, read_json, write_json
from sim.scenario.sweep_points import load_points

RUNS = KEPT.parent

CACHE_BUDGET = "20GB"
"""The final states of all runs, and a state every 50 steps, so that what is asked of one later is not trained again."""


def paper(
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of it, compared with what is kept.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="With --quick: keep it in place of what is kept.")] = False,
    cache: CacheFolder = None,
) -> None:
    """Run all sweeps of scenarios/paper; finished runs are skipped, and what was trained is not trained again."""
    if keep and not quick:
        raise typer.BadParameter("--keep goes with --quick: all of it is always kept")
    runs = RUNS / ("paper-quick-runs" if quick else "paper-runs")
    made = (KEPT / "quick" if keep else RUNS / "paper-quick") if quick else KEPT / "full"
    with cache_folder(cache, False) as folder:
        table_2, *others = JOBS
        timed(table_2, quick, runs, folder)
        perplexity = known_perplexities(runs, quick, folder)
        for job in others:
            timed(job, quick, runs, folder)
        for job in JOBS:
            Extract.of(load(runs / job.name)).write(made, job.name)
        perplexity.to_parquet(made / "perplexity.parquet", index=False, compression="zstd")
        write_json(made / "made_on.json", made_on() | {"seconds": read_json(runs / "seconds.json")})
        if not quick:
            make_maps(runs, made, Answers(made).target(table_2.name)[1], folder)
    if not quick:
        draw_all(runs, made)
        write_page()
    elif not keep:
        lines, agrees = compared(made, KEPT / "quick")
        say("\n".join(lines))
        if not agrees:
            complain("The quick numbers are not those that are kept.", "red")
            raise typer.Exit(1)


def known_perplexities(runs: Path, quick: bool, cache: Path) -> pd.DataFrame:
    """Of the runs that there are, worked out once: their final states may be gone from the cache later."""
    from benchmarks.paper.perplexity import NUM_SEQUENCES, OTHER_TEXT, perplexities

    asked = (*load(runs / JOBS[0].name).runs["run_hash"], NUM_SEQUENCES, OTHER_TEXT.model_dump_json(), np.__version__)
    path = runs / f"perplexity-{digest(repr(asked))[:8]}.parquet"
    if not path.is_file():
        points = load_points(JOBS[0].scenario, JOBS[0].quick if quick else ())
        found = perplexities(points, SCENARIOS, runs, cache, bytes_of(CACHE_BUDGET, "cache budget"))
        atomic_write_table(path, found)
    return pd.read_parquet(path)


def timed(job: Job, quick: bool, runs: Path, cache: Path) -> None:
    """Do a job, and count the seconds spent on it so far, whenever it was interrupted."""
    began = time.monotonic()
    say(f"\n{job.name}: {job.scenario.relative_to(SCENARIOS.parents[1])}", "bold")
    path = runs / "seconds.json"
    try:
        sweep(job.scenario, list(job.quick) if quick else None, runs, cache, cache_budget=CACHE_BUDGET)
    finally:
        known = read_json(path) if path.is_file() else {}
        runs.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(known | {job.name: round(known.get(job.name, 0) + time.monotonic() - began)}))


if __name__ == "__main__":
    typer.run(paper)
