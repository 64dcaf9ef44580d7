"""Selection and grouping of the runs that a figure or table compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sim.results.crossed_design import SEEDS
from sim.results.storage import Results, read_plan

LOSSES_NEED = "runs with a learner (training.learner: torch) whose records are kept (of a sweep, sweep.keep: records)"


class MissingError(ValueError):
    """The results do not contain the data of a table: says what is missing, and how to get it."""


def swept_fields(results: Results) -> list[str]:
    """Return the fields that a sweep varies, columns of its runs; none for other results."""
    fields = dict.fromkeys(name for row in read_plan(results.folder) for name in row["parameters"])
    return [name for name in fields if name in results.runs]


def comparable(results: Results) -> Results:
    """Select runs of which no two agree in strategy, swept values and seeds: those that `comparison.csv` lists.

    It lists the runs of the last command, in its order. ValueError if some still agree.
    """
    runs, fields = results.runs, swept_fields(results)
    listed = results.folder / "comparison.csv"
    if not fields and listed.is_file():
        order = {run: number for number, run in enumerate(pd.read_csv(listed)["run"])}
        runs = runs.sort_values("run", key=lambda own: own.map(order), kind="stable", ignore_index=True)
        if runs.duplicated(["strategy", *SEEDS]).any():
            runs = runs[runs["run"].isin(order)]
    twice = runs[runs.duplicated(["strategy", *fields, *SEEDS], keep=False)]["run"].tolist()
    if twice:
        raise ValueError(
            f"{results.folder} holds runs that agree in strategy and seeds but not in their scenario, such as "
            f"{twice[0]} and {twice[1]}: run the scenario once more, since what the last command ran is what is "
            "compared; or make a sweep of what differs"
        )
    return replace(results, runs=runs)


def of_runs(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """Add strategy, kind, swept values and seeds to rows with a column `run`, in the order of the runs."""
    return results.runs[["run", "strategy", "kind", *swept_fields(results), *SEEDS]].merge(rows, on="run")


def by_point(rows: pd.DataFrame, fields: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield strategy, kind and swept values of each strategy at each of its points, and the rows there."""
    about = [name for name in ("strategy", "kind", *fields) if name in rows]
    for _, own in rows.groupby("strategy", sort=False):
        for _, part in own.groupby(list(fields), sort=False, dropna=False) if fields else [((), own)]:
            yield {name: part[name].iloc[0] for name in about}, part  # each alone: a row of all makes floats of ints
