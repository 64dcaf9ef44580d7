"""Executors of tasks, and the scheduling of work that keeps their workers busy.

An executor is this process, a pool of processes on this machine, or a Ray cluster (`ray_cluster`). A task is a function
that any process can call; its result depends on its arguments alone, to the bit.
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
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

PARENT_POLL_SECONDS, HEARTBEAT_SECONDS = 1.0, 2.0

MOST_ATTEMPTS = 3

Task = TypeVar("Task")


class WorkerDiedError(RuntimeError):
    """A worker process ended during a task: killed, or out of memory."""


class Executor(Protocol):
    """The contract of what does tasks: a queue in front of workers."""

    num_workers: int

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Submit a task. The future raises what the task raises, WorkerDiedError if its process ended."""

    def share(self, value: Any) -> Any:
        """A placeholder for a large argument of many tasks, which get the value itself."""

    def close(self) -> None:
        """Stop all workers at once."""


class InProcess:
    """Executor that does each task at once, in this process."""

    num_workers = 1

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do the task."""
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


class Shared(NamedTuple):
    """A value whose arrays the processes of this machine map into memory; regions: file, offset and bytes of each."""

    pickled: bytes
    regions: tuple[tuple[str, int, int], ...]


class ProcessPool:
    """Executor with processes of this machine, one training thread each, which end when this process ends."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._folder = Path(tempfile.mkdtemp(prefix="churnlab-shared-"))
        self._num_files = 0
        self._pool: Any = None

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Submit a task to the next free process; processes that have died are replaced."""
        from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

        deaths = BrokenProcessPool, ShutdownExecutorError
        try:
            inner = self._processes().submit(call, task, arguments)
        except deaths:
            self._stop()
            inner = self._processes().submit(call, task, arguments)
        return relayed(inner, lambda error: WorkerDiedError(str(error)) if isinstance(error, deaths) else error)

    def share(self, value: Any) -> Shared:
        """A placeholder whose arrays are mapped from files: those they are mapped from already, else temporary ones."""
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

    def _region(self, buffer: pickle.PickleBuffer) -> tuple[str, int, int]:
        raw = buffer.raw()
        array: Any = raw.obj
        start = np.frombuffer(raw, dtype=np.uint8).ctypes.data if raw.nbytes else 0
        while raw.nbytes and isinstance(array, np.ndarray):
            if isinstance(array, np.memmap) and array.filename and array.mode == "r":
                offset = start - array.ctypes.data + array.offset
                if offset >= 0:
                    return str(array.filename), offset, raw.nbytes
                break
            array = array.base
        self._num_files += 1
        path = self._folder / f"{self._num_files}.bin"
        path.write_bytes(raw)
        return str(path), 0, raw.nbytes


@lru_cache(maxsize=4)
def value_of(shared: Shared) -> Any:
    """The value behind a placeholder, with its arrays mapped into memory."""
    return pickle.loads(shared.pickled, buffers=[mapped(*region) for region in shared.regions])


def mapped(file: str, offset: int, num_bytes: int) -> Any:
    """A region of a file, mapped into memory. Raises ValueError if the file has become shorter."""
    if num_bytes and (found := os.path.getsize(file)) < offset + num_bytes:
        raise ValueError(f"{file} has changed while it was in use: it has {found:,} bytes, too few")
    return np.memmap(file, dtype=np.uint8, mode="r", offset=offset, shape=(num_bytes,)) if num_bytes else b""


def call(task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Do a task in a worker, with shared values for their placeholders. An error that cannot be sent becomes text."""
    try:
        return task(*(value_of(argument) if isinstance(argument, Shared) else argument for argument in arguments))
    except Exception as error:
        try:  # an error that cannot be pickled or unpickled would end the worker
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise
    finally:
        keep_loaded(len(sys.modules))


@lru_cache(maxsize=1)
def keep_loaded(num_modules: int) -> None:  # noqa: ARG001
    """Exclude the objects of the modules loaded so far from garbage collection."""
    gc.collect()
    gc.freeze()  # loky collects garbage every second: with torch's objects that took a tenth of a worker's time


def relayed(inner: Future[Any], translate: Callable[[BaseException], BaseException]) -> Future[Any]:
    """A future with another's result, or its error as `translate` returns it; WorkerDiedError if it was cancelled."""
    outer: Future[Any] = Future()

    def relay(done: Future[Any]) -> None:
        with suppress(InvalidStateError):  # the executor was closed first
            if done.cancelled():
                outer.set_exception(WorkerDiedError("its worker was stopped"))
            elif (error := done.exception()) is not None:
                outer.set_exception(translate(error))
            else:
                outer.set_result(done.result())

    inner.add_done_callback(relay)
    return outer


def prepare_worker(parent: int, folder: Path) -> None:
    """End this process when its parent has ended, and delete the folder of shared files.

    Ctrl-C in a terminal reaches the workers too: one interrupted while it sends a result would leave half of it in the
    pipe, and the parent would wait for the rest. So workers ignore it, and the parent stops them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Work(ABC, Generic[Task]):
    """Tasks that an executor does, in the order of `waiting` unless `next` and `again` are overridden.

    A task can be hashed; if its worker died, it is repeated, at most `MOST_ATTEMPTS` times. attempts: failed attempts
    by task, to count them over several works.
    """

    def __init__(self, executor: Executor, tasks: Iterable[Task] = (), attempts: Counter[Task] | None = None) -> None:
        self.executor, self.waiting = executor, deque(tasks)
        self._attempts = Counter[Task]() if attempts is None else attempts
        self._under_way: dict[Future[Any], Task] = {}

    def next(self) -> Task | None:
        """The next task to submit; None where none is ready now."""
        return self.waiting.popleft() if self.waiting else None

    def again(self, task: Task) -> None:
        """Submit a task once more, before all others."""
        self.waiting.appendleft(task)

    @abstractmethod
    def submit(self, task: Task) -> Future[Any] | None:
        """Submit a task to the executor; None where it cannot be done now."""

    @abstractmethod
    def done(self, task: Task, result: Any) -> None:
        """Process a result before other tasks are submitted, so that those that need it are ready."""

    def keep(self, task: Task, result: Any) -> None:
        """Write a result after other tasks are submitted, so that no worker waits for the disk."""

    @abstractmethod
    def failed(self, task: Task, error: BaseException) -> None:
        """Process the error that a task raised, or WorkerDiedError if its worker died at each attempt."""

    def heartbeat(self, under_way: Sequence[Task]) -> None:
        """Report progress: results have come in, or some seconds have passed."""

    def run(self) -> None:
        """Do the tasks until none is left that is ready."""
        self._submit()
        while self._under_way:
            finished, _ = wait(self._under_way, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
            results: list[tuple[Task, Any]] = []
            for future in finished:
                task, error = self._under_way.pop(future), future.exception()
                if error is None:
                    results.append((task, future.result()))
                    self.done(task, future.result())
                    continue
                self._attempts[task] += isinstance(error, WorkerDiedError)
                if isinstance(error, WorkerDiedError) and self._attempts[task] < MOST_ATTEMPTS:
                    self.again(task)
                else:
                    self.failed(task, error)
            self._submit()
            for task, result in results:
                self.keep(task, result)
            self.heartbeat(list(self._under_way.values()))
            self._submit()

    def _submit(self) -> None:
        """Keep all workers busy."""
        while (task := self.next()) is not None:
            if not self._may_submit(task):
                self.again(task)
                return
            if (future := self.submit(task)) is not None:
                self._under_way[future] = task

    @property
    def most_at_once(self) -> int:
        """Most tasks under way: two per worker, one of which waits so that none is idle."""
        num_workers = self.executor.num_workers
        return num_workers * (1 + (num_workers > 1))

    def has_room(self, task: Task) -> bool:  # noqa: ARG002
        """Whether a task would not wait for long behind those under way."""
        return len(self._under_way) < self.most_at_once

    def _may_submit(self, task: Task) -> bool:
        """Whether a task can be submitted now."""
        # a task that may have killed its workers has its last attempt alone: no others die with it
        suspects = [one for one in (task, *self._under_way.values()) if self._attempts.get(one) == MOST_ATTEMPTS - 1]
        return not self._under_way or (not suspects and self.has_room(task))
