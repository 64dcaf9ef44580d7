"""What tables of churn say: the history of each node, counts over time, lifetimes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.core.text import format_count, format_value, shortened, suggestion
from sim.failures.history import Flags, Floats, History, Ints, sorted_history
from sim.failures.trace_tables import DOWN, UP, Table, flags_of, seconds_of
from sim.failures.trace_text import MAX_NODES, MAX_SECONDS, TraceError, checked_span

A_COUNT = f"a whole number from 0 to {MAX_NODES:,}"
EVENTS = {"add": True, "0": True, "remove": False, "1": False, "update": None, "2": None, "no-op": None}
"""Words for events, and the codes of Google's machine events: a node comes, leaves, or neither."""


@dataclass(frozen=True)
class Lifetimes:
    """How long each node was there, and whether it was lost then; without intervals in time."""

    seconds: Floats
    is_lost: Flags


def left_out(numbers: dict[str, int]) -> list[str]:
    """Sentences for what a table has and its history has not; none for what does not occur."""
    return [words.format(format_count(number, "line")) for words, number in numbers.items() if number]


def unused_columns(table: Table) -> list[str]:
    """A sentence for the columns that are not used, where there are any."""
    names = [shortened(name, 30) for name in table.unused]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"columns that are not used: {', '.join(names[:8])}{more}"] if names else []


def history_of_intervals(table: Table, unit: str | None) -> tuple[History, list[str]]:
    """The history in a table of intervals of presence, or of absence where all its states are down. Raises TraceError.

    An interval without start was there at the first instant of the table, one without end was there at the last.
    """
    starts, open_starts = seconds_of(table, "start", unit, may_be_open=True)
    ends, open_ends = seconds_of(table, "end", unit, may_be_open=True)
    known = np.concatenate((starts[~open_starts], ends[~open_ends]))
    if not len(known):
        raise TraceError("", "no line has a start or an end")
    first, last = float(known.min()), float(known.max())
    check_span(table, np.where(open_starts, first, starts), np.where(open_ends, first, ends), first, unit)
    start, end = np.where(open_starts, first, starts) - first, np.where(open_ends, last, ends) - first
    if (end < start).any():
        row = int(np.argmax(end < start))
        cells = [format_value(table.cells[role][row]) for role in ("end", "start")]
        raise TraceError(table.place(row), f"found the end {cells[0]} before the start {cells[1]}; allowed: after it")
    node, names = codes_of(table, "node")
    region, regions = codes_of(table, "region") if "region" in table.cells else (np.zeros(0, np.int64), ())
    check_no_overlap(table, node, start, end)
    history = History(node, start, end, ~open_ends, ~open_starts, last - first, names, region, regions)
    notes = unused_columns(table)
    if "state" in table.cells:
        is_up = flags_of(table, "state", UP, DOWN)
        if not is_up.any():
            history, more = of_downtimes(history)
            return sorted_history(chosen(history, history.end > history.start)), notes + more
        history, more = of_up(history, is_up)
        notes += more
    is_empty = history.end <= history.start
    numbers = {
        "{} of no length left out": int(is_empty.sum()),
        "{} without end: no loss, the node was still there": int((open_ends & (end > start)).sum()),
        "{} without start: the node was there before, its age is not known": int((open_starts & (end > start)).sum()),
    }
    return sorted_history(chosen(history, ~is_empty)), notes + left_out(numbers)


def chosen(history: History, which: Flags) -> History:
    """The history with some of its intervals. Raises TraceError where none is left."""
    if not which.any():
        raise TraceError("", "no line has an interval in which a node was there")
    columns = {name: getattr(history, name)[which] for name in ("node", "start", "end", "is_lost", "is_begun")}
    return replace(history, **columns, region=history.region[which] if history.regions else history.region)


def of_up(history: History, is_up: Flags) -> tuple[History, list[str]]:
    """The intervals of state up. An end at the table's last instant is no loss where the table also lists absences."""
    has_down = not is_up.all()
    kept = chosen(history, is_up)
    if has_down:
        down_starts = set(zip(history.node[~is_up].tolist(), history.start[~is_up].tolist(), strict=True))
        ends = zip(kept.node.tolist(), kept.end.tolist(), strict=True)
        followed = np.array([pair in down_starts for pair in ends], bool)
        kept = replace(kept, is_lost=kept.is_lost & (followed | (kept.end < history.seconds)))
    notes = left_out({"{} of state down: what lies between presences": int((~is_up).sum())})
    unseen = len(set(history.node[~is_up].tolist()) - set(kept.node.tolist()))
    if unseen:
        notes.append(f"{format_count(unseen, 'node')} without any line of state up left out")
    if has_down:
        notes.append("before the first and after the last line of a node nothing is known of it: it counts as absent")
    return kept, notes


def of_downtimes(history: History) -> tuple[History, list[str]]:
    """The presences between absences: a node is there from the first instant of the table to its last."""
    order = np.lexsort((history.start, history.node))
    node, start, end = history.node[order], history.start[order], history.end[order]
    begins = np.concatenate(([True], node[1:] != node[:-1]))
    ends = np.concatenate((begins[1:], [True]))
    up_start = np.where(begins, 0.0, np.concatenate(([0.0], end[:-1])))
    last = np.flatnonzero(ends)
    forever = history.is_lost[order][last]  # the last absence ended
    tail = last[forever]
    region = history.region[order] if history.regions else history.region
    found = replace(
        history,
        node=np.concatenate((node, node[tail])),
        start=np.concatenate((up_start, end[tail])),
        end=np.concatenate((start, np.full(len(tail), history.seconds))),
        is_lost=np.concatenate((np.ones(len(node), bool), np.zeros(len(tail), bool))),
        is_begun=np.concatenate((~begins, np.ones(len(tail), bool))),
        region=np.concatenate((region, region[tail])) if history.regions else region,
    )
    note = "all lines are of state down: each node counts as present from the table's first instant to its last"
    return found, [note]


def check_span(table: Table, start: Floats, end: Floats, first: float, unit: str | None) -> None:
    """Raise TraceError where a time lies too long after the first, with the unit that it may be in."""
    late = np.maximum(start, end) - first
    row = int(np.argmax(late))
    if late[row] <= MAX_SECONDS:
        return
    try:
        checked_span(table.place(row), float(late[row]))
    except TraceError as error:
        if unit is None and late[row] / 1000 <= MAX_SECONDS:
            error.args = (f"{error}; are the times milliseconds? (unit: milliseconds)",)
        raise


def check_no_overlap(table: Table, node: Ints, start: Floats, end: Floats) -> None:
    """Raise TraceError where a node is there twice at once."""
    order = np.lexsort((end, start, node))
    overlaps = (node[order][1:] == node[order][:-1]) & (start[order][1:] < end[order][:-1])
    if overlaps.any():
        at = int(np.argmax(overlaps))
        before, row = sorted((int(order[at]), int(order[at + 1])))
        name = format_value(table.cells["node"][row])
        found = f"the interval of node {name} overlaps that of {table.place(before)}"
        raise TraceError(table.place(row), f"{found}; allowed: intervals of a node one after another")


def codes_of(table: Table, role: str) -> tuple[Ints, tuple[str, ...]]:
    """A column of names as numbers, and the names; without it, each line has its own. Raises TraceError."""
    if role not in table.cells:
        return np.arange(len(table.lines)), tuple(f"line {line}" for line in table.lines)
    cells = table.cells[role]
    import pandas as pd  # takes long, and most scenarios have no table

    if "" in cells:
        raise TraceError(table.place(cells.index("")), f"found an empty {role}; allowed: its name")
    codes, names = pd.factorize(np.array(cells, dtype=object))
    return codes.astype(np.int64), tuple(map(str, names))


def history_of_events(table: Table, unit: str | None) -> tuple[History, list[str]]:
    """The history in a table of events, in order of time, those of one instant in order of lines. Raises TraceError.

    A node whose first event is that it leaves was there before the first event.
    """
    times, _ = seconds_of(table, "time", unit)
    first, last = float(times.min()), float(times.max())
    check_span(table, times, times, first, unit)
    node, names = codes_of(table, "node")
    region, regions = codes_of(table, "region") if "region" in table.cells else (np.zeros(len(node), np.int64), ())
    intervals, num_idle = presences(table, times - first, node)
    if not intervals:
        raise TraceError("", "no node comes or leaves")
    begin_row, begin, end, is_lost, is_begun = (np.array(values) for values in zip(*intervals, strict=True))
    where = region[begin_row] if regions else np.zeros(0, np.int64)
    history = History(node[begin_row], begin, end, is_lost, is_begun, last - first, names, where, regions)
    is_empty = history.end <= history.start
    notes = unused_columns(table) + left_out(
        {
            "{} without a change left out": num_idle,
            "{} of a node that left at the instant of its arrival left out": int((is_empty & history.is_lost).sum()),
        }
    )
    still, before = int((~history.is_lost).sum()), int((~history.is_begun & ~is_empty).sum())
    if still:
        notes.append(f"{format_count(still, 'node')} still present at the last event: no losses")
    if before:
        notes.append(f"{format_count(before, 'node')} present before the first event: the age is not known")
    return sorted_history(chosen(history, ~is_empty)), notes


Presence = tuple[int, float, float, bool, bool]


def presences(table: Table, times: Floats, node: Ints) -> tuple[list[Presence], int]:
    """Of each presence the row of its arrival, start, end, is_lost and is_begun; and the number of idle lines."""
    comes, is_state, nodes = states_of(table), "state" in table.cells and "event" not in table.cells, node.tolist()
    since: dict[int, tuple[int, float]] = {}
    seen: set[int] = set()
    found: list[Presence] = []
    num_idle = 0
    for row in np.argsort(times, kind="stable").tolist():
        who, now = nodes[row], float(times[row])
        if comes[row] is None or (is_state and who in seen and comes[row] == (who in since)):
            num_idle += 1
        elif comes[row]:
            if who in since:
                present = f"is added, but is present since {table.place(since[who][0])}"
                raise TraceError(table.place(row), f"node {format_value(table.cells['node'][row])} {present}")
            since[who] = row, now
        elif who in since:
            begin_row, begin = since.pop(who)
            found.append((begin_row, begin, now, True, True))
        elif who in seen:
            absent = "is removed, but is not present"
            raise TraceError(table.place(row), f"node {format_value(table.cells['node'][row])} {absent}")
        else:
            found.append((row, 0.0, now, True, False))
        if comes[row] is not None:
            seen.add(who)
    last = float(times.max())
    return found + [(row, begin, last, False, True) for row, begin in since.values()], num_idle


def states_of(table: Table) -> list[bool | None]:
    """For each line whether a node comes (True), leaves (False), or neither. Raises TraceError for another word."""
    if "event" not in table.cells:
        return list(map(bool, flags_of(table, "state", UP, DOWN)))
    cells = [cell.casefold() for cell in table.cells["event"]]
    for row, cell in enumerate(cells):
        if cell not in EVENTS:
            found = format_value(table.cells["event"][row])
            raise TraceError(table.place(row), f"found {found} as the event{suggestion(cell, EVENTS)}")
    return [EVENTS[cell] for cell in cells]


def samples_of_counts(table: Table, unit: str | None) -> tuple[list[tuple[float, int]], list[str]]:
    """Seconds and node counts, as the points of a step plot: of several at one instant the last counts."""
    import pandas as pd

    times, _ = seconds_of(table, "time", unit)
    if (np.diff(times) < 0).any():
        row = int(np.argmax(np.diff(times) < 0)) + 1
        found = f"time {table.cells['time'][row]} after {table.cells['time'][row - 1]}"
        raise TraceError(table.place(row), f"{shortened(found)}; allowed: times in ascending order")
    check_span(table, times, times, float(times[0]), unit)
    numbers = pd.to_numeric(pd.Series(table.cells["count"], dtype="str"), errors="coerce").to_numpy(float)
    fits = (numbers == np.floor(numbers)) & (numbers >= 0) & (numbers <= MAX_NODES)
    if not fits.all():
        row = int(np.argmin(fits))
        raise TraceError(
            table.place(row), f"found {format_value(table.cells['count'][row])} as the count; allowed: {A_COUNT}"
        )
    last_of_instant = np.concatenate((np.diff(times) > 0, [True]))
    samples = zip((times - times[0])[last_of_instant].tolist(), numbers[last_of_instant].tolist(), strict=True)
    return [(seconds, int(count)) for seconds, count in samples], unused_columns(table)


def lifetimes_of(table: Table, unit: str | None) -> tuple[Lifetimes, list[str]]:
    """Lifetimes, each ended by a loss unless its line is censored. Raises TraceError."""
    seconds, _ = seconds_of(table, "lifetime", unit)
    if (seconds < 0).any():
        row = int(np.argmax(seconds < 0))
        found = format_value(table.cells["lifetime"][row])
        raise TraceError(table.place(row), f"found {found} as the lifetime; allowed: a number of at least 0")
    censored = flags_of(table, "censored", UP, DOWN) if "censored" in table.cells else np.zeros(len(seconds), bool)
    kept = seconds > 0
    if not kept.any():
        raise TraceError("", "no lifetime is above 0")
    numbers = {
        "{} of no length left out": int((~kept).sum()),
        "{} censored: the node was not lost": int((censored & kept).sum()),
    }
    return Lifetimes(seconds[kept], ~censored[kept]), unused_columns(table) + left_out(numbers)


def failure_times(table: Table, unit: str | None) -> tuple[Floats, list[str]]:
    """Instants of failures, ascending, in seconds; relative numbers count from the start of the observation."""
    times, _ = seconds_of(table, "time", unit)
    return np.sort(times), unused_columns(table)
