"""What happened in a run, event by event; what happens again and again in peace takes one entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from sim.records import EventRecord


@dataclass(frozen=True)
class Repeated:
    """The same events `num` times, so many seconds and iterations apart."""

    events: tuple[EventRecord, ...]
    num: int
    seconds: float
    num_iterations: int

    def __iter__(self) -> Iterator[EventRecord]:
        """One by one."""
        for time in range(self.num):
            for event in self.events:
                at_seconds, iteration = event.time_seconds + time * self.seconds, event.iteration
                yield replace(event, time_seconds=at_seconds, iteration=iteration + time * self.num_iterations)


class EventLog(Sequence[EventRecord]):
    """Events in the order in which they happened."""

    def __init__(self) -> None:
        self._entries: list[EventRecord | Repeated] = []
        self._length = 0

    def append(self, event: EventRecord) -> None:
        """One more."""
        self._entries.append(event)
        self._length += 1

    def repeat(self, repeated: Repeated) -> None:
        """Some more, all alike."""
        self._entries.append(repeated)
        self._length += repeated.num * len(repeated.events)

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __iter__(self) -> Iterator[EventRecord]:
        """One by one."""
        for entry in self._entries:
            if isinstance(entry, Repeated):
                yield from entry
            else:
                yield entry

    @overload
    def __getitem__(self, index: int) -> EventRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[EventRecord]: ...

    def __getitem__(self, index: int | slice) -> EventRecord | list[EventRecord]:
        """Some of them; takes the time of all."""
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        """Equal events, in a log or in a list."""
        return isinstance(other, EventLog | list) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """As a list's."""
        return repr(list(self))
