"""File formats of churn: arrivals and losses of nodes, numbers of nodes over time, or lifetimes.

Bamboo (NSDI 2023) logs each node; Google Cloud traces of the same authors and SkyPilot (NSDI 2024) contain only counts;
Parcae (NSDI 2024) writes JSON Lines. `trace_tables` reads tables with columns of any name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from sim.core.text import format_value, nearest, shortened, suggestion
from sim.failures.history import Floats, History, TraceRow, history_of_rows, rows_of_history
from sim.failures.table_history import (
    A_COUNT,
    Lifetimes,
    failure_times,
    history_of_events,
    history_of_intervals,
    lifetimes_of,
    samples_of_counts,
)
from sim.failures.trace_tables import ColumnsConfig, TableFormat, TimeUnit, read_table
from sim.failures.trace_text import (
    MAX_NODES,
    MAX_ROWS,
    MAX_SECONDS,
    TraceError,
    checked_span,
    lines_of,
    number_of,
    numbered_lines,
    text_of,
)

Format = Literal["auto", "bamboo", "google_counts", "skypilot", "parcae", "intervals", "fta", "events", "counts"]

FileFormat = Literal[Format, "lifetimes", "times"]
"""Formats of `churnlab fit`. The last two do not contain the nodes present at each time and cannot be replayed."""

Polarity = Literal["available", "preempted"]

COLUMNS = {"bamboo": "milliseconds,add or remove,node", "google_counts": "YYYY-MM-DD, HH:MM:SS, count"}


@dataclass(frozen=True, eq=False)
class Churn:
    """Churn in a file: rows of a trace, with the history of each node if known; or lifetimes; or failure times."""

    format: str
    rows: tuple[TraceRow, ...] = ()
    history: History | None = None
    lifetimes: Lifetimes | None = None
    failures: Floats | None = None
    notes: tuple[str, ...] = ()


def read_trace(path: Path, format: Format = "auto", polarity: Polarity = "available") -> tuple[TraceRow, ...]:
    """Read the rows of a trace in ascending order, the first at 0.0, the last at the end. Raises TraceError.

    Nodes of `bamboo` that leave at the instant of their arrival are omitted. Lines of `google_counts` are sorted by
    time; the last one of an instant is used. Each count of `skypilot` is valid for one gap, including the last.
    """
    return read_churn(path, format, polarity).rows


def read_churn(
    path: Path,
    format: FileFormat = "auto",
    polarity: Polarity = "available",
    columns: ColumnsConfig | None = None,
    unit: TimeUnit | None = None,
) -> Churn:
    """Read a file of churn; an unchanged file is read once. Raises TraceError."""
    try:
        text = text_of(path)
        return churn_of_text(text, format, polarity, columns, unit)
    except TraceError as error:
        error.args = (f"{path}{error}",)
        raise


@lru_cache(maxsize=4)
def churn_of_text(
    text: str, format: FileFormat, polarity: Polarity, columns: ColumnsConfig | None, unit: TimeUnit | None
) -> Churn:
    """Parse the text of a file of churn. Raises TraceError."""
    kind = ("table" if columns else format_of(text)) if format == "auto" else format
    if kind == "skypilot":
        return counted(kind, read_skypilot(text, polarity))
    if polarity != "available":
        raise TraceError("", f"polarity '{polarity}' requires format skypilot; found {kind}")
    if kind == "google_counts":
        return counted(kind, read_google_counts(text))
    if kind in ("bamboo", "parcae"):
        rows = rows_of_changes(bamboo_lines(text) if kind == "bamboo" else parcae_lines(text))
        return Churn(kind, rows, history_of_rows(rows), notes=tuple(notes_of_rows(rows)))
    return churn_of_table(text, None if kind == "table" else kind, columns, unit)  # type: ignore[arg-type]


def churn_of_table(text: str, kind: TableFormat | None, columns: ColumnsConfig | None, unit: TimeUnit | None) -> Churn:
    """Convert a table to churn. Raises TraceError."""
    table = read_table(text, kind, columns)
    if table.kind == "counts":
        samples, notes = samples_of_counts(table, unit)
        return counted(table.kind, samples, notes)
    if table.kind == "lifetimes":
        lifetimes, notes = lifetimes_of(table, unit)
        return Churn(table.kind, lifetimes=lifetimes, notes=tuple(notes))
    if table.kind == "times":
        failures, notes = failure_times(table, unit)
        return Churn(table.kind, failures=failures, notes=tuple(notes))
    read = history_of_events if table.kind == "events" else history_of_intervals
    history, notes = read(table, unit)
    return Churn(table.kind, rows_of_history(history), history, notes=tuple(notes))


def counted(kind: str, samples: list[tuple[float, int]], notes: list[str] | None = None) -> Churn:
    """Convert counts over time to churn."""
    rows = rows_of_counts(samples)
    return Churn(kind, rows, history_of_rows(rows), notes=(*(notes or ()), *notes_of_rows(rows)))


def notes_of_rows(rows: tuple[TraceRow, ...]) -> Iterator[str]:
    """What rows leave open."""
    still = sum(row[1] - row[2] for row in rows)
    if still:
        yield f"{still:,} node{'s'[: still - 1]} still present at the end; not counted as losses"


def format_of(text: str) -> str:
    """Detect the format of a text from its beginning; `table` if no other format is recognised."""
    text = text.lstrip()
    first = text.split("\n", 1)[0]
    if text[0] == "[" and re.match(r'\[\s*[-+\d.eE]+\s*,\s*"', first):
        return "parcae"
    if text[0] in "{[":
        return "skypilot"
    cells = [cell.strip() for cell in first.split(",")]
    if re.match(r"\d{4}-\d{1,2}-\d{1,2}", cells[0], re.ASCII):
        return "google_counts" if len(cells) == 3 and re.fullmatch(r"\d{1,2}:\d\d:\d\d", cells[1]) else "table"
    if any(word in cells for word in ("add", "remove")):
        return "bamboo"
    return "table"


Change = tuple[float, str, str, str]  # seconds, place, add or remove (or no-op), node


def rows_of_changes(changes: Iterator[Change]) -> tuple[TraceRow, ...]:
    """Rows of arrivals and removals of named nodes, in ascending order. Raises TraceError."""
    rows: list[TraceRow] = []
    there: dict[str, tuple[int, str]] = {}  # by name: number, and the line of its arrival
    last_seen: dict[str, str] = {}
    num_arrived = 0
    for seconds, lines in groupby(changes, key=itemgetter(0)):
        came: dict[str, str] = {}
        left: list[int] = []
        for _, place, word, node in lines:
            if word == "add":
                if since := came.get(node) or there.get(node, (0, ""))[1]:
                    raise TraceError(place, f"node {format_value(node)} is added, but has been present since {since}")
                came[node] = place
            elif word == "no-op":
                continue
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


def parcae_lines(text: str) -> Iterator[Change]:
    """Seconds, place, word and node of JSON Lines `[ms, "add" | "remove" | "no-op", {"nodes": [...]}]`."""
    first_ms, before_ms = None, 0.0
    allowed = '[milliseconds, "add", "remove" or "no-op", {"nodes": [...]}]'
    for number, line in numbered_lines(text):
        place = f"line {number}"
        try:
            entry = json.loads(line)
        except ValueError:
            raise TraceError(place, f"found {format_value(line)}, not valid JSON; allowed: {allowed}") from None
        if not (isinstance(entry, list) and 2 <= len(entry) <= 3 and type(entry[0]) in (int, float) and entry[0] >= 0):
            raise TraceError(place, f"found {format_value(line)}; allowed: {allowed}")
        ms, word, about = entry[0], entry[1], entry[2] if len(entry) == 3 else {}
        if word not in ("add", "remove", "no-op"):
            raise TraceError(place, f"found {format_value(word)}{suggestion(word, ('add', 'remove', 'no-op'))}")
        nodes = about.get("nodes", []) if isinstance(about, dict) else None
        if not isinstance(nodes, list) or not all(isinstance(node, str | int) for node in nodes):
            raise TraceError(place, f"found {format_value(line)}; allowed: {allowed}")
        if ms < before_ms:
            raise TraceError(place, f"time {ms:.15g} after {before_ms:.15g}; allowed: times in ascending order")
        before_ms, first_ms = ms, ms if first_ms is None else first_ms
        seconds = checked_span(place, (ms - first_ms) / 1000.0)
        for node in nodes if word != "no-op" else [""]:
            yield seconds, place, word, str(node)


def bamboo_lines(text: str) -> Iterator[Change]:
    """Seconds, place, word and node of each line. Times must be ascending, since the order of lines matters."""
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
            raise TraceError(place, "the third column does not name a node")
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
        raise TraceError("", "not valid JSON: nested too deeply, or a number with too many digits") from None
    metadata = data.get("metadata") if isinstance(data, dict) else None
    gap_seconds: Any = metadata.get("gap_seconds") if isinstance(metadata, dict) else None
    fits = type(gap_seconds) in (int, float) and 0 < gap_seconds <= MAX_SECONDS
    require("metadata.gap_seconds", gap_seconds, fits, f"seconds, a number above 0 and at most {MAX_SECONDS:.0e}")
    counts = data.get("data")
    require("data", counts, isinstance(counts, list) and counts, "a list of counts that is not empty")
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
    """Raise TraceError if the value of a key is missing or invalid."""
    if found is None:
        raise TraceError("", f"'{key}' is missing; allowed: {allowed}")
    if not fits:
        raise TraceError(key, f"found {format_value(found)}; allowed: {allowed}")


def rows_of_counts(samples: list[tuple[float, int]]) -> tuple[TraceRow, ...]:
    """Rows of counts: the first, the last, and each change of the count."""
    changes = enumerate(pairwise([(0.0, 0), *samples]))
    return tuple(
        (seconds, max(0, count - before), max(0, before - count), ())
        for index, ((_, before), (seconds, count)) in changes
        if count != before or index in (0, len(samples) - 1)
    )
