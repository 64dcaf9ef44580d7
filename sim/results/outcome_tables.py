"""Tidy tables of outcomes: hours and money to the target loss, the ledger in hours, nodes over time.

Means have 95 % intervals over replicates (`statistics`); for one run low and high are empty. num_runs:
all runs; num_reached: those with a value, which the mean is over. MissingError if there is no target, price or record.
"""

from __future__ import annotations

import pandas as pd

from sim.core.records import BUCKETS
from sim.core.units import SECONDS_PER_HOUR
from sim.results.selection import MissingError, by_point, of_runs, swept_fields
from sim.results.statistics import summary
from sim.results.storage import Results, read_about

COUNTS = ["num_runs", "num_reached", "num_failure_seeds", "num_training_seeds"]


def target_of(runs: pd.DataFrame) -> float | None:
    """Return the target loss if all runs that have one have the same."""
    targets = runs["target_validation_loss"].dropna().unique()
    return float(targets[0]) if len(targets) == 1 else None


def time_to_loss(results: Results) -> pd.DataFrame:
    """Return simulated hours to the target loss by strategy and swept values: mean_hours, low_hours, high_hours."""
    _check_target(results)
    return _means(results, "target_reached_seconds", "hours", SECONDS_PER_HOUR)


def money_to_loss(results: Results) -> pd.DataFrame:
    """Return dollars to the target loss by strategy and swept values: mean_usd, low_usd, high_usd."""
    if "target_reached_usd" not in results.runs:
        why = "these runs come from a version without the cost of reaching a target"
        raise MissingError(f"{why}: run the scenario again (--force)")
    _check_target(results)
    if results.runs["cost_usd"].isna().all():
        remedy = "give it one (cluster.device.spot_usd_per_hour), or choose a device that has (churnlab list devices)"
        raise MissingError(f"the device has no price: {remedy}")
    return _means(results, "target_reached_usd", "usd", 1.0)


def time_to_end(results: Results) -> pd.DataFrame:
    """Return simulated hours of a whole run by strategy and swept values: mean_hours, low_hours, high_hours."""
    return _means(results, "wall_clock_seconds", "hours", SECONDS_PER_HOUR)


def has_target(results: Results) -> bool:
    """Whether any run has a target loss."""
    return "target_validation_loss" in results.runs and bool(results.runs["target_validation_loss"].notna().any())


def _check_target(results: Results) -> None:
    if not has_target(results):
        raise MissingError("no run has a target loss: set training.target_validation_loss and run again")


def _means(results: Results, metric: str, unit: str, divisor: float) -> pd.DataFrame:
    fields = swept_fields(results)
    found = summary(results.runs, fields, [metric])
    kinds = results.runs.dropna(subset=["kind"]).drop_duplicates("strategy").set_index("strategy")["kind"]
    found = found.assign(kind=found["strategy"].map(kinds))
    values = found[["mean", "low", "high"]].div(divisor).add_suffix(f"_{unit}")
    return pd.concat([found[["strategy", "kind", *fields]], values, found[COUNTS]], axis=1)


def ledger_hours(results: Results) -> pd.DataFrame:
    """Return mean hours in each bucket and in all (`all_hours`), by strategy and swept values; finished runs only."""
    fields, runs = swept_fields(results), results.runs
    finished = runs[runs["outcome"] == "finished"]
    finished = finished.drop_duplicates(["strategy", *fields, "failure_seed"])  # training seeds do not change seconds
    if finished.empty:
        raise MissingError("no run has finished")
    columns = {f"{bucket}_hours": f"{bucket}_seconds" for bucket in BUCKETS} | {"all_hours": "wall_clock_seconds"}
    rows = []
    for about, own in by_point(finished, fields):
        hours = {name: own[seconds].mean() / SECONDS_PER_HOUR for name, seconds in columns.items()}
        rows.append(about | hours | {"num_runs": len(own)})
    return pd.DataFrame(rows)


def nodes_over_time(results: Results) -> pd.DataFrame:
    """Return the number of nodes present, spares included, from each of the `hours` on; the last row is a run's end."""
    counts = results.nodes
    if "num_nodes" not in counts:
        needed = "runs of this version whose records are kept (of a sweep, sweep.keep: records)"
        raise MissingError(f"there is no record of nodes: it needs {needed}: run the scenario again (--force)")
    each = results.runs.drop_duplicates(["strategy", *swept_fields(results), "failure_seed"])
    counts = counts[counts["run"].isin(each["run"])]
    ends = counts.groupby("run", sort=False)["num_nodes"].last().reset_index()
    ends["time_seconds"] = ends["run"].map(each.set_index("run")["wall_clock_seconds"])
    counts = pd.concat([counts, ends])
    counts["hours"] = counts["time_seconds"] / SECONDS_PER_HOUR
    return of_runs(results, counts[["run", "hours", "num_nodes"]]).drop(columns="training_seed")


def checkpoint_intervals(results: Results) -> pd.DataFrame:
    """Return mean hours to the end (`mean_end_hours`) and, with a target, to the target loss by checkpoint interval.

    `interval_iterations`: of strategies of kind checkpoint with a fixed interval, empty for others. MissingError if
    there are fewer than two intervals.
    """
    found = time_to_end(results).rename(columns=lambda name: name.replace("_hours", "_end_hours"))
    if has_target(results):
        target = time_to_loss(results)
        for name in ("mean", "low", "high"):
            found[f"{name}_target_hours"] = target[f"{name}_hours"]
        found["num_reached"] = target["num_reached"]
    point = ["strategy", *swept_fields(results)]
    first = results.runs.drop_duplicates(point)
    folders = [results.folders[run] for run in first["run"]]
    kept = [folder if (folder / "run.json").is_file() else None for folder in folders]
    configs = [read_about(folder)["strategy"] if folder else {"kind": None} for folder in kept]
    intervals = [one.get("interval_iterations") if one["kind"] == "checkpoint" else None for one in configs]
    found = found.merge(first[point].assign(interval_iterations=pd.array(intervals, dtype="Int64")), on=point)
    if found["interval_iterations"].nunique() < 2:
        example = "`sweep: {grid: {'strategies[checkpoint].interval_iterations': [10, 25, 100]}}`"
        where = "as scenarios/checkpoint_interval.yaml does"
        raise MissingError(f"there is only one checkpoint interval: sweep it, {example}, {where}")
    return found
