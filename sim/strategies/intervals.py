"""How often to save: the textbook's optimal intervals, in seconds of work between one save and the next."""

from __future__ import annotations

import math


def young_seconds(save_seconds: float, mtbf_seconds: float) -> float:
    """√(2 δ M): first order in δ / M (Young, Comm. ACM 17(9), 1974)."""
    return math.sqrt(2.0 * save_seconds * mtbf_seconds) if save_seconds else 0.0


def daly_seconds(save_seconds: float, mtbf_seconds: float) -> float:
    """√(2 δ M) · [1 + ⅓ √(δ / 2M) + ⅑ δ / 2M] - δ, and M where δ ≥ 2 M (Daly, FGCS 22(3), 2006)."""
    if save_seconds >= 2.0 * mtbf_seconds:
        return mtbf_seconds
    if math.isinf(mtbf_seconds):
        return math.inf
    ratio = save_seconds / (2.0 * mtbf_seconds)
    return young_seconds(save_seconds, mtbf_seconds) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - save_seconds


def observed_mtbf_seconds(prior_seconds: float, elapsed_seconds: float, num_failures: int) -> float:
    """Mean time between failures as a run has seen it, with one failure in the prior time believed beforehand."""
    return (prior_seconds + elapsed_seconds) / (1 + num_failures)
