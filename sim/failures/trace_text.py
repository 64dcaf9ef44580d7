"""Text of trace files: reading, limits of size, and the error with a place in the text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from sim.core.files import OddFileError, read_regular_file
from sim.core.text import nearest, shortened

MAX_ROWS, MAX_BYTES, MAX_NODES = 1_000_000, 2**28, 100_000
MAX_SECONDS = 1e9  # longest trace, 31 years

A_COUNT = f"a whole number from 0 to {MAX_NODES:,}"


class TraceError(ValueError):
    """An invalid trace: the place, what was found, what is allowed. `read_churn` adds the file."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{', ' if place else ''}{place}: {message}")


def text_of(path: Path) -> str:
    """Read the text of a file. Raises TraceError if that is impossible."""
    try:
        data = read_regular_file(path, MAX_BYTES)
    except OddFileError as error:
        raise TraceError("", str(error)) from None
    except IsADirectoryError:
        raise TraceError("", "is a folder; allowed: a trace file") from None
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


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a text with their numbers, from 1. Raises TraceError for too many lines."""
    end = text.find("\n", len(text.rstrip()))  # end of the last line, whose last cell can be empty
    for number, line in enumerate(text[: None if end < 0 else end].replace("\r\n", "\n").split("\n"), start=1):
        if number > MAX_ROWS:
            raise TraceError(f"line {number}", f"a trace has at most {MAX_ROWS:,} lines")
        yield number, line


def lines_of(text: str, columns: str) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of each line. Raises TraceError for a wrong number of cells or too many lines."""
    num_columns = columns.count(",") + 1
    for number, line in numbered_lines(text):
        place, cells = f"line {number}", [cell.strip() for cell in line.split(",")]
        if len(cells) != num_columns:
            found = f"{len(cells)} column{'s'[: len(cells) - 1]}" if line.strip() else "an empty line"
            raise TraceError(place, f"found {found}; allowed: {num_columns}, '{columns}'")
        yield place, cells


def number_of(text: str) -> float | None:
    """A finite number in ASCII digits, or None."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII):
        return None
    return number if math.isfinite(number := float(text)) else None


def checked_span(place: str, seconds: float) -> float:
    """Check the time since the first instant. Raises TraceError if it is too long."""
    if seconds > MAX_SECONDS:
        allowed = f"allowed: at most {MAX_SECONDS:.0e} s, which is 31 years"
        raise TraceError(place, f"found {seconds:.3g} s after the first instant; {allowed}")
    return seconds
