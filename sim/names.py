"""What to tell someone who wrote a name that is not known, and which names can be folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
FOLDER_NAME_IN_WORDS = "of letters, digits, '.', '_', '+' and '-', a letter or digit first"

MAX_CHARACTERS = 60


def nearest(found: str, names: Iterable[str]) -> str | None:
    """The name most like the one found, upper case or lower; None where none is like it."""
    by_folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(found[:MAX_CHARACTERS].casefold(), by_folded, n=1, cutoff=0.5)
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
