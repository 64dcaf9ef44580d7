"""The trajectory's memory on disk: losses and gradient norms in SQLite, keyframes as safetensors files.

A cache, not a result: it may be deleted at any time, and what is missing is trained again. What is in it
is never wrong: a keyframe file is complete before its row exists, rows and keyframe of a stretch are
committed together, and values are functions of their key, so that two processes writing the same step
write the same numbers. A kill at any instant loses at most the steps since the last commit.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import uuid
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.trainer import StepResult

SCHEMA_VERSION = 1
LOCK_TIMEOUT_SECONDS = 60.0
ORPHAN_AGE_SECONDS = 3600.0
MAX_STEP = 2**63 - 1
DEFAULT_BUDGET_BYTES = 4 * 2**30

SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    line TEXT, step INTEGER, train_loss REAL NOT NULL, gradient_norms BLOB NOT NULL,
    PRIMARY KEY (line, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS validations (
    line TEXT, step INTEGER, loss REAL NOT NULL,
    PRIMARY KEY (line, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keyframes (
    line TEXT, step INTEGER, file TEXT NOT NULL, num_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    used_at REAL NOT NULL,
    PRIMARY KEY (line, step)) WITHOUT ROWID;
"""


@dataclass
class Stretch:
    """What is known of one line of training: its steps and its validation losses, by step number."""

    steps: dict[int, StepResult] = field(default_factory=dict)
    validations: dict[int, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it holds anything."""
        return bool(self.steps or self.validations)


class TrajectoryStore:
    """Losses and keyframes of training lines in one folder, shared safely by several processes.

    A *line* is the key of a lineage in one environment (see `models.trajectory`). `budget_bytes` bounds the
    keyframe files; the ones unused for longest go first, losses stay. Raises ValueError, naming the folder
    and the way out, when the folder cannot be used.
    """

    def __init__(self, folder: Path, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes
        self.keyframe_folder = folder / "keyframes"
        try:
            self.keyframe_folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(folder / "trajectory.sqlite", timeout=LOCK_TIMEOUT_SECONDS)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            found = self._database.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, SCHEMA_VERSION):
                raise ValueError(
                    f"the trajectory cache at {folder} has format {found}, this version writes "
                    f"{SCHEMA_VERSION}: delete the folder (it is only a cache) or name another with --cache"
                )
            with self._database:
                self._database.executescript(SCHEMA)
                self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._remove_orphans()
        except (OSError, sqlite3.Error) as error:
            raise ValueError(
                f"cannot use the trajectory cache at {folder} ({error}): name another folder with --cache, "
                "or delete this one, it is only a cache"
            ) from error

    def _remove_orphans(self) -> None:
        """Delete files that a killed process wrote and never committed; young ones may be on their way."""
        committed = {file for (file,) in self._database.execute("SELECT file FROM keyframes")}
        for path in self.keyframe_folder.iterdir():
            if path.name not in committed and time.time() - path.stat().st_mtime > ORPHAN_AGE_SECONDS:
                path.unlink(missing_ok=True)

    def read(self, line: str) -> Stretch:
        """All that is known of a line."""
        validations = self._database.execute("SELECT step, loss FROM validations WHERE line = ?", (line,))
        return Stretch(self._steps(line), dict(validations.fetchall()))

    def _steps(self, line: str, first: int = 0, last: int = MAX_STEP) -> dict[int, StepResult]:
        rows = self._database.execute(
            "SELECT step, train_loss, gradient_norms FROM steps WHERE line = ? AND step BETWEEN ? AND ?",
            (line, first, last),
        )
        return {step: StepResult(loss, tuple(array("d", norms))) for step, loss, norms in rows}

    def commit(self, line: str, new: Stretch, step: int, state: dict[str, Tensor]) -> None:
        """Make a stretch durable together with the state at its end: both, or neither. OSError if the disk refuses."""
        try:
            self._commit(line, new, step, state)
        except sqlite3.Error as error:
            raise OSError(f"cannot write the trajectory cache at {self.folder}: {error}") from error

    def _commit(self, line: str, new: Stretch, step: int, state: dict[str, Tensor]) -> None:
        data = save(state)
        name = f"{line}-{step}-{uuid.uuid4().hex[:8]}.safetensors"
        write_durably(self.keyframe_folder / name, data)
        row = (line, step, name, len(data), hashlib.sha256(data).hexdigest(), time.time())
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?)",
                [(line, n, row.train_loss, array("d", row.gradient_norms).tobytes()) for n, row in new.steps.items()],
            )
            self._database.executemany(
                "INSERT OR IGNORE INTO validations VALUES (?, ?, ?)",
                [(line, n, loss) for n, loss in new.validations.items()],
            )
            self._require_agreement(line, new)
            known = self._keyframe_file(line, step)
            self._database.execute("INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?, ?, ?, ?)", row)
        if known is not None:
            (self.keyframe_folder / known).unlink(missing_ok=True)
        self.prune(self.budget_bytes)

    def _require_agreement(self, line: str, new: Stretch) -> None:
        """Steps that another process stored meanwhile must be the same to the bit."""
        if new.steps:
            for step, stored in self._steps(line, min(new.steps), max(new.steps)).items():
                require_equal(step, new.steps.get(step), stored)

    def keyframe_at_or_before(self, line: str, step: int) -> int:
        """The last step of a line up to `step` that has a keyframe, -1 if none has."""
        found = self._database.execute(
            "SELECT COALESCE(MAX(step), -1) FROM keyframes WHERE line = ? AND step <= ?", (line, step)
        ).fetchone()
        return int(found[0])

    def load_keyframe(self, line: str, step: int) -> dict[str, Tensor] | None:
        """The state stored at a step, or None (and its row forgotten) if the file is gone or damaged."""
        found = self._database.execute(
            "SELECT file, sha256 FROM keyframes WHERE line = ? AND step = ?", (line, step)
        ).fetchone()
        if found is None:
            return None
        file, sha256 = found
        try:
            data = (self.keyframe_folder / file).read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                with self._database:
                    self._database.execute("UPDATE keyframes SET used_at = ? WHERE file = ?", (time.time(), file))
                return load(data)
        except (FileNotFoundError, SafetensorError):
            pass
        with self._database:
            self._database.execute("DELETE FROM keyframes WHERE file = ?", (file,))
        return None

    def _keyframe_file(self, line: str, step: int) -> str | None:
        found = self._database.execute(
            "SELECT file FROM keyframes WHERE line = ? AND step = ?", (line, step)
        ).fetchone()
        return None if found is None else str(found[0])

    def keyframe_bytes(self) -> int:
        """Size of all keyframes together."""
        return int(self._database.execute("SELECT COALESCE(SUM(num_bytes), 0) FROM keyframes").fetchone()[0])

    def prune(self, budget_bytes: int) -> None:
        """Delete the keyframes unused for longest until the rest fits the budget; losses stay."""
        excess = self.keyframe_bytes() - budget_bytes
        if excess <= 0:
            return
        oldest = self._database.execute("SELECT file, num_bytes FROM keyframes ORDER BY used_at").fetchall()
        for file, num_bytes in oldest:
            if excess <= 0:
                break
            with self._database:
                self._database.execute("DELETE FROM keyframes WHERE file = ?", (file,))
            (self.keyframe_folder / file).unlink(missing_ok=True)
            excess -= num_bytes

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def require_equal(step: int, computed: StepResult | None, stored: StepResult) -> None:
    """Raise RuntimeError when a step has two results: there is one truth, and never a silent second."""
    if computed is not None and computed != stored:
        raise RuntimeError(
            f"step {step} gave loss {computed.train_loss!r} where the trajectory cache holds {stored.train_loss!r}: "
            "the machine does not repeat its own arithmetic, or the cache was altered; delete the cache folder and "
            "run again"
        )


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is either whole or absent, whenever the machine stops."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
