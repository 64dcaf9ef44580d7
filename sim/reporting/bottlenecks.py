"""What dominates the time of runs, and which field to change: one sentence for each bucket that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from sim.core.records import Bucket
from sim.core.text import capitalized, format_list, format_name, format_percent
from sim.strategies import legend_label

DOMINANT = 0.3
"""Share of the time from which on a bucket that is no training is worth a sentence."""

REMEDIES: Mapping[Bucket, str] = {
    "lost_work": "save more often (interval_iterations, or interval: young)",
    "detection": "lower cluster.detection_seconds",
    "provisioning": "add cluster.num_spares, or lower cluster.provisioning_seconds and startup_seconds",
    "waiting_for_nodes": "add cluster.num_spares, or shorten failures.downtime: everybody waits for a lost node",
    "state_transfer": "use faster links (network), more seldom joins, or a smaller state",
    "checkpoint_save": "save less often (interval_iterations), or in the background (blocking_share: 0)",
    "redundant_compute": "compute less in advance (preset: bamboo_lazy), or use another strategy",
}
"""What shortens a bucket."""


def time_sentences(runs: pd.DataFrame) -> list[str]:
    """Name each bucket beside training on which strategies spend most of their time; stopped runs count too."""
    shares: dict[Bucket, dict[str, float]] = {}
    for name, own in runs.groupby("strategy", sort=False):
        total_seconds = float(own["wall_clock_seconds"].sum())
        for bucket in REMEDIES:
            share = float(own[f"{bucket}_seconds"].sum()) / total_seconds if total_seconds else 0.0
            if share >= DOMINANT:
                shares.setdefault(bucket, {})[str(name)] = share
    return [describe_bucket(bucket, of) for bucket, of in shares.items()]


def describe_bucket(bucket: Bucket, shares: Mapping[str, float]) -> str:
    """Say what share of strategies' time a bucket is, and what to change."""
    parts: Sequence[str] = [f"{legend_label(name)} {format_percent(share)}" for name, share in shares.items()]
    return f"{capitalized(format_name(bucket))} takes most of the time ({format_list(parts)}): {REMEDIES[bucket]}."
