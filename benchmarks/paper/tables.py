"""The numbers of docs/paper.md as tables, from what results/paper keeps, and the cells in which they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.paper.extract import Extract, final_losses
from benchmarks.paper.jobs import SCENARIOS, TABLE_2_JOB
from benchmarks.paper.published import BYTES_PER_TOKEN, HIGHEST, TABLE_3
from models.spec import EMBEDDING_STAGE
from sim.core.units import SECONDS_PER_HOUR
from sim.experiments.overheads import overheads, recovers
from sim.reporting.series import at_point
from sim.results.statistics import summary
from sim.scenario.loading import load_scenario
from sim.simulation.run import build_site
from sim.strategies import legend_label, strategy_class

RATE = "failures.rate_per_hour"

LAYERS = "training.model.layers_per_stage"

INTERVAL = "strategies[checkpoint].interval_iterations"

EXECUTED, SECONDS = "target_reached_executed", "target_reached_seconds"

FINAL = "final_loss_nats"

LAYERS_OF_TABLE_2 = 4

REBUILDING = ("checkfree", "checkfree_plus")

TREND_AT = (200, 500, 1000, 1500, 2500, 4000)

TREND_VALIDATIONS = 5
"""Validations in a running mean, where small differences are read."""

Found = dict[str, Any]
"""A row of one of these tables."""


class StudyTables:
    """Tables from one folder of extracts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.extract = cache(lambda job: Extract.read(folder, job))
        self.smooth = cache(lambda job: self.extract(job).smoothed(TREND_VALIDATIONS))
        self.against = cache(self._against)

    def _against(self, job: str, metric: str, reference: str) -> pd.DataFrame:
        """A metric's means by strategy and point, and `ratio`, `low_ratio`, `high_ratio` to a reference strategy."""
        found = self.extract(job)
        return ratios(found.to_target(), found.fields, metric, reference)

    @cached_property
    def trend(self) -> pd.DataFrame:
        """Iterations to a loss × failure-free at the highest rate, by depth, strategy and the loss's iteration `at`.

        Read from running means of TREND_VALIDATIONS. Losses that not every run reached are left out.
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

    def iteration_seconds(self, strategy: str) -> float:
        """Seconds of an iteration in Table 2."""
        return float(only(self.extract("table2").runs, strategy, HIGHEST)["iteration_seconds"])

    def inner_recovery_seconds(self) -> float:
        """Mean recovery time of CheckFree where the end stages do not fail."""
        runs = self.extract("end_stages").at({"strategy": "checkfree", "failures.immune_stages": "[0, 1, 6]"}).runs
        return float(runs["mean_recovery_seconds"].mean())

    def perplexity_runs(self) -> pd.DataFrame:
        """Loss of final states on two texts, in nats per byte, and perplexity."""
        found = pd.read_parquet(self.folder / "perplexity.parquet")
        return found.assign(perplexity=np.exp(found["loss_nats"]))

    def perplexity(self, metric: str) -> pd.DataFrame:
        """Mean loss_nats or perplexity of final states: a row a text, a column a strategy."""
        return self.perplexity_runs().groupby(["text", "strategy"], sort=False)[metric].mean().unstack(sort=False)

    def extra_nats(self, strategy: str) -> list[float]:
        """Mean loss of a strategy's final states above the failure-free ones, by text, in nats per byte."""
        means = self.perplexity("loss_nats")
        return [float(value) for value in means[strategy] - means["none"]]


def ratios(runs: pd.DataFrame, fields: Sequence[str], metric: str, reference: str) -> pd.DataFrame:
    """Means of a metric and their ratios to a strategy's, with 95 % intervals over both kinds of seeds."""
    found = summary(runs, fields, [metric], reference)
    shifted = {"ratio": "relative_difference", "low_ratio": "relative_low", "high_ratio": "relative_high"}
    return found.assign(**{name: found[column] + 1 for name, column in shifted.items()})


def paper_extra_nats(strategy: str) -> list[float]:
    """The paper's loss above the failure-free one, by text, in nats per byte: its perplexities are per token."""
    place = REBUILDING.index(strategy) + 1
    return [math.log(row[place] / row[0]) / BYTES_PER_TOKEN for row in TABLE_3.values()]


@dataclass(frozen=True)
class CostRow:
    """A strategy in Table 1: bytes as multiples of the model, computing as a share of plain training's, recoveries."""

    strategy: str
    device_models: float
    stored_models: float
    sent_models: float
    passes_share: float
    computed_share: float
    recovers: Mapping[str, bool]

    @property
    def models(self) -> tuple[float, float, float]:
        """Memory on devices, storage, and bytes sent in an iteration."""
        return self.device_models, self.stored_models, self.sent_models


def costs() -> Iterator[CostRow]:
    """Table 1: overhead of each strategy without failures, by experiment. passes: forward and backward alone."""
    scenario = load_scenario(TABLE_2_JOB.scenario)
    of_workload = build_site(scenario).costs
    stages = range(EMBEDDING_STAGE, scenario.workload.num_stages + 1)
    model = math.fsum(of_workload.checkpoint_bytes(stage) for stage in stages)
    workload = scenario.workload.model_copy(update={"optimizer_seconds": 0.0})
    without_optimizer = overheads(scenario.model_copy(update={"workload": workload}))
    for config, found, bare in zip(scenario.strategies, overheads(scenario), without_optimizer, strict=True):
        if strategy_class(config.kind).stops_on_failures:
            sizes = (found.device_bytes / model, found.stored_bytes / model, found.sent_bytes / model)
            shares = (bare.computed_share, found.computed_share)
            yield CostRow(config.name, *sizes, *shares, recovers(scenario, config))


NETWORKS = {
    "nodes in turn over seven regions": (),
    "each stage in one region": ("cluster.placement=stage_per_region",),
    "all nodes of two regions share a connection's rate": ("network.sharing=region_pair",),
}
"""Overrides of the throughput test, by what they mean."""


@cache
def seconds_by_network() -> dict[str, tuple[float, float]]:
    """Iteration times without a strategy and with CheckFree+ in the throughput test, by placement and sharing."""
    found = {}
    for name, overrides in NETWORKS.items():
        scenario = load_scenario(SCENARIOS.parent / "paper_throughput.yaml", overrides)
        chosen = [config for config in scenario.strategies if config.kind in ("none", "checkfree_plus")]
        own = overheads(scenario.model_copy(update={"strategies": tuple(chosen)}))
        plain, plus = (one.undisturbed_seconds for one in own)
        found[name] = plain, plus
    return found


# ---- cells --------------------------------------------------------------------------------------------

OWN_NAMES = {
    "checkfree_rolls_back": "CheckFree, rolls back",
    "redundant": "redundant computation",
    "released_head": "CheckFree, released head",
}

NO_VALUE = "–"


def records(rows: pd.DataFrame) -> list[Found]:
    """The rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def only(rows: pd.DataFrame, strategy: str, rate: float) -> Found:
    """The first row of a strategy at a rate."""
    return row_at(rows, {"strategy": strategy, RATE: rate})


def row_at(rows: pd.DataFrame, point: Mapping[str, Any]) -> Found:
    """The first row with these values."""
    return records(at_point(rows, point))[0]


def ratio(row: Found) -> str:
    """A ratio with its interval, and the number of runs with a value if some have none."""
    if not row["num_reached"]:
        return f"{NO_VALUE}{of_runs(row)}"
    found = f"{row['ratio']:.2f}"
    if not math.isnan(row["low_ratio"]) and row["low_ratio"] != row["high_ratio"]:
        found += f" ({row['low_ratio']:.2f} to {row['high_ratio']:.2f})"
    return found + of_runs(row)


def hours_of(row: Found) -> str:
    """Hours with their interval."""
    if not row["num_reached"]:
        return f"{NO_VALUE}{of_runs(row)}"
    mean, low, high = (f"{max(row[name], 0.0) / SECONDS_PER_HOUR:.1f}" for name in ("mean", "low", "high"))
    return mean + (f" ({low} to {high})" if low != high else "") + of_runs(row)


def difference(row: Found) -> str:
    """A difference of losses with its interval."""
    if math.isnan(row["difference"]):
        return f"{NO_VALUE}{of_runs(row)}"
    found = f"{row['difference']:+.3f}"
    if not math.isnan(row["difference_low"]):
        found += f" ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
    return found + of_runs(row)


def of_runs(row: Found) -> str:
    """The number of runs with a value, if some have none."""
    return "" if row["num_reached"] == row["num_runs"] else f", {row['num_reached']} of {row['num_runs']} runs"


def percent(rate: float) -> str:
    """A rate in per cent."""
    return f"{100 * rate:.0f} %"


def share(value: float) -> str:
    """A share added, in per cent; exactly 0 where nothing is added."""
    return f"{value:+.0%}" if abs(value) > 1e-9 else "0"


def name_of(strategy: str) -> str:
    """A strategy's name in the page."""
    return OWN_NAMES.get(strategy) or legend_label(strategy).replace("_", " ")
