"""Atomic writes: files are complete or as before, also after a power cut or when the disk is full."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEFTOVER_AGE_SECONDS = 3600.0


def flush_to_disk(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, text: str) -> None:
    """Write a text file atomically. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
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
