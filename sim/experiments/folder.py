"""The results folder of a sweep: its files besides the runs' folders, its progress and its status.

`sweep.json`: the list of runs; `progress.json`: the progress of the sweep, or its end; `failed/<run>.json`: errors of
runs; `runs.parquet`: a row per run. All are written under temporary names and then renamed. A process that does a
sweep holds a lock on `.lock`, which ends with the process.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout

from sim.core.files import atomic_write, atomic_write_table, remove_partial_files
from sim.experiments.plan import SweepRun, swept_fields
from sim.results import storage as results
from sim.results.storage import SWEEP, TABLE, refusals_explained
from sim.results.summary import flat
from sim.scenario.scenario import SeedsConfig

PROGRESS, STATISTICS, FAILED, LOCK = "progress.json", "statistics.csv", "failed", ".lock"

REPORTED = ("state", "error", "process", "host", "began", "updated", "num_steps_trained", "num_steps_left", "under_way")
"""Keys of `progress.json` that `churnlab status` shows."""

LOCK_SECONDS = 0.3

Purpose = Literal["sweep", "map", "run"]

End = Literal["under way", "finished", "interrupted", "stopped"]


class RunProgress(NamedTuple):
    """The steps that a run needs, those of them that are done, and its state in a word."""

    title: str
    num_steps: int
    num_steps_done: int
    state: str


@dataclass(frozen=True)
class SweepProgress:
    """Counts of runs, without those that were finished before, and of steps. runs: of each, if there are few."""

    num_runs: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_surveyed: int = 0
    num_steps_trained: int = 0
    num_steps_left: int = 0
    under_way: tuple[str, ...] = ()
    runs: tuple[RunProgress, ...] = ()


class SweepFolder:
    """The results folder of a sweep, for the process that does it. OSError with a remedy if writing fails.

    made_for: a sweep, whose points have all strategies; the single runs that a map rests on; or "run": no lock and no
    files that describe a sweep.
    """

    def __init__(self, folder: Path, made_for: Purpose = "sweep") -> None:
        self.folder, self.made_for = folder, made_for
        self._began = now()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and lock it. ValueError if another process runs a sweep in it."""
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.made_for == "run":  # equal runs of several processes are written whole, one after another
            yield
            return
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=LOCK_SECONDS)  # longer than `is_locked` takes
        except Timeout:
            raise ValueError(
                f"another process runs a sweep in {self.folder}: wait for it (churnlab status {self.folder}), or "
                "name another folder with --results"
            ) from None
        except (OSError, NotImplementedError):
            pass  # a file system without locks
        try:
            yield
        finally:
            lock.release()

    def begin(self, runs: Sequence[SweepRun], to_do: Sequence[SweepRun]) -> None:
        """Write the list of runs; delete partial files, results of runs to be done, and failures of other runs."""
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            stale = {f"{run.name}.json" for run in to_do}
            if self.made_for != "run":
                rows = [
                    {"run": run.name, "run_hash": run.key, "point": run.point, **run.identity}
                    | {"parameters": run.parameters, "keeps_records": run.keeps_records}
                    for run in runs
                ]
                content = {"format": results.SWEEP_FORMAT, "made_for": self.made_for, "runs": rows}
                atomic_write(self.folder / SWEEP, as_json(content))
                (self.folder / STATISTICS).unlink(missing_ok=True)
                stale |= {path.name for path in (self.folder / FAILED).glob("*.json")} - {
                    f"{run.name}.json" for run in runs
                }
            remove_partial_files(self.folder)
            for run in to_do:
                if run.is_finished:
                    results.discard_run(run.folder)
            for name in stale:
                (self.folder / FAILED / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or not there
                (self.folder / FAILED).rmdir()

    def progressed(self, progress: SweepProgress, end: End = "under way", error: str = "") -> None:
        """Write the progress of a sweep. Where the disk refuses that, nothing is lost."""
        if self.made_for == "run":
            return
        content = {
            "state": end,
            "error": error,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "began": self._began,
            "updated": now(),
            **{name: value for name, value in asdict(progress).items() if name != "runs"},
        }
        with suppress(OSError):
            atomic_write(self.folder / PROGRESS, as_json(content))

    def failed(self, run: SweepRun, error: str, details: str) -> None:
        """Write the error of a run."""
        content = {"run": run.name, "error": error, "details": details, "when": now(), **run.identity}
        with refusals_explained(self.folder):
            (self.folder / FAILED).mkdir(exist_ok=True)
            atomic_write(self.folder / FAILED / f"{run.name}.json", as_json(content))

    def added_replicates(self, seeds: Sequence[SeedsConfig]) -> dict[int, int]:
        """The number of replicates that an earlier sweep of this folder has added to points; seeds: their own.

        Runs of a sweep with another design of seeds are not among them.
        """
        added: dict[int, int] = {}
        for row in results.read_plan(self.folder) if self.made_for != "run" else ():
            if (number := row["point"]) >= len(seeds):
                continue
            own = seeds[number]
            beyond, beyond_training = row["failure_seed"] - max(own.failures), row["training_seed"] - max(own.training)
            if beyond > 0 and (beyond == beyond_training if own.are_pairs else row["training_seed"] in own.training):
                added[number] = max(added.get(number, 0), beyond)
        return added

    def write_table(self, runs: Sequence[SweepRun]) -> pd.DataFrame:
        """Return `runs_table`; write it as `runs.parquet`."""
        with refusals_explained(self.folder):
            table = runs_table(self.folder, runs)
            if self.made_for != "run":
                atomic_write_table(self.folder / TABLE, table)
        return table


def runs_table(folder: Path, runs: Sequence[SweepRun]) -> pd.DataFrame:
    """A row per finished or failed run: identity, swept values (empty if of other strategies), outcomes, versions."""
    rows: list[dict[str, Any]] = []
    done = []
    for run in runs:
        row = {"run": run.name, "run_hash": run.key, "point": run.point, **run.identity}
        failure = folder / FAILED / f"{run.name}.json"
        if run.is_finished:
            versions = results.read_about(run.folder)["versions"]
            row |= {"error": None} | flat(results.read_summary(run.folder))
            rows.append(row | {f"version_{name}": text for name, text in versions.items()})
        elif failure.is_file():
            rows.append(row | {"outcome": "failed", "error": readable(failure).get("error", "unknown")})
        else:
            continue
        done.append(run.parameters)
    frame = pd.DataFrame(rows)
    swept = {name: column_of([parameters.get(name) for parameters in done]) for name in swept_fields(runs)}
    outcomes_alone = frame.drop(columns=[name for name in swept if name in frame])  # a summary may have them too
    return pd.concat([outcomes_alone, pd.DataFrame(swept, index=frame.index)], axis=1)


def column_of(values: Sequence[Any]) -> Any:
    """Values of a column: numbers and texts as they are; as texts, JSON, where they are of several kinds."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pd.array(values, dtype="Int64")  # whole numbers stay such where some are missing
    if kinds <= {int, float} or kinds in ({str}, {bool}):
        return list(values)
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


@dataclass(frozen=True)
class Status:
    """The status of a sweep: names of its runs by state, whether a process does it now, and `progress.json`."""

    folder: Path
    finished: tuple[str, ...]
    failed: dict[str, str]
    left: tuple[str, ...]
    is_running: bool
    progress: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """Counts, tasks under way, the end of the sweep; then failed runs with their errors."""
        num_runs = len(self.finished) + len(self.failed) + len(self.left)
        lines = [
            f"{self.folder}: {num_runs:,} runs: {len(self.finished):,} finished, {len(self.failed):,} failed, "
            f"{len(self.left):,} left"
        ]
        if progress := self.progress:
            worker = f"process {progress['process']} on {progress['host']}"
            steps = f"{progress['num_steps_trained']:,} steps trained, {progress['num_steps_left']:,} left"
            if self.is_running:
                lines.append(f"Running: {worker}, since {progress['began']}; {steps} as of {progress['updated']}")
                lines += [f"  {item}" for item in progress["under_way"]]
            elif progress["state"] == "under way":
                lines.append(
                    f"Not running here: {worker} last reported {progress['updated']}; {steps}. If it was killed, "
                    "the same command resumes"
                )
            else:
                reason = f": {progress['error']}" if progress["error"] else ""
                lines.append(f"Not running: {progress['state']} {progress['updated']}{reason}")
        return lines + [f"failed: {name}: {error}" for name, error in self.failed.items()]


def read_status(folder: Path) -> Status:
    """The status of a sweep, from its results folder. ValueError where there is none."""
    results.require_folder(folder)
    if not (folder / SWEEP).is_file():
        raise ValueError(
            f"{folder} contains no sweep: there is no {SWEEP} in it; name a folder that `churnlab sweep` wrote"
        )
    rows, progress = results.read_plan(folder), readable(folder / PROGRESS)
    if progress:
        results.require(folder / PROGRESS, progress, REPORTED)
    finished = tuple(str(row["run"]) for row in rows if results.is_finished(folder / row["run"], row["keeps_records"]))
    open_ones = [str(row["run"]) for row in rows if row["run"] not in set(finished)]
    failures = {name: folder / FAILED / f"{name}.json" for name in open_ones}
    failed = {name: str(readable(path).get("error", "unknown")) for name, path in failures.items() if path.is_file()}
    left = tuple(name for name in open_ones if name not in failed)
    return Status(folder, finished, failed, left, is_locked(folder), progress)


def readable(path: Path) -> dict[str, Any]:
    """A JSON object; empty if none can be read, for example after a power cut."""
    try:
        return results.read_json(path)
    except (OSError, ValueError):
        return {}


def is_locked(folder: Path) -> bool:
    """Whether a process does a sweep in the folder."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a file system without locks, or that cannot be written
        return False


def as_json(content: Any) -> str:
    """Readable JSON."""
    return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"


def now() -> str:
    """The local time, for people."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
