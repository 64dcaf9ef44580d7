"""Tasks for executors: successful, failing, dying and endless ones."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim.experiments.executors import InProcess, ProcessPool
from sim.experiments.ray_cluster import RayCluster

EXECUTORS = {"serial": InProcess, "pool": lambda: ProcessPool(2), "ray": lambda: RayCluster(None, 2)}


@dataclass(frozen=True, eq=False)
class Text:
    """A large value, with an array in memory and one mapped from a file."""

    held: np.ndarray
    mapped: np.ndarray
    name: str


class TwoPartsError(Exception):
    """An error that cannot be unpickled: it takes two arguments and keeps one."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def double(number: int) -> int:
    return 2 * number


def fail(error: Exception) -> None:
    raise error


def fail_in_two_parts() -> None:
    raise TwoPartsError("one", "other")


def fail_with_a_lock() -> None:
    error = ValueError("has a lock")
    error.lock = threading.Lock()
    raise error


def process() -> int:
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path, task: Callable[..., Any], *arguments: Any) -> Any:
    """Die during a task, the first time."""
    if not mark.exists():
        mark.touch()
        die()
    return task(*arguments)


def look_at(text: Text) -> tuple[list[int], list[int], str, bool]:
    """Contents of a text, and whether this process holds copies of its arrays."""
    has_copies = any(array.flags.owndata or array.flags.writeable for array in (text.held, text.mapped))
    return text.held.tolist(), text.mapped.tolist(), text.name, has_copies


def stay_with(folder: Path, _: bytes) -> None:
    stay(folder)


def stay(folder: Path) -> None:
    """Write a file named by the process, and never end."""
    (folder / str(os.getpid())).touch()
    while True:
        time.sleep(1)
