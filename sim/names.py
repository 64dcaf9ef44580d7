"""What to tell someone who wrote a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(found: str, names: Iterable[str]) -> str:
    """'; nearest: x; allowed: ...' for a name that is not among those known."""
    names = list(names)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.5)
    nearest = f"; nearest: {close[0]}" if close else ""
    return f"{nearest}; allowed: {', '.join(names)}" if names else nearest
