"""Rows of a trace: conversion to text, checks, and the clock on which losses alone are replayed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sim.core.text import shortened
from sim.failures.history import TraceRow


def text_of_rows(rows: Sequence[TraceRow]) -> str:
    """Rows as text, one per line: seconds, nodes that arrive, nodes that leave, their numbers."""
    return "\n".join(" ".join(map(repr, (*row[:3], *row[3]))) for row in rows)


def rows_of_text(text: str) -> tuple[TraceRow, ...]:
    """Parse the text of `text_of_rows`. Raises ValueError, with the row, for invalid text."""
    rows: list[TraceRow] = []
    for index, line in enumerate(text.splitlines()):
        try:
            seconds, num_came, num_left, *leaving = line.split()
            rows.append((float(seconds), int(num_came), int(num_left), tuple(map(int, leaving))))
        except ValueError:
            allowed = "seconds, nodes that arrive, nodes that leave, their numbers if known, as '60.0 0 1 7'"
            raise ValueError(f"row {index}: found '{shortened(line)}'; allowed: {allowed}") from None
    return tuple(rows)


def check_rows(rows: Sequence[TraceRow]) -> None:
    """Raise ValueError unless rows ascend, only present nodes leave, and all or none of the leaving nodes are named."""
    present = set(range(rows[0][1]))
    num_present = num_arrived = rows[0][1]
    naming = names_nodes(rows)
    if rows[0][0] != 0.0 or rows[0][2]:
        raise ValueError("row 0: a trace must begin at 0.0 s, and no node can leave then")
    for index, ((before_seconds, *_), row) in enumerate(pairwise(rows), start=1):
        seconds, num_came, num_left, leaving = row
        if seconds <= before_seconds:
            raise ValueError(f"row {index}: {seconds:g} s is not after {before_seconds:g} s of the previous row")
        if num_left > num_present:
            raise ValueError(f"row {index}: {num_left} nodes leave, but {num_present} are present")
        if len(leaving) != (num_left if naming else 0):
            raise ValueError(f"row {index}: {num_left} nodes leave, but {len(leaving)} are named; name all or none")
        if naming:
            if len(set(leaving) & present) != len(leaving):
                found = f"of the leaving nodes {list(leaving)}, one is not present or named twice"
                raise ValueError(f"row {index}: {found}")
            present.difference_update(leaving)
            present.update(range(num_arrived, num_arrived + num_came))
        num_arrived, num_present = num_arrived + num_came, num_present + num_came - num_left
    if not num_arrived:
        raise ValueError("a trace without nodes")


def names_nodes(rows: Sequence[TraceRow]) -> bool:
    """Whether a trace names the nodes that leave."""
    return any(row[3] for row in rows)


def without_empty_spans(rows: Sequence[TraceRow], offset_seconds: float = 0.0) -> tuple[tuple[TraceRow, ...], float]:
    """Rows on a clock that stops while no node is present, and the offset on that clock.

    Losses are then per hour of presence: without nodes, the trace has no information on the rate of losses.
    """
    found: list[TraceRow] = []
    num_present, left_out_seconds, before_seconds, new_offset = 0, 0.0, 0.0, 0.0
    for seconds, num_came, num_left, leaving in rows:
        if not num_present:
            left_out_seconds += seconds - before_seconds
        elif before_seconds <= offset_seconds:
            new_offset = min(offset_seconds, seconds) - left_out_seconds
        at = seconds - left_out_seconds
        num_present, before_seconds = num_present + num_came - num_left, seconds
        if found and found[-1][0] >= at:
            at, came_before, left_before, leaving_before = found.pop()
            found.append((at, came_before + num_came, left_before + num_left, leaving_before + leaving))
        else:
            found.append((at, num_came, num_left, leaving))
    return tuple(found), new_offset
