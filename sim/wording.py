"""Numbers and lists in sentences and tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sim.clock import SECONDS_PER_HOUR

DIGITS, DIGITS_OF_SHARES = 3, 2
FEWEST_LOST = 3.0
"""With fewer stages lost a run, a comparison of strategies is one of plain speed."""


def decimals(value: float, digits: int = DIGITS) -> int:
    """So many decimals show a number to so many digits."""
    place = math.floor(math.log10(abs(value))) + 1 if value and math.isfinite(value) else digits
    return max(0, digits - place)


def in_digits(value: float, digits: int = DIGITS) -> str:
    """A number to so many digits, but no fewer than a whole number has."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.{decimals(value, digits)}f}".replace("-", "−")


@dataclass(frozen=True)
class Unit:
    """What a metric is told in."""

    before: str
    after: str
    size: float = 1.0

    def of(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.before}{in_digits(value / self.size)}{self.after}"

    def between(self, low: float, high: float) -> str:
        """Two values with one unit."""
        return f"{self.before}{in_digits(low / self.size)} to {self.before}{in_digits(high / self.size)}{self.after}"


HOURS, USD = Unit("", " h", SECONDS_PER_HOUR), Unit("$", "")


def in_per_cent(share: float) -> str:
    """A share as per cent."""
    return f"{in_digits(100 * share, DIGITS_OF_SHARES)} %"


def signed_per_cent(low: float, high: float) -> str:
    """An interval of shares, both ends with their signs."""
    ends = ("−" if share < 0 else "+" for share in (low, high))
    return (
        " to ".join(
            f"{sign}{in_digits(100 * abs(share), DIGITS_OF_SHARES)}"
            for sign, share in zip(ends, (low, high), strict=True)
        )
        + " %"
    )


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def capital(text: str) -> str:
    """With a capital first."""
    return text[:1].upper() + text[1:]


def told_if_calm(num_lost: float) -> list[str]:
    """A sentence where too little fails for strategies to be told apart by it. num_lost: stages a run, on average."""
    if num_lost >= FEWEST_LOST:
        return []
    return [
        f"Only {in_digits(num_lost, DIGITS_OF_SHARES)} stages were lost a run on average: this compares plain speed "
        "more than recovery. More training.steps or iterations_per_step would be closer to a long training."
    ]
