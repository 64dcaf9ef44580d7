"""Time-only runs under a fit and under the trace itself: where the fit misleads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sim.failures.churn_fit import ChurnFit, rounded
from sim.failures.history import Floats, fleet_counts
from sim.failures.trace_files import TraceFiles
from sim.scenario.document import plain_data
from sim.scenario.loading import build_scenario
from sim.scenario.scenario import Scenario
from sim.simulation.run import simulate, time_only
from sim.strategies import legend_label

UPTIMES = 10
"""Length of the default job in mean uptimes of a node."""

ITERATION_SECONDS = 60.0


def default_scenario(fit: ChurnFit) -> Scenario:
    """Four stages on two nodes each, whose iterations take a minute, for some uptimes of a node."""
    seconds = min(ITERATION_SECONDS, 3600.0 * fit.mean_uptime_hours / 200.0)
    steps = int(np.clip(3600.0 * fit.mean_uptime_hours * UPTIMES / seconds, 200, 200_000))
    forward = seconds / 21.0
    return build_scenario(
        name="fit",
        workload={
            "model": "small",
            "num_stages": 4,
            "num_microbatches": 4,
            "measured": {"forward_seconds": forward, "backward_seconds": 2 * forward},
        },
        training={"learner": "none", "steps": steps, "model": {"num_stages": 4}},
        cluster={"device": "a100", "nodes_per_stage": 2, "provisioning_seconds": 300.0},
        network="single_cluster",
        strategies=[{"kind": "checkpoint", "interval": "young"}, "checkfree_plus"],
    )


def processes_compared(fit: ChurnFit, about: TraceFiles | None, num_nodes: int) -> dict[str, dict[str, Any]]:
    """Sections of `failures:` by name: the trace itself where it can be replayed, the fit, and laws of equal mean."""
    mean, found = rounded(1.0 / fit.rate.value), dict[str, dict[str, Any]]()
    downtime = fit.downtime_section()
    if fit.rows and about:
        found["trace"] = trace_section(fit, about, num_nodes)
    exponential = {"kind": "exponential", "mean_uptime_hours": mean, "scope": "node"}
    found["exponential"] = {**exponential, **({"downtime": downtime} if downtime else {})}
    weibull = next((each for each in fit.laws if each.law == "weibull"), None)
    if weibull and weibull.spread and fit.num_nodes == 1:
        shape = rounded(float(np.clip(weibull.spread.value, 0.05, 10.0)))
        found["Weibull of equal mean"] = {**found["exponential"], "kind": "weibull", "shape": shape}
    section = fit.section(num_nodes)
    if section["kind"] != "exponential":
        found["the section"] = section
    return found


def trace_section(fit: ChurnFit, about: TraceFiles, num_nodes: int) -> dict[str, Any]:
    """The trace itself: each node by itself, or all together where nodes are not named or are lost in bulk."""
    is_large = max(fleet_counts(fit.rows)[1]) >= num_nodes
    together = fit.uptimes is None or (fit.bulk is not None and fit.bulk.is_bulk and is_large)
    additions = "replay" if fit.downtime_section() and not together else "ignore"
    options = {"additions": additions, "nodes_follow": "together" if together else "each"}
    files = [{**each.model_dump(exclude_none=True), "file": str(Path(each.file).resolve())} for each in about.files]
    read: dict[str, Any] = {"format": about.format, "unit": about.unit, "polarity": about.polarity}
    if about.columns:
        read["columns"] = about.columns.model_dump(exclude_none=True)
    return {"kind": "trace", "files": files, **options, **{key: value for key, value in read.items() if value}}


def compare_fit(
    fit: ChurnFit,
    about: TraceFiles | None = None,
    scenario: Scenario | None = None,
    failure_seeds: Sequence[int] = range(5),
    part_done: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Return mean hours of every strategy that stops on failures, from time-only runs under the trace and under fits.

    about: the files of the trace, to replay it. Columns: strategy, process, hours, half_width (of the 95 %
    interval; both nan if a run did not finish), stages_lost (mean), finished (share of runs).
    """
    base = plain_data(scenario or default_scenario(fit))
    base["training"]["learner"] = "none"
    nodes = (base["workload"]["num_stages"] + 1) * base["cluster"]["nodes_per_stage"]
    rows: list[dict[str, Any]] = []
    for name, section in processes_compared(fit, about, nodes).items():
        each = build_scenario({**base, "failures": section, "sweep": None})
        for config in each.strategies:
            if config.kind == "none":
                continue
            runs = [simulate(each, config, seed, 0, time_only(each)) for seed in failure_seeds]
            part_done()
            hours = np.array([run.wall_clock_seconds for run in runs]) / 3600.0
            share = float(np.mean([not run.stopped for run in runs]))
            if share < 1.0:
                hours = hours[:0]  # a mean over the runs that finished would flatter
            rows.append(
                {
                    "strategy": legend_label(config.name),
                    "process": name,
                    "hours": float(hours.mean()) if len(hours) else np.nan,
                    "half_width": half_width(hours),
                    "stages_lost": float(np.mean([run.num_failures for run in runs])),
                    "finished": share,
                }
            )
    order = list(dict.fromkeys(str(row["strategy"]) for row in rows))
    rows.sort(key=lambda row: order.index(str(row["strategy"])))
    return pd.DataFrame(rows)


def half_width(hours: Floats) -> float:
    """Half of the 95 % interval of a mean; nan of fewer than two values."""
    if len(hours) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(hours) - 1) * hours.std(ddof=1) / len(hours) ** 0.5)
