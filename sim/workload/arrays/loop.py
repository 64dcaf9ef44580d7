"""One iteration over arrays: the events of `iteration.py` in the same order, so the same seconds, without SimPy.

Plain functions over lists, or over arrays where numba compiles them. Each SimPy process is a set of functions here, one
for each event that it waits for. Every event that another one depends on is scheduled at the same place of the code.

Numbers: a node is a slot (`Cluster.slot`); microbatch b = replica · microbatches + number; visit g = b · L + i is the
i-th of the L visits of microbatch b; message b is the one that microbatch b waits for, then come `Messages`.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import NamedTuple

from sim.workload.arrays.calendar import Calendar, has_more_now, next_event, schedule, whole_ticks
from sim.workload.arrays.messages import ARRIVED, DUE, ENTERS, NO, Paths, Traffic, arrive_if_due, enter, send

# Kinds of events, after those of messages.
STARTED = 3  # the pause at the start is over
ADMITTED, HOPPED, VISITED, RELEASED, MICROBATCH_DONE = range(4, 9)
# of a microbatch: it may begin; has passed a hop's software; leaves a node; leaves the pipeline (its replica); ends
STORED, TAKEN, WORKED, SHADOWED, IDLE_SHADOWED, CAUGHT_UP, OPENED, NODE_DONE = range(9, 17)
# of a node: a visit waits; is taken; its operation ends; shadow work after a visit ends, or without visits, or the
# backlog of it; the barrier of its heads opens; all is done
STAGE_DONE, EXCHANGED, EXCHANGE_DONE = range(17, 20)  # of a stage: all computed; gradients arrived; its process ends
ALL_EXCHANGED, OPTIMIZED, TRANSFERRED, COPIED, ENDED = range(20, 25)  # of the iteration, in this order
CUT = 25  # a failure ends the iteration, after all other events of the instant

BY_RANK, BY_ARRIVAL, FIXED = 0, 1, 2
"""Which of the visits that have arrived a node takes: the first by rank, the first, or only the next of its order."""

WITH_FORWARD, EAGER, LAZY, DEFERRED = 0, 1, 2, 3
"""When shadow work is done, in the order of `Shadow`; DEFERRED: it is no shadow but the gradients of weights."""

CLOSED, OPENING, OPEN = 0, 1, 2
"""States of the barrier before the backwards of a node's heads."""

VISITING, SHADOWING = 0, 1
"""What a node's seconds are spent on."""

EXCHANGES, TRANSFERS, ROUNDS, COPIES, AWAITS_COPIES = 0, 1, 2, 3, 4
"""Counters of an iteration: gradient exchanges, shadow transfers of this round, rounds, copies that are to come."""


class Tables(NamedTuple):
    """What an iteration computes, and where. Seconds are whole ticks, but not yet with jitter."""

    num_microbatches: int  # of the pipeline with most
    num_visits: int  # of each microbatch
    in_flight_limit: int
    num_shadow_rounds: int
    shadow: int
    has_jitter: bool
    has_channels: bool
    overlaps_exchange: bool
    pause_seconds: float
    cut_seconds: float  # after which a failure ends the iteration; NO: none does
    software_seconds: float
    optimizer_seconds: float
    hop_bytes: float
    # by pipeline
    num_of_pipeline: Sequence[int]  # microbatches
    # by visit
    node: Sequence[int]
    rank: Sequence[int]  # among the visits to a node
    seconds: Sequence[float]
    shadow_seconds: Sequence[float]  # NO if there is none
    # by microbatch and hop: before each visit, and back to the embedding
    hop_path: Sequence[int]  # NO: the same node
    # by path
    hop_takes_time: Sequence[bool]
    # by node, and from its start to that of the next in the sequence after it
    works: Sequence[bool]
    most_deferred_seconds: Sequence[float]  # of gradients of weights that it leaves for later
    choice: Sequence[int]
    visits_start: Sequence[int]
    visits: Sequence[int]  # of each node, in the order of the schedule
    head_forwards: Sequence[int]  # before backwards may begin there; 0: no such rule
    idle_shadow_start: Sequence[int]
    idle_shadow_seconds: Sequence[float]  # where nothing visits the node
    factors_start: Sequence[int]
    factors: Sequence[float]  # jitter of its successive operations
    stages_start: Sequence[int]
    stages: Sequence[int]  # whose work it does
    # by stage
    num_awaited: Sequence[int]  # processes that end before its gradient exchange


class Messages(NamedTuple):
    """Messages other than hops, in groups: the exchange of each stage, shadow transfers, embedding copies, others."""

    start: Sequence[int]  # of each of these groups, and the end
    group: Sequence[int]
    path: Sequence[int]
    num_bytes: Sequence[float]
    latency_seconds: Sequence[float]


class Work(NamedTuple):
    """State of an iteration."""

    busy: MutableSequence[float]  # seconds of visits, of shadow work
    left: MutableSequence[int]  # counters
    # by replica
    num_admitted: MutableSequence[int]
    # by microbatch
    visit: MutableSequence[int]  # its next one
    next_at_barrier: MutableSequence[int]
    # by node
    is_idle: MutableSequence[bool]
    idle_since: MutableSequence[float]
    backlog_seconds: MutableSequence[float]
    current: MutableSequence[int]  # visit
    num_taken: MutableSequence[int]
    first_waiting: MutableSequence[int]
    last_waiting: MutableSequence[int]
    num_idle_shadows: MutableSequence[int]
    num_operations: MutableSequence[int]
    head_forwards_left: MutableSequence[int]
    barrier: MutableSequence[int]
    first_at_barrier: MutableSequence[int]
    last_at_barrier: MutableSequence[int]
    # by visit
    has_arrived: MutableSequence[bool]
    # of each node, from the start of its visits
    waiting: MutableSequence[int]
    # by stage
    num_awaited: MutableSequence[int]
    messages_left: MutableSequence[int]


def initial_work(t: Tables, messages: Messages) -> Work:
    """State of an iteration before it begins."""
    num_nodes, num_stages, num_visits = len(t.works), len(t.num_awaited), len(t.node)
    num_microbatches = num_visits // t.num_visits
    num_copies = messages.start[num_stages + 2] - messages.start[num_stages + 1]
    return Work(
        busy=[0.0, 0.0],
        left=[num_stages, 0, t.num_shadow_rounds, num_copies, 0],
        num_admitted=[0] * len(t.num_of_pipeline),
        visit=[0] * num_microbatches,
        next_at_barrier=[NO] * num_microbatches,
        is_idle=[False] * num_nodes,
        idle_since=[0.0] * num_nodes,
        backlog_seconds=[0.0] * num_nodes,
        current=[0] * num_nodes,
        num_taken=[0] * num_nodes,
        first_waiting=list(t.visits_start[:-1]),
        last_waiting=list(t.visits_start[:-1]),
        num_idle_shadows=[0] * num_nodes,
        num_operations=[0] * num_nodes,
        head_forwards_left=list(t.head_forwards),
        barrier=[CLOSED] * num_nodes,
        first_at_barrier=[NO] * num_nodes,
        last_at_barrier=[NO] * num_nodes,
        has_arrived=[False] * num_visits,
        waiting=[0] * num_visits,
        num_awaited=list(t.num_awaited),
        messages_left=[0] * num_stages,
    )


def run_iteration(
    t: Tables, messages: Messages, paths: Paths, work: Work, traffic: Traffic, clock: MutableSequence[float]
) -> float:
    """Run an iteration from time 0; return its seconds, and leave the rest in the state."""
    future, present = [(0.0, 0.0, 0, 0)], [(0, 0)]  # an element gives numba the type of a list
    future.pop()
    present.pop()
    calendar = Calendar(future, present, clock)
    num_hops, groups = len(work.visit), len(work.num_awaited)
    for index in range(messages.start[groups + 2], messages.start[groups + 3]):
        send_one(messages, traffic, calendar, num_hops, index)
    schedule(calendar, t.pause_seconds, STARTED, 0)
    if t.cut_seconds >= 0.0:
        schedule(calendar, t.cut_seconds, CUT, 0)
    while True:
        kind, about = next_event(calendar)
        if kind == ENTERS:
            enter(paths, traffic, calendar, about)
        elif kind == DUE:
            arrive_if_due(paths, traffic, calendar, about)
        elif kind == ARRIVED and about < num_hops:
            arrive(t, work, calendar, about)
        elif kind == HOPPED:
            hop_after_software(t, paths, work, traffic, calendar, about)
        elif kind == STORED:
            serve(t, work, calendar, about)
        elif kind == TAKEN:
            begin_visit(t, work, calendar, about)
        elif kind == WORKED:
            end_work(t, work, calendar, about)
        elif kind in (VISITED, ADMITTED):
            send_to_next_visit(t, work, calendar, about)
        elif kind == SHADOWED:
            end_shadow(t, work, calendar, about)
        elif kind == IDLE_SHADOWED:
            begin_idle_shadow(t, work, calendar, about)
        elif kind == ENDED or (kind == CUT and not has_more_now(calendar)):
            return float(clock[0])
        elif kind == CUT:
            schedule(calendar, 0.0, CUT, 0)
        elif kind == -1:
            raise RuntimeError("microbatches wait for each other for ever")
        else:
            coordinate(t, messages, work, traffic, calendar, kind, about)


def send_one(messages: Messages, traffic: Traffic, calendar: Calendar, num_hops: int, index: int) -> None:
    """Send a message other than a hop."""
    seconds, path = messages.latency_seconds[index], messages.path[index]
    send(traffic, calendar, num_hops + index, path, messages.num_bytes[index], seconds, False)


# ---- coordination of microbatches, nodes and stages ----------------------------------------------------------------


def coordinate(
    t: Tables, messages: Messages, work: Work, traffic: Traffic, calendar: Calendar, kind: int, about: int
) -> None:
    """Events of the whole iteration, of a stage, or of the end of a node's or microbatch's work."""
    num_hops = len(work.visit)
    if kind == STARTED:
        start(t, messages, work, traffic, calendar)
    elif kind == RELEASED:
        if work.num_admitted[about] < t.num_of_pipeline[about]:
            schedule(calendar, 0.0, ADMITTED, about * t.num_microbatches + work.num_admitted[about])
            work.num_admitted[about] += 1
    elif kind == OPENED:
        open_barrier(t, work, calendar, about)
    elif kind in (NODE_DONE, MICROBATCH_DONE):
        count_end(t, work, calendar, kind, about)
    elif kind == STAGE_DONE:
        for index in range(messages.start[about], messages.start[about + 1]):
            send_one(messages, traffic, calendar, num_hops, index)
        work.messages_left[about] = messages.start[about + 1] - messages.start[about]
        if not work.messages_left[about]:
            schedule(calendar, 0.0, EXCHANGED, about)
    elif kind == ARRIVED:
        count_arrival(work, calendar, messages.group[about - num_hops])
    elif kind == EXCHANGED:
        schedule(calendar, 0.0, EXCHANGE_DONE, about)
    elif kind == EXCHANGE_DONE:
        work.left[EXCHANGES] -= 1
        if not work.left[EXCHANGES]:
            schedule(calendar, 0.0, ALL_EXCHANGED, 0)
    elif kind == ALL_EXCHANGED:
        schedule(calendar, t.optimizer_seconds, OPTIMIZED, 0)
    elif kind in (OPTIMIZED, TRANSFERRED):
        end_round(messages, work, traffic, calendar)
    elif kind == COPIED:
        schedule(calendar, 0.0, ENDED, 0)
    elif kind == CAUGHT_UP:
        schedule(calendar, 0.0, NODE_DONE, about)


def start(t: Tables, messages: Messages, work: Work, traffic: Traffic, calendar: Calendar) -> None:
    """Send the copies of the embedding, admit microbatches, let nodes wait for visits."""
    num_hops, groups = len(work.visit), len(work.num_awaited)
    for index in range(messages.start[groups + 1], messages.start[groups + 2]):
        send_one(messages, traffic, calendar, num_hops, index)
    for replica in range(len(work.num_admitted)):
        work.num_admitted[replica] = min(t.num_of_pipeline[replica], t.in_flight_limit)
        for number in range(work.num_admitted[replica]):
            schedule(calendar, 0.0, ADMITTED, replica * t.num_microbatches + number)
    for node in range(len(work.current)):
        if t.works[node]:
            begin_idle_shadow(t, work, calendar, node)


def count_end(t: Tables, work: Work, calendar: Calendar, kind: int, about: int) -> None:
    """Count the end of a node's or microbatch's work for the gradient exchanges that wait for it."""
    if t.overlaps_exchange and kind == NODE_DONE:
        for index in range(t.stages_start[about], t.stages_start[about + 1]):
            count_for_stage(work, calendar, t.stages[index])
    elif t.overlaps_exchange:
        count_for_stage(work, calendar, 0)
    else:
        for stage in range(len(work.num_awaited)):
            count_for_stage(work, calendar, stage)


def count_for_stage(work: Work, calendar: Calendar, stage: int) -> None:
    """Count one end of work for a stage."""
    work.num_awaited[stage] -= 1
    if not work.num_awaited[stage]:
        schedule(calendar, 0.0, STAGE_DONE, stage)


def count_arrival(work: Work, calendar: Calendar, group: int) -> None:
    """Count the arrival of a message other than a hop."""
    groups = len(work.num_awaited)
    if group < groups:
        work.messages_left[group] -= 1
        if not work.messages_left[group]:
            schedule(calendar, 0.0, EXCHANGED, group)
    elif group == groups:
        work.left[TRANSFERS] -= 1
        if not work.left[TRANSFERS]:
            schedule(calendar, 0.0, TRANSFERRED, 0)
    elif group == groups + 1:
        work.left[COPIES] -= 1
        if not work.left[COPIES] and work.left[AWAITS_COPIES]:
            schedule(calendar, 0.0, COPIED, 0)


def end_round(messages: Messages, work: Work, traffic: Traffic, calendar: Calendar) -> None:
    """After the optimizer and after each round of shadow transfers: the next round, or the wait for the copies."""
    num_hops, groups = len(work.visit), len(work.num_awaited)
    if work.left[ROUNDS]:
        work.left[ROUNDS] -= 1
        begin, end = messages.start[groups], messages.start[groups + 1]
        for index in range(begin, end):
            send_one(messages, traffic, calendar, num_hops, index)
        work.left[TRANSFERS] = end - begin
        if begin == end:
            schedule(calendar, 0.0, TRANSFERRED, 0)
    else:
        work.left[AWAITS_COPIES] = 1
        if not work.left[COPIES]:
            schedule(calendar, 0.0, COPIED, 0)


# ---- a microbatch ------------------------------------------------------------------------------------------------


def send_to_next_visit(t: Tables, work: Work, calendar: Calendar, b: int) -> None:
    """Send a microbatch to its next visit, or back to the embedding."""
    if t.hop_path[b * (t.num_visits + 1) + work.visit[b]] == NO:
        arrive(t, work, calendar, b)
    else:
        schedule(calendar, t.software_seconds, HOPPED, b)


def hop_after_software(t: Tables, paths: Paths, work: Work, traffic: Traffic, calendar: Calendar, b: int) -> None:
    """Send the activation, or its gradient, unless the hop takes no time."""
    path = t.hop_path[b * (t.num_visits + 1) + work.visit[b]]
    if t.hop_takes_time[path]:
        send(traffic, calendar, b, path, t.hop_bytes, paths.latency_seconds[path], t.has_channels)
    else:
        arrive(t, work, calendar, b)


def arrive(t: Tables, work: Work, calendar: Calendar, b: int) -> None:
    """Arrive at the node of the next visit, or at the end."""
    i = work.visit[b]
    if i == t.num_visits:
        schedule(calendar, 0.0, RELEASED, b // t.num_microbatches)
        schedule(calendar, 0.0, MICROBATCH_DONE, b)
        return
    node = t.node[b * t.num_visits + i]
    if 2 * i == t.num_visits and t.head_forwards[node] and work.barrier[node] != OPEN:
        work.next_at_barrier[b] = NO
        if work.first_at_barrier[node] == NO:
            work.first_at_barrier[node] = b
        else:
            work.next_at_barrier[work.last_at_barrier[node]] = b
        work.last_at_barrier[node] = b
        return
    wait_at_node(t, work, calendar, b)


def open_barrier(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """Let the backwards of a node's heads begin."""
    work.barrier[node] = OPEN
    b = work.first_at_barrier[node]
    while b != NO:
        wait_at_node(t, work, calendar, b)
        b = work.next_at_barrier[b]


def wait_at_node(t: Tables, work: Work, calendar: Calendar, b: int) -> None:
    """Join the visits that wait at a node."""
    g = b * t.num_visits + work.visit[b]
    work.visit[b] += 1
    node, waiting = t.node[g], work.waiting
    if t.choice[node] == FIXED:
        work.has_arrived[g] = True
        if work.is_idle[node] and t.visits[t.visits_start[node] + work.num_taken[node]] == g:
            schedule(calendar, 0.0, STORED, node)
        return
    place = work.last_waiting[node]
    work.last_waiting[node] += 1
    if t.choice[node] == BY_RANK:
        first, rank = work.first_waiting[node], t.rank[g]
        while place > first and t.rank[waiting[place - 1]] > rank:
            waiting[place] = waiting[place - 1]
            place -= 1
    waiting[place] = g
    if work.is_idle[node]:
        schedule(calendar, 0.0, STORED, node)


# ---- a node --------------------------------------------------------------------------------------------------------


def begin_idle_shadow(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """Do the shadow work of a node that nothing visits, one microbatch after the other; then wait for visits."""
    index = t.idle_shadow_start[node] + work.num_idle_shadows[node]
    if index < t.idle_shadow_start[node + 1]:
        work.num_idle_shadows[node] += 1
        occupy(t, work, calendar, node, t.idle_shadow_seconds[index], IDLE_SHADOWED)
        return
    next_visit(t, work, calendar, node)


def next_visit(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """Wait for the next visit; end after the last one and the backlog of shadow work."""
    if t.visits_start[node] + work.num_taken[node] == t.visits_start[node + 1]:
        if work.backlog_seconds[node] > 0.0:
            work.busy[VISITING if t.shadow == DEFERRED else SHADOWING] += work.backlog_seconds[node]
            schedule(calendar, work.backlog_seconds[node], CAUGHT_UP, node)
        else:
            schedule(calendar, 0.0, NODE_DONE, node)
        return
    work.idle_since[node], work.is_idle[node] = calendar.clock[0], True
    serve(t, work, calendar, node)


def serve(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """Take a visit that waits, if the node is idle."""
    if not work.is_idle[node]:
        return
    if t.choice[node] == FIXED:
        g = t.visits[t.visits_start[node] + work.num_taken[node]]
        if not work.has_arrived[g]:
            return
    else:
        if work.first_waiting[node] == work.last_waiting[node]:
            return
        g = work.waiting[work.first_waiting[node]]
        work.first_waiting[node] += 1
    work.is_idle[node] = False
    work.num_taken[node] += 1
    work.current[node] = g
    schedule(calendar, 0.0, TAKEN, node)


def begin_visit(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """Begin the operation of a visit; the wait for it has hidden some of the backlog of shadow work."""
    if work.backlog_seconds[node] > 0.0:
        hidden_seconds = min(work.backlog_seconds[node], calendar.clock[0] - work.idle_since[node])
        work.backlog_seconds[node] -= hidden_seconds
        work.busy[VISITING if t.shadow == DEFERRED else SHADOWING] += hidden_seconds
    occupy(t, work, calendar, node, t.seconds[work.current[node]], WORKED)


def occupy(t: Tables, work: Work, calendar: Calendar, node: int, seconds: float, end: int) -> None:
    """Occupy a node with an operation; `end` is the kind of event that ends it."""
    seconds = actual_seconds(t, work, node, seconds)
    work.busy[VISITING if end == WORKED else SHADOWING] += seconds
    schedule(calendar, seconds, end, node)


def actual_seconds(t: Tables, work: Work, node: int, seconds: float) -> float:
    """Seconds of an operation with the node's jitter."""
    if not t.has_jitter:
        return seconds
    factor = t.factors[t.factors_start[node] + work.num_operations[node]]
    work.num_operations[node] += 1
    return whole_ticks(seconds * factor)


def end_work(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """End the operation of a visit; shadow work may come before the microbatch continues."""
    shadow_seconds = t.shadow_seconds[work.current[node]]
    if t.shadow == WITH_FORWARD and shadow_seconds >= 0.0:
        occupy(t, work, calendar, node, shadow_seconds, SHADOWED)
        return
    end_visit(t, work, calendar, node)
    if t.shadow == EAGER and shadow_seconds >= 0.0:
        occupy(t, work, calendar, node, shadow_seconds, SHADOWED)
        return
    if t.shadow in (LAZY, DEFERRED) and shadow_seconds >= 0.0:
        work.backlog_seconds[node] += actual_seconds(t, work, node, shadow_seconds)
        due_seconds = work.backlog_seconds[node] - t.most_deferred_seconds[node]
        if t.shadow == DEFERRED and due_seconds > 0.0:
            work.backlog_seconds[node] -= due_seconds
            work.busy[VISITING] += due_seconds
            schedule(calendar, due_seconds, SHADOWED, node)
            return
    next_visit(t, work, calendar, node)


def end_visit(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """Let the microbatch go on; after the last forward of the node's heads, their backwards."""
    g = work.current[node]
    schedule(calendar, 0.0, VISITED, g // t.num_visits)
    if 2 * (g % t.num_visits + 1) == t.num_visits and t.head_forwards[node]:
        work.head_forwards_left[node] -= 1
        if not work.head_forwards_left[node]:
            work.barrier[node] = OPENING
            schedule(calendar, 0.0, OPENED, node)


def end_shadow(t: Tables, work: Work, calendar: Calendar, node: int) -> None:
    """End an operation of shadow work."""
    if t.shadow == WITH_FORWARD:
        end_visit(t, work, calendar, node)
    next_visit(t, work, calendar, node)
