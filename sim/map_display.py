"""Live progress of a map: of its real runs as a sweep's, then how many strategies in cells have been played."""

from __future__ import annotations

from rich.progress import Progress, SpinnerColumn, TextColumn

from sim.sweep import SweepProgress
from sim.sweep_display import SweepDisplay
from sim.terminal import console, say


class MapDisplay:
    """Shown until stopped."""

    def __init__(self) -> None:
        self._runs = SweepDisplay()
        self._plays = Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True)
        self._task = self._plays.add_task("")

    def __enter__(self) -> MapDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, progress: SweepProgress) -> None:
        """A real run has come on."""
        if self._plays.live.is_started:
            self._plays.stop()
        self._runs(progress)

    def counted(self, num_plays: int) -> None:
        """So many strategies in cells have been played."""
        if console.is_terminal:
            self._runs.stop()
            self._plays.start()
            self._plays.update(self._task, description=f"{num_plays:,} strategies in cells played without training")

    def say(self, line: str) -> None:
        """A line that stays, above the bars."""
        say(line)

    def stop(self) -> None:
        """Leave the screen to others."""
        self._runs.stop()
        if self._plays.live.is_started:
            self._plays.stop()
