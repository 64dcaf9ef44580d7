"""What a sweep leaves in its results folder beside the runs' folders, and how it stands there.

`sweep.json`: the runs it is made of; `progress.json`: how far it is, or how it ended; `failed/<run>.json`: runs that
could not be done, and why; `runs.parquet`: a row a run. All are written under temporary names and then renamed. A
lock on `.lock` tells that a process is at it; it goes with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from sim import results
from sim.sweep import SweepProgress
from sim.sweep_plan import SweepRun

SWEEP, PROGRESS, FAILED, TABLE, LOCK = "sweep.json", "progress.json", "failed", "runs.parquet", ".lock"
End = Literal["under way", "finished", "interrupted", "stopped"]


class SweepFolder:
    """The results folder of a sweep, for the process that does it. OSError, saying what to do, if the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = now()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone here, as long as this lasts. ValueError if another process is at a sweep of this folder."""
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / LOCK).open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another process is at a sweep in {self.folder}: wait for it (churnlab status {self.folder}), or "
                    "name another folder with --results"
                ) from None
            except OSError:
                pass  # a file system without locks
            yield

    def begin(self, runs: Sequence[SweepRun]) -> None:
        """Write down which runs there are to be."""
        rows = [
            {
                "run": run.name,
                "run_hash": run.planned.key,
                "point": run.point,
                "strategy": run.planned.name,
                "failure_seed": run.planned.failure_seed,
                "training_seed": run.planned.training_seed,
                "parameters": run.parameters,
            }
            for run in runs
        ]
        with refusals_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / SWEEP, as_json({"runs": rows}))

    def progressed(self, progress: SweepProgress, end: End = "under way", error: str = "") -> None:
        """Write down how far it is. Where the disk refuses that, nothing is lost."""
        content = {
            "state": end,
            "error": error,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "began": self._began,
            "updated": now(),
            **asdict(progress),
        }
        with suppress(OSError):
            write_whole(self.folder / PROGRESS, as_json(content))

    def failed(self, run: SweepRun, error: str, details: str) -> None:
        """Keep what went wrong in a run."""
        content = {"run": run.name, "error": error, "details": details, "when": now(), **where_it_stands(run)}
        with refusals_explained(self.folder):
            (self.folder / FAILED).mkdir(exist_ok=True)
            write_whole(self.folder / FAILED / f"{run.name}.json", as_json(content))

    def forget_failures(self, runs: Sequence[SweepRun]) -> None:
        """These runs are to be done again, or have been done."""
        with refusals_explained(self.folder):
            for run in runs:
                (self.folder / FAILED / f"{run.name}.json").unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or not there
                (self.folder / FAILED).rmdir()

    def write_table(self, runs: Sequence[SweepRun]) -> Path:
        """Write `runs.parquet`: a row for each run that is finished or has failed."""
        path = self.folder / TABLE
        temporary = path.with_name(f".{TABLE}.part")
        with refusals_explained(self.folder):
            try:
                table(self.folder, runs).to_parquet(temporary, index=False)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return path


def table(folder: Path, runs: Sequence[SweepRun]) -> pd.DataFrame:
    """A row for each run that is finished or has failed: who it is, swept values, outcomes, versions.

    Swept values have the names of their fields; empty where they do not concern a run's strategy.
    """
    rows, done = [], []
    for run in runs:
        row = {"run": run.name, "run_hash": run.planned.key, "point": run.point} | where_it_stands(run)
        failure = folder / FAILED / f"{run.name}.json"
        if run.is_finished:
            summary, about = results.read_json(run.planned.folder / "summary.json"), run.planned.folder / "run.json"
            rows.append(row | outcomes(summary, results.read_json(about)))
        elif failure.is_file():
            rows.append(row | {"outcome": "failed", "error": results.read_json(failure)["error"]})
        else:
            continue
        done.append(run.parameters)
    frame = pd.DataFrame(rows)
    swept = {name: column_of([parameters.get(name) for parameters in done]) for name in fields_of(runs)}
    return pd.concat([frame, pd.DataFrame(swept, index=frame.index)], axis=1)


def fields_of(runs: Sequence[SweepRun]) -> list[str]:
    """The fields that some runs' sweep varies."""
    return list(dict.fromkeys(name for run in runs for name in run.parameters))


def where_it_stands(run: SweepRun) -> dict[str, Any]:
    """A run's strategy and seeds."""
    planned = run.planned
    return {
        "strategy": planned.name,
        "failure_seed": planned.failure_seed,
        "training_seed": planned.training_seed,
    }


def outcomes(summary: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """A run's summary and versions in one flat row."""
    flat = {key: value for key, value in summary.items() if key != "ledger_seconds"}
    flat |= {f"{bucket}_seconds": seconds for bucket, seconds in summary["ledger_seconds"].items()}
    flat |= {f"version_{name}": text for name, text in about["versions"].items()}
    return {"error": None} | flat


def column_of(values: Sequence[Any]) -> list[Any]:
    """Values as a column holds them: numbers and texts as they are; as texts, JSON, where they are of several kinds."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds in ({str}, {bool}):
        return list(values)
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


@dataclass(frozen=True)
class Status:
    """How a sweep stands: names of its runs by state, whether a process is at it, and what it said last."""

    folder: Path
    finished: tuple[str, ...]
    failed: dict[str, str]
    left: tuple[str, ...]
    is_running: bool
    progress: dict[str, Any] | None

    def in_words(self) -> list[str]:
        """Counts, what is under way and how it ended, a line each; then failed runs with their errors."""
        num_runs = len(self.finished) + len(self.failed) + len(self.left)
        lines = [
            f"{self.folder}: {num_runs:,} runs: {len(self.finished):,} finished, {len(self.failed):,} failed, "
            f"{len(self.left):,} left"
        ]
        if progress := self.progress:
            who = f"process {progress['process']} on {progress['host']}"
            said = f"{progress['num_steps_trained']:,} steps trained, {progress['num_steps_left']:,} left"
            if self.is_running:
                lines.append(f"Running: {who}, since {progress['began']}; {said} as of {progress['updated']}")
                lines += [f"  {item}" for item in progress["under_way"]]
            elif progress["state"] == "under way":
                lines.append(
                    f"Not running here: {who} said last {progress['updated']} that it was; {said}. If it was killed, "
                    "the same command goes on"
                )
            else:
                reason = f": {progress['error']}" if progress["error"] else ""
                lines.append(f"Not running: {progress['state']} {progress['updated']}{reason}")
        return lines + [f"failed: {name}: {error}" for name, error in self.failed.items()]


def read_status(folder: Path) -> Status:
    """How a sweep stands, from its results folder. ValueError where there is none."""
    if not (folder / SWEEP).is_file():
        raise ValueError(
            f"{folder} holds no sweep: there is no {SWEEP} in it; name a folder that `churnlab sweep` wrote"
        )
    names = [str(row["run"]) for row in results.read_json(folder / SWEEP)["runs"]]
    finished = tuple(name for name in names if results.is_finished(folder / name))
    open_ones = [name for name in names if name not in set(finished)]
    failures = {name: folder / FAILED / f"{name}.json" for name in open_ones}
    failed = {name: str(results.read_json(path)["error"]) for name, path in failures.items() if path.is_file()}
    progress = results.read_json(folder / PROGRESS) if (folder / PROGRESS).is_file() else None
    left = tuple(name for name in open_ones if name not in failed)
    return Status(folder, finished, failed, left, is_locked(folder), progress)


def is_locked(folder: Path) -> bool:
    """Whether a process of this machine is at a sweep of the folder."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def refusals_explained(folder: Path) -> Iterator[None]:
    """An OSError from within says what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(results.refusal(folder, error)) from error


def write_whole(path: Path, text: str) -> None:
    """Write a file that is either whole or as before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def as_json(content: Any) -> str:
    """Readable JSON."""
    return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"


def now() -> str:
    """The time of day, for people."""
    return datetime.fromtimestamp(time.time()).astimezone().isoformat(timespec="seconds")
