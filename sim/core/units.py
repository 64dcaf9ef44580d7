"""Units, and simulated time in ticks: every duration is rounded to them before it enters the event queue.

Doubles hold such times exactly up to four years, so that sums do not depend on the order of terms: an iteration that is
one duration ends at the same instant as the same iteration simulated event by event.
"""

from __future__ import annotations

import math

SECONDS_PER_HOUR = 3600.0
HOURS_PER_DAY = 24

TICKS_PER_SECOND = 2.0**26
"""A tick is 15 ns."""

EXACT_SECONDS = 2.0**27
"""Sums of ticks are exact up to here, 4.2 years; longer runs are stopped."""


def to_ticks(seconds: float) -> float:
    """Round seconds to a whole number of ticks; infinite ones stay."""
    ticks = seconds * TICKS_PER_SECOND
    return round(ticks) / TICKS_PER_SECOND if math.isfinite(ticks) else seconds


BYTES_PER_GIB = 2**30
