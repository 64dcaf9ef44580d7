"""Tidy tables of loss curves, in simulated hours and nats per token of the proxy, and of the failures on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.core.units import SECONDS_PER_HOUR
from sim.results.selection import LOSSES_NEED, MissingError, by_point, of_runs, swept_fields
from sim.results.storage import Results

Against = Literal["time", "iteration"]
COLUMN: dict[Against, str] = {"time": "hours", "iteration": "iteration"}
NUM_INSTANTS = 400  # number of instants at which the losses of several runs are averaged over time
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def run_curves(results: Results, against: Against, run_done: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """Return each run's validation loss against simulated time (`hours`) or `iteration`; MissingError without losses.

    Against time a rollback is a row without loss, followed by one with the restored loss; an iteration has its last.
    run_done: called after each run.
    """
    events = dict(list(results.events.groupby("run", sort=False)))
    frames = []
    for run, records in results.iterations.groupby("run", sort=False) if "iteration" in results.iterations else ():
        points = records.dropna(subset=["validation_loss"])
        if against == "time":
            x, losses = loss_over_time(points, events.get(run, results.events.iloc[:0]))
        else:
            points = points.drop_duplicates("iteration", keep="last").sort_values("iteration")
            x, losses = points["iteration"].to_numpy(), points["validation_loss"].to_numpy()
        frames.append(pd.DataFrame({"run": run, COLUMN[against]: x, "loss_nats": losses}))
        run_done()
    found = pd.concat(frames) if frames else pd.DataFrame({"loss_nats": []})
    if found["loss_nats"].isna().all():
        raise MissingError(f"there are no validation losses: they need {LOSSES_NEED}")
    return of_runs(results, found)


def loss_curves(results: Results, against: Against, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the validation loss by strategy and swept values: the mean over runs, the lowest and the highest run.

    A single run is returned as it is, without a range. num_runs: the finished ones, or all if none has finished. Rows
    start where the last of them is first validated and end where the first ends. runs: `run_curves`, if known.
    """
    runs = run_curves(results, against) if runs is None else runs
    fields, column = swept_fields(results), COLUMN[against]
    outcomes = results.runs.set_index("run")["outcome"]
    frames = []
    for about, rows in by_point(runs, fields):
        finished = rows[rows["run"].map(outcomes) == "finished"]
        curves = [one for _, one in (rows if finished.empty else finished).groupby("run", sort=False)]
        if against == "time":
            x, losses = over_time([(one["hours"].to_numpy(float), one["loss_nats"].to_numpy(float)) for one in curves])
        else:  # the iterations at which all runs were validated
            at = [one.set_index("iteration")["loss_nats"] for one in curves]
            x = np.array(sorted(set.intersection(*(set(one.index) for one in at))), dtype=int)
            losses = np.array([one.loc[list(x)] for one in at])
        row = about | {column: x, "loss_nats": losses.mean(axis=0), "low_loss_nats": np.nan, "high_loss_nats": np.nan}
        if len(curves) > 1:
            row |= {"low_loss_nats": losses.min(axis=0), "high_loss_nats": losses.max(axis=0)}
        frames.append(pd.DataFrame(row | {"num_runs": len(curves)}))
    return pd.concat(frames, ignore_index=True)


def failure_marks(results: Results, against: Against, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return failures of stages in each run that does not ignore them, with the loss, from the first validation on."""
    runs = run_curves(results, against) if runs is None else runs
    curves, events = dict(list(runs.dropna(subset=["loss_nats"]).groupby("run"))), results.events
    failures = events[events["kind"] == "failure"]
    x = failures["time_seconds"] / SECONDS_PER_HOUR if against == "time" else failures["iteration"].astype(float)
    marks = pd.DataFrame({"run": failures["run"], COLUMN[against]: x, "stage": failures["stage"]})
    frames = [marks.iloc[:0].assign(loss_nats=[])]
    for run, own in marks.groupby("run", sort=False):
        if run in curves and curves[run]["kind"].iloc[0] != "none":
            at, losses = (curves[run][name].to_numpy(float) for name in (COLUMN[against], "loss_nats"))
            own = own[own[COLUMN[against]] >= at[0]]
            frames.append(own.assign(loss_nats=np.interp(own[COLUMN[against]], at, losses)))
    return of_runs(results, pd.concat(frames))


def loss_over_time(points: pd.DataFrame, events: pd.DataFrame) -> Curve:
    """Return hours and losses in the order of time, at every rollback with a gap and the restored loss.

    That is interpolated between validations around its iteration before the rollback, or that of the last one.
    """
    ended, losses = points["ended_seconds"].to_numpy(float), points["validation_loss"].to_numpy(float)
    iterations = points["iteration"].to_numpy()
    recovered = events[events["kind"] == "recovered"].drop_duplicates("time_seconds")
    back_to = dict(zip(recovered["time_seconds"], recovered["iteration"], strict=True))
    curve = list(zip(ended.tolist(), losses.tolist(), strict=True))
    for seconds in events.loc[events["kind"] == "rolled_back", "time_seconds"].tolist():
        num_before = np.searchsorted(ended, seconds, side="right")
        is_older = iterations[:num_before] <= back_to[seconds]
        older, later = np.flatnonzero(is_older)[-1:], np.flatnonzero(~is_older)
        curve.append((seconds, np.nan))
        if older.size:
            around = [*older, *later[iterations[later].argsort(kind="stable")][:1]]
            curve.append((seconds, float(np.interp(back_to[seconds], iterations[around], losses[around]))))
    curve.sort(key=lambda point: point[0])  # stable: the gap stays before the restored loss
    hours = np.array([seconds for seconds, _ in curve], dtype=np.float64) / SECONDS_PER_HOUR
    return hours, np.array([loss for _, loss in curve], dtype=np.float64)


def over_time(curves: Sequence[Curve]) -> Curve:
    """Return hours, and the losses of runs then, a row for each run; for a single run its own, with gaps.

    Between validations losses are interpolated; until a rollback the last loss holds, and after it the restored one.
    """
    if len(curves) == 1:
        return curves[0][0], curves[0][1][None]
    known = [(x, losses) for x, losses in curves if len(x)]
    first, last = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    at = np.linspace(first, last, NUM_INSTANTS) if last > first else np.array([first] if last == first else [])
    return at, np.array([interpolated(x, losses, at) for x, losses in known])


def interpolated(x: NDArray[np.float64], losses: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the losses of a curve with gaps at some instants."""
    gaps = np.isnan(losses)
    held = pd.Series(losses).ffill().to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], gaps[:-1]]))  # of the parts that gaps separate
    part = np.searchsorted(x[starts], at, side="right") - 1
    found = np.full(len(at), np.nan)
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(x)], strict=True)):
        inside = part == number
        found[inside] = np.interp(at[inside], x[start:end], held[start:end])
    return found
