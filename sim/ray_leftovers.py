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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "RAY_TMPDIR"
"""The variable by which Ray's processes know their folder, and are known."""


def processes_of(folder: str) -> Iterator[int]:
    """Processes whose environment names the folder. None where the system does not tell (there is no /proc)."""
    mark = f"{MARK}={folder}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # gone by now, or another user's
            if mark in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def clear(folder: str) -> None:
    """Stop the processes of a cluster, and delete its folder."""
    while processes := list(processes_of(folder)):
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()  # ends when the sweep's process closes it, or ends
    clear(sys.argv[1])
