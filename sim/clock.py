"""Simulated time in ticks, so that sums of durations are exact.

Every duration is rounded to a whole number of ticks before it enters the event queue. Doubles hold such times exactly
up to four years, so adding them in another order gives the same bits: an iteration priced by itself and added to the
clock ends at the same instant as the same iteration played event by event.
"""

from __future__ import annotations

import math

TICKS_PER_SECOND = 2.0**26
"""A tick is 15 ns; 2^53 ticks are 4.2 years."""


def ticked(seconds: float) -> float:
    """Seconds rounded to a whole number of ticks; infinity stays."""
    return round(seconds * TICKS_PER_SECOND) / TICKS_PER_SECOND if math.isfinite(seconds) else seconds
