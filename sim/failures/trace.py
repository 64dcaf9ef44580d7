"""Replay of an availability trace: nodes arrive and leave as recorded, or leave at the recorded rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import PurePath
from typing import Any, Literal, Self

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sim.core.presets import frozen
from sim.core.text import format_count, shortened
from sim.core.units import SECONDS_PER_HOUR, to_ticks
from sim.failures.base import FailureProcess, Member, ProcessConfig, Scope
from sim.failures.history import TraceRow, history_of_rows
from sim.failures.trace_cycle import TraceCycle
from sim.failures.trace_files import TraceFile, TraceFiles, read_files
from sim.failures.trace_formats import Format, Polarity
from sim.failures.trace_of_each import EachNode
from sim.failures.trace_rows import check_rows, names_nodes, rows_of_text, without_empty_spans
from sim.failures.trace_tables import ColumnsConfig, TimeUnit
from sim.failures.trace_text import MAX_NODES, MAX_ROWS, TraceError

MIN_LOOP_SECONDS = 1.0  # shortest duration of a trace that is repeated; one of no duration would stop simulated time
UNREAD: tuple[TraceRow, ...] = ((0.0, 10_000, 0, ()),)  # in place of a file that cannot be read


def or_text(schema: dict[str, Any]) -> None:
    """Let the JSON Schema of a list also allow a text."""
    schema["anyOf"] = [{key: schema.pop(key) for key in ("type", "items", "maxItems")}, {"type": "string"}]


class TraceConfig(ProcessConfig):
    """Options of `trace`."""

    kind: Literal["trace"] = "trace"
    file: str | None = Field(None, description="file of the trace, relative to the scenario's folder")
    files: tuple[TraceFile, ...] = Field(
        (), max_length=1000, description="several files instead of one, such as one per zone"
    )
    format: Format = Field("auto", description="format of the file; auto: by its content")
    columns: ColumnsConfig | None = Field(None, description="of a table: which column is which; default: by its header")
    unit: TimeUnit | None = Field(
        None, description="of the numbers in a table's columns of times; default: as its header says, else seconds"
    )
    regions: tuple[tuple[str, str], ...] = Field(
        (), description="a name of a region in the trace, and the region of the cluster that it stands for"
    )
    polarity: Polarity = Field(
        "available", description="what skypilot counts: available nodes; or, as 1, that the one node is preempted"
    )
    rows: tuple[TraceRow, ...] = Field(
        (),
        max_length=MAX_ROWS,
        validate_default=True,
        description="the trace, as a list or as text with a row per line; default: read from the file, then stored",
        json_schema_extra=or_text,
    )
    time_scale: float = Field(1.0, ge=1e-6, le=1e6, description="factor on all times; 2: everything is twice as slow")
    offset_hours: float = Field(0.0, ge=0, le=1e6, description="start of the replay, in hours of the trace")
    loop: bool = Field(True, description="repeat the trace after its end; otherwise no more nodes arrive or leave")
    max_nodes: int | None = Field(
        None,
        ge=1,
        le=MAX_NODES,
        description="replay: a node that arrives while so many are present is left out, so that nodes that stay long "
        "fill the places, and losses are rarer than in the trace; counts are cut there; default: no limit",
    )
    nodes_follow: Literal["together", "each"] | None = Field(
        None,
        description="together: the trace is that of all nodes; each: every node follows a node of the trace by itself, "
        "from a random offset of its own; default: together, but must be given for a trace of fewer nodes than the "
        "cluster has, with additions 'ignore'",
    )
    arrivals: str = Field(
        "", description="of each node that arrives in `rows`, a line: the number of its node in the files, its region"
    )
    additions: Literal["replay", "ignore"] = Field(
        "replay",
        description="replay: the nodes are those of the trace; ignore: a node is lost as often as in the trace, and a "
        "replacement is ordered for each",
    )

    @field_validator("rows", mode="before")
    @classmethod
    def _read_file(cls, given: Any, info: ValidationInfo) -> Any:
        """Read the files. Where they are gone, the rows given count; with `lenient`, UNREAD stands for faulty ones."""
        context, about = info.context or {}, files_of(info.data)
        given = rows_of_text(given) if isinstance(given, str) else frozen(given)
        if about is None or "base_folder" not in context:
            return given
        if given and not any((context["base_folder"] / each.file).exists() for each in about.files):
            return given
        field = "file" if info.data.get("file") is not None else "files"
        try:
            rows, reason = read_files(context["base_folder"], about).rows, ""
        except TraceError as error:
            rows, reason = UNREAD, str(error)
        else:
            if given and given != rows:
                name = shortened(about.files[0].file)
                field, reason = "rows", f"differs from the trace in '{name}': leave out one of the two"
        if reason and not context.get("lenient"):
            raise PydanticCustomError("trace", "{reason}", {"field": field, "reason": reason})
        return rows

    @model_validator(mode="after")
    def _trace_can_be_replayed(self, info: ValidationInfo) -> Self:
        if self.file is not None and self.files:
            raise ValueError("give file or files, not both")
        if not self.rows:
            raise ValueError("a trace needs its 'file', which is read with the scenario, or 'rows'")
        check_rows(self.rows)
        self._keep_arrivals((info.context or {}).get("base_folder"))
        num_arrivals = sum(row[1] for row in self.rows)
        if self.arrivals and len(self.nodes_and_regions[0]) != num_arrivals:
            raise ValueError(f"arrivals: found {len(self.nodes_and_regions[0])} lines; allowed: {num_arrivals}")
        if self.nodes_follow == "each":
            self._each_can_follow()
        for option, default in (("max_nodes", None), ("regions", ())):
            if self.additions == "ignore" and getattr(self, option) != default:
                raise ValueError(f"{option} goes with additions 'replay', found additions 'ignore'")
        rows, _ = self.replayed_rows
        end_seconds = rows[-1][0]
        hours, seconds = self.rows[-1][0] / SECONDS_PER_HOUR, self.time_scale * end_seconds
        if end_seconds > 0.0 and hours <= self.offset_hours:
            raise ValueError(f"offset_hours {self.offset_hours:g}: the trace ends after {hours:.4g} h")
        if self.loop and 0.0 < seconds < MIN_LOOP_SECONDS:
            least = f"one that is repeated (loop) lasts at least {MIN_LOOP_SECONDS:g} s"
            raise ValueError(f"the trace lasts {seconds:.3g} s; {least}")
        return self

    @property
    def replayed_rows(self) -> tuple[tuple[TraceRow, ...], float]:
        """The rows on the clock of the replay, and where it starts in seconds; of losses alone without empty spans."""
        offset_seconds = self.offset_hours * SECONDS_PER_HOUR
        is_replay = self.additions == "replay"
        return (self.rows, offset_seconds) if is_replay else without_empty_spans(self.rows, offset_seconds)

    def _keep_arrivals(self, base_folder: Any) -> None:
        """Keep which node and region each arrival of the files is, where that matters."""
        about = files_of(self.__dict__)
        if base_folder is None or about is None or self.rows is UNREAD:
            return
        try:
            arrivals = read_files(base_folder, about).arrivals_as_text(needed=self.nodes_follow == "each")
        except TraceError:  # the file is gone or faulty, and the rows given count
            return
        self.__dict__["arrivals"] = arrivals  # of a frozen model

    def _each_can_follow(self) -> None:
        """Raise ValueError where nodes cannot follow the trace one by one."""
        if history_of_rows(self.rows) is None:
            raise ValueError(
                "nodes_follow 'each' needs a trace that names its nodes, or has one at a time; this counts"
            )
        for option, default in (("loop", True), ("offset_hours", 0.0), ("max_nodes", None), ("regions", ())):
            if getattr(self, option) != default:
                raise ValueError(f"{option} goes with nodes_follow 'together', found nodes_follow 'each'")

    @property
    def nodes_and_regions(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Node and region of each arrival; empty where they are not known. Raises ValueError for another text."""
        lines = [line.split(maxsplit=1) for line in self.arrivals.splitlines()]
        if not all(line and line[0].isdecimal() for line in lines):
            raise ValueError("arrivals: allowed: lines of a number and a region")
        names = dict(self.regions)
        regions = tuple(names.get(line[1], line[1]) for line in lines if len(line) == 2)
        return tuple(int(line[0]) for line in lines), regions if len(regions) == len(lines) else ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields at their defaults, so that the hashes of runs stay as they were."""
        fields: dict[str, Any] = serialize(self)
        later = {"files", "columns", "unit", "regions", "nodes_follow", "arrivals"}
        defaults = {name: type(self).model_fields[name].default for name in later}
        return {key: item for key, item in fields.items() if key not in later or item not in (defaults[key], [])}


def files_of(fields: Any) -> TraceFiles | None:
    """The files that fields of a trace name, and how they are read; None without files or with faulty fields."""
    needed = ("file", "files", "format", "columns", "unit", "polarity")
    if any(name not in fields for name in needed):
        return None
    files = fields["files"] if fields["file"] is None else (TraceFile(file=fields["file"]),)
    return TraceFiles(files, *(fields[name] for name in needed[2:])) if files else None


class TraceFailures(FailureProcess):
    """Replay of an availability trace: its nodes leave and return when they did, or leave at its rate.

    With `additions: replay` the trace decides all losses and arrivals: the nodes that it names leave or, where it only
    counts, as many at random. With `ignore` only its losses are replayed, spread at random over its nodes, of which
    those of the cluster are a sample (or over the cluster's if that is larger, and there are more in proportion): a
    node is lost as often as in the trace, per hour in which the trace has nodes. The end of a repeated trace is then no
    loss. Nodes at immune stages stay. With `nodes_follow: each`, `EachNode` takes its place.
    """

    Config = TraceConfig
    config: TraceConfig
    scope: Scope = "cluster"

    def __init__(self, config: TraceConfig) -> None:
        super().__init__(config)
        self._replays = config.additions == "replay"
        self._names_nodes = names_nodes(config.rows)
        rows, self._offset_seconds = config.replayed_rows
        self._end_seconds = rows[-1][0]
        joined = config.loop and self._replays
        self._cycle = TraceCycle(rows, config.max_nodes, self._offset_seconds, joined)
        self._events = [event for event in self._cycle.events if event.left or (self._replays and event.num_came)]
        self._num_passed = bisect_right([event.seconds for event in self._events], self._offset_seconds)
        self._nodes, self._regions = config.nodes_and_regions

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """Itself, or the process of each node."""
        if self.config.nodes_follow != "each":
            return super().parts
        history = history_of_rows(self.config.rows, self._nodes)
        assert history is not None, "checked with the options"
        return ((self.kind, EachNode(self.config, history)),)

    @property
    def num_initial_nodes(self) -> int | None:
        """Number of nodes of the trace at the offset; None with `ignore`, and where each node follows by itself."""
        return self._cycle.num_initial if self._replays and self.config.nodes_follow != "each" else None

    @property
    def initial_regions(self) -> Sequence[str] | None:
        """Regions of these nodes, where the trace has any."""
        return [self._regions[node] for node in self._cycle.initial] if self._regions else None

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

    def may_bring_nodes_from(self, index: int) -> bool:
        """Whether nodes arrive at an event or later: always, if the trace is repeated."""
        if self.config.loop or not self._replays:
            return self._replays and any(event.num_came for event in self._events)
        cycle, row = self._where(index)
        return not cycle and any(event.num_came for event in self._events[row:])

    def arrival_regions(self, index: int) -> Sequence[str | None]:
        """Regions of the nodes that arrive at an event, where the trace has any."""
        if not self._regions:
            return super().arrival_regions(index)
        _, row = self._where(index)
        return [self._regions[node] for node in self._events[row].came]

    def describe(self) -> str:
        """For captions: the whole trace in numbers, and how it is used."""
        config, hours = self.config, self._end_seconds / SECONDS_PER_HOUR
        num_came, num_left = sum(row[1] for row in config.rows), sum(row[2] for row in config.rows)
        whose = f"'{PurePath(config.file).name}'" if config.file else "a trace"
        if config.files:
            whose = format_count(len(config.files), "file")
        what = f"{'replay' if self._replays else 'losses alone'} of {whose}"
        used = {
            f"{what} ({num_came} arrivals, {num_left} losses in {hours:.4g} h)": True,
            "each node by itself": config.nodes_follow == "each",
            f"its times × {config.time_scale:g}": config.time_scale != 1.0,
            f"from {config.offset_hours:g} h on": config.offset_hours,
            f"at most {config.max_nodes} nodes": config.max_nodes is not None,
            "repeated": config.loop,
        }
        return ", ".join(words for words, is_used in used.items() if is_used)
