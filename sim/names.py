"""What to tell someone who wrote a name or number that is not allowed, and which names can be folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from math import isqrt

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
FOLDER_NAME_IN_WORDS = "of letters, digits, '.', '_', '+' and '-', a letter or digit first"

MAX_CHARACTERS = 60


def nearest(found: str, names: Iterable[str]) -> str | None:
    """The name most like the one found, upper case or lower, else the first that begins with it; or None."""
    by_folded = {name.casefold(): name for name in names}
    folded = found[:MAX_CHARACTERS].casefold()
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    close += [name for name in by_folded if folded and name.startswith(folded)]
    return by_folded[close[0]] if close else None


def suggestion(found: str, names: Iterable[str]) -> str:
    """'; nearest: x; allowed: ...' for a name that is not among those known."""
    names = list(names)
    close = nearest(found, names)
    text = f"; nearest: {shortened(close)}" if close else ""
    return f"{text}; allowed: {', '.join(map(shortened, names))}" if names else text


def shortened(text: str) -> str:
    """A text on one line and not too long, for messages."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: MAX_CHARACTERS + 1])
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 3] + "..."


def in_words(name: str) -> str:
    """A bucket's, an event's or another name of the program's own, for people."""
    return name.replace("_", " ")


def divisors(number: int) -> list[int]:
    """What divides a number, ascending."""
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
