"""Replay of an availability trace: arrivals and losses as recorded, or losses at the recorded rate."""

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

MIN_LOOP_SECONDS = 1.0  # shortest duration of a repeated trace; a duration of zero would stop simulated time
UNREAD: tuple[TraceRow, ...] = ((0.0, 10_000, 0, ()),)  # rows instead of a file that cannot be read


def or_text(schema: dict[str, Any]) -> None:
    """Allow text beside a list in the JSON Schema."""
    schema["anyOf"] = [{key: schema.pop(key) for key in ("type", "items", "maxItems")}, {"type": "string"}]


class TraceConfig(ProcessConfig):
    """Options of `trace`."""

    kind: Literal["trace"] = "trace"
    file: str | None = Field(None, description="file of the trace, relative to the scenario's folder")
    files: tuple[TraceFile, ...] = Field((), max_length=1000, description="several files, such as one per zone")
    format: Format = Field("auto", description="format of the file; auto: detected from its content")
    columns: ColumnsConfig | None = Field(
        None, description="meaning of the columns of a table; default: from its header"
    )
    unit: TimeUnit | None = Field(
        None, description="unit of the times in a table; default: that of its header, otherwise seconds"
    )
    regions: tuple[tuple[str, str], ...] = Field(
        (), description="names of regions in the trace, each with its region of the cluster"
    )
    polarity: Polarity = Field(
        "available",
        description="meaning of the counts of skypilot: available nodes; or 1 while the only node is preempted",
    )
    rows: tuple[TraceRow, ...] = Field(
        (),
        max_length=MAX_ROWS,
        validate_default=True,
        description="the trace, as a list or as text with a row per line; default: read from the file, then stored",
        json_schema_extra=or_text,
    )
    time_scale: float = Field(
        1.0, ge=1e-6, le=1e6, description="factor on all times; with 2 the trace takes twice as long"
    )
    offset_hours: float = Field(0.0, ge=0, le=1e6, description="start of the replay, in hours of the trace")
    loop: bool = Field(True, description="repeat the trace after its end; otherwise no nodes arrive or leave after it")
    max_nodes: int | None = Field(
        None,
        ge=1,
        le=MAX_NODES,
        description="replay: maximum number of nodes. Nodes that arrive above it are left out, so that long-lived "
        "nodes accumulate and losses are rarer than in the trace; counts are cut to it; default: no limit",
    )
    nodes_follow: Literal["together", "each"] | None = Field(
        None,
        description="together: the trace is that of all nodes; each: every node independently follows a node of the "
        "trace, from a random offset; default: together. Required with additions 'ignore' if the trace has fewer nodes "
        "than the cluster",
    )
    arrivals: str = Field(
        "", description="a line for each arrival in `rows`: the number of the node in the files, and its region"
    )
    additions: Literal["replay", "ignore"] = Field(
        "replay",
        description="replay: arrivals and losses of the trace; ignore: only losses, at the rate of the trace, "
        "and a replacement is ordered for each",
    )

    @field_validator("rows", mode="before")
    @classmethod
    def _read_file(cls, given: Any, info: ValidationInfo) -> Any:
        """Read the files. If they no longer exist, the given rows are used; with `lenient`, UNREAD for faulty files."""
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
                field, reason = "rows", f"differs from the trace in '{name}'; give only one of the two"
        if reason and not context.get("lenient"):
            raise PydanticCustomError("trace", "{reason}", {"field": field, "reason": reason})
        return rows

    @model_validator(mode="after")
    def _trace_can_be_replayed(self, info: ValidationInfo) -> Self:
        if self.file is not None and self.files:
            raise ValueError("file and files are both given; give one of them")
        if not self.rows:
            raise ValueError("a trace needs 'file' (which is read with the scenario) or 'rows'")
        check_rows(self.rows)
        self._keep_arrivals((info.context or {}).get("base_folder"))
        num_arrivals = sum(row[1] for row in self.rows)
        if self.arrivals and len(self.nodes_and_regions[0]) != num_arrivals:
            raise ValueError(f"arrivals: found {len(self.nodes_and_regions[0])} lines; allowed: {num_arrivals}")
        if self.nodes_follow == "each":
            self._each_can_follow()
        for option, default in (("max_nodes", None), ("regions", ())):
            if self.additions == "ignore" and getattr(self, option) != default:
                raise ValueError(f"{option} requires additions 'replay'; found additions 'ignore'")
        rows, _ = self.replayed_rows
        end_seconds = rows[-1][0]
        hours, seconds = self.rows[-1][0] / SECONDS_PER_HOUR, self.time_scale * end_seconds
        if end_seconds > 0.0 and hours <= self.offset_hours:
            raise ValueError(f"offset_hours {self.offset_hours:g} is after the end of the trace, {hours:.4g} h")
        if self.loop and 0.0 < seconds < MIN_LOOP_SECONDS:
            least = f"a repeated trace (loop) must last at least {MIN_LOOP_SECONDS:g} s"
            raise ValueError(f"the trace lasts {seconds:.3g} s; {least}")
        return self

    @property
    def replayed_rows(self) -> tuple[tuple[TraceRow, ...], float]:
        """Rows on the clock of the replay, and its start in seconds; for losses alone, without empty spans."""
        offset_seconds = self.offset_hours * SECONDS_PER_HOUR
        is_replay = self.additions == "replay"
        return (self.rows, offset_seconds) if is_replay else without_empty_spans(self.rows, offset_seconds)

    def _keep_arrivals(self, base_folder: Any) -> None:
        """Store the node and the region of each arrival of the files, where they are needed."""
        about = files_of(self.__dict__)
        if base_folder is None or about is None or self.rows is UNREAD:
            return
        try:
            arrivals = read_files(base_folder, about).arrivals_as_text(needed=self.nodes_follow == "each")
        except TraceError:  # the file is missing or faulty; the given rows are used
            return
        self.__dict__["arrivals"] = arrivals  # the model is frozen

    def _each_can_follow(self) -> None:
        """Raise ValueError if nodes cannot follow the trace independently."""
        if history_of_rows(self.rows) is None:
            raise ValueError(
                "nodes_follow 'each' needs a trace that names its nodes, or one of a single node; this trace has counts"
            )
        for option, default in (("loop", True), ("offset_hours", 0.0), ("max_nodes", None), ("regions", ())):
            if getattr(self, option) != default:
                raise ValueError(f"{option} requires nodes_follow 'together'; found nodes_follow 'each'")

    @property
    def nodes_and_regions(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Node and region of each arrival; empty if unknown. Raises ValueError for invalid text."""
        lines = [line.split(maxsplit=1) for line in self.arrivals.splitlines()]
        if not all(line and line[0].isdecimal() for line in lines):
            raise ValueError("arrivals: allowed: lines with a number and a region")
        names = dict(self.regions)
        regions = tuple(names.get(line[1], line[1]) for line in lines if len(line) == 2)
        return tuple(int(line[0]) for line in lines), regions if len(regions) == len(lines) else ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit newer fields at their defaults, so that the hashes of runs do not change."""
        fields: dict[str, Any] = serialize(self)
        later = {"files", "columns", "unit", "regions", "nodes_follow", "arrivals"}
        defaults = {name: type(self).model_fields[name].default for name in later}
        return {key: item for key, item in fields.items() if key not in later or item not in (defaults[key], [])}


def files_of(fields: Any) -> TraceFiles | None:
    """The files named by the fields of a trace, and how to read them; None without files or with invalid fields."""
    needed = ("file", "files", "format", "columns", "unit", "polarity")
    if any(name not in fields for name in needed):
        return None
    files = fields["files"] if fields["file"] is None else (TraceFile(file=fields["file"]),)
    return TraceFiles(files, *(fields[name] for name in needed[2:])) if files else None


class TraceFailures(FailureProcess):
    """Replay of an availability trace: arrivals and losses at the recorded times, or losses at the recorded rate.

    With `additions: replay` all losses and arrivals come from the trace. The lost nodes are those that the trace names;
    if it has only counts, they are drawn at random. With `ignore` only losses are replayed, assigned at random to the
    nodes of the trace, of which the cluster's nodes are a sample. If the cluster is larger, losses are assigned to its
    nodes and are more frequent in proportion. A node is thus lost as often as in the trace, per hour in which the trace
    has nodes, and the end of a repeated trace is not a loss. Nodes of immune stages are never lost. With
    `nodes_follow: each`, `EachNode` is used instead.
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
        """This process, or with `nodes_follow: each` the process of each node."""
        if self.config.nodes_follow != "each":
            return super().parts
        history = history_of_rows(self.config.rows, self._nodes)
        assert history is not None, "checked with the options"
        return ((self.kind, EachNode(self.config, history)),)

    @property
    def num_initial_nodes(self) -> int | None:
        """Number of nodes of the trace at the offset; None with `ignore` and with `nodes_follow: each`."""
        return self._cycle.num_initial if self._replays and self.config.nodes_follow != "each" else None

    @property
    def initial_regions(self) -> Sequence[str] | None:
        """Regions of these nodes; empty if the trace has none."""
        return [self._regions[node] for node in self._cycle.initial] if self._regions else None

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between instants at which one or more nodes leave."""
        num_losing = sum(bool(event.left) for event in self._events)
        return self._end_seconds * self.config.time_scale / num_losing if num_losing else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between consecutive events: differences of ticks, so that their sums are exact."""
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
        """The pass of an event, and its index among the events of a pass."""
        return divmod(self._num_passed + index, len(self._events) or 1)

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:
        """The present nodes among those named by the trace; for counts, that number of nodes at random."""
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
        """Whether nodes arrive at an event or later; always true for a repeated trace."""
        if self.config.loop or not self._replays:
            return self._replays and any(event.num_came for event in self._events)
        cycle, row = self._where(index)
        return not cycle and any(event.num_came for event in self._events[row:])

    def arrival_regions(self, index: int) -> Sequence[str | None]:
        """Regions of the nodes that arrive at an event; empty if the trace has none."""
        if not self._regions:
            return super().arrival_regions(index)
        _, row = self._where(index)
        return [self._regions[node] for node in self._events[row].came]

    def describe(self) -> str:
        """Description for captions: the numbers of the whole trace, and its use."""
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
