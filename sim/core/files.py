"""Files and folders that are whole or not there, whenever the machine stops or the disk refuses."""

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
    """Wait until a file, or a folder's entries, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, text: str) -> None:
    """Write a text file that is either whole or as before, also after a power cut. OSError if refused."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # there is something worse to tell
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def atomic_write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet that is either whole or as before, also after a power cut. OSError if refused."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        table.to_parquet(temporary, index=False)
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Delete what a killed process has left half written in a results folder; what is young may be another's."""
    for leftover in folder.glob(".*.part"):
        if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_SECONDS:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
