"""Text for people: numbers, lists, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
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
MINUTES, SECONDS = Unit("", " min", 60.0), Unit("", " s")


def time_unit(seconds: float) -> Unit:
    """Hours, as in tables; minutes or seconds for less than a tenth of an hour."""
    return SECONDS if seconds < 60.0 else MINUTES if seconds < SECONDS_PER_HOUR / 10 else HOURS


def format_percent(share: float) -> str:
    """A share in per cent: to two digits, and below one per cent to one."""
    return f"{_percent(share)} %"


def _percent(share: float) -> str:
    return format_number(100 * share, DIGITS_OF_SHARES if abs(share) >= 0.01 else 1)


def format_percent_range(low: float, high: float) -> str:
    """An interval of shares in per cent, both ends with their signs."""
    ends = [f"{'−' if end < 0 else '+'}{_percent(abs(end))}" for end in (low, high)]
    return f"{' to '.join(ends)} %"


def format_list(names: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


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

MIN_CONTAINED = 4  # fewer characters are part of too many names


UNITS = (
    *("ms", "second", "seconds", "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks"),
    *("bytes", "mb", "mib", "gb", "gib", "tb", "tib"),
)
"""Last words of names that are in a unit."""


def nearest(found: object, names: Iterable[str]) -> str | None:
    """The most similar name, ignoring case, or None if none is similar.

    Names that begin with the value found come first, then those that differ only in the unit, those that contain it,
    and all others.
    """
    by_folded = {name.casefold(): name for name in names}
    folded = str(found)[:MAX_CHARACTERS].casefold() if isinstance(found, str | int) else ""
    spelt = folded.replace("+", "_plus")
    if spelt in by_folded:
        return by_folded[spelt]
    close = clearly_meant(folded, by_folded) or difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    return by_folded[close[0]] if close else None


def clearly_meant(found: str, names: Collection[str]) -> list[str]:
    """The first name that begins with the text found, else the most similar that is in another unit or contains it."""
    if longer := [name for name in names if found and name.startswith(found)]:
        return longer[:1]
    stem, _, unit = found.rpartition("_")
    tests: list[Callable[[str], bool]] = []
    if stem and unit in UNITS:
        tests.append(lambda name: name.rpartition("_")[0] == stem and name.rpartition("_")[2] in UNITS)
    if len(found) >= MIN_CONTAINED:
        tests.append(lambda name: found in name)
    meant = next(filter(None, ([name for name in names if test(name)] for test in tests)), [])
    return difflib.get_close_matches(found, meant, n=1, cutoff=0.0)


def suggestion(found: object, names: Iterable[str]) -> str:
    """'; nearest: x; allowed: ...' for a value that is not one of the names known."""
    names = list(names)
    text = nearest_in_words(found, nearest(found, names))
    return f"{text}; allowed: {', '.join(map(shortened, names))}" if names else text


def nearest_in_words(found: object, close: str | None) -> str:
    """'; nearest: x', with the unit of x where the value found names another one; empty if there is none."""
    if close is None:
        return ""
    asked, unit = (text.casefold().rpartition("_")[2] for text in (str(found), close))
    is_other = asked.rstrip("s") != unit.rstrip("s") and asked in UNITS and unit in UNITS
    in_unit = f" (its unit: {unit})" if is_other else ""
    return f"; nearest: {shortened(close)}{in_unit}"


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
