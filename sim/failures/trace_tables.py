"""Tables of churn: intervals, events, counts, lifetimes and failure times, with columns of any name and order.

The columns of a table determine its kind: `node,start,end` intervals, `time,node,event` events,
`time,count` counts, `lifetime[,censored]` lifetimes, `time` failure times.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Literal

import numpy as np
from pydantic import Field

from models.spec import Config
from sim.core.text import format_list, format_value, nearest, shortened
from sim.failures.history import Flags, Floats
from sim.failures.trace_text import TraceError, number_of, numbered_lines

TableFormat = Literal["intervals", "fta", "events", "counts", "lifetimes", "times"]

TimeUnit = Literal["microseconds", "milliseconds", "seconds", "minutes", "hours", "days"]
SECONDS_PER: dict[str, float] = {
    "microseconds": 1e-6,
    "milliseconds": 1e-3,
    "seconds": 1.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86_400.0,
}
UNIT_WORDS = {
    **dict.fromkeys(("us", "usec", "microsecond", "microseconds"), "microseconds"),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "milliseconds"),
    **dict.fromkeys(("s", "sec", "second", "seconds"), "seconds"),
    **dict.fromkeys(("min", "minute", "minutes"), "minutes"),
    **dict.fromkeys(("h", "hour", "hours"), "hours"),
    **dict.fromkeys(("d", "day", "days"), "days"),
}
"""Units by the last word of a header, as in `start_ms`."""

ROLES: dict[str, tuple[str, ...]] = {
    "node": (
        *("node", "machine", "host", "hostname", "instance", "vm", "worker", "peer"),
        *("node_name", "node_id", "machine_id", "instance_id", "host_id", "worker_id", "vm_id"),
    ),
    "start": (
        *("start", "started", "begin", "from", "joined", "launched", "created", "start_time", "launch_time"),
        *("created_at", "launched_at", "started_at", "event_start_time"),
    ),
    "end": (
        *("end", "ended", "stop", "stopped", "until", "finish", "left", "terminated", "preempted", "deleted"),
        *("end_time", "stop_time", "terminated_at", "preempted_at", "ended_at", "event_stop_time"),
    ),
    "region": ("region", "zone", "availability_zone", "az", "site"),
    "state": ("state", "status"),
    "time": ("time", "timestamp", "datetime", "failure_time", "failed_at"),
    "event": ("event", "action", "event_type"),
    "count": ("count", "nodes", "num_nodes", "instances", "available"),
    "lifetime": ("lifetime", "uptime", "duration"),
    "censored": ("censored",),
}
"""Roles of columns, and the header names that identify them; the first one is the name in `columns`."""

NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "intervals": (("start", "end"),),
    "fta": (("node", "start", "end", "state"),),
    "events": (("time", "node", "event"), ("time", "node", "state")),
    "counts": (("time", "count"),),
    "lifetimes": (("lifetime",),),
    "times": (("time",),),
}
"""Required columns of each kind of table. Kinds with more columns come first."""

FTA_HEADER = ("event_id", "component_id", "node_id", "platform_id", "node_name", "event_type")
FTA_COLUMNS = {"node": 2, "region": 3, "state": 5, "start": 6, "end": 7}

OPEN = ("", "-", "null", "none", "nan", "na", "n/a", "nat", "inf", "infinity", "open", "running", "current")
UP, DOWN = ("1", "up", "true", "yes", "available", "on"), ("0", "down", "false", "no", "unavailable", "off")


def column(what: str) -> str | int | None:
    """A field of `columns`."""
    return Field(None, description=what)


class ColumnsConfig(Config):
    """Columns of a table, each by its name in the header or its number from 1."""

    node: str | int | None = column("name of the node; without it, each line is a node of its own")
    start: str | int | None = column("arrival of the node; empty: before the start of the data")
    end: str | int | None = column("loss of the node; empty: after the end of the data")
    region: str | int | None = column("region or zone of the node")
    state: str | int | None = column("state in an interval or from an instant on; 1 or up: present; 0 or down: absent")
    time: str | int | None = column("time of the event")
    event: str | int | None = column("add or 0: arrival; remove or 1: loss; update or 2: neither")
    count: str | int | None = column("number of nodes from this instant on")
    lifetime: str | int | None = column("time for which a node was present; not for replays")
    censored: str | int | None = column("1: the lifetime did not end with a loss; 0: it did")


@dataclass
class Table:
    """Cells of a table by role, the line of each row, the units in the header, and the unused columns."""

    kind: TableFormat
    cells: dict[str, list[str]]
    lines: list[int]
    units: dict[str, str]
    unused: list[str] = field(default_factory=list)

    def place(self, row: int) -> str:
        """Line of a row, for messages."""
        return f"line {self.lines[row]}"


def split_lines(text: str) -> tuple[list[list[str]], list[int]]:
    """Cells of each line, and its number. Empty lines and lines that begin with # are skipped."""
    kept = [(number, line) for number, line in numbered_lines(text) if line.strip() and line.lstrip()[0] != "#"]
    if not kept:
        raise TraceError("", "contains only comments; allowed: a table")
    mark = next((mark for mark in "\t,;" if mark in kept[0][1]), None)
    if mark is None:
        return [line.split() for _, line in kept], [number for number, _ in kept]
    rows = []
    for number, line in kept:
        try:
            cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise TraceError(f"line {number}", f"not a valid line of a table: {error}") from None
        rows.append([cell.strip() for cell in cells])
    return rows, [number for number, _ in kept]


def read_table(text: str, kind: TableFormat | None, columns: ColumnsConfig | None) -> Table:
    """Read a table of a given kind, or of the kind that follows from its columns. Raises TraceError."""
    rows, lines = split_lines(text)
    named = {} if columns is None else columns.model_dump(exclude_none=True)
    header = rows[0] if is_header(rows[0]) else None
    if header:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        assert header
        raise (
            TraceError("line 1", "a header without any line after it") if places_in_header(header) else no_table(header)
        )
    if kind == "fta" or (kind is None and not named and is_fta(header, rows[0])):
        kind, found = "fta", named or FTA_COLUMNS
        found = {role: place + 1 if not named else place for role, place in found.items()}
        places = {role: place_of(role, which, header, len(rows[0])) for role, which in found.items()}
    elif named:
        places = {role: place_of(role, which, header, len(rows[0])) for role, which in named.items()}
        if header and not any(places.keys() >= set(needed) for kinds in NEEDED.values() for needed in kinds):
            places = {**places_in_header(header), **places}  # the other columns are identified by the header
    else:
        places = places_in_header(header) if header else places_without_header(rows, kind)
    chosen = kind or kind_of(places, header, rows[0])
    require_columns(chosen, places, header, rows[0])
    return as_table(chosen, places, header, rows, lines)


def as_table(
    kind: TableFormat, places: dict[str, int], header: list[str] | None, rows: list[list[str]], lines: list[int]
) -> Table:
    """Extract columns by their places from lines of equal length. Raises TraceError."""
    width = max(len(rows[0]), len(header or ()))
    needed = max(places.values()) + 1
    for line, row in zip(lines, rows, strict=True):
        if len(row) < needed or len(row) > width:
            allowed = f"{width}, as in the {'header' if header else 'first line'}"
            raise TraceError(f"line {line}", f"found {len(row)} column{'s'[: len(row) - 1]}; allowed: {allowed}")
    cells = {role: [row[place] for row in rows] for role, place in places.items()}
    units = {role: unit for role, place in places.items() if header and (unit := unit_in(header[place]))}
    unused = [name for place, name in enumerate(header or ()) if place not in places.values()]
    return Table(kind, cells, lines, units, unused)


def is_header(cells: Sequence[str]) -> bool:
    """Whether a line is a header: no cell is a number, a time or a data word."""
    words = {cell.casefold() for cell in cells}
    return not any(is_data(cell) for cell in cells) and not words & {"add", "remove"}


def is_data(cell: str) -> bool:
    """Whether a cell is a number or a time."""
    return number_of(cell) is not None or re.match(r"\d{1,4}[-/]\d{1,2}[-/]\d{1,4}", cell, re.ASCII) is not None


def is_fta(header: Sequence[str] | None, first: Sequence[str]) -> bool:
    """Whether a table is an `event_trace.tab` of the Failure Trace Archive."""
    if header is not None:
        return tuple(name.casefold() for name in header[:6]) == FTA_HEADER
    numbers = [cell for place, cell in enumerate(first) if place != FTA_COLUMNS["node"] + 2]
    return len(first) in (8, 9) and first[5] in ("0", "1") and all(number_of(cell) is not None for cell in numbers[:7])


def place_of(role: str, which: str | int, header: Sequence[str] | None, width: int) -> int:
    """Place of a column given in `columns`. Raises TraceError."""
    if isinstance(which, int) or (header is None and which.isdecimal()):
        if not 1 <= int(which) <= width:
            raise TraceError("", f"columns.{role}: found {which}; allowed: the number of a column, 1 to {width}")
        return int(which) - 1
    if header is None:
        raise TraceError(
            "line 1", f"columns.{role} is '{shortened(which)}', but the file has no header; give column numbers"
        )
    if which not in header:
        close = nearest(which, header)
        near = f"; nearest: {shortened(close)}" if close else ""
        allowed = ", ".join(shortened(name) for name in islice(header, 20))
        raise TraceError("line 1", f"columns.{role}: no column '{shortened(which)}'{near}; allowed: {allowed}")
    return list(header).index(which)


def places_in_header(header: Sequence[str]) -> dict[str, int]:
    """Places of the columns that have a common name in the header."""
    places: dict[str, int] = {}
    names = [without_unit(name) for name in header]
    for role, words in ROLES.items():
        found = next((names.index(word) for word in words if word in names), None)
        if found is not None:
            places[role] = found
    unit_only = next((place for place, name in enumerate(header) if name.casefold() in UNIT_WORDS), None)
    if unit_only is not None and not places.keys() & {"time", "start", "lifetime"}:
        places["time" if places.keys() & {"count", "event", "node"} else "lifetime"] = unit_only
    return places


def without_unit(name: str) -> str:
    """A header's name in lower case, without a unit at its end."""
    words = re.split(r"[\s_()\[\]]+", name.strip().casefold())
    words = [word for word in words if word]
    return "_".join(words[:-1] if len(words) > 1 and words[-1] in UNIT_WORDS else words)


def unit_in(name: str) -> str | None:
    """The unit at the end of a header's name."""
    words = [word for word in re.split(r"[\s_()\[\]]+", name.strip().casefold()) if word]
    return UNIT_WORDS.get(words[-1]) if words else None


def places_without_header(rows: Sequence[Sequence[str]], kind: TableFormat | None) -> dict[str, int]:
    """Places of columns in a table without a header, from their number and content. Raises TraceError."""
    width = len(rows[0])
    if width >= 3 and kind in (None, "intervals"):
        return {"node": 0, "start": 1, "end": 2}
    if width == 2 and kind in (None, "counts", "lifetimes"):
        times = [number_of(row[0]) for row in rows]
        is_ascending = all(a is None or b is None or a <= b for a, b in pairwise(times))
        flags = {row[1] for row in rows if len(row) == 2} <= {"0", "1"}
        is_lifetimes = kind == "lifetimes" or (kind is None and flags and not is_ascending)
        return {"lifetime": 0, "censored": 1} if is_lifetimes else {"time": 0, "count": 1}
    if width == 1 and (kind in ("lifetimes", "times") or (kind is None and number_of(rows[0][0]) is None)):
        return {"lifetime" if kind == "lifetimes" else "time": 0}
    if width == 1 and kind is None:
        allowed = "a header 'lifetime' or 'time', or format 'lifetimes' or 'times'"
        raise TraceError("line 1", f"a list of numbers can be lifetimes or failure times; allowed: {allowed}")
    needs = " or ".join(",".join(roles) for roles in NEEDED[kind or "intervals"])
    raise TraceError("line 1", f"found {width} columns without a header; allowed: a header with {needs}, or 'columns'")


def kind_of(places: dict[str, int], header: Sequence[str] | None, first: Sequence[str]) -> TableFormat:
    """Kind of the table with these columns. Raises TraceError if there is none."""
    for kind in ("intervals", "events", "counts", "lifetimes"):
        if any(places.keys() >= set(needed) for needed in NEEDED[kind]):
            return kind
    if set(places) == {"time"}:
        return "times"
    raise no_table(header or first)


def no_table(cells: Sequence[str]) -> TraceError:
    """Error for a table with unknown columns."""
    allowed = (
        "a table of node,start,end; time,node,event; time,count or lifetime,censored, with a header of these names or "
        "with 'columns'; 'milliseconds,add or remove,node'; 'YYYY-MM-DD, HH:MM:SS, count'; or JSON"
    )
    return TraceError(
        "line 1", f"found {format_value(','.join(cells))}, which is not the start of a trace; allowed: {allowed}"
    )


def require_columns(
    kind: TableFormat, places: dict[str, int], header: Sequence[str] | None, first: Sequence[str]
) -> None:
    """Raise TraceError if a table lacks a column of its kind."""
    lacking = [[role for role in needed if role not in places] for needed in NEEDED[kind]]
    missing = min(lacking, key=len)
    if missing:
        cells = [shortened(cell) for cell in header or first]
        found = f"found the columns {format_list(cells)}" if header else f"found {len(cells)} columns without a header"
        allowed = f"give 'columns: {{{missing[0]}: ...}}' its name or number"
        raise TraceError("line 1", f"no column for {format_list(missing)} of {kind}: {found}; allowed: {allowed}")


def seconds_of(table: Table, role: str, unit: str | None, may_be_open: bool = False) -> tuple[Floats, Flags]:
    """A column of times in seconds, and which of them are open. Raises TraceError for an invalid time.

    Numbers are in the given unit, else in that of the header, else in seconds. ISO times become seconds since 1970;
    without a time zone they are UTC.
    """
    import pandas as pd  # slow to import, and most scenarios have no table

    cells = pd.Series(table.cells[role], dtype="str")
    is_open = cells.str.casefold().isin(OPEN).to_numpy(bool) if may_be_open else np.zeros(len(cells), bool)
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(float)
    known = np.isfinite(numbers) | is_open
    first = next((cell for cell, skip in zip(cells, is_open, strict=True) if not skip), "0")
    scale = SECONDS_PER[unit or table.units.get(role) or "seconds"]
    if number_of(first) is None:
        instants = pd.to_datetime(cells.where(~is_open, None), errors="coerce", utc=True, format="ISO8601")
        known, scale = instants.notna().to_numpy(bool) | is_open, 1.0
        numbers = (instants - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(float)
    if not known.all():
        row = int(np.argmin(known))
        also = "; or empty" if may_be_open else ""
        allowed = f"a number, or an ISO time such as 2026-05-01T12:00:00; one form in the whole column{also}"
        raise TraceError(table.place(row), f"found {format_value(cells[row])} as the {role}; allowed: {allowed}")
    return np.where(is_open, np.nan, numbers * scale if scale >= 1 else numbers / round(1 / scale)), is_open


def flags_of(table: Table, role: str, yes: Sequence[str], no: Sequence[str]) -> Flags:
    """A column of flags. Raises TraceError for an unknown word."""
    import pandas as pd

    cells = pd.Series(table.cells[role], dtype="str").str.casefold()
    is_yes = cells.isin(yes).to_numpy(bool)
    known = is_yes | cells.isin(no).to_numpy(bool)
    if not known.all():
        row = int(np.argmin(known))
        found = format_value(table.cells[role][row])
        allowed = f"{', '.join(yes[:2])} or {', '.join(no[:2])}"
        raise TraceError(table.place(row), f"found {found} as the {role}; allowed: {allowed}")
    return is_yes
