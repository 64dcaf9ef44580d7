"""The files of a trace: one file, or several that are merged, such as one per zone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import Field

from models.spec import Config
from sim.core.text import shortened
from sim.core.units import SECONDS_PER_HOUR
from sim.failures.history import History, TraceRow, rows_of_history, sorted_history
from sim.failures.trace_formats import Churn, FileFormat, Polarity, read_churn
from sim.failures.trace_tables import ColumnsConfig, TimeUnit
from sim.failures.trace_text import TraceError


class TraceFile(Config):
    """One file of a trace that consists of several."""

    file: str = Field(description="relative to the scenario's folder")
    region: str | None = Field(None, description="region of all its nodes; default: that of a column")
    offset_hours: float = Field(
        0.0, ge=0, le=1e6, description="first instant of the file, in hours after the start of the trace"
    )


@dataclass(frozen=True)
class TraceFiles:
    """Files of a trace, and options for reading them."""

    files: tuple[TraceFile, ...]
    format: FileFormat = "auto"
    columns: ColumnsConfig | None = None
    unit: TimeUnit | None = None
    polarity: Polarity = "available"


@dataclass(frozen=True, eq=False)
class Trace:
    """Rows of a trace, and the history of its nodes if these are known."""

    rows: tuple[TraceRow, ...]
    history: History | None
    notes: tuple[str, ...]

    def arrivals_as_text(self, needed: bool) -> str:
        """Node and region of each arrival, a line each; empty if neither is known, or if they are not needed."""
        history = self.history
        if history is None or not (needed or history.regions):
            return ""
        nodes, regions = history.node.tolist(), history.regions
        if not regions:
            return "\n".join(map(str, nodes))
        return "\n".join(f"{node} {regions[place]}" for node, place in zip(nodes, history.region.tolist(), strict=True))


def read_files(base_folder: Path, about: TraceFiles) -> Trace:
    """Read the files of a trace. Raises TraceError, also for files that cannot form a trace."""
    return joined(tuple(churn_of(base_folder / each.file, about) for each in about.files), about.files)


def churn_of(path: Path, about: TraceFiles) -> Churn:
    """Content of one file. Raises TraceError for lifetimes or failure times, which cannot be replayed."""
    churn = read_churn(path, about.format, about.polarity, about.columns, about.unit)
    if not churn.rows:
        what = "lifetimes" if churn.lifetimes else "times of failures"
        why = "do not contain the nodes present at each time; `churnlab fit` fits a failure process to them"
        raise TraceError("", f"{path}: {what} {why}")
    return churn


@lru_cache(maxsize=4)
def joined(churns: tuple[Churn, ...], files: tuple[TraceFile, ...]) -> Trace:
    """Merge the traces of several files. Raises TraceError if some name their nodes and others have counts."""
    histories = [
        in_region(churn.history, each.region) for churn, each in zip(churns, files, strict=True) if churn.history
    ]
    notes = tuple(note for churn in churns for note in churn.notes)
    if len(churns) == 1 and not files[0].offset_hours:
        return Trace(churns[0].rows, histories[0] if histories else None, notes)
    offsets = [each.offset_hours * SECONDS_PER_HOUR for each in files]
    if len(histories) == len(churns):
        history = joined_history(histories, offsets, [Path(each.file).name for each in files])
        return Trace(rows_of_history(history), history, notes)
    for churn, each in zip(churns, files, strict=True):
        if churn.history and max(row[1] for row in churn.rows) > 1:
            other = next(f.file for f, c in zip(files, churns, strict=True) if not c.history)
            why = f"names its nodes, but '{shortened(other)}' has only counts; give files of one kind"
            raise TraceError("", f"'{shortened(each.file)}' {why}")
    return Trace(joined_counts([churn.rows for churn in churns], offsets), None, notes)


def in_region(history: History, region: str | None) -> History:
    """A history with all nodes in one region."""
    return history if region is None else replace(history, region=np.zeros_like(history.node), regions=(region,))


def joined_history(histories: list[History], offsets: list[float], names: list[str]) -> History:
    """Merge histories. Regions are kept if all histories have them."""
    has_regions = all(history.regions for history in histories)
    regions = tuple(dict.fromkeys(name for history in histories for name in history.regions)) if has_regions else ()
    first_node = np.cumsum([0, *(len(history.names) for history in histories)])
    node, start, end = (
        np.concatenate([getattr(history, name) + shift for history, shift in zip(histories, shifts, strict=True)])
        for name, shifts in (("node", first_node[:-1].tolist()), ("start", offsets), ("end", offsets))
    )
    region = np.zeros(0, np.int64)
    if has_regions:
        region = np.concatenate([np.array(list(map(regions.index, each.regions)))[each.region] for each in histories])
    return sorted_history(
        History(
            node=node,
            start=start,
            end=end,
            is_lost=np.concatenate([history.is_lost for history in histories]),
            is_begun=np.concatenate([history.is_begun for history in histories]),
            seconds=max(history.seconds + offset for history, offset in zip(histories, offsets, strict=True)),
            names=tuple(f"{file}: {name}" for each, file in zip(histories, names, strict=True) for name in each.names),
            region=region,
            regions=regions,
        )
    )


def joined_counts(traces: list[tuple[TraceRow, ...]], offsets: list[float]) -> tuple[TraceRow, ...]:
    """Sum of several counts of nodes."""
    changes: dict[float, list[int]] = defaultdict(lambda: [0, 0])
    changes[0.0] = [0, 0]
    for rows, offset in zip(traces, offsets, strict=True):
        for seconds, num_came, num_left, _ in rows:
            change = changes[seconds + offset]
            change[0], change[1] = change[0] + num_came, change[1] + num_left
    return tuple((seconds, came, left, ()) for seconds, (came, left) in sorted(changes.items()))
