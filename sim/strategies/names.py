"""Display names of strategies."""

from __future__ import annotations

KIND_ORDER = ("none", "checkpoint", "redundant", "checkfree", "checkfree_plus")

NAMES = {
    "none": "no failures",
    "checkpoint": "checkpointing",
    "redundant": "redundant",
    "checkfree": "CheckFree",
    "checkfree_plus": "CheckFree+",
    "checkfree_hybrid": "CheckFree+ hybrid",
    "neighbour_checkpoint": "in neighbours",
}


def legend_label(strategy: str) -> str:
    """A strategy's name for people."""
    return NAMES.get(strategy, strategy)
