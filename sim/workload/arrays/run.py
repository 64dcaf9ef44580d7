"""Run an iteration over arrays: in plain Python, or compiled by numba once that pays; the bits are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from time import process_time
from typing import Any

import numpy as np

from sim.cluster.flows import FlowState
from sim.workload.arrays.compilation import COMPILATION
from sim.workload.arrays.loop import FIXED, SHADOWING, VISITING, Messages, Tables, Work, initial_work, run_iteration
from sim.workload.arrays.messages import NO, Paths, Traffic, initial_traffic
from sim.workload.arrays.tables import TableBuilder
from sim.workload.iteration_work import IterationWork, TimeFactor
from sim.workload.schedule import Ints


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


def run_fast(
    work: IterationWork, others: Sequence[FlowState] = (), time_factor: TimeFactor | None = None
) -> FinishedIteration:
    """Run an iteration from time 0, beside other messages, with jitter if there are factors.

    Raises RuntimeError if nodes wait for each other for ever.
    """
    seconds, state, traffic = run_tables(*TableBuilder(work, others, time_factor).build())
    return _finished(seconds, state, traffic, others)


def left_at(work: IterationWork, others: Sequence[FlowState], cut_seconds: float) -> tuple[FlowState, ...]:
    """States of the other messages still in flight when a failure ends an iteration, after all else of the instant."""
    seconds, state, traffic = run_tables(*TableBuilder(work, others, cut_seconds=cut_seconds).build())
    return _finished(seconds, state, traffic, others).left


def run_alone_in_order(work: IterationWork) -> tuple[FinishedIteration, Ints]:
    """Run an iteration without other messages and without jitter; its visits are in the order of `service_order`."""
    t, messages, paths = TableBuilder(work).build()
    seconds, state, traffic = run_tables(t, messages, paths)
    is_fixed = np.repeat(np.asarray(t.choice) == FIXED, np.diff(t.visits_start))
    queues = state.waiting[: len(is_fixed)]  # a queue keeps what has been served before its first that waits
    served = np.where(is_fixed, t.visits, queues)
    return _finished(seconds, state, traffic, ()), served


def _finished(seconds: float, state: Work, traffic: Traffic, others: Sequence[FlowState]) -> FinishedIteration:
    first = len(traffic.path) - len(others)
    arrivals = [None if one == NO else float(one) for one in traffic.arrived[first:]]
    return FinishedIteration(
        seconds,
        float(state.busy[VISITING]),
        float(state.busy[SHADOWING]),
        tuple(arrivals),
        tuple(_left(traffic, first + at, others[at], seconds) for at, one in enumerate(arrivals) if one is None),
    )


def run_tables(t: Tables, messages: Messages, paths: Paths) -> tuple[float, Work, Traffic]:
    """Seconds of an iteration, and the state of its nodes and messages at the end."""
    state = initial_work(t, messages)
    traffic = initial_traffic(len(state.visit) + len(messages.path), paths)
    if COMPILATION.pays(len(t.node)):
        from sim.workload.arrays.compiled import run_compiled

        return run_compiled(t, messages, paths, state, traffic)
    began_seconds = process_time()
    seconds = run_iteration(as_lists(t), as_lists(messages), as_lists(paths), state, traffic, [0.0, 0.0, 0.0])
    COMPILATION.plain_seconds += process_time() - began_seconds
    return seconds, state, traffic


def service_order(work: IterationWork) -> Ints:
    """All visits, node by node, in the order in which nodes serve them if no other messages and no jitter disturb them.

    A visit's number is (pipeline · microbatches + microbatch) · visits of a microbatch + its index in these.
    """
    return run_alone_in_order(work)[1]


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


def longest_seconds(work: IterationWork) -> float:
    """Seconds of an iteration that does one thing at a time: no schedule is slower, and nothing is simulated."""
    t, messages, paths = TableBuilder(work).build()
    alone = np.asarray(paths.alone)
    at = np.asarray(t.hop_path)
    at = at[at != NO]
    latencies = t.software_seconds + np.asarray(paths.latency_seconds)[at]
    hops = np.where(np.asarray(t.hop_takes_time)[at], latencies + t.hop_bytes / alone[at], 0.0)
    sent = np.asarray(messages.latency_seconds) + np.asarray(messages.num_bytes) / alone[np.asarray(messages.path)]
    seconds = [t.pause_seconds, t.optimizer_seconds, *sent.tolist() * max(1, t.num_shadow_rounds)]
    operations = (np.asarray(each) for each in (t.seconds, t.shadow_seconds, t.idle_shadow_seconds))
    return float(math.fsum(seconds) + hops.sum() + sum(each[each > 0.0].sum() for each in operations))


def as_lists(record: Any) -> Any:
    """A named tuple with lists in place of its arrays."""
    return type(record)(*(one.tolist() if isinstance(one, np.ndarray) else one for one in record))


def _left(traffic: Traffic, message: int, began: FlowState, now_seconds: float) -> FlowState:
    """State of a message in flight."""
    rate = float(traffic.bytes_per_second[message])
    through = rate * (now_seconds - float(traffic.since[message])) if rate else 0.0
    latency_seconds = max(0.0, float(traffic.enters[message]) - now_seconds)
    return FlowState(began.path, latency_seconds, max(0.0, float(traffic.bytes_left[message]) - through))
