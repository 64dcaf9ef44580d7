"""What happened in a run, event by event; what happens again and again in peace takes one entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from sim.records import EventKind, EventRecord


class Repeated(NamedTuple):
    """A save `num` times, from its start to its end, so many seconds and iterations apart."""

    started_seconds: float
    seconds: float
    iteration: int
    num: int
    cycle_seconds: float
    num_in_a_cycle: int

    def records(self) -> Iterator[EventRecord]:
        """One by one."""
        for time in range(self.num):
            at_seconds = self.started_seconds + time * self.cycle_seconds
            iteration = self.iteration + time * self.num_in_a_cycle
            yield EventRecord(at_seconds, "checkpoint_started", None, iteration)
            yield EventRecord(at_seconds + self.seconds, "checkpoint_durable", None, iteration)


Noted = tuple[float, EventKind, int | None, int, str]
"""The fields of a record, which is made when it is asked for."""


class EventLog(Sequence[EventRecord]):
    """Events in the order in which they happened."""

    def __init__(self) -> None:
        self._entries: list[Noted | Repeated] = []
        self._length = 0

    def note(self, time_seconds: float, kind: EventKind, stage: int | None, iteration: int, detail: str) -> None:
        """One more."""
        self._entries.append((time_seconds, kind, stage, iteration, detail))
        self._length += 1

    def repeat(self, saves: Repeated) -> None:
        """Some saves more."""
        self._entries.append(saves)
        self._length += 2 * saves.num

    def kinds(self) -> Counter[EventKind]:
        """How many of each kind."""
        kinds: Counter[EventKind] = Counter(entry[1] for entry in self._entries if not isinstance(entry, Repeated))
        num_saves = sum(entry.num for entry in self._entries if isinstance(entry, Repeated))
        kinds["checkpoint_started"] += num_saves
        kinds["checkpoint_durable"] += num_saves
        return kinds

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __iter__(self) -> Iterator[EventRecord]:
        """One by one."""
        for entry in self._entries:
            if isinstance(entry, Repeated):
                yield from entry.records()
            else:
                yield EventRecord(*entry)

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


def kinds_of(events: Iterable[EventRecord]) -> Counter[EventKind]:
    """How many events of each kind there are."""
    if not isinstance(events, EventLog):
        return Counter(event.kind for event in events)
    return events.kinds()
