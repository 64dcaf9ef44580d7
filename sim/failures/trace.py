"""Replay of a churn trace: nodes come and leave as they were seen to, or leave at the rate at which they were."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from pathlib import PurePath
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from sim.core.units import SECONDS_PER_HOUR, to_ticks
from sim.failures.base import FailureProcess, Member, ProcessConfig, Scope
from sim.failures.trace_formats import MAX_NODES, MAX_ROWS, MAX_SECONDS, Format, Polarity, TraceRow

MIN_LOOP_SECONDS = 1.0
"""A trace that is repeated lasts so long at least: one that took no time would never let time go on."""

Row = Annotated[
    tuple[
        Annotated[float, Field(ge=0, le=MAX_SECONDS)],
        Annotated[int, Field(ge=0, le=MAX_ROWS)],
        Annotated[int, Field(ge=0, le=MAX_ROWS)],
        tuple[Annotated[int, Field(ge=0)], ...],
    ],
    Field(description="seconds since the first, nodes that come, nodes that leave, their numbers if known"),
]
"""A `TraceRow` as a scenario holds it."""


class TraceConfig(ProcessConfig):
    """Options of `trace`."""

    kind: Literal["trace"] = "trace"
    file: str | None = Field(None, description="the trace, a path relative to the scenario's folder")
    format: Format = Field("auto", description="what the file's lines are; auto: by its content")
    polarity: Polarity = Field(
        "available", description="what skypilot counts: nodes that can be had; or, 1, that the one node cannot be had"
    )
    rows: tuple[Row, ...] = Field(
        (), max_length=MAX_ROWS, description="the trace itself; default: read from the file, and kept in the results"
    )
    time_scale: float = Field(1.0, ge=1e-6, le=1e6, description="2: everything takes twice as long")
    offset_hours: float = Field(0.0, ge=0, le=1e6, description="start here in the trace, in hours of the trace")
    loop: bool = Field(True, description="after its end the trace begins anew; else nobody comes or leaves any more")
    max_nodes: int | None = Field(
        None,
        ge=1,
        le=MAX_NODES,
        description="replay: who comes while so many are there is left out, so that those who stay long fill the "
        "places, and losses are rarer than in the trace; of mere counts, what is above; default: no limit",
    )
    additions: Literal["replay", "ignore"] = Field(
        "replay",
        description="replay: the fleet is the trace's; ignore: a node is lost as often as in the trace, and a new one "
        "is ordered for each",
    )

    @model_validator(mode="after")
    def _trace_can_be_replayed(self) -> Self:
        if not self.rows:
            raise ValueError("a trace needs its 'file', which is read with the scenario, or 'rows'")
        check_rows(self.rows)
        if self.max_nodes is not None and self.additions == "ignore":
            raise ValueError("max_nodes goes with additions 'replay', found additions 'ignore'")
        end_seconds = self.rows[-1][0]
        if 0.0 < end_seconds <= self.offset_hours * SECONDS_PER_HOUR:
            raise ValueError(
                f"offset_hours {self.offset_hours:g}: the trace ends after {end_seconds / SECONDS_PER_HOUR:.4g} h"
            )
        if self.loop and 0.0 < self.time_scale * end_seconds < MIN_LOOP_SECONDS:
            raise ValueError(
                f"the trace lasts {self.time_scale * end_seconds:.3g} s in all; one that is repeated (loop) takes "
                f"{MIN_LOOP_SECONDS:g} s at least"
            )
        return self


def check_rows(rows: Sequence[TraceRow]) -> None:
    """ValueError unless rows are in order and nobody leaves who is not there, or who was not named as others were."""
    present = set(range(rows[0][1]))
    num_present = num_arrived = rows[0][1]
    naming = names_nodes(rows)
    if rows[0][0] != 0.0 or rows[0][2]:
        raise ValueError("row 0: a trace begins at 0.0 s, when nobody leaves")
    for index, ((before_seconds, *_), row) in enumerate(pairwise(rows), start=1):
        seconds, num_came, num_left, who_left = row
        if seconds <= before_seconds:
            raise ValueError(f"row {index}: {seconds:g} s is not after {before_seconds:g} s of the row before")
        if num_left > num_present:
            raise ValueError(f"row {index}: {num_left} leave, but {num_present} are there")
        if len(who_left) != (num_left if naming else 0):
            raise ValueError(f"row {index}: {num_left} leave, but {len(who_left)} are named; name all or none")
        if naming:
            if len(set(who_left) & present) != len(who_left):
                raise ValueError(f"row {index}: of those who leave, {list(who_left)}, one is not there or named twice")
            present.difference_update(who_left)
            present.update(range(num_arrived, num_arrived + num_came))
        num_arrived, num_present = num_arrived + num_came, num_present + num_came - num_left
    if not num_arrived:
        raise ValueError("a trace in which there is never a node")


def names_nodes(rows: Sequence[TraceRow]) -> bool:
    """Whether a trace says who leaves."""
    return any(row[3] for row in rows)


class TraceEvent(NamedTuple):
    """What happens at an instant of the trace: `num_before` are there, those `left` leave, and so many come."""

    seconds: float
    num_before: int
    left: tuple[int, ...]
    num_came: int


def replayed_events(rows: Sequence[TraceRow], max_nodes: int | None) -> list[TraceEvent]:
    """Each row as a strike on the nodes that are taken, numbered anew; of mere counts, the latest leave first."""
    strikes = []
    kept: dict[int, int] = {}
    naming, num_kept, num_arrived = names_nodes(rows), 0, 0
    unnamed: list[int] = []
    for seconds, num_came, num_left, who_left in rows:
        num_before = len(kept)
        names = who_left if naming else [unnamed.pop() for _ in range(num_left)]
        left = tuple(kept.pop(name) for name in names if name in kept)
        room = num_came if max_nodes is None else min(num_came, max_nodes - len(kept))
        kept.update({num_arrived + index: num_kept + index for index in range(room)})
        if not naming:
            unnamed.extend(range(num_arrived, num_arrived + num_came))
        num_kept, num_arrived = num_kept + room, num_arrived + num_came
        strikes.append(TraceEvent(seconds, num_before, left, room))
    return strikes


class TraceCycle:
    """One time through a trace, and what the numbers of its nodes are in the fleet of the lap-th time, from 0.

    Where the trace begins anew, the latest leave if more are there than at its start, or nodes come if fewer are; those
    who are there then take over the names of the start, in order of arrival. The instant is that of the trace's end.
    """

    def __init__(self, strikes: Sequence[TraceEvent], offset_seconds: float, joined: bool) -> None:
        num_start, num_arrived = strikes[0].num_came, 0
        there: dict[int, None] = {}
        self._initial: list[int] = []
        num_by_offset = 0
        for strike in strikes:
            for node in strike.left:
                del there[node]
            there.update(dict.fromkeys(range(num_arrived, num_arrived + strike.num_came)))
            num_arrived += strike.num_came
            if strike.seconds <= offset_seconds:
                self._initial, num_by_offset = list(there), num_arrived
        self.strikes = list(strikes[1:])
        self._num_by_offset = num_by_offset
        self._stay = list(there)[:num_start]
        if joined and self.strikes:
            last = self.strikes[-1]
            surplus = list(there)[num_start:]
            num_in_vain = min(len(surplus), last.num_came)  # the latest: they would leave as they come
            num_arrived -= num_in_vain
            gone = tuple(surplus[: len(surplus) - num_in_vain])
            num_came = last.num_came - num_in_vain + num_start - len(self._stay)
            self.strikes[-1] = last._replace(left=last.left + gone, num_came=num_came)
        self._num_in_first = num_arrived - num_by_offset
        self._num_in_next = num_arrived - len(self._stay)

    @property
    def num_initial(self) -> int:
        """Nodes there at the offset."""
        return len(self._initial)

    def number(self, node: int, lap: int) -> int:
        """The number in the fleet of a node of the trace, the lap-th time through."""
        while lap:
            if node >= len(self._stay):
                first = self.num_initial + self._num_in_first + (lap - 1) * self._num_in_next
                return first + node - len(self._stay)
            # It was there when this lap began, under the name it had before; one that never changes is there for good.
            lap, node = (lap - 1, self._stay[node]) if self._stay[node] != node else (0, node)
        if node >= self._num_by_offset:
            return self.num_initial + node - self._num_by_offset
        return bisect_left(self._initial, node)


class TraceFailures(FailureProcess):
    """Replay of an availability trace: its nodes leave and return when they did, or leave at its rate.

    The losses of a trace at its instants, and with `additions: replay` its arrivals.

    replay: those leave whom the trace names; where it only counts, as many by lot. ignore: the trace's losses fall upon
    its nodes by lot, of which those here are some; where more are here, as many more are lost. So a node is lost as
    often as in the trace, and several at once as there. A node at an immune stage stays, whatever the trace
    says. What a repeated trace does where it begins anew (see `TraceCycle`) is no loss with ignore.
    """

    Config = TraceConfig
    config: TraceConfig

    def __init__(self, config: TraceConfig) -> None:
        super().__init__(config)
        self._replays = config.additions == "replay"
        self._names_nodes = names_nodes(config.rows)
        self._offset_seconds = config.offset_hours * SECONDS_PER_HOUR
        strikes = replayed_events(config.rows, config.max_nodes)
        self._end_seconds = strikes[-1].seconds
        self._lap = TraceCycle(strikes, self._offset_seconds, joined=config.loop and self._replays)
        self._strikes = [s for s in self._lap.strikes if s.left or (self._replays and s.num_came)]
        self._num_passed = bisect_right([strike.seconds for strike in self._strikes], self._offset_seconds)

    @property
    def scope(self) -> Scope:
        """The whole cluster."""
        return "cluster"

    @property
    def num_initial_nodes(self) -> int | None:
        """Those of the trace at the offset; None with `ignore`."""
        return self._lap.num_initial if self._replays else None

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between instants at which somebody leaves."""
        num_losing = sum(bool(strike.left) for strike in self._strikes)
        return self._end_seconds * self.config.time_scale / num_losing if num_losing else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds from one strike to the next: differences of ticks, so that their sums are exact."""
        before_seconds = 0.0
        for index in count():
            lap, row = self._where(index)
            if not self._strikes or (lap and not self.config.loop):
                return
            elapsed_seconds = lap * self._end_seconds + self._strikes[row].seconds - self._offset_seconds
            seconds = to_ticks(elapsed_seconds * self.config.time_scale)
            yield seconds - before_seconds
            before_seconds = seconds

    def _where(self, index: int) -> tuple[int, int]:
        """How often the trace has ended before a strike, and which of its strikes it is."""
        return divmod(self._num_passed + index, len(self._strikes) or 1)

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:
        """Whom the trace names, of those that are there; or as many by lot."""
        lap, row = self._where(index)
        strike = self._strikes[row]
        if self._replays and self._names_nodes:
            numbers = {self._lap.number(node, lap) for node in strike.left}
            return [member.number for member in members if member.number in numbers]
        num_lost, num_slots = float(len(strike.left)), len(members)
        if not self._replays:
            num_slots = max(strike.num_before, len(members))
            num_lost *= num_slots / strike.num_before
        slots = rng.permutation(num_slots)[: int(num_lost) + int(rng.random() < num_lost % 1.0)]
        return [members[slot].number for slot in sorted(slots) if slot < len(members)]

    def arrivals(self, index: int) -> int:
        """Nodes that come at the index-th strike; none with `ignore`."""
        _, row = self._where(index)
        return self._strikes[row].num_came if self._replays else 0

    def describe(self) -> str:
        """For captions: the whole trace in numbers, and what is made of it."""
        config = self.config
        num_came, num_left = sum(row[1] for row in config.rows), sum(row[2] for row in config.rows)
        hours = self._end_seconds / SECONDS_PER_HOUR
        whose = f"'{PurePath(config.file).name}'" if config.file else "a trace"
        what = "replay" if self._replays else "losses alone"
        words = [f"{what} of {whose} ({num_came} arrivals, {num_left} losses in {hours:.4g} h)"]
        if config.time_scale != 1.0:
            words.append(f"its times × {config.time_scale:g}")
        if config.offset_hours:
            words.append(f"from {config.offset_hours:g} h on")
        if config.max_nodes is not None:
            words.append(f"at most {config.max_nodes} nodes")
        if config.loop:
            words.append("repeated")
        return ", ".join(words)
