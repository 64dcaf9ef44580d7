"""Atomic writes: files are complete or as before, also after a power cut or when the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEFTOVER_AGE_SECONDS = 3600.0


class OddFileError(ValueError):
    """A file that is not read: not a regular one, or too large."""


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises OddFileError for a device, a pipe or too large a file, and OSError.

    Opening does not wait for the other end of a pipe.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OddFileError("is not a regular file, but a pipe or a device")
        if status.st_size > max_bytes:
            raise OddFileError(f"is larger than {max_bytes / 1e6:,.0f} MB")
        return file.read(max_bytes)


def flush_to_disk(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file atomically, text as UTF-8. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the first error is reported
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def atomic_write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically. Raises OSError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        table.to_parquet(temporary, index=False)
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Delete partial files that a killed process has left in a folder; recent ones may belong to a running process."""
    for leftover in folder.glob(".*.part"):
        if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_SECONDS:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def user_cache() -> Path | None:
    """The folder of the user's caches; None for a user without a home folder."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    return Path.home() / ".cache" if has_home() else None


def has_home() -> bool:
    """Whether the user has a home folder: HOME, or an entry in the table of users."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True
