"""File formats of availability traces: when spot nodes of a cloud arrived and left.

Bamboo (NSDI 2023) logs each node; Google Cloud traces of the same authors and SkyPilot (NSDI 2024) only count nodes.
A trace is read into a tuple of rows, one for each instant at which something changed, which a scenario can hold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from sim.core.text import nearest, shortened, suggestion

Format = Literal["auto", "bamboo", "google_counts", "skypilot"]

Polarity = Literal["available", "preempted"]

TraceRow = tuple[float, int, int, tuple[int, ...]]
"""Seconds since the first instant of the trace, number of nodes that arrive then and that leave, and the numbers of
those that leave.

Nodes are numbered by arrival, from 0; formats that only count do not name them. Nodes leave before others arrive.
"""

MAX_ROWS = 1_000_000

MAX_BYTES = 2**28

MAX_NODES = 100_000

MAX_SECONDS = 1e9
"""Longest trace, 31 years: a longer one is taken for a typing error."""

COLUMNS = {
    "bamboo": "milliseconds,add or remove,node",
    "google_counts": "YYYY-MM-DD, HH:MM:SS, count",
}

A_COUNT = f"a whole number from 0 to {MAX_NODES:,}"

DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}", re.ASCII)


class TraceError(ValueError):
    """A trace that cannot be used: the file, the place in it, what was found, what is allowed."""

    def __init__(self, path: Path, place: str, message: str) -> None:
        super().__init__(f"{path}{', ' if place else ''}{place}: {message}")


def read_trace(path: Path, format: Format = "auto", polarity: Polarity = "available") -> tuple[TraceRow, ...]:
    """Read the rows of a trace, ascending; the first is at 0.0, the last at the end of the trace. Raises TraceError.

    format: `auto` detects it by the content. polarity: whether the numbers of `skypilot` count available nodes, as its
    authors write, or, 0 and 1 only, whether the one node is preempted (files of their simulator).

    Accepted without an error: CRLF, a byte order mark, blank lines at the end. Nodes of `bamboo` that leave at the
    instant of their arrival are left out; lines of `google_counts` are sorted by time, and the last one of an instant
    counts. A count of `skypilot` holds for one gap, also the last count.
    """
    text = text_of(path)
    kind = format_of(path, text) if format == "auto" else format
    if kind == "skypilot":
        return rows_of_counts(read_skypilot(path, text, polarity))
    if polarity != "available":
        raise TraceError(path, "", f"polarity '{polarity}' goes with format skypilot, and this is {kind}")
    return rows_of_counts(read_google_counts(path, text)) if kind == "google_counts" else read_bamboo(path, text)


def filled(options: dict[str, Any], base_folder: Path) -> dict[str, Any]:
    """Options of a `trace` process, completed by the rows of its `file`, relative to the folder. Raises TraceError.

    Invalid options are replaced by their defaults here; validation of the options reports them.
    """
    chosen: list[Any] = []
    for name, allowed in (("format", get_args(Format)), ("polarity", get_args(Polarity))):
        value = options.get(name)
        chosen.append(value if value in allowed else allowed[0])
    rows = read_trace(base_folder / options["file"], *chosen)
    return {**options, "rows": [[*row[:3], list(row[3])] for row in rows]}


def fleet_counts(rows: Iterable[TraceRow]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The instants of a trace in seconds, and the number of nodes present from each on."""
    instants, counts, present = [], [], 0
    for seconds, num_came, num_left, _ in rows:
        present += num_came - num_left
        instants.append(seconds)
        counts.append(present)
    return tuple(instants), tuple(counts)


# ---- text and lines ---------------------------------------------------------------------------------


def text_of(path: Path) -> str:
    """The text of a file. Raises TraceError where it cannot be read."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a device may never end
            raise OSError("no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise TraceError(path, "", "is a folder; allowed: the file of a trace") from None
    except FileNotFoundError:
        raise TraceError(path, "", f"no such file{suggest_file(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TraceError(path, "", f"cannot be read: {reason.lower()}") from None
    if len(data) > MAX_BYTES:
        raise TraceError(path, "", f"is larger than {MAX_BYTES // 2**20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TraceError(path, f"line {line}", "not text in UTF-8") from None
    if not text.strip():
        raise TraceError(path, "", "is empty")
    return text


def suggest_file(path: Path) -> str:
    """'; nearest: x.csv' where the same folder has a file of a similar name."""
    close = nearest(path.name, sorted(file.name for file in path.parent.glob("*")))
    return f"; nearest: {shortened(close)}" if close else ""


def lines_of(path: Path, text: str, columns: str) -> Iterator[tuple[str, list[str]]]:
    """The place and the cells of each line. Raises TraceError for a wrong number of cells or too many lines."""
    lines = text.rstrip().replace("\r\n", "\n").split("\n")
    num_columns = columns.count(",") + 1
    for number, line in enumerate(lines, start=1):
        place, cells = f"line {number}", [cell.strip() for cell in line.split(",")]
        if number > MAX_ROWS:
            raise TraceError(path, place, f"a trace has at most {MAX_ROWS:,} lines")
        if len(cells) != num_columns:
            found = f"{len(cells)} column{'s'[: len(cells) - 1]}" if line.strip() else "an empty line"
            raise TraceError(path, place, f"found {found}; allowed: {num_columns}, '{columns}'")
        yield place, cells


def format_of(path: Path, text: str) -> str:
    """The format of a text, detected by its beginning. Raises TraceError where it is none of those known."""
    text = text.lstrip()
    if text[0] in "{[":
        return "skypilot"
    cells = [cell.strip() for cell in text.split("\n", 1)[0].split(",")]
    if DATE.match(cells[0]):
        return "google_counts"
    if number_of(cells[0]) is not None or any(word in cells for word in ("add", "remove")):
        return "bamboo"
    columns = ", ".join(f"{name} '{line}'" for name, line in COLUMNS.items())
    found = format_value(",".join(cells))
    message = f"found {found}, which is not the start of a trace; allowed: {columns}, without a header; or JSON"
    raise TraceError(path, "line 1", message)


def number_of(text: str) -> float | None:
    """A finite number in ASCII digits, or None."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII):
        return None
    return number if math.isfinite(number := float(text)) else None


def format_value(value: Any) -> str:
    """A value in messages, as it stands in the file."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return f"'{shortened(value)}'" if isinstance(value, str) else shortened(json.dumps(value))


def checked_span(path: Path, place: str, seconds: float) -> float:
    """Check the seconds since the first instant. Raises TraceError where they are too many."""
    if seconds > MAX_SECONDS:
        message = f"{seconds:.3g} s after the first instant; allowed: at most {MAX_SECONDS:.0e} s, which is 31 years"
        raise TraceError(path, place, message)
    return seconds


# ---- formats ----------------------------------------------------------------------------------------


def read_bamboo(path: Path, text: str) -> tuple[TraceRow, ...]:
    """Rows of `milliseconds,add|remove,node`. Raises TraceError.

    Times must ascend, since the order of lines matters.
    """
    rows: list[TraceRow] = []
    there: dict[str, tuple[int, str]] = {}  # number, and the line of its arrival
    came: dict[str, str] = {}
    left: list[int] = []
    last_seen: dict[str, str] = {}
    num_arrived, first_ms, before_ms, before_seconds, before_place = 0, None, 0.0, 0.0, ""
    for place, (time, word, node) in lines_of(path, text, COLUMNS["bamboo"]):
        ms = bamboo_milliseconds(path, place, time)
        if ms < before_ms:
            message = f"time {ms:.15g} after {before_ms:.15g} of {before_place}; allowed: times in ascending order"
            raise TraceError(path, place, message)
        if word not in ("add", "remove"):
            raise TraceError(path, place, f"found {format_value(word)}{suggestion(word, ('add', 'remove'))}")
        if not node:
            raise TraceError(path, place, "the third column has no name of a node")
        first_ms = ms if first_ms is None else first_ms
        seconds = checked_span(path, place, (ms - first_ms) / 1000.0)
        if seconds > before_seconds:
            rows.append(row_at(before_seconds, num_arrived, came, left, there))
            num_arrived, came, left = num_arrived + len(came), {}, []
        if word == "add":
            since = came.get(node) or there.get(node, (0, ""))[1]
            if since:
                raise TraceError(path, place, f"node {format_value(node)} is added, but is present since {since}")
            came[node] = place
        elif node in came:
            del came[node]
        elif node in there:
            left.append(there.pop(node)[0])
        else:
            raise TraceError(path, place, unknown_node(node, there, last_seen))
        last_seen[node] = place
        before_ms, before_seconds, before_place = ms, seconds, place
    return (*rows, row_at(before_seconds, num_arrived, came, left, there))


def bamboo_milliseconds(path: Path, place: str, time: str) -> float:
    """The time of a line. Raises TraceError."""
    ms = number_of(time)
    if ms is not None and ms >= 0:
        return ms
    header = "; a header line is not" if place == "line 1" else ""
    message = f"found {format_value(time)} as the time; allowed: milliseconds, a number of at least 0{header}"
    raise TraceError(path, place, message)


def unknown_node(node: str, there: Iterable[str], last_seen: dict[str, str]) -> str:
    """The message of a removed node that is not present."""
    close = nearest(node, there)
    hint = f"; nearest: {shortened(close)}" if close else ""
    why = f"left in {last_seen[node]}" if node in last_seen else "was never added"
    return f"node {format_value(node)} is removed, but {why}{hint}"


def row_at(
    seconds: float, num_arrived: int, came: dict[str, str], left: list[int], there: dict[str, tuple[int, str]]
) -> TraceRow:
    """The row of one instant; adds the nodes that arrive to those present."""
    there.update({node: (num_arrived + index, place) for index, (node, place) in enumerate(came.items())})
    return seconds, len(came), len(left), tuple(sorted(left))


def read_google_counts(path: Path, text: str) -> list[tuple[float, int]]:
    """Seconds and node counts of `YYYY-MM-DD, HH:MM:SS, count`, in order of time. Raises TraceError."""
    samples: dict[datetime, tuple[int, str]] = {}
    for place, (date, time, count) in lines_of(path, text, COLUMNS["google_counts"]):
        try:
            instant = datetime.strptime(f"{date} {time}", "%Y-%m-%d %H:%M:%S")
        except ValueError:
            message = f"found {format_value(f'{date}, {time}')} as the time; allowed: 'YYYY-MM-DD, HH:MM:SS'"
            raise TraceError(path, place, message) from None
        if not re.fullmatch(r"\d{1,6}", count, re.ASCII) or int(count) > MAX_NODES:
            raise TraceError(path, place, f"found {format_value(count)} as the count; allowed: {A_COUNT}")
        samples[instant] = int(count), place
    first = min(samples)
    return [
        (checked_span(path, place, (instant - first).total_seconds()), count)
        for instant, (count, place) in sorted(samples.items())
    ]


def read_skypilot(path: Path, text: str, polarity: Polarity) -> list[tuple[float, int]]:
    """Seconds and node counts of JSON with `metadata.gap_seconds` and `data`. Raises TraceError."""
    data = json_of(path, text)
    metadata = data.get("metadata") if isinstance(data, dict) else None
    gap_seconds = expected(
        path,
        "metadata.gap_seconds",
        metadata.get("gap_seconds") if isinstance(metadata, dict) else None,
        lambda gap: not isinstance(gap, bool) and isinstance(gap, int | float) and 0 < gap <= MAX_SECONDS,
        f"seconds, a number above 0 and at most {MAX_SECONDS:.0e}",
    )
    counts = expected(
        path,
        "data",
        data.get("data"),
        lambda found: isinstance(found, list) and found,
        "a list of counts, not empty",
    )
    if len(counts) > MAX_ROWS:
        raise TraceError(path, "data", f"found {len(counts):,} entries; allowed: at most {MAX_ROWS:,}")
    most, allowed = (1, "0 or 1 with polarity preempted") if polarity == "preempted" else (MAX_NODES, A_COUNT)
    for index, count in enumerate(counts):
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= most:
            raise TraceError(path, f"data[{index}]", f"found {format_value(count)}; allowed: {allowed}")
    checked_span(path, "data", gap_seconds * len(counts))
    samples = [(index * float(gap_seconds), 1 - n if polarity == "preempted" else n) for index, n in enumerate(counts)]
    return [*samples, (len(counts) * float(gap_seconds), samples[-1][1])]


def json_of(path: Path, text: str) -> Any:
    """The data of a JSON text. Raises TraceError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}"
        raise TraceError(path, f"line {error.lineno}", message) from None
    except (RecursionError, ValueError):
        raise TraceError(path, "", "not valid JSON: nested too deeply, or a number of too many digits") from None


def expected(path: Path, key: str, found: Any, fits: Callable[[Any], Any], allowed: str) -> Any:
    """The value found at a key, if it is valid. Raises TraceError."""
    if found is None:
        raise TraceError(path, "", f"'{key}' is missing; allowed: {allowed}")
    if not fits(found):
        raise TraceError(path, key, f"found {format_value(found)}; allowed: {allowed}")
    return found


def rows_of_counts(samples: list[tuple[float, int]]) -> tuple[TraceRow, ...]:
    """Rows of counts: the first, the last, and those at which the count changes."""
    rows: list[TraceRow] = []
    before = 0
    for index, (seconds, count) in enumerate(samples):
        if count != before or index in (0, len(samples) - 1):
            rows.append((seconds, max(0, count - before), max(0, before - count), ()))
        before = count
    return tuple(rows)
