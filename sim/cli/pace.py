"""Progress and remaining time of some work: a bar on a terminal, otherwise a line per minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from sim.cli.options import console, say
from sim.core.text import format_duration

SECONDS_BETWEEN_LINES = 60.0


class Pace:
    """The pace of work since it began, or since the current kind of work began."""

    def __init__(self) -> None:
        self._began = self._noted = time.monotonic()
        self._phase: tuple[str, float, float] = "", 0.0, 0.0  # what is counted; number and time at its beginning

    def time_left(self, what: str, num_done: float, num_all: float) -> str:
        """The time left for the counted parts, in words; empty while the pace is unknown."""
        now = time.monotonic()
        if what != self._phase[0]:
            self._phase = what, num_done, now
        _, first, began = self._phase
        if num_done <= first or num_all <= num_done:
            return ""
        return f"about {format_duration((now - began) * (num_all - num_done) / (num_done - first))} left"

    def note(self, state: str) -> None:
        """Print a line of progress once a minute if there is no terminal."""
        now = time.monotonic()
        if not console.is_terminal and now - self._noted >= SECONDS_BETWEEN_LINES:
            self._noted = now
            say(f"After {format_duration(now - self._began)}: {state}")


@contextmanager
def working(what: str, num_parts: int = 0) -> Iterator[Callable[[], None]]:
    """Show the progress of work, as a context that yields a function to call after each part."""
    num_done, pace, over = 0, Pace(), threading.Event()
    of_parts = BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    columns = of_parts if num_parts else (SpinnerColumn(),)
    bars = Progress(
        TextColumn("{task.description}", style="bold", markup=False), *columns, console=console, transient=True
    )
    task = bars.add_task(what, total=num_parts or None)

    def part_done() -> None:
        nonlocal num_done
        num_done += 1
        bars.update(task, completed=num_done)

    def note_now_and_then() -> None:
        pace.time_left(what, 0, num_parts)
        while not over.wait(SECONDS_BETWEEN_LINES):
            parts = f", {num_done} of {num_parts}" if num_parts else ""
            left = pace.time_left(what, num_done, num_parts)
            pace.note(f"{what}{parts}{f', {left}' if left else ''}")

    if console.is_terminal:
        with bars:
            yield part_done
        return
    threading.Thread(target=note_now_and_then, daemon=True).start()
    try:
        yield part_done
    finally:
        over.set()
