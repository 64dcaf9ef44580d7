"""Tidy tables of recoveries: the excess loss after them and its half-life, and the cost of swapped routes.

Failure-free runs (kind `none`) of the same training seed have the same batches at a step: their noise cancels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from sim.core.units import SECONDS_PER_HOUR
from sim.results.selection import LOSSES_NEED, MissingError, by_point, of_runs, swept_fields
from sim.results.storage import Results

MOST_STEPS_BEFORE, LEAST_STEPS_BEFORE = 10, 3  # numbers of steps before a failure, for a mean loss to compare with
LEAST_SHARE = 0.5  # steps that a smaller share of recoveries reach before the next failure are not in means


def excesses(results: Results) -> pd.DataFrame:
    """Return the training loss above its mean over 10 steps before a failure, for each recovery that changed weights.

    A row for each step until the next recovery. recovery: its number in the run. baseline: `failure-free run` if both
    losses are relative to one, else `before the failure`. MissingError if no recovery changed weights.
    """
    iterations, events = results.iterations, dict(list(results.events.groupby("run", sort=False)))
    if "train_loss" not in iterations or iterations["train_loss"].isna().all():
        raise MissingError(f"there are no training losses: they need {LOSSES_NEED}")
    per_step = results.runs.set_index("run")["iterations_per_step"]
    failure_free = failure_free_losses(results, "train_loss")
    frames = []
    for run, records in iterations.groupby("run", sort=False):
        known = failure_free.get(str(run))
        losses = records.dropna(subset=["train_loss"])
        over = losses["train_loss"] - (0.0 if known is None else losses["step"].map(known))
        losses = losses.assign(over=over).dropna(subset=["over"])
        baseline = "before the failure" if known is None else "failure-free run"
        for spike in spikes_in(losses, events.get(run, results.events.iloc[:0])):
            spike["iterations_since_recovery"] *= per_step[run]
            frames.append(spike.assign(run=run, baseline=baseline))
    if not frames:
        needed = "runs with failures and a strategy that rebuilds stages, such as checkfree"
        raise MissingError(f"no recovery changed weights: it needs {needed}")
    return of_runs(results, pd.concat(frames))


def spikes(results: Results) -> pd.DataFrame:
    """Return the mean of `excesses`, and quartiles of recoveries, by strategy, swept values and iterations since.

    num_recoveries: in the mean there. Ends where half of the recoveries have met the next failure.
    """
    rows = []
    for about, own in by_point(excesses(results), swept_fields(results)):
        num_recoveries = own.groupby(["run", "recovery"]).ngroups
        for since, excess in own.groupby("iterations_since_recovery")["excess_nats"]:
            if len(excess) < LEAST_SHARE * num_recoveries:
                break
            row = about | {"baseline": own["baseline"].iloc[0], "iterations_since_recovery": since}
            row |= {"mean_excess_nats": excess.mean(), "low_excess_nats": excess.quantile(0.25)}
            rows.append(row | {"high_excess_nats": excess.quantile(0.75), "num_recoveries": len(excess)})
    return pd.DataFrame(rows)


def half_lives(results: Results) -> pd.DataFrame:
    """Return median and quartiles of the iterations from a recovery until its excess has halved from its peak.

    By strategy and swept values. num_never: recoveries not halved at the next failure or the end of training, which
    count as infinite; num_without_spike: those whose loss never exceeded its level before, and which are left out.
    """
    rows = []
    for about, own in by_point(excesses(results), swept_fields(results)):
        halvings, peaks, num_without = [], [], 0
        for _, spike in own.groupby(["run", "recovery"], sort=False):
            excess, since = spike["excess_nats"].to_numpy(), spike["iterations_since_recovery"].to_numpy()
            top = int(excess.argmax())
            if excess[top] <= 0.0:
                num_without += 1
                continue
            halved = np.flatnonzero(excess[top:] <= excess[top] / 2)
            halvings.append(since[top + halved[0]] if len(halved) else np.inf)
            peaks.append(excess[top])
        low, median, high = np.quantile(halvings, [0.25, 0.5, 0.75], method="higher") if halvings else [np.nan] * 3
        row = about | {"median_iterations": median, "low_iterations": low, "high_iterations": high}
        row |= {"median_peak_nats": np.median(peaks) if peaks else np.nan, "num_recoveries": len(peaks) + num_without}
        row |= {"num_never": int(np.isinf(halvings).sum()), "num_without_spike": num_without}
        rows.append(row | {"baseline": own["baseline"].iloc[0]})
    return pd.DataFrame(rows)


def above_failure_free(results: Results) -> pd.DataFrame:
    """Return the validation loss minus that of the failure-free run of the same training seed at the same iteration.

    By strategy and point: the mean over num_pairs runs, the lowest and the highest (empty for one run). MissingError if
    there are no such runs.
    """
    iterations, frames = results.iterations, []
    failure_free = failure_free_losses(results, "validation_loss") if "step" in iterations else {}
    for run in results.runs[results.runs["kind"] != "none"]["run"]:
        if run in failure_free:
            own = iterations[iterations["run"] == run].dropna(subset=["validation_loss"])
            own = own.drop_duplicates("iteration", keep="last")
            difference = own["validation_loss"] - own["step"].map(failure_free[run])
            frames.append(own[["run", "iteration"]].assign(difference_nats=difference))
    found = pd.concat(frames).dropna() if frames else pd.DataFrame()
    if found.empty:
        raise MissingError(
            "there are no validation losses to compare with those of a failure-free run: that needs strategy 'none' "
            "beside the others, a learner (training.learner: torch) and records (of a sweep, sweep.keep: records)"
        )
    rows = []
    for about, own in by_point(of_runs(results, found), swept_fields(results)):
        for iteration, each in own.groupby("iteration")["difference_nats"]:
            low, high = (each.min(), each.max()) if len(each) > 1 else (np.nan, np.nan)
            row = about | {"iteration": iteration, "difference_nats": each.mean()}
            rows.append(row | {"low_difference_nats": low, "high_difference_nats": high, "num_pairs": len(each)})
    return pd.DataFrame(rows)


def swapping_cost(results: Results) -> pd.DataFrame:
    """Return `above_failure_free` of runs with swapped routes that met no failure, one for each training seed.

    Swept fields of `failures` have no column: they change nothing then. MissingError if there is no such run.
    """
    runs = results.runs
    runs = runs.drop(columns=[name for name in swept_fields(results) if name.partition(".")[0] == "failures"])
    results = replace(results, runs=runs)
    calm = runs[(runs["kind"] != "none") & (runs["num_failures"] == 0)]
    calm = calm.drop_duplicates(["strategy", *swept_fields(results), "training_seed"])
    plain, records = failure_free_runs(results), results.iterations
    routes = dict(records.groupby("run", sort=False)["lineage"].first()) if "lineage" in records else {}
    swaps = [run for run in calm["run"] if run in plain and routes.get(run) != routes.get(plain[run])]
    if not swaps:
        remedy = "run scenarios/swapping.yaml, or `strategies: [none, checkfree_plus]` with `failures: {kind: never}`"
        raise MissingError(f"no failure-free run with swapped routes has one of 'none' to compare it with: {remedy}")
    chosen = runs[(runs["kind"] == "none") | runs["run"].isin(swaps)]
    return above_failure_free(replace(results, runs=chosen))


def spikes_in(losses: pd.DataFrame, events: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the excess after each recovery of one run that changed weights, which its lineage shows.

    losses: its steps in the order of time. Recoveries without a step after, or fewer than 3 before, are left out.
    """
    recoveries = events[events["kind"] == "recovered"]
    began, ended = losses["started_seconds"].to_numpy(float), losses["ended_seconds"].to_numpy(float)
    iteration, step, lineage, over = (losses[name].to_numpy() for name in ("iteration", "step", "lineage", "over"))
    ends_seconds = [*recoveries["time_seconds"].iloc[1:], np.inf] if len(recoveries) else []
    for number, (recovery, until_seconds) in enumerate(zip(recoveries.itertuples(), ends_seconds, strict=True)):
        seconds = float(recovery.time_seconds)  # type: ignore[arg-type]
        earlier = np.flatnonzero(iteration[: np.searchsorted(ended, seconds, side="right")] <= recovery.iteration)
        after = slice(np.searchsorted(began, seconds), np.searchsorted(ended, until_seconds, side="right"))
        if not len(earlier) or not len(step[after]) or lineage[after][0] == lineage[earlier[-1]]:
            continue
        same = earlier[lineage[earlier] == lineage[earlier[-1]]]
        before = same[np.unique(step[same], return_index=True)[1]][-MOST_STEPS_BEFORE:]
        if len(before) < LEAST_STEPS_BEFORE:
            continue
        about = {"recovery": number, "recovered_hours": seconds / SECONDS_PER_HOUR, "stage": recovery.stage}
        since, excess = step[after] - step[earlier[-1]], over[after] - over[before].mean()
        yield pd.DataFrame(about | {"iterations_since_recovery": since, "excess_nats": excess})


def failure_free_runs(results: Results) -> dict[str, str]:
    """Return by run the name of the failure-free run (kind `none`) with its training seed and swept values, if any."""
    fields, plain, found = swept_fields(results), results.runs[results.runs["kind"] == "none"], {}
    for row in results.runs.to_dict("records"):
        same = plain[plain["training_seed"] == row["training_seed"]]
        for name in fields:
            same = same[same[name].isna() | (same[name] == row[name])]
        if len(same):
            found[str(row["run"])] = str(same["run"].iloc[0])
    return found


def failure_free_losses(results: Results, loss: str) -> dict[str, pd.Series[float]]:
    """Return by run the losses by step of the failure-free run that it is compared with."""
    names, losses = failure_free_runs(results), {}
    for name, records in results.iterations.groupby("run", sort=False):
        if name in names.values():
            known = records.dropna(subset=[loss]).drop_duplicates("step", keep="last")
            losses[name] = known.set_index("step")[loss]
    return {run: losses[name] for run, name in names.items() if name in losses}
