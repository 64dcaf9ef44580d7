"""Store of trajectories: losses and gradient norms in SQLite, keyframes as safetensors files.

A cache, not a result: it may be deleted at any time, and what is missing is trained again. A keyframe file is complete
before its row exists: a kill at any instant loses at most the steps since the last commit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
import uuid
from array import array
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

from models.trainer import StepResult

SCHEMA_VERSION = 2
LOCK_TIMEOUT_SECONDS = 60.0
ORPHAN_AGE_SECONDS = 3600.0
MAX_STEP = 2**63 - 1
DEFAULT_BUDGET_BYTES = 4 * 2**30
DATABASE = "trajectory.sqlite"
MAX_CHECKED_BYTES = 64 * 2**20  # of a database that is checked for damage whenever it is opened
LOGGER = logging.getLogger("churnlab")

SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    line TEXT, step INTEGER, train_loss REAL NOT NULL, gradient_norms BLOB NOT NULL,
    PRIMARY KEY (line, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS validations (
    line TEXT, step INTEGER, loss REAL NOT NULL,
    PRIMARY KEY (line, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keyframes (
    line TEXT, step INTEGER, file TEXT NOT NULL, num_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    used_at REAL NOT NULL, is_branch INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (line, step)) WITHOUT ROWID;
"""

InUse = Collection[tuple[str, int]]
"""Keyframes by line and step."""


@dataclass
class LineResults:
    """Results of one line of training by step: losses and gradient norms of steps, validation losses."""

    steps: dict[int, StepResult] = field(default_factory=dict)
    validations: dict[int, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.steps or self.validations)


@dataclass(frozen=True)
class Keyframe:
    """A whole training state as safetensors bytes; is_branch: its line begins with an edit, so fewer runs share it."""

    step: int
    data: bytes
    is_branch: bool = False


class StoreInfo(NamedTuple):
    """Size of a store."""

    num_lines: int
    num_steps: int
    num_validations: int
    num_keyframes: int
    keyframe_bytes: int
    database_bytes: int


class TrajectoryStore:
    """Losses and keyframes of training lines in one folder, shared safely by several processes.

    `budget_bytes` bounds the keyframe files: branches are pruned first, then failure-free lines, least recently used
    first; losses stay. Raises ValueError, with a remedy, when the folder cannot be used.
    """

    def __init__(self, folder: Path, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.folder, self.budget_bytes, self.keyframe_folder = folder, budget_bytes, folder / "keyframes"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if why := self._unusable():
                self._set_aside(why)
            self.keyframe_folder.mkdir(exist_ok=True)
            self._database = sqlite3.connect(folder / DATABASE, timeout=LOCK_TIMEOUT_SECONDS)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._bring_up_to_date()
            self._remove_orphans()
        except (OSError, sqlite3.Error) as error:
            raise ValueError(
                f"cannot use the cache of training states at {folder} ({error}): name another folder with --cache, "
                "or delete this one, it is only a cache"
            ) from error

    def _unusable(self) -> str:
        """Why the database cannot be used, though the disk lets it be read; empty if it can."""
        path = self.folder / DATABASE
        if not path.is_file():
            return ""
        try:
            with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS)) as database:
                found = database.execute("PRAGMA user_version").fetchone()[0]
                if found not in (0, 1, SCHEMA_VERSION):
                    return f"has format {found}, this version writes {SCHEMA_VERSION}"
                if path.stat().st_size <= MAX_CHECKED_BYTES:
                    (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
                    return "" if answer == "ok" else f"is damaged ({answer.splitlines()[0]})"
        except sqlite3.OperationalError:  # locked, read-only, no space
            raise
        except sqlite3.DatabaseError as error:
            return f"is damaged ({error})"
        return ""

    def _set_aside(self, why: str) -> None:
        """Rename the database and the keyframes, so that a new cache begins, and say so."""
        number = next(n for n in count(1) if not (self.folder / f"{DATABASE}.aside-{n}").exists())
        for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", self.keyframe_folder.name):
            with suppress(FileNotFoundError):
                (self.folder / name).rename(self.folder / f"{name}.aside-{number}")
        LOGGER.warning(
            "the cache of training states at %s %s: set aside as %s.aside-%d, and trained anew; it may be deleted",
            *(self.folder, why, DATABASE, number),
        )

    def _delete(self, file: str) -> None:
        """Delete a keyframe file. A name that leads elsewhere is that of no keyframe: nothing is deleted."""
        if is_plain_name(file):
            (self.keyframe_folder / file).unlink(missing_ok=True)

    def _bring_up_to_date(self) -> None:
        """Create or migrate the tables in one exclusive transaction."""
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            for statement in SCHEMA.split(";"):
                self._database.execute(statement)
            columns = {name for _, name, *_ in self._database.execute("PRAGMA table_info(keyframes)")}
            if "is_branch" not in columns:
                self._database.execute("ALTER TABLE keyframes ADD COLUMN is_branch INTEGER NOT NULL DEFAULT 0")
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _remove_orphans(self) -> None:
        """Delete files that a killed process wrote and never committed; recent ones may be about to be committed."""
        committed = {file for (file,) in self._database.execute("SELECT file FROM keyframes")}
        for path in self.keyframe_folder.iterdir():
            if path.name not in committed and time.time() - path.stat().st_mtime > ORPHAN_AGE_SECONDS:
                path.unlink(missing_ok=True)

    def read(self, line: str) -> LineResults:
        """All stored results of a line."""
        return LineResults(self._steps(line), self.read_validations(line))

    def read_losses(self, line: str) -> dict[int, float]:
        """Stored training losses of a line by step."""
        return dict(self._database.execute("SELECT step, train_loss FROM steps WHERE line = ?", (line,)).fetchall())

    def read_validations(self, line: str) -> dict[int, float]:
        """Stored validation losses of a line by step."""
        return dict(self._database.execute("SELECT step, loss FROM validations WHERE line = ?", (line,)).fetchall())

    def _steps(self, line: str, first: int = 0, last: int = MAX_STEP) -> dict[int, StepResult]:
        rows = self._database.execute(
            "SELECT step, train_loss, gradient_norms FROM steps WHERE line = ? AND step BETWEEN ? AND ?",
            (line, first, last),
        )
        return {step: StepResult(loss, tuple(array("d", norms))) for step, loss, norms in rows}

    def commit(
        self, line: str, new: LineResults, keyframe: Keyframe | None, in_use: Callable[[], InUse] = tuple
    ) -> None:
        """Write results and the state at their end in one transaction. Raises OSError if the disk refuses.

        in_use: gives keyframes that must not be pruned now.
        """
        try:
            self._commit(line, new, keyframe)
            self.prune(self.budget_bytes, in_use)
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise OSError(
                f"cannot write the cache of training states at {self.folder} ({reason}): free some space, or name "
                "another folder with --cache; what was trained until the last commit is kept"
            ) from error

    def _commit(self, line: str, new: LineResults, keyframe: Keyframe | None) -> None:
        replaced_file, row = None, None
        if keyframe is not None:
            name = f"{line}-{keyframe.step}-{uuid.uuid4().hex[:8]}.safetensors"
            write_durably(self.keyframe_folder / name, keyframe.data)
            sha256 = hashlib.sha256(keyframe.data).hexdigest()
            row = (line, keyframe.step, name, len(keyframe.data), sha256, time.time(), keyframe.is_branch)
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?)",
                [(line, n, row.train_loss, array("d", row.gradient_norms).tobytes()) for n, row in new.steps.items()],
            )
            self._database.executemany(
                "INSERT OR IGNORE INTO validations VALUES (?, ?, ?)",
                [(line, n, loss) for n, loss in new.validations.items()],
            )
            if new.steps:  # those that another process has stored meanwhile must be the same, to the bit
                for step, stored in self._steps(line, min(new.steps), max(new.steps)).items():
                    require_equal(step, new.steps.get(step), stored)
            if row is not None:
                same = "SELECT file FROM keyframes WHERE line = ? AND step = ?"
                replaced_file = self._database.execute(same, row[:2]).fetchone()
                self._database.execute("INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        if replaced_file is not None:
            self._delete(replaced_file[0])

    def keyframe_at_or_before(self, line: str, step: int) -> int:
        """Last step of a line up to `step` that has a keyframe, -1 if none has."""
        found = self._database.execute(
            "SELECT COALESCE(MAX(step), -1) FROM keyframes WHERE line = ? AND step <= ?", (line, step)
        ).fetchone()
        return int(found[0])

    def keyframe_steps(self, line: str) -> list[int]:
        """Steps of a line with a keyframe file, ascending."""
        rows = self._database.execute("SELECT step, file FROM keyframes WHERE line = ? ORDER BY step", (line,))
        return [step for step, file in rows if is_plain_name(file) and (self.keyframe_folder / file).is_file()]

    def read_keyframe(self, line: str, step: int) -> bytes | None:
        """The state stored at a step as bytes, or None (and its row forgotten) if the file is gone or damaged."""
        found = self._database.execute(
            "SELECT file, sha256 FROM keyframes WHERE line = ? AND step = ?", (line, step)
        ).fetchone()
        if found is None:
            return None
        file, sha256 = found
        try:
            data: bytes = (self.keyframe_folder / file).read_bytes() if is_plain_name(file) else b""
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != sha256:
            with self._database:
                self._database.execute("DELETE FROM keyframes WHERE line = ? AND step = ?", (line, step))
            return None
        with suppress(sqlite3.OperationalError), self._database:  # only the order of pruning depends on it
            self._database.execute("UPDATE keyframes SET used_at = ? WHERE file = ?", (time.time(), file))
        return data

    def keyframe_bytes(self) -> int:
        """Size of all keyframes together."""
        return int(self._database.execute("SELECT COALESCE(SUM(num_bytes), 0) FROM keyframes").fetchone()[0])

    def prune(self, budget_bytes: int, in_use: Callable[[], InUse] = tuple) -> None:
        """Delete keyframes until the rest fits the budget or is in use; branches first, least recently used first."""
        excess = self.keyframe_bytes() - budget_bytes
        if excess <= 0:
            return
        kept = in_use()
        oldest = self._database.execute(
            "SELECT line, step, file, num_bytes FROM keyframes ORDER BY is_branch DESC, used_at"
        ).fetchall()
        for line, step, file, num_bytes in oldest:
            if excess <= 0:
                break
            if (line, step) in kept:
                continue
            with self._database:
                self._database.execute("DELETE FROM keyframes WHERE file = ?", (file,))
            self._delete(file)
            excess -= num_bytes

    def info(self) -> StoreInfo:
        """Size of the store."""
        counted = (("DISTINCT line", "steps"), ("*", "steps"), ("*", "validations"), ("*", "keyframes"))
        queries = ", ".join(f"(SELECT COUNT({what}) FROM {table})" for what, table in counted)
        files = [self.folder / f"trajectory.sqlite{suffix}" for suffix in ("", "-wal")]
        database_bytes = sum(file.stat().st_size for file in files if file.exists())
        counts = self._database.execute(f"SELECT {queries}").fetchone()
        return StoreInfo._make((*counts, self.keyframe_bytes(), database_bytes))

    def close(self) -> None:
        """Close the database."""
        self._database.close()


class AlteredStoreError(ValueError):
    """A stored result that is not the one computed."""


def is_plain_name(file: object) -> bool:
    """Whether a stored name is that of a file directly in the keyframes' folder."""
    return isinstance(file, str) and file == Path(file).name and file not in ("", ".", "..") and "\0" not in file


def require_equal(step: int, computed: StepResult | None, stored: StepResult) -> None:
    """Raise AlteredStoreError when a step has two different results."""
    if computed is not None and computed != stored:
        raise AlteredStoreError(
            f"step {step} gave loss {computed.train_loss!r} where the cache of training states holds "
            f"{stored.train_loss!r}: the machine does not repeat its own arithmetic, or the cache was altered; delete "
            "the cache folder and run again"
        )


def write_durably(path: Path, data: bytes) -> None:
    """Write a file atomically and durably: it is whole or absent after a crash or a full disk."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
