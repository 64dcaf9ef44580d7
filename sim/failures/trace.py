"""Replay of an availability trace: nodes arrive and leave as recorded, or leave at the recorded rate."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sim.core.presets import frozen
from sim.core.text import shortened
from sim.core.units import SECONDS_PER_HOUR, to_ticks
from sim.failures.base import FailureProcess, Member, ProcessConfig, Scope
from sim.failures.trace_formats import MAX_NODES, MAX_ROWS, Format, Polarity, TraceError, TraceRow, read_trace

MIN_LOOP_SECONDS = 1.0  # shortest duration of a trace that is repeated; one of no duration would stop simulated time
UNREAD: tuple[TraceRow, ...] = ((0.0, 10_000, 0, ()),)  # in place of a file that cannot be read


def or_text(schema: dict[str, Any]) -> None:
    """Let the JSON Schema of a list also allow a text."""
    schema["anyOf"] = [{key: schema.pop(key) for key in ("type", "items", "maxItems")}, {"type": "string"}]


class TraceConfig(ProcessConfig):
    """Options of `trace`."""

    kind: Literal["trace"] = "trace"
    file: str | None = Field(None, description="file of the trace, relative to the scenario's folder")
    format: Format = Field("auto", description="format of the file; auto: by its content")
    polarity: Polarity = Field(
        "available", description="what skypilot counts: available nodes; or, as 1, that the one node is preempted"
    )
    rows: tuple[TraceRow, ...] = Field(
        (),
        max_length=MAX_ROWS,
        validate_default=True,
        description="the trace, as a list or as text with a row a line; default: read from the file, then stored",
        json_schema_extra=or_text,
    )
    time_scale: float = Field(
        1.0, ge=1e-6, le=1e6, description="factor on all times; 2: everything takes twice as long"
    )
    offset_hours: float = Field(0.0, ge=0, le=1e6, description="where to start in the trace, in its hours")
    loop: bool = Field(True, description="repeat the trace after its end; otherwise no node arrives or leaves any more")
    max_nodes: int | None = Field(
        None,
        ge=1,
        le=MAX_NODES,
        description="replay: a node that arrives while so many are present is left out, so that nodes that stay long "
        "fill the places, and losses are rarer than in the trace; counts are cut there; default: no limit",
    )
    additions: Literal["replay", "ignore"] = Field(
        "replay",
        description="replay: the nodes are those of the trace; ignore: a node is lost as often as in the trace, and a "
        "replacement is ordered for each",
    )

    @field_validator("rows", mode="before")
    @classmethod
    def _read_file(cls, given: Any, info: ValidationInfo) -> Any:
        """Read the file. Where it is gone, the rows given count; with `lenient`, UNREAD stands for a faulty one."""
        context, file = info.context or {}, info.data.get("file")
        given = rows_of_text(given) if isinstance(given, str) else frozen(given)
        if file is None or "base_folder" not in context:
            return given
        path = context["base_folder"] / file
        if given and not path.exists():
            return given
        options = {key: info.data[key] for key in ("format", "polarity") if key in info.data}
        try:
            rows = read_trace(path, **options)
        except TraceError as error:
            rows, field, reason = UNREAD, "file", str(error)
        else:
            field, reason = "rows", f"differs from the trace in '{shortened(file)}': leave out one of the two"
        if (rows is UNREAD or (given and given != rows)) and not context.get("lenient"):
            raise PydanticCustomError("trace", "{reason}", {"field": field, "reason": reason})
        return rows

    @model_validator(mode="after")
    def _trace_can_be_replayed(self) -> Self:
        if not self.rows:
            raise ValueError("a trace needs its 'file', which is read with the scenario, or 'rows'")
        check_rows(self.rows)
        if self.max_nodes is not None and self.additions == "ignore":
            raise ValueError("max_nodes goes with additions 'replay', found additions 'ignore'")
        end_seconds = self.rows[-1][0]
        hours, seconds = end_seconds / SECONDS_PER_HOUR, self.time_scale * end_seconds
        if 0.0 < end_seconds <= self.offset_hours * SECONDS_PER_HOUR:
            raise ValueError(f"offset_hours {self.offset_hours:g}: the trace ends after {hours:.4g} h")
        if self.loop and 0.0 < seconds < MIN_LOOP_SECONDS:
            least = f"one that is repeated (loop) lasts at least {MIN_LOOP_SECONDS:g} s"
            raise ValueError(f"the trace lasts {seconds:.3g} s; {least}")
        return self


def text_of_rows(rows: Sequence[TraceRow]) -> str:
    """Rows as text, one a line: seconds, nodes that arrive, nodes that leave, their numbers."""
    return "\n".join(" ".join(map(repr, (*row[:3], *row[3]))) for row in rows)


def rows_of_text(text: str) -> tuple[TraceRow, ...]:
    """The rows of a text as `text_of_rows` writes it. Raises ValueError, with the row, where it is none."""
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
        raise ValueError("row 0: a trace begins at 0.0 s, when no node leaves")
    for index, ((before_seconds, *_), row) in enumerate(pairwise(rows), start=1):
        seconds, num_came, num_left, leaving = row
        if seconds <= before_seconds:
            raise ValueError(f"row {index}: {seconds:g} s is not after {before_seconds:g} s of the row before")
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
        raise ValueError("a trace without any node")


def names_nodes(rows: Sequence[TraceRow]) -> bool:
    """Whether a trace names the nodes that leave."""
    return any(row[3] for row in rows)


class TraceEvent(NamedTuple):
    """An instant of a trace: of `num_before` nodes the nodes `left` leave, then `num_came` arrive."""

    seconds: float
    num_before: int
    left: tuple[int, ...]
    num_came: int


class TraceCycle:
    """One pass through a trace that is repeated, and the numbers that its nodes have in the simulated cluster.

    A node that arrives while `max_nodes` are present is left out, and so is its loss; the others are numbered anew, by
    arrival. Where the trace only counts, the node that arrived last leaves first. If the end is joined to the start,
    surplus nodes, those that arrived last, leave there, or missing ones arrive; those present are then treated as the
    nodes of the start, in order of arrival. offset_seconds: where the first pass starts in the trace.
    """

    def __init__(self, rows: Sequence[TraceRow], max_nodes: int | None, offset_seconds: float, joined: bool) -> None:
        self.events: list[TraceEvent] = []
        kept: dict[int, int] = {}  # present nodes, by number in the trace: number among those that are kept
        naming, num_kept, num_arrived = names_nodes(rows), 0, 0
        unnamed: list[int] = []
        for seconds, num_came, num_left, leaving in rows:
            num_before = len(kept)
            names = leaving if naming else [unnamed.pop() for _ in range(num_left)]
            left = tuple(kept.pop(name) for name in names if name in kept)
            room = num_came if max_nodes is None else min(num_came, max_nodes - len(kept))
            kept.update({num_arrived + index: num_kept + index for index in range(room)})
            if not naming:
                unnamed.extend(range(num_arrived, num_arrived + num_came))
            num_kept, num_arrived = num_kept + room, num_arrived + num_came
            self.events.append(TraceEvent(seconds, num_before, left, room))
            if seconds <= offset_seconds:
                self._initial, self._num_by_offset = list(kept.values()), num_kept
        num_start, present = self.events.pop(0).num_came, list(kept.values())
        self.num_initial = len(self._initial)
        self._stay, surplus = present[:num_start], present[num_start:]
        if joined and self.events:  # the last event leads back to the start
            last = self.events[-1]
            num_in_vain = min(len(surplus), last.num_came)  # would arrive and leave at once
            gone, num_came = surplus[: len(surplus) - num_in_vain], last.num_came - num_in_vain
            num_came += num_start - len(self._stay)
            self.events[-1] = last._replace(left=(*last.left, *gone), num_came=num_came)
            num_kept -= num_in_vain
        self._num_in_first = num_kept - self._num_by_offset
        self._num_in_next = num_kept - len(self._stay)

    def number(self, node: int, cycle: int) -> int:
        """The number in the cluster of a node of the trace, in pass number `cycle` (from 0)."""
        while cycle:
            if node >= len(self._stay):  # it arrived in this pass
                first = self.num_initial + self._num_in_first + (cycle - 1) * self._num_in_next
                return first + node - len(self._stay)
            # Present since the pass before, under another number; a number that stays the same is one of pass 0.
            cycle, node = (cycle - 1, self._stay[node]) if self._stay[node] != node else (0, node)
        if node >= self._num_by_offset:
            return self.num_initial + node - self._num_by_offset
        return bisect_left(self._initial, node)


class TraceFailures(FailureProcess):
    """Replay of an availability trace: its nodes leave and return when they did, or leave at its rate.

    With `additions: replay` the trace decides all losses and arrivals: the nodes that it names leave or, where it only
    counts, as many at random. With `ignore` only its losses are replayed, spread at random over its nodes, of which
    those of the cluster are a sample (or over the cluster's if that is larger, and there are more in proportion): a
    node is lost as often as in the trace. The end of a repeated trace is then no loss. Nodes at immune stages stay.
    """

    Config = TraceConfig
    config: TraceConfig
    scope: Scope = "cluster"

    def __init__(self, config: TraceConfig) -> None:
        super().__init__(config)
        self._replays = config.additions == "replay"
        self._names_nodes = names_nodes(config.rows)
        self._offset_seconds = config.offset_hours * SECONDS_PER_HOUR
        self._end_seconds = config.rows[-1][0]
        joined = config.loop and self._replays
        self._cycle = TraceCycle(config.rows, config.max_nodes, self._offset_seconds, joined)
        self._events = [event for event in self._cycle.events if event.left or (self._replays and event.num_came)]
        self._num_passed = bisect_right([event.seconds for event in self._events], self._offset_seconds)

    @property
    def num_initial_nodes(self) -> int | None:
        """Number of nodes of the trace at the offset; None with `ignore`."""
        return self._cycle.num_initial if self._replays else None

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between instants at which a node or more leaves."""
        num_losing = sum(bool(event.left) for event in self._events)
        return self._end_seconds * self.config.time_scale / num_losing if num_losing else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds from one event to the next: differences of ticks, so that their sums are exact."""
        before_seconds = 0.0
        for index in count():
            cycle, row = self._where(index)
            if not self._events or (cycle and not self.config.loop):
                return
            elapsed_seconds = cycle * self._end_seconds + self._events[row].seconds - self._offset_seconds
            seconds = to_ticks(elapsed_seconds * self.config.time_scale)
            yield seconds - before_seconds
            before_seconds = seconds

    def _where(self, index: int) -> tuple[int, int]:
        """The pass that an event belongs to, and its place among the events of a pass."""
        return divmod(self._num_passed + index, len(self._events) or 1)

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:
        """The present nodes among those that the trace names; or as many as it counts, at random."""
        cycle, row = self._where(index)
        event = self._events[row]
        if self._replays and self._names_nodes:
            numbers = {self._cycle.number(node, cycle) for node in event.left}
            return [member.number for member in members if member.number in numbers]
        num_lost, num_slots = float(len(event.left)), len(members)
        if not self._replays:
            num_slots = max(event.num_before, len(members))
            num_lost *= num_slots / event.num_before
        slots = rng.permutation(num_slots)[: int(num_lost) + int(rng.random() < num_lost % 1.0)]
        return [members[slot].number for slot in sorted(slots) if slot < len(members)]

    def arrivals(self, index: int) -> int:
        """Number of nodes that arrive at an event; none with `ignore`."""
        _, row = self._where(index)
        return self._events[row].num_came if self._replays else 0

    def describe(self) -> str:
        """For captions: the whole trace in numbers, and how it is used."""
        config, hours = self.config, self._end_seconds / SECONDS_PER_HOUR
        num_came, num_left = sum(row[1] for row in config.rows), sum(row[2] for row in config.rows)
        whose = f"'{PurePath(config.file).name}'" if config.file else "a trace"
        what = f"{'replay' if self._replays else 'losses alone'} of {whose}"
        used = {
            f"{what} ({num_came} arrivals, {num_left} losses in {hours:.4g} h)": True,
            f"its times × {config.time_scale:g}": config.time_scale != 1.0,
            f"from {config.offset_hours:g} h on": config.offset_hours,
            f"at most {config.max_nodes} nodes": config.max_nodes is not None,
            "repeated": config.loop,
        }
        return ", ".join(words for words, is_used in used.items() if is_used)
