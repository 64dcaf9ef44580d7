"""Where each strategy stops being the best: maps over the failure rate, with either preset of redundant computation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.paper.answers import RATE
from benchmarks.paper.jobs import JOBS
from benchmarks.paper.page_cells import percent
from sim.cli.map import map_
from sim.strategies import legend_label

CELLS = (0.01, 0.02, 0.05, 0.10, 0.13, 0.16)

NUM_KNOTS = 2
"""Real runs are at 5 and 16 %, and are Table 2's."""

SEEDS = ("sweep=null", "seeds.failures=[0, 1, 2]", "seeds.training=[0, 1]")

STRATEGIES = (
    "strategies=[{{kind: checkpoint, interval_iterations: 100}}, {{kind: redundant, preset: {preset}, "
    "label: {preset}}}, {{kind: checkfree, end_stages: copy}}, checkfree_plus]"
)

PRESETS = ("paper_text", "paper_table2")


def make_maps(runs: Path, folder: Path, target: float, cache: Path) -> None:
    """Make both maps, with real runs of Table 2's training; their tables and pictures into a folder."""
    for preset in PRESETS:
        name = f"crossings_{preset}"
        overrides = [*SEEDS, STRATEGIES.format(preset=preset), f"name={name}"]
        overrides.append(f"training.target_validation_loss={target!r}")
        axis = f"{RATE}={','.join(map(str, CELLS))}"
        map_(JOBS[0].scenario, axis, None, overrides, replicates=3, knots=NUM_KNOTS, results=runs, cache=cache)
        for kind in ("csv", "png"):
            shutil.copyfile(runs / f"{name}-map" / f"map.{kind}", folder / f"{name}.{kind}")


def crossings(folder: Path) -> Iterator[Sequence[str]]:
    """A row a rate: who comes to the target first and who may, with either preset."""
    tables = [pd.read_csv(folder / f"crossings_{preset}.csv") for preset in PRESETS]
    for rate in CELLS:
        yield percent(rate), *(first(table[table[RATE] == rate]) for table in tables)


def first(rows: pd.DataFrame) -> str:
    """Who is first in a cell, and who may be."""
    best = rows.loc[rows["is_best"], "strategy"].map(called)
    others = rows.loc[rows["may_be_first"] & ~rows["is_best"], "strategy"].map(called)
    return ", ".join(best) + (f"; too close to call: {', '.join(others)}" if len(others) else "")


def called(strategy: str) -> str:
    """A strategy's name in the page."""
    return "redundant" if strategy in PRESETS else legend_label(strategy)
