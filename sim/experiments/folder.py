"""The results folder of a sweep: the files beside the runs' folders, and the status that they give.

`sweep.json`: the list of runs; `progress.json`: how far the sweep is, or how it ended; `failed/<run>.json`: runs that
could not be done, and why; `runs.parquet`: a row a run. All are written under temporary names and then renamed. A
process that does a sweep holds a lock on `.lock`, which ends with the process.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock, Timeout

from sim.core.files import atomic_write, atomic_write_table, remove_partial_files
from sim.experiments.plan import SweepRun
from sim.experiments.scheduler import SweepProgress
from sim.results import storage as results
from sim.results.storage import SWEEP, TABLE
from sim.results.summary import flat

PROGRESS, FAILED, LOCK = "progress.json", "failed", ".lock"

STATISTICS = "statistics.csv"

LOCK_SECONDS = 0.3

Purpose = Literal["sweep", "map", "run"]

End = Literal["under way", "finished", "interrupted", "stopped"]


class RunsFolder:
    """The results folder of a scenario's runs. OSError with a remedy if writing fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, made if it is not there. Equal runs of several processes are written whole, one after another."""
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        yield

    def begin(self, runs: Sequence[SweepRun], to_do: Sequence[SweepRun]) -> None:  # noqa: ARG002
        """Delete what is half written and the results of runs that are to be done again."""
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_partial_files(self.folder)
            for run in to_do:
                if run.is_finished:
                    results.discard_run(run.planned.folder)
            self._delete_failures({f"{run.name}.json" for run in to_do})

    def _delete_failures(self, names: Collection[str]) -> None:
        """Delete descriptions of failures, and their folder if it is empty then."""
        for name in names:
            (self.folder / FAILED / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or not there
            (self.folder / FAILED).rmdir()

    def progressed(self, progress: SweepProgress, end: End = "under way", error: str = "") -> None:
        """Nothing is written of how far it is."""

    def failed(self, run: SweepRun, error: str, details: str) -> None:
        """Keep what went wrong in a run."""
        content = {"run": run.name, "error": error, "details": details, "when": now(), **identity(run)}
        with refusals_explained(self.folder):
            (self.folder / FAILED).mkdir(exist_ok=True)
            atomic_write(self.folder / FAILED / f"{run.name}.json", as_json(content))

    def added_seeds(self, seeds: Sequence[Sequence[int]]) -> dict[int, int]:  # noqa: ARG002
        """No seeds were added."""
        return {}

    def write_table(self, runs: Sequence[SweepRun]) -> pd.DataFrame:
        """A row for each run that is finished or has failed; no file."""
        return table(self.folder, runs)


class SweepFolder(RunsFolder):
    """The results folder of a sweep, for the process that does it.

    made_for: a sweep, whose points have all strategies, or the single runs that a map rests on.
    """

    def __init__(self, folder: Path, made_for: Purpose = "sweep") -> None:
        super().__init__(folder)
        self.made_for = made_for
        self._began = now()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder for this process alone. ValueError if another process does a sweep in it."""
        lock = FileLock(self.folder / LOCK)
        with super().locked():
            try:
                lock.acquire(timeout=LOCK_SECONDS)  # longer than `is_locked` takes
            except Timeout:
                raise ValueError(
                    f"another process is at a sweep in {self.folder}: wait for it (churnlab status {self.folder}), or "
                    "name another folder with --results"
                ) from None
            except (OSError, NotImplementedError):
                pass  # a file system without locks
            try:
                yield
            finally:
                lock.release()

    def begin(self, runs: Sequence[SweepRun], to_do: Sequence[SweepRun]) -> None:
        """Write the list of runs; the results of runs to be done (again), and failures of other runs, are deleted."""
        rows = [
            {
                "run": run.name,
                "run_hash": run.planned.key,
                "point": run.point,
                "strategy": run.planned.name,
                "failure_seed": run.planned.failure_seed,
                "training_seed": run.planned.training_seed,
                "parameters": run.parameters,
                "keeps_records": run.keeps_records,
            }
            for run in runs
        ]
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / SWEEP, as_json({"made_for": self.made_for, "runs": rows}))
            (self.folder / STATISTICS).unlink(missing_ok=True)
            others = {path.name for path in (self.folder / FAILED).glob("*.json")}
            self._delete_failures(others - {f"{run.name}.json" for run in runs})
        super().begin(runs, to_do)

    def progressed(self, progress: SweepProgress, end: End = "under way", error: str = "") -> None:
        """Write how far the sweep is. Where the disk refuses that, nothing is lost."""
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

    def added_seeds(self, seeds: Sequence[Sequence[int]]) -> dict[int, int]:
        """How many failure seeds an earlier sweep of this folder has added to points, by number; seeds: their own."""
        added: dict[int, int] = {}
        for row in readable(self.folder / SWEEP).get("runs", []):
            number, seed = row["point"], row["failure_seed"]
            if number < len(seeds) and seed > max(seeds[number]):
                added[number] = max(added.get(number, 0), seed - max(seeds[number]))
        return added

    def write_table(self, runs: Sequence[SweepRun]) -> pd.DataFrame:
        """Write `runs.parquet`, a row for each run that is finished or has failed; and give it."""
        with refusals_explained(self.folder):
            found = table(self.folder, runs)
            atomic_write_table(self.folder / TABLE, found)
        return found


def table(folder: Path, runs: Sequence[SweepRun]) -> pd.DataFrame:
    """A row for each run that is finished or has failed: its identity, swept values, outcomes, versions.

    Swept values have the names of their fields; empty where they do not concern a run's strategy.
    """
    rows, done = [], []
    for run in runs:
        row = {"run": run.name, "run_hash": run.planned.key, "point": run.point} | identity(run)
        failure = folder / FAILED / f"{run.name}.json"
        if run.is_finished:
            summary, about = results.read_json(run.planned.folder / "summary.json"), run.planned.folder / "run.json"
            rows.append(row | outcomes(summary, results.read_json(about)))
        elif failure.is_file():
            rows.append(row | {"outcome": "failed", "error": readable(failure).get("error", "unknown")})
        else:
            continue
        done.append(run.parameters)
    frame = pd.DataFrame(rows)
    swept = {name: column_of([parameters.get(name) for parameters in done]) for name in fields_of(runs)}
    outcomes_alone = frame.drop(columns=[name for name in swept if name in frame])  # a summary may have them too
    return pd.concat([outcomes_alone, pd.DataFrame(swept, index=frame.index)], axis=1)


def fields_of(runs: Sequence[SweepRun]) -> list[str]:
    """The fields that some runs' sweep varies."""
    return list(dict.fromkeys(name for run in runs for name in run.parameters))


def identity(run: SweepRun) -> dict[str, Any]:
    """A run's strategy and seeds."""
    planned = run.planned
    return {
        "strategy": planned.name,
        "failure_seed": planned.failure_seed,
        "training_seed": planned.training_seed,
    }


def outcomes(summary: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """A run's summary and versions in one flat row."""
    versions = {f"version_{name}": text for name, text in about["versions"].items()}
    return {"error": None} | flat(summary) | versions


def column_of(values: Sequence[Any]) -> Any:
    """Values as a column holds them: numbers and texts as they are; as texts, JSON, where they are of several kinds."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pd.array(values, dtype="Int64")  # whole numbers stay such where some are missing
    if kinds <= {int, float} or kinds in ({str}, {bool}):
        return list(values)
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


@dataclass(frozen=True)
class Status:
    """The status of a sweep: names of its runs by state, whether a process does it now, and its last progress."""

    folder: Path
    finished: tuple[str, ...]
    failed: dict[str, str]
    left: tuple[str, ...]
    is_running: bool
    progress: dict[str, Any]

    def in_words(self) -> list[str]:
        """Counts, what is under way and how it ended, a line each; then failed runs with their errors."""
        num_runs = len(self.finished) + len(self.failed) + len(self.left)
        lines = [
            f"{self.folder}: {num_runs:,} runs: {len(self.finished):,} finished, {len(self.failed):,} failed, "
            f"{len(self.left):,} left"
        ]
        if progress := self.progress:
            worker = f"process {progress['process']} on {progress['host']}"
            said = f"{progress['num_steps_trained']:,} steps trained, {progress['num_steps_left']:,} left"
            if self.is_running:
                lines.append(f"Running: {worker}, since {progress['began']}; {said} as of {progress['updated']}")
                lines += [f"  {item}" for item in progress["under_way"]]
            elif progress["state"] == "under way":
                lines.append(
                    f"Not running here: {worker} last reported {progress['updated']}; {said}. If it was killed, "
                    "the same command goes on"
                )
            else:
                reason = f": {progress['error']}" if progress["error"] else ""
                lines.append(f"Not running: {progress['state']} {progress['updated']}{reason}")
        return lines + [f"failed: {name}: {error}" for name, error in self.failed.items()]


def read_status(folder: Path) -> Status:
    """The status of a sweep, from its results folder. ValueError where there is none."""
    if not (folder / SWEEP).is_file():
        raise ValueError(
            f"{folder} holds no sweep: there is no {SWEEP} in it; name a folder that `churnlab sweep` wrote"
        )
    rows = readable(folder / SWEEP).get("runs", [])
    finished = tuple(str(row["run"]) for row in rows if results.is_finished(folder / row["run"], row["keeps_records"]))
    open_ones = [str(row["run"]) for row in rows if row["run"] not in set(finished)]
    failures = {name: folder / FAILED / f"{name}.json" for name in open_ones}
    failed = {name: str(readable(path).get("error", "unknown")) for name, path in failures.items() if path.is_file()}
    left = tuple(name for name in open_ones if name not in failed)
    return Status(folder, finished, failed, left, is_locked(folder), readable(folder / PROGRESS))


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


@contextmanager
def refusals_explained(folder: Path) -> Iterator[None]:
    """An OSError from within says what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(results.refusal(folder, error)) from error


def as_json(content: Any) -> str:
    """Readable JSON."""
    return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"


def now() -> str:
    """The time of day, for people."""
    return datetime.fromtimestamp(time.time()).astimezone().isoformat(timespec="seconds")
