"""Dominant buckets of runs' time, ineffective saves, and the field to change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from sim.core.records import Bucket
from sim.core.text import format_list, format_name, format_number, format_percent
from sim.reporting.verdict import has_smaller_batches
from sim.results.storage import RunFiles
from sim.results.summary import STEADY_BUCKETS
from sim.scenario.saves import strategies_that_save_on_nodes, unused_saves
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

DOMINANT = 0.3
"""Minimum share of the time for a sentence on a bucket other than training."""

REMEDIES: Mapping[Bucket, str] = {
    "lost_work": "save more often (interval_iterations, or interval: young), or give strategies that do not save a "
    "fallback that does",
    "detection": "lower cluster.detection_seconds",
    "provisioning": "add cluster.num_spares, or lower cluster.provisioning_seconds and startup_seconds",
    "waiting_for_nodes": "add cluster.num_spares, or shorten failures.downtime: all nodes wait for a lost node",
    "state_transfer": "raise network.storage.bandwidth_mbit_per_s, or that between nodes if they send the state",
    "checkpoint_save": "save less often (interval_iterations, of the fallback too), or raise "
    "network.storage.bandwidth_mbit_per_s (copies on other nodes: the bandwidth between nodes)",
}
"""Changes that shorten a bucket."""

SLOW_SAVES = 0.2
"""Minimum share by which saves lengthen iterations for a sentence."""


def slow_saves(name: str, steady_seconds: float, iteration_seconds: float, on_nodes: bool = False) -> list[str]:
    """Return a sentence on saves that make iterations much longer. Seconds of an iteration with saves and without.

    on_nodes: whether copies are kept on other nodes, not in the store.
    """
    share = steady_seconds / iteration_seconds - 1.0 if iteration_seconds else 0.0
    if not share >= SLOW_SAVES:
        return []
    seconds = f"{format_number(steady_seconds)} s in place of {format_number(iteration_seconds)} s"
    longer = f"{format_percent(share)} longer ({seconds})"
    faster = "use faster links between nodes" if on_nodes else "raise network.storage.bandwidth_mbit_per_s"
    change = f"save less often (interval_iterations), or {faster}"
    return [f"{legend_label(name)}: saving makes an iteration {longer}; {change}."]


def incomplete_saves(name: str, started: int, durable: int, on_nodes: bool = False) -> list[str]:
    """Return a sentence if most started saves of a strategy never completed. on_nodes: as for `slow_saves`."""
    if started < 2 or durable * 2 > started:
        return []
    number = f"{durable:,} of" if durable else "none of"
    faster = "use faster links between nodes" if on_nodes else "raise network.storage.bandwidth_mbit_per_s"
    why = f"failures or the end come first; {faster}, or save a smaller state"
    return [f"{legend_label(name)}: {number} {started:,} uploads completed, {why}."]


def time_sentences(runs: pd.DataFrame) -> list[str]:
    """Name each bucket other than training that dominates the time of strategies, including stopped runs."""
    shares: dict[str, dict[Bucket, float]] = {}
    for name, own in runs[runs["kind"] != "none"].groupby("strategy", sort=False):
        total_seconds = float(own["wall_clock_seconds"].sum()) or math.inf
        shares[str(name)] = {bucket: float(own[f"{bucket}_seconds"].sum()) / total_seconds for bucket in REMEDIES}
    return dominant_buckets(shares)


def what_binds(shares: Mapping[str, Mapping[Bucket, float]], limits: Sequence[str]) -> list[str]:
    """Add sentences on buckets that dominate the time of some strategies after those on their iterations (`limits`).

    Those on a bucket that dominates the time of every strategy come first.
    """
    lines = dominant_buckets(shares)
    is_everywhere = any(all(of[bucket] >= DOMINANT for of in shares.values()) for bucket in REMEDIES)
    return [*lines, *limits] if is_everywhere else [*limits, *lines]


def dominant_buckets(shares: Mapping[str, Mapping[Bucket, float]]) -> list[str]:
    """Name each dominant bucket. shares: of each strategy's time."""
    by_bucket = {
        bucket: {name: of[bucket] for name, of in shares.items() if of[bucket] >= DOMINANT} for bucket in REMEDIES
    }
    found = {bucket: of for bucket, of in by_bucket.items() if of}
    in_order = sorted(found, key=lambda bucket: -max(found[bucket].values()))
    return [describe_bucket(bucket, found[bucket], len(found[bucket]) == len(shares)) for bucket in in_order]


def describe_bucket(bucket: Bucket, shares: Mapping[str, float], is_all: bool = False) -> str:
    """Return a sentence on the share of a bucket and its remedy. is_all: these are all strategies."""
    low, high = (100 * end(shares.values()) for end in (min, max))
    of = format_list([f"{legend_label(name)} {format_percent(share)}" for name, share in shares.items()])
    if is_all and len(shares) > 1:
        of = f"every strategy {low:.0f} to {high:.0f} %" if round(low) < round(high) else f"every strategy {low:.0f} %"
    binds = {"checkpoint_save": "the store", "state_transfer": "recovery"}.get(bucket, "churn")
    return f"Bound by {binds}: {format_name(bucket)} takes much of the time ({of}); {REMEDIES[bucket]}."


def smaller_batches(runs: pd.DataFrame) -> list[str]:
    """Return a sentence on strategies that train on smaller batches while pipelines are missing."""
    shares = {
        legend_label(str(name)): format_percent(own["batch_share"].mean())
        for name, own in runs.groupby("strategy", sort=False)
        if has_smaller_batches(own).any()
    }
    if not shares:
        return []
    of = format_list([f"{share} with {name}" for name, share in shares.items()])
    return [
        f"Only part of the batch counted (the rows of the pipelines that were present): on average {of}. As many "
        "iterations then learn from fewer tokens: compare losses, not hours to the end."
    ]


def run_sentences(scenario: Scenario, files: Sequence[RunFiles], runs: pd.DataFrame) -> list[str]:
    """Name what dominates the time of finished and stopped runs, and saves that do not help. runs: their table."""
    lines = [*smaller_batches(runs), *time_sentences(runs)]
    lines += unused_saves(scenario, float(runs["ideal_iteration_seconds"].min()))
    on_nodes = strategies_that_save_on_nodes(scenario)
    for name, own in runs.groupby("strategy", sort=False):
        kinds = Counter(kind for run in files if run.summary["strategy"] == name for kind in run.events["kind"])
        counts = kinds["checkpoint_started"], kinds["checkpoint_durable"]
        lines += incomplete_saves(str(name), *counts, name in on_nodes)
        if scenario.cluster.nodes_per_stage == 1:  # else iterations are longer while nodes are missing
            buckets = [own[f"{bucket}_seconds"].sum() for bucket in STEADY_BUCKETS]
            steady_seconds = math.fsum(buckets) / (own["num_iterations"].sum() or math.nan)
            lines += slow_saves(str(name), steady_seconds, float(own["iteration_seconds"].mean()), name in on_nodes)
    return lines
