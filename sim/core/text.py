"""Text for people: numbers, lists, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml.comments import TaggedScalar

from sim.core.units import SECONDS_PER_HOUR

DIGITS, DIGITS_OF_SHARES = 3, 2


def decimals(value: float, digits: int = DIGITS) -> int:
    """The number of decimals that shows a number to so many significant digits."""
    place = math.floor(math.log10(abs(value))) + 1 if value and math.isfinite(value) else digits
    return max(0, digits - place)


def format_number(value: float, digits: int = DIGITS) -> str:
    """A number to so many significant digits, but with all digits before the point."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.{decimals(value, digits)}f}".replace("-", "−")


@dataclass(frozen=True)
class Unit:
    """A unit of a metric in text."""

    before: str
    after: str
    size: float = 1.0

    def of(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.before}{format_number(value / self.size)}{self.after}"

    def between(self, low: float, high: float) -> str:
        """Two values with one unit."""
        return f"{self.before}{format_number(low / self.size)} to {self.of(high)}"


HOURS, USD = Unit("", " h", SECONDS_PER_HOUR), Unit("$", "")


def format_percent(share: float) -> str:
    """A share in per cent."""
    return f"{format_number(100 * share, DIGITS_OF_SHARES)} %"


def format_percent_range(low: float, high: float) -> str:
    """An interval of shares in per cent, both ends with their signs."""
    ends = [f"{'−' if end < 0 else '+'}{format_number(100 * abs(end), DIGITS_OF_SHARES)}" for end in (low, high)]
    return f"{' to '.join(ends)} %"


def format_list(names: Sequence[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def format_count(number: int, one: str, several: str = "") -> str:
    """A number with its noun in singular or plural."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def capitalized(text: str) -> str:
    """A text with a capital first letter."""
    return text[:1].upper() + text[1:]


def uncapitalized(text: str) -> str:
    """A text with a small first letter."""
    return text[:1].lower() + text[1:]


FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"

FOLDER_NAME_IN_WORDS = "of letters, digits, '.', '_', '+' and '-', a letter or digit first"

MAX_CHARACTERS = 60


def nearest(found: object, names: Iterable[str]) -> str | None:
    """The most similar name, ignoring case, of those that begin with the value found, else of all; or None."""
    by_folded = {name.casefold(): name for name in names}
    folded = str(found)[:MAX_CHARACTERS].casefold() if isinstance(found, str | int) else ""
    longer = [name for name in by_folded if folded and name.startswith(folded)]
    close = difflib.get_close_matches(folded, longer or by_folded, n=1, cutoff=0.0 if longer else 0.5)
    return by_folded[close[0]] if close else None


def suggestion(found: object, names: Iterable[str]) -> str:
    """'; nearest: x; allowed: ...' for a value that is not one of the names known."""
    names = list(names)
    close = nearest(found, names)
    text = f"; nearest: {shortened(close)}" if close else ""
    return f"{text}; allowed: {', '.join(map(shortened, names))}" if names else text


def shortened(text: str, most: int = MAX_CHARACTERS) -> str:
    """A text on one line, cut to so many characters, for messages."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return line if len(line) <= most else line[: most - 3] + "..."


def format_value(value: Any) -> str:
    """A value as written in YAML, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    if isinstance(value, int | float):
        return shortened(str(value))
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {format_count(len(value), 'entry', 'entries')}" if value else "an empty list"
    return (
        f"a value with the YAML tag {format_tag(value.tag)}"
        if isinstance(value, TaggedScalar)
        else "a value with a YAML tag"
    )


def format_tag(tag: object) -> str:
    """The tag of a YAML value, as it is written."""
    short = str(tag).removeprefix("tag:yaml.org,2002:")
    return shortened(short if short == str(tag) else f"!!{short}")


def format_name(name: str) -> str:
    """The name of a bucket or an event, with spaces for underscores."""
    return name.replace("_", " ")


def format_duration(seconds: float) -> str:
    """Format real time."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
