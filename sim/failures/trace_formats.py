"""File formats of availability traces: when spot nodes of a cloud arrived and left.

Bamboo (NSDI 2023) logs each node; Google Cloud traces of the same authors and SkyPilot (NSDI 2024) only count nodes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate, groupby, pairwise
from operator import itemgetter, sub
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sim.core.files import OddFileError, read_regular_file
from sim.core.text import format_value, nearest, shortened, suggestion

Format = Literal["auto", "bamboo", "google_counts", "skypilot"]

Polarity = Literal["available", "preempted"]

MAX_ROWS, MAX_BYTES, MAX_NODES = 1_000_000, 2**28, 100_000
MAX_SECONDS = 1e9  # longest trace, 31 years
Count = Annotated[int, Field(ge=0, le=MAX_ROWS)]

TraceRow = Annotated[
    tuple[Annotated[float, Field(ge=0, le=MAX_SECONDS)], Count, Count, tuple[Annotated[int, Field(ge=0)], ...]],
    Field(description="seconds since the first, nodes that arrive, nodes that leave, their numbers if known"),
]
"""An instant at which something changed. Nodes are numbered by arrival from 0, and leave before others arrive."""

COLUMNS = {"bamboo": "milliseconds,add or remove,node", "google_counts": "YYYY-MM-DD, HH:MM:SS, count"}

A_COUNT = f"a whole number from 0 to {MAX_NODES:,}"


class TraceError(ValueError):
    """A trace that cannot be used: the place in it, what was found, what is allowed; `read_trace` adds the file."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{', ' if place else ''}{place}: {message}")


def read_trace(path: Path, format: Format = "auto", polarity: Polarity = "available") -> tuple[TraceRow, ...]:
    """Read the rows of a trace, ascending; the first is at 0.0, the last at the end of the trace. Raises TraceError.

    Nodes of `bamboo` that leave at the instant of their arrival are left out; lines of `google_counts` are sorted by
    time, and the last one of an instant counts. A count of `skypilot` holds for one gap, also the last count.
    """
    try:
        text = text_of(path)
        kind = format_of(text) if format == "auto" else format
        if kind == "skypilot":
            return rows_of_counts(read_skypilot(text, polarity))
        if polarity != "available":
            raise TraceError("", f"polarity '{polarity}' goes with format skypilot, and this is {kind}")
        return rows_of_counts(read_google_counts(text)) if kind == "google_counts" else read_bamboo(text)
    except TraceError as error:
        error.args = (f"{path}{error}",)
        raise


def fleet_counts(rows: Sequence[TraceRow]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The instants of a trace in seconds, and the number of nodes present from each on."""
    instants, came, left, _ = zip(*rows, strict=True)
    return instants, tuple(accumulate(map(sub, came, left)))


def text_of(path: Path) -> str:
    """The text of a file. Raises TraceError where it cannot be read."""
    try:
        data = read_regular_file(path, MAX_BYTES)
    except OddFileError as error:
        raise TraceError("", str(error)) from None
    except IsADirectoryError:
        raise TraceError("", "is a folder; allowed: the file of a trace") from None
    except FileNotFoundError:
        close = nearest(path.name, sorted(file.name for file in path.parent.glob("*")))
        hint = f"; nearest: {shortened(close)}" if close else ""
        raise TraceError("", f"no such file{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TraceError("", f"cannot be read: {reason.lower()}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TraceError(f"line {line}", "not text in UTF-8") from None
    if not text.strip():
        raise TraceError("", "is empty")
    return text


def lines_of(text: str, columns: str) -> Iterator[tuple[str, list[str]]]:
    """The place and the cells of each line. Raises TraceError for a wrong number of cells or too many lines."""
    lines = text.rstrip().replace("\r\n", "\n").split("\n")
    num_columns = columns.count(",") + 1
    for number, line in enumerate(lines, start=1):
        place, cells = f"line {number}", [cell.strip() for cell in line.split(",")]
        if number > MAX_ROWS:
            raise TraceError(place, f"a trace has at most {MAX_ROWS:,} lines")
        if len(cells) != num_columns:
            found = f"{len(cells)} column{'s'[: len(cells) - 1]}" if line.strip() else "an empty line"
            raise TraceError(place, f"found {found}; allowed: {num_columns}, '{columns}'")
        yield place, cells


def format_of(text: str) -> str:
    """The format of a text, detected by its beginning. Raises TraceError where it is none of those known."""
    text = text.lstrip()
    if text[0] in "{[":
        return "skypilot"
    cells = [cell.strip() for cell in text.split("\n", 1)[0].split(",")]
    if re.match(r"\d{4}-\d{1,2}-\d{1,2}", cells[0], re.ASCII):
        return "google_counts"
    if number_of(cells[0]) is not None or any(word in cells for word in ("add", "remove")):
        return "bamboo"
    columns = ", ".join(f"{name} '{line}'" for name, line in COLUMNS.items())
    found = f"found {format_value(','.join(cells))}, which is not the start of a trace"
    raise TraceError("line 1", f"{found}; allowed: {columns}, without a header; or JSON")


def number_of(text: str) -> float | None:
    """A finite number in ASCII digits, or None."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII):
        return None
    return number if math.isfinite(number := float(text)) else None


def checked_span(place: str, seconds: float) -> float:
    """Check the seconds since the first instant. Raises TraceError where they are too many."""
    if seconds > MAX_SECONDS:
        allowed = f"allowed: at most {MAX_SECONDS:.0e} s, which is 31 years"
        raise TraceError(place, f"{seconds:.3g} s after the first instant; {allowed}")
    return seconds


def read_bamboo(text: str) -> tuple[TraceRow, ...]:
    """Rows of `milliseconds,add|remove,node`. Raises TraceError."""
    rows: list[TraceRow] = []
    there: dict[str, tuple[int, str]] = {}  # number, and the line of its arrival
    last_seen: dict[str, str] = {}
    num_arrived = 0
    for seconds, lines in groupby(bamboo_lines(text), key=itemgetter(0)):
        came: dict[str, str] = {}
        left: list[int] = []
        for _, place, word, node in lines:
            if word == "add":
                if since := came.get(node) or there.get(node, (0, ""))[1]:
                    raise TraceError(place, f"node {format_value(node)} is added, but is present since {since}")
                came[node] = place
            elif node in came:
                del came[node]
            elif node in there:
                left.append(there.pop(node)[0])
            else:
                close = nearest(node, there)
                why = f"left in {last_seen[node]}" if node in last_seen else "was never added"
                why += f"; nearest: {shortened(close)}" if close else ""
                raise TraceError(place, f"node {format_value(node)} is removed, but {why}")
            last_seen[node] = place
        there.update({node: (num_arrived + index, place) for index, (node, place) in enumerate(came.items())})
        num_arrived += len(came)
        rows.append((seconds, len(came), len(left), tuple(sorted(left))))
    return tuple(rows)


def bamboo_lines(text: str) -> Iterator[tuple[float, str, str, str]]:
    """Seconds, place, word and node of each line. Times must ascend, since the order of lines matters."""
    first_ms, before_ms, before_place = None, 0.0, ""
    for place, (time, word, node) in lines_of(text, COLUMNS["bamboo"]):
        ms = number_of(time)
        if ms is None or ms < 0:
            allowed = f"milliseconds, a number of at least 0{'; a header line is not' if place == 'line 1' else ''}"
            raise TraceError(place, f"found {format_value(time)} as the time; allowed: {allowed}")
        if ms < before_ms:
            found = f"time {ms:.15g} after {before_ms:.15g} of {before_place}"
            raise TraceError(place, f"{found}; allowed: times in ascending order")
        if word not in ("add", "remove"):
            raise TraceError(place, f"found {format_value(word)}{suggestion(word, ('add', 'remove'))}")
        if not node:
            raise TraceError(place, "the third column has no name of a node")
        first_ms = ms if first_ms is None else first_ms
        yield checked_span(place, (ms - first_ms) / 1000.0), place, word, node
        before_ms, before_place = ms, place


def read_google_counts(text: str) -> list[tuple[float, int]]:
    """Seconds and node counts of `YYYY-MM-DD, HH:MM:SS, count`, in order of time. Raises TraceError."""
    samples: dict[datetime, tuple[int, str]] = {}
    for place, (date, time, count) in lines_of(text, COLUMNS["google_counts"]):
        try:
            instant = datetime.strptime(f"{date} {time}", "%Y-%m-%d %H:%M:%S")
        except ValueError:
            found = f"found {format_value(f'{date}, {time}')} as the time"
            raise TraceError(place, f"{found}; allowed: 'YYYY-MM-DD, HH:MM:SS'") from None
        if not re.fullmatch(r"\d{1,6}", count, re.ASCII) or int(count) > MAX_NODES:
            raise TraceError(place, f"found {format_value(count)} as the count; allowed: {A_COUNT}")
        samples[instant] = int(count), place
    first = min(samples)
    return [
        (checked_span(place, (instant - first).total_seconds()), count)
        for instant, (count, place) in sorted(samples.items())
    ]


def read_skypilot(text: str, polarity: Polarity) -> list[tuple[float, int]]:
    """Seconds and node counts of JSON with `metadata.gap_seconds` and `data`. Raises TraceError."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"line {error.lineno}", f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}") from None
    except (RecursionError, ValueError):
        raise TraceError("", "not valid JSON: nested too deeply, or a number of too many digits") from None
    metadata = data.get("metadata") if isinstance(data, dict) else None
    gap_seconds: Any = metadata.get("gap_seconds") if isinstance(metadata, dict) else None
    fits = type(gap_seconds) in (int, float) and 0 < gap_seconds <= MAX_SECONDS
    require("metadata.gap_seconds", gap_seconds, fits, f"seconds, a number above 0 and at most {MAX_SECONDS:.0e}")
    counts = data.get("data")
    require("data", counts, isinstance(counts, list) and counts, "a list of counts, not empty")
    if len(counts) > MAX_ROWS:
        raise TraceError("data", f"found {len(counts):,} entries; allowed: at most {MAX_ROWS:,}")
    inverted = polarity == "preempted"
    most, allowed = (1, "0 or 1 with polarity preempted") if inverted else (MAX_NODES, A_COUNT)
    for index, count in enumerate(counts):
        if type(count) is not int or not 0 <= count <= most:
            raise TraceError(f"data[{index}]", f"found {format_value(count)}; allowed: {allowed}")
    checked_span("data", gap_seconds * len(counts))
    counts.append(counts[-1])
    return [(index * float(gap_seconds), 1 - num if inverted else num) for index, num in enumerate(counts)]


def require(key: str, found: Any, fits: Any, allowed: str) -> None:
    """Raise TraceError where the value at a key is missing or does not fit."""
    if found is None:
        raise TraceError("", f"'{key}' is missing; allowed: {allowed}")
    if not fits:
        raise TraceError(key, f"found {format_value(found)}; allowed: {allowed}")


def rows_of_counts(samples: list[tuple[float, int]]) -> tuple[TraceRow, ...]:
    """Rows of counts: the first, the last, and those at which the count changes."""
    changes = enumerate(pairwise([(0.0, 0), *samples]))
    return tuple(
        (seconds, max(0, count - before), max(0, before - count), ())
        for index, ((_, before), (seconds, count)) in changes
        if count != before or index in (0, len(samples) - 1)
    )
