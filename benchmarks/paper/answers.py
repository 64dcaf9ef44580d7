"""The numbers of docs/paper.md, as tidy tables, from what results/paper keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.paper.extract import Extract
from benchmarks.paper.learning import final_losses, iterations_behind, smoothed, target_iteration, target_loss
from benchmarks.paper.published import BYTES_PER_TOKEN, FAILURE_FREE_ITERATIONS, RATES, TABLE_3, row_of
from sim.core.units import SECONDS_PER_HOUR
from sim.results.statistics import summary

RATE = "failures.rate_per_hour"

LAYERS = "training.model.layers_per_stage"

INTERVAL = "strategies[checkpoint].interval_iterations"

HIGHEST = RATES[-1]

EXECUTED, SECONDS = "target_reached_executed", "target_reached_seconds"

LAYERS_OF_TABLE_2 = 4

REBUILDING = ("checkfree", "checkfree_plus")

TREND_AT = (200, 500, 1000, 1500, 2500, 4000)

TREND_VALIDATIONS = 5
"""Validations in a running mean, where small differences are read."""

FINAL = "final_loss_nats"


class Answers:
    """Numbers of one folder of extracts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.extract = cache(lambda name: Extract.read(folder, name))
        self.smooth = cache(self._smooth)
        self.against = cache(self._against)

    def target(self, job: str) -> tuple[int, float]:
        """A job's target by the rule: the iteration whose failure-free loss it is, and the loss."""
        losses = self.extract(job).losses
        return (at := target_iteration(losses)), target_loss(losses, at)

    def _against(self, job: str, metric: str, reference: str) -> pd.DataFrame:
        """A metric's means by strategy and point, and `ratio`, `low_ratio`, `high_ratio` to a strategy's."""
        found = self.extract(job)
        return ratios(found.to_target(), found.fields, metric, reference)

    def paper_ratio(self, strategy: str, rate: float) -> float:
        """The paper's iterations to its loss, × failure-free."""
        return row_of(strategy, rate).iterations / FAILURE_FREE_ITERATIONS

    def _smooth(self, job: str) -> Extract:
        """A job's extract with running means of TREND_VALIDATIONS in place of its validations."""
        found = self.extract(job)
        return Extract(found.runs, smoothed(found.losses, TREND_VALIDATIONS), found.fields)

    @cached_property
    def trend(self) -> pd.DataFrame:
        """Iterations to a loss × failure-free at the highest rate, by depth, strategy and the loss's iteration `at`.

        Read from running means of TREND_VALIDATIONS. Left out: losses that not every run came to.
        """
        depth = self.smooth("depth")
        parts = {int(layers): depth.at({LAYERS: layers}) for layers in depth.runs[LAYERS].unique()}
        parts[LAYERS_OF_TABLE_2] = self.smooth("table2").at({RATE: HIGHEST})
        frames = []
        for layers, part in parts.items():
            known = set(part.losses.loc[part.losses["kind"] == "none", "iteration"])
            for at in sorted(known.intersection(TREND_AT)):
                rows = ratios(part.to_target(at), (), EXECUTED, "none")
                whole = rows["strategy"].isin(REBUILDING) & (rows["num_reached"] == rows["num_runs"])
                frames.append(rows[whole].assign(layers_per_stage=layers, at=at))
        return pd.concat(frames, ignore_index=True)

    def final(self, job: str) -> pd.DataFrame:
        """A job's runs with FINAL: the mean of their last validations, in nats per token."""
        found = self.extract(job)
        return found.runs.assign(**{FINAL: found.runs["run"].map(final_losses(found.losses))})

    def excess(self, job: str) -> pd.DataFrame:
        """Loss at the end by strategy and point, and its difference from the failure-free run's, in nats per token."""
        return summary(self.final(job), self.extract(job).fields, [FINAL], "none")

    def behind(self, job: str) -> pd.DataFrame:
        """How many iterations runs in which stages were lost are behind the same strategy's in which none was.

        By strategy, `stages` lost and `at_seconds`: mean, low and high over training seeds, num_runs; `hours` that
        training ended later; iterations that were `repeated`. Rows in which nothing struck are left out.
        """
        found = self.extract(job)
        (field,) = found.fields
        losses = dict(list(found.losses.groupby("run", sort=False)))
        runs = found.runs.to_dict("records")
        plain = {(run["strategy"], run["training_seed"]): run for run in runs if run[field] == "[]"}
        rows = []
        for run in runs:
            if run["kind"] == "none" or run["num_failures"] == 0:
                continue
            reference = plain[run["strategy"], run["training_seed"]]
            (loss,) = json.loads(run[field])
            more_seconds = run["wall_clock_seconds"] - reference["wall_clock_seconds"]
            rows.append(
                {
                    "strategy": run["strategy"],
                    "stages": ", ".join(map(str, loss["stages"])),
                    "at_seconds": loss["at_seconds"],
                    "behind": iterations_behind(losses[run["run"]], losses[reference["run"]]),
                    "hours": more_seconds / SECONDS_PER_HOUR,
                    "repeated": run["num_iterations_run"] - run["num_iterations"],
                }
            )
        by = ["strategy", "stages", "at_seconds"]
        grouped = pd.DataFrame(rows).groupby(by, sort=False)
        return grouped.agg(
            mean=("behind", "mean"),
            low=("behind", "min"),
            high=("behind", "max"),
            hours=("hours", "mean"),
            repeated=("repeated", "mean"),
            num_runs=("behind", "size"),
        ).reset_index()

    def perplexity_runs(self) -> pd.DataFrame:
        """Loss of final states on two texts, in nats per byte, and perplexity."""
        found = pd.read_parquet(self.folder / "perplexity.parquet")
        return found.assign(perplexity=np.exp(found["loss_nats"]))

    def perplexity(self, metric: str) -> pd.DataFrame:
        """Mean loss_nats or perplexity of final states: a row a text, a column a strategy."""
        return self.perplexity_runs().groupby(["text", "strategy"], sort=False)[metric].mean().unstack(sort=False)

    def extra_nats(self, strategy: str) -> list[float]:
        """Mean nats per byte, by text, that a strategy's final states lose more than the failure-free ones."""
        means = self.perplexity("loss_nats")
        return [float(value) for value in means[strategy] - means["none"]]


def paper_extra_nats(strategy: str) -> list[float]:
    """The same in the paper, whose perplexities are per token: by BYTES_PER_TOKEN."""
    place = REBUILDING.index(strategy) + 1
    return [math.log(row[place] / row[0]) / BYTES_PER_TOKEN for row in TABLE_3.values()]


def ratios(runs: pd.DataFrame, fields: Sequence[str], metric: str, reference: str) -> pd.DataFrame:
    """Means of a metric and their ratios to a strategy's, with 95 % intervals over both kinds of seeds."""
    found = summary(runs, fields, [metric], reference)
    shifted = {"ratio": "relative_difference", "low_ratio": "relative_low", "high_ratio": "relative_high"}
    return found.assign(**{name: found[column] + 1 for name, column in shifted.items()})
