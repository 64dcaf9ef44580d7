"""Runs to show on one clock: chosen from results folders or named, with their records and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sim.cluster.topology import first_stage_of, num_nodes
from sim.core.text import format_count, shortened, suggestion
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.series import SeriesStyle, at_point, describe_point, points_in, styles_by_kind
from sim.results.activity import Records
from sim.results.crossed_design import SEEDS
from sim.results.loss_curves import loss_over_time
from sim.results.selection import comparable, swept_fields
from sim.results.storage import COLUMNS, RunFiles, load_comparison, load_run, read_table
from sim.scenario.loading import scenario_of_run
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

MOST_TRACKS = 4
LOST = {"failure": ("stage lost", "stages lost"), "node_lost": ("node lost", "nodes lost")}


@dataclass(frozen=True)
class Track:
    """A run as it is drawn."""

    name: str
    style: SeriesStyle
    records: Records
    rows: tuple[str, ...]  # names of the rows, one for each place; empty where a row has none
    loss: pd.DataFrame  # `hours`, `loss_nats`; empty without losses
    target: float | None
    target_hours: float | None  # when it was reached, if it was

    @property
    def hours(self) -> float:
        """The time that the run takes."""
        return self.records.wall_clock_seconds / SECONDS_PER_HOUR

    def status(self, hours: float) -> str:
        """Iterations completed, losses of stages and nodes, and the time to the target until an instant, in words."""
        seconds, events = hours * SECONDS_PER_HOUR, self.records.events
        so_far = events[events["time_seconds"] <= seconds]
        lost = [format_count(int((so_far["kind"] == kind).sum()), *words) for kind, words in LOST.items()]
        words = [format_count(self._num_iterations(seconds), "iteration")]
        words += [count for count in lost if not count.startswith("0 ")]
        if self.target_hours is not None and self.target_hours <= hours:
            words.append(f"loss {self.target:g} after {self.target_hours:.1f} h")
        return ", ".join([*words, f"end after {self.hours:.1f} h"] if hours >= self.hours else words)

    def _num_iterations(self, seconds: float) -> int:
        """The number of the last iteration that is complete at an instant and not undone."""
        iterations, events = self.records.iterations, self.records.events
        ended = iterations["ended_seconds"].to_numpy()
        num_done = int(np.searchsorted(ended, seconds, side="right"))
        recovered = events[(events["kind"] == "recovered") & (events["time_seconds"] <= seconds)]
        if len(recovered) and (num_done == 0 or recovered["time_seconds"].iloc[-1] >= ended[num_done - 1]):
            return int(recovered["iteration"].iloc[-1])
        return int(iterations["iteration"].iloc[num_done - 1]) if num_done else 0


def track(name: str, style: SeriesStyle, records: Records, summary: Mapping[str, float | None]) -> Track:
    """A run with its losses, if it has any."""
    stages = range(records.num_stages - records.num_places // records.num_replicas, records.num_stages)
    rows = tuple(f"S{stage}" if replica == 0 else "" for stage in stages for replica in range(records.num_replicas))
    points = records.iterations.dropna(subset=["validation_loss"])
    hours, losses = loss_over_time(points, records.events) if len(points) else (np.array([]), np.array([]))
    loss, reached = pd.DataFrame({"hours": hours, "loss_nats": losses}), summary["target_reached_seconds"]
    target_hours = None if reached is None else reached / SECONDS_PER_HOUR
    return Track(name, style, records, rows, loss, summary["target_validation_loss"], target_hours)


def records_of(run: RunFiles, scenario: Scenario | None = None) -> Records:
    """The records of a run. scenario: that of its folder, if known."""
    scenario = scenario or scenario_of_run(run.folder / "scenario.yaml")
    cluster, num_stages = scenario.cluster, scenario.workload.num_stages
    places = num_nodes(cluster, num_stages) - cluster.num_spares
    assert places == (num_stages + 1 - first_stage_of(cluster)) * cluster.nodes_per_stage
    nodes = read_table(run.folder / "nodes.parquet", COLUMNS["nodes"])
    seconds = float(run.summary["wall_clock_seconds"])
    events = run.events if run.summary["kind"] != "none" else run.events.iloc[:0]  # it ignores what others meet
    return Records(run.iterations, events, nodes, num_stages + 1, cluster.nodes_per_stage, places, seconds)


def tracks_of(folders: Sequence[Path], strategies: Sequence[str] = ()) -> tuple[list[Track], list[str]]:
    """The runs in folders, of at most MOST_TRACKS strategies, and remarks on those that are left out.

    A folder is a run, or one of results, of which the first point and pair of seeds are taken. ValueError where there
    is no such run or strategy.
    """
    found, remarks = list[Path](), list[str]()
    for folder in folders:
        own, more = _runs_of(folder)
        found += own
        remarks += more
    runs = _of_strategies([load_run(folder) for folder in dict.fromkeys(found)], strategies)
    if len(runs) > MOST_TRACKS and (strategies or all(_is_run(folder) for folder in folders)):
        raise ValueError(f"{len(runs)} runs: name at most {MOST_TRACKS}, more cannot be read on one picture")
    if not strategies and len(runs) > MOST_TRACKS - 1:
        shown = [run for run in runs if run.summary["kind"] != "none"][: MOST_TRACKS - 1]
        others = [run.summary["strategy"] for run in runs if run not in shown]
        remarks.append(f"Left out: {', '.join(others)}; name others with --strategies.")
        runs = shown
    styles = styles_by_kind({str(run.folder): run.summary["kind"] for run in runs})
    names = [legend_label(run.summary["strategy"]) for run in runs]
    if len(set(names)) < len(names):
        names = [
            f"{name}, seeds {run.summary['failure_seed']} and {run.summary['training_seed']}"
            for name, run in zip(names, runs, strict=True)
        ]
    pairs = zip(names, runs, strict=True)
    return [track(name, styles[str(run.folder)], records_of(run), run.summary) for name, run in pairs], remarks


def _is_run(folder: Path) -> bool:
    return (folder / "summary.json").is_file()


def _runs_of(folder: Path) -> tuple[list[Path], list[str]]:
    """The runs of the first point and seeds in a folder, and a remark if there are others."""
    if _is_run(folder):
        return [folder], []
    results = comparable(load_comparison(folder))
    runs, fields = results.runs.dropna(subset=["kind"]), swept_fields(results)
    point, remarks = points_in(runs, fields)[0], []
    chosen = at_point(runs, point).drop_duplicates("strategy")
    if len(chosen) < len(runs):
        seeds = " and ".join(f"{name.replace('_', ' ')} {chosen[name].iloc[0]}" for name in SEEDS)
        where = f"{describe_point(point)}, " if point else ""
        remarks.append(f"Shown: {where}{seeds}; name run folders for others.")
    return [results.folders[name] for name in chosen["run"]], remarks


def _of_strategies(runs: list[RunFiles], wanted: Sequence[str]) -> list[RunFiles]:
    """The runs of some strategies, in their order; of all if none is named. ValueError if one has no run."""
    found = []
    for name in wanted:
        known = list(dict.fromkeys(run.summary["strategy"] for run in runs))
        own = [run for run in runs if name in (run.summary["strategy"], legend_label(run.summary["strategy"]))]
        if not own:
            raise ValueError(f"--strategies {shortened(name)}: no run of that strategy{suggestion(name, known)}")
        found += own
    return found if wanted else runs
