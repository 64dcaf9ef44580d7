"""Strips of a report: states of the nodes over simulated time in single runs, failures in words, and losses.

A strip has COLUMNS columns. In a column a node has one state; a shorter state, such as a recovery, fills one column.
The bytes of all strips are bounded by MOST_RUNS, MOST_ROWS and MOST_EVENTS, whatever the runs are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.core.text import format_count
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.html.data import ReportData, plain, rounded
from sim.reporting.series import SeriesStyle
from sim.reporting.tracks import Track, records_of, track
from sim.results.activity import STATES, Records, activity
from sim.results.crossed_design import SEEDS
from sim.results.storage import RunFiles, is_finished, load_run
from sim.scenario.document import ScenarioError
from sim.scenario.loading import scenario_of_run
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

COLUMNS = 1000
MOST_RUNS, MOST_ROWS, MOST_EVENTS, MOST_LOSSES = 60, 64, 300, 150
SAMPLES_OF_PROGRESS = 100
SECONDS_IN_WORDS = 5400  # longer times are in hours
LOSSES = {"failure": "lost", "node_lost": "lost a node"}
MEANINGS = {"lost work": "computing, later undone"}
COVERING = ("computing", "waiting", "lost work", "recovering", "gone")  # later ones cover earlier ones
LETTERS = "clwrg"
"""Letters of STATES; '-' after the end."""


@dataclass(frozen=True)
class Strips:
    """Runs by point and pair of seeds, as the script of the page takes them. num_left_out: runs beyond MOST_RUNS."""

    sets: list[dict[str, Any]]
    num_left_out: int

    @property
    def seeds(self) -> list[str]:
        """The pairs of seeds, in order."""
        return list(dict.fromkeys(one["seeds"] for one in self.sets))


def strips(data: ReportData) -> Strips:
    """Return the strips of the first runs: all points of a pair of seeds, then the next pair."""
    read, sets = cache(_scenario), list[dict[str, Any]]()
    chosen, num_left_out = _chosen(data)
    with data.working("strips of runs", sum(len(runs) for _, _, runs in chosen)) as run_done:
        for seeds, number, runs in chosen:
            found = []
            for name, strategy in zip(runs["run"], runs["strategy"], strict=True):
                files = _files(data.results.folders[name])
                scenario = read((files.folder / "scenario.yaml").read_bytes()) if files else None
                if files and scenario:
                    found.append({"strategy": data.strategies.index(strategy), **_strip(files, scenario)})
                run_done()
            if found:
                sets.append({"point": number, "seeds": seeds, "runs": found})
    return Strips(sets, num_left_out)


Comparison = tuple[str, int, pd.DataFrame]  # seeds in words, number of the point, runs


def _chosen(data: ReportData) -> tuple[list[Comparison], int]:
    """The first comparisons of MOST_RUNS runs with records, and the number of runs of the others."""
    found, num_shown, num_left_out = list[Comparison](), 0, 0
    for seeds, number, runs in _comparisons(data):
        kept = runs[[is_finished(data.results.folders[name], with_records=True) for name in runs["run"]]]
        if num_shown + len(runs) > MOST_RUNS and found:
            num_left_out += len(runs)
        elif len(kept):
            num_shown += len(kept)
            found.append((seeds, number, kept))
    return found, num_left_out


def _comparisons(data: ReportData) -> Iterator[Comparison]:
    """Each pair of seeds, and for each point the runs under it."""
    pairs = data.results.runs[SEEDS].drop_duplicates().itertuples(index=False, name=None)
    for failure_seed, training_seed in pairs:
        for number, point in enumerate(data.points):
            runs = point.runs
            own = runs[(runs[SEEDS[0]] == failure_seed) & (runs[SEEDS[1]] == training_seed)]
            yield f"failures {failure_seed}, training {training_seed}", number, own.drop_duplicates("strategy")


def _files(folder: Path) -> RunFiles | None:
    with suppress(ValueError, OSError):
        return load_run(folder)
    return None


def _scenario(text: bytes) -> Scenario | None:
    with suppress(ScenarioError):
        return scenario_of_run("scenario.yaml", text.decode("utf-8"))
    return None


def _strip(files: RunFiles, scenario: Scenario) -> dict[str, Any]:
    records = records_of(files, scenario)
    run = track("", SeriesStyle("", "-", "o"), records, files.summary)
    num_shown = min(MOST_ROWS, len(run.rows))
    rows = columns_of(records)[-len(run.rows) :][:num_shown]
    first_place = records.num_stages * records.num_replicas - records.num_places
    loss = run.loss.iloc[_thinned(len(run.loss), run.loss["loss_nats"].isna().to_numpy())]
    return {
        "hours": rounded(run.hours),
        "names": list(run.rows[:num_shown]),
        "rows": [encoded(row) for row in rows],
        "omitted": len(run.rows) - num_shown,
        "events": [
            [rounded(hours), stage * records.num_replicas - first_place, words]
            for hours, stage, words in failures_in_words(records, files.summary)[:MOST_EVENTS]
        ],
        "loss": [[plain(value) for value in loss[name]] for name in ("hours", "loss_nats")],
        "progress": _progress(run),
    }


def columns_of(records: Records) -> NDArray[np.int8]:
    """(places, COLUMNS) numbers of STATES, stage by stage; a state shorter than a column fills one."""
    states = np.full((records.num_stages * records.num_replicas, COLUMNS), -1, dtype=np.int8)
    found = activity(records)
    found = found.iloc[found["state"].map(COVERING.index).argsort(kind="stable")]
    ends = found[["start_seconds", "end_seconds"]].to_numpy() * (COLUMNS / records.wall_clock_seconds)
    for place, state, (start, end) in zip(found["place"], found["state"], ends, strict=True):
        first = min(int(start), COLUMNS - 1)
        states[place, first : max(first + 1, round(end))] = STATES.index(state)
    return states


def encoded(row: NDArray[np.int8]) -> str:
    """The states of a row as letters with numbers of columns: 'c120g1c879'."""
    parts = ((LETTERS[state] if state >= 0 else "-", sum(1 for _ in own)) for state, own in groupby(row.tolist()))
    return "".join(f"{letter}{number}" for letter, number in parts)


def failures_in_words(records: Records, summary: dict[str, Any]) -> list[tuple[float, int, str]]:
    """Hours, stage and description of each failure: the loss, the duration of the recovery, and the undone work."""
    columns = ("time_seconds", "kind", "stage", "iteration", "detail")
    events = list(zip(*(records.events[name].tolist() for name in columns), strict=True))
    found = []
    for number, (seconds, loss, stage, iteration, _) in enumerate(events):
        if loss in LOSSES:
            hours = seconds / SECONDS_PER_HOUR
            words = f"S{int(stage)} {LOSSES[loss]} at {hours:.2f} h, in iteration {iteration + 1}"
            found.append((hours, int(stage), words + _aftermath(events[number + 1 :], seconds, summary)))
    return found


def _aftermath(later: Sequence[tuple[Any, ...]], lost_seconds: float, summary: dict[str, Any]) -> str:
    """Consequences of a loss: the recovery, its duration, and the work that it undid. later: the events after it."""
    undone = ""
    for seconds, kind, _, _, detail in later:
        if kind == "rolled_back":
            undone = undone or f", back {detail}"
        elif kind in ("recovered", "regrouped"):
            took = seconds - lost_seconds
            after = f"{took:.0f} s" if took < SECONDS_IN_WORDS else f"{took / SECONDS_PER_HOUR:.1f} h"
            is_recovery = kind == "recovered" and detail
            how = f"recovered by {legend_label(detail)}" if is_recovery else "training continued"
            return f"; {how} after {after}{undone}"
    return "; the run stopped" if summary.get("stopped_because") else ""


def _thinned(length: int, is_gap: NDArray[np.bool_]) -> NDArray[np.int64]:
    """At most about MOST_LOSSES rows, evenly, with the gaps of rollbacks."""
    chosen = np.linspace(0, length - 1, min(length, MOST_LOSSES)).round().astype(np.int64)
    gaps = np.flatnonzero(is_gap)[:MOST_LOSSES]
    found = np.unique(np.concatenate([chosen, gaps - 1, gaps, gaps + 1]).astype(np.int64))
    return found[(found >= 0) & (found < length)]


def _progress(run: Track) -> list[int]:
    """Completed iterations at equal steps of time."""
    iterations = run.records.iterations
    ended, numbers = iterations["ended_seconds"].to_numpy(float), iterations["iteration"].to_numpy()
    at = np.linspace(0, run.records.wall_clock_seconds, SAMPLES_OF_PROGRESS + 1)
    places = np.searchsorted(ended, at, side="right")
    return [int(numbers[place - 1]) if place else 0 for place in places]


def note_on(found: Strips) -> str:
    """Caption: what is shown, and what is left out."""
    text = "Single runs. Rows: nodes by stage. Crosses above a strip: losses of stages or nodes. "
    text += "States shorter than a pixel fill one."
    if any(run["omitted"] for one in found.sets for run in one["runs"]):
        text += f" The first {MOST_ROWS} nodes."
    if found.num_left_out:
        text += f" {format_count(found.num_left_out, 'run')} with further seeds or points are left out."
    return text
