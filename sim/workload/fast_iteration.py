"""Run an iteration over arrays: in plain Python, or compiled by numba once that pays; the bits are the same."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import chain, repeat
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np

from sim.cluster import flow_arrays
from sim.cluster.flow_arrays import NO, Traffic, initial_traffic
from sim.cluster.flows import FlowState
from sim.core import calendar
from sim.workload import iteration_arrays
from sim.workload.iteration_arrays import SHADOWING, VISITING, initial_work, run_iteration
from sim.workload.iteration_tables import TableBuilder
from sim.workload.iteration_work import IterationWork, TimeFactor

COMPILED_MODULES = calendar, flow_arrays, iteration_arrays
"""The modules whose functions numba compiles; all their names differ."""

PLAIN_SECONDS_PER_VISIT: Final = 1.2e-5
LOADING_SECONDS: Final = 1.0
COMPILING_SECONDS: Final = 20.0
"""Of CPU: of a visit in plain Python; of loading the compiled loop, and of compiling it where that was never done."""


@dataclass(frozen=True)
class FinishedIteration:
    """Seconds of an iteration, and of the visits and the shadow work of all nodes together.

    arrivals_seconds: of each message beside it, None for those in flight; left: the states of these.
    """

    seconds: float
    visit_seconds: float
    shadow_seconds: float
    arrivals_seconds: tuple[float | None, ...] = ()
    left: tuple[FlowState, ...] = ()


class Compilation:
    """Whether to compile, by the seconds that this process has spent in plain Python."""

    def __init__(self) -> None:
        self.plain_seconds = 0.0

    def pays(self, num_visits: int) -> bool:
        """Whether an iteration of so many visits is better run by the compiled loop."""
        if not is_numba_installed():
            return False
        expected_seconds = self.plain_seconds + num_visits * PLAIN_SECONDS_PER_VISIT
        return expected_seconds > (LOADING_SECONDS if machine_code_folder().exists() else COMPILING_SECONDS)


COMPILATION = Compilation()


@cache
def is_numba_installed() -> bool:
    """Whether numba is installed, and not switched off by NUMBA_DISABLE_JIT."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0") and importlib.util.find_spec("numba") is not None


@cache
def machine_code_folder() -> Path:
    """Folder of the compiled loop, by all that it is made of: numba notices no change in functions of other modules."""
    made_of = [version("numba").encode(), *(Path(str(one.__file__)).read_bytes() for one in COMPILED_MODULES)]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "churnlab" / "compiled" / hashlib.sha256(b"".join(made_of)).hexdigest()[:16]


def run_fast(
    work: IterationWork, others: Sequence[FlowState] = (), time_factor: TimeFactor | None = None
) -> FinishedIteration:
    """Run an iteration from time 0, beside other messages, with jitter if there are factors.

    Raises RuntimeError if nodes wait for each other for ever.
    """
    t, messages, paths = TableBuilder(work, others, time_factor).build()
    state = initial_work(t, messages)
    traffic = initial_traffic(len(state.visit) + len(messages.path), paths)
    if COMPILATION.pays(len(t.node)):
        from sim.workload.compiled_iteration import run_compiled

        seconds, state, traffic = run_compiled(t, messages, paths, state, traffic)
    else:
        began_seconds = process_time()
        seconds = run_iteration(as_lists(t), as_lists(messages), as_lists(paths), state, traffic, [0.0, 0.0, 0.0])
        COMPILATION.plain_seconds += process_time() - began_seconds
    first = len(traffic.path) - len(others)
    arrivals = [None if one == NO else float(one) for one in traffic.arrived[first:]]
    return FinishedIteration(
        seconds,
        float(state.busy[VISITING]),
        float(state.busy[SHADOWING]),
        tuple(arrivals),
        tuple(_left(traffic, first + at, others[at], seconds) for at, one in enumerate(arrivals) if one is None),
    )


def sent_bytes(work: IterationWork) -> float:
    """Bytes of all messages of an iteration."""
    t, messages, _ = TableBuilder(work).build()
    paths = np.asarray(t.hop_path)
    num_hops = int(np.asarray(t.hop_takes_time)[paths[paths != NO]].sum())
    first, end = messages.start[-4:-2]
    shadow_transfers = messages.num_bytes[first:end]
    return math.fsum(
        chain(repeat(t.hop_bytes, num_hops), messages.num_bytes, *repeat(shadow_transfers, t.num_shadow_rounds - 1))
    )


def as_lists(record: Any) -> Any:
    """A named tuple with lists in place of its arrays."""
    return type(record)(*(one.tolist() if isinstance(one, np.ndarray) else one for one in record))


def _left(traffic: Traffic, message: int, began: FlowState, now_seconds: float) -> FlowState:
    """State of a message in flight."""
    rate = float(traffic.bytes_per_second[message])
    through = rate * (now_seconds - float(traffic.since[message])) if rate else 0.0
    latency_seconds = max(0.0, float(traffic.enters[message]) - now_seconds)
    return FlowState(began.path, latency_seconds, max(0.0, float(traffic.bytes_left[message]) - through))
