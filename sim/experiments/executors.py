"""Executors of tasks: this process, or a pool of processes on this machine. (`ray_cluster` has a third.)

A task is a function of its arguments that any process can call; what it gives is the same to the bit wherever it ran.
"""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

PARENT_POLL_SECONDS = 1.0


class WorkerDiedError(RuntimeError):
    """A worker process ended during a task: killed, or out of memory."""


class Executor(Protocol):
    """Does tasks. Its callers hand out no more at a time than they want to wait for."""

    num_workers: int

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a task done. The future raises what the task raises, WorkerDiedError if its process ended."""
        ...

    def share(self, value: Any) -> Any:
        """A stand-in for a large value that many tasks are given: they get the value itself."""
        ...

    def close(self) -> None:
        """Stop all workers at once."""
        ...


class InProcess:
    """Does each task at once, in this process."""

    num_workers = 1

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do it now."""
        future: Future[Any] = Future()
        try:
            future.set_result(task(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def share(self, value: Any) -> Any:
        """The value."""
        return value

    def close(self) -> None:
        """Nothing to stop."""


class Region(NamedTuple):
    """Bytes of a file."""

    file: str
    offset: int
    num_bytes: int


class Shared(NamedTuple):
    """A value that processes of this machine map into memory, each once: pickled, its arrays as regions of files."""

    pickled: bytes
    regions: tuple[Region, ...]


class ProcessPool:
    """Processes of this machine, one training thread each. They end with this process, however it ends."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._folder = Path(tempfile.mkdtemp(prefix="churnlab-shared-"))
        self._num_files = 0
        self._pool: Any = None

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have it done by the next process that is free; where processes have died, by new ones."""
        from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

        try:
            inner = self._processes().submit(call, task, arguments)
        except (BrokenProcessPool, ShutdownExecutorError):
            self._stop()
            inner = self._processes().submit(call, task, arguments)
        return translated(inner, (BrokenProcessPool, ShutdownExecutorError))

    def share(self, value: Any) -> Shared:
        """A stand-in whose arrays are mapped from files: those they are mapped from already, else temporary ones."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return Shared(pickled, tuple(self._region(buffer) for buffer in buffers))

    def close(self) -> None:
        """Stop all processes at once."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _processes(self) -> Any:
        from loky import ProcessPoolExecutor

        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.num_workers,
                timeout=None,
                initializer=prepare_worker,
                initargs=(os.getpid(), self._folder),
                env={"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"},  # else it takes torch, loaded by a task, for a leak
            )
        return self._pool

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None

    def _region(self, buffer: pickle.PickleBuffer) -> Region:
        raw = buffer.raw()
        if (mapped := region_of_map(raw)) is not None:
            return mapped
        self._num_files += 1
        path = self._folder / f"{self._num_files}.bin"
        path.write_bytes(raw)
        return Region(str(path), 0, raw.nbytes)


def region_of_map(raw: memoryview) -> Region | None:
    """The region of a file that an array is a map of; None where it is none."""
    array: Any = raw.obj
    start = np.frombuffer(raw, dtype=np.uint8).ctypes.data if raw.nbytes else 0
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.filename and array.mode == "r":
            offset = start - array.ctypes.data + array.offset
            return Region(str(array.filename), offset, raw.nbytes) if raw.nbytes and offset >= 0 else None
        array = array.base
    return None


@lru_cache(maxsize=4)
def value_of(shared: Shared) -> Any:
    """The value behind a placeholder, with its arrays mapped into memory."""
    buffers = [
        np.memmap(region.file, dtype=np.uint8, mode="r", offset=region.offset, shape=(region.num_bytes,))
        if region.num_bytes
        else b""
        for region in shared.regions
    ]
    return pickle.loads(shared.pickled, buffers=buffers)


def call(task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Do a task in a worker, with shared values in the place of their stand-ins. Errors are made portable."""
    try:
        return task(*(value_of(argument) if isinstance(argument, Shared) else argument for argument in arguments))
    except Exception as error:
        if (to_raise := portable(error)) is error:
            raise
        raise to_raise from error
    finally:
        keep_loaded(len(sys.modules))


@lru_cache(maxsize=1)
def keep_loaded(num_modules: int) -> None:  # noqa: ARG001
    """Take what the modules loaded so far hold out of the garbage collector's sight.

    loky collects garbage every second, and torch alone has so many objects that a tenth of a worker's time went there.
    """
    gc.collect()
    gc.freeze()


def portable(error: Exception) -> Exception:
    """An error that can be sent to another process: itself, or its text where it cannot be pickled or unpickled.

    Otherwise the error would end the worker, which would look like its death.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def translated(inner: Future[Any], deaths: tuple[type[BaseException], ...]) -> Future[Any]:
    """A future that raises WorkerDiedError if its worker died."""
    outer: Future[Any] = Future()

    def passed_on(done: Future[Any]) -> None:
        if done.cancelled():
            outer.set_exception(WorkerDiedError("its worker was stopped"))
        elif isinstance(error := done.exception(), deaths):
            outer.set_exception(WorkerDiedError(str(error)))
        elif error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(done.result())

    inner.add_done_callback(passed_on)
    return outer


def prepare_worker(parent: int, folder: Path) -> None:
    """Make this process end when its parent has ended, and only then.

    Ctrl-C in a terminal reaches the workers too. One that it interrupts while it sends a result leaves half of it in
    the pipe, and the parent would wait for the other half. So the parent alone answers, and stops its workers.

    folder: what is shared, deleted in the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
