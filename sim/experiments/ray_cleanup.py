"""Waits beside a Ray cluster of this machine, and clears up what is left of it when the sweep's process is gone.

A program of its own, since what is left must also go when that process is killed: Ray's workers end within seconds
then, some of its other processes only after a minute, and its files never. Its standard input is a pipe from that
process.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PAUSE_SECONDS = 0.02

MARK = "RAY_TMPDIR"
"""The variable by which Ray's processes know their folder."""

TITLE = b"ray::"
"""Those that give themselves a title may write it over their environment; they have log files open."""


def processes_of(folder: str) -> Iterator[int]:
    """Processes of a cluster, by its folder. None where the system does not tell (there is no /proc)."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone by now, or another user's
            is_marked = f"{MARK}={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
            if is_marked or (
                (process / "cmdline").read_bytes().startswith(TITLE)
                and any(os.readlink(file).startswith(f"{folder}/") for file in (process / "fd").iterdir())
            ):
                yield int(process.name)


def clear(folder: str) -> None:
    """Stop the processes of a cluster, and delete its folder."""
    while processes := list(processes_of(folder)):
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()  # ends when the sweep's process closes it, or ends
    clear(sys.argv[1])
