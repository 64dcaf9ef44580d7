"""Live progress of a sweep: a bar of runs, a bar of training steps, and what the workers are at."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from sim.cli.options import console, say
from sim.experiments.scheduler import SweepProgress

MOST_TOLD = 2


class SweepDisplay:
    """Shown from the first progress on, until stopped."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}", style="dim"),
            console=console,
            transient=True,
        )
        self._runs = self._bars.add_task("runs", total=None, state="")
        self._steps = self._bars.add_task("training steps", total=None, state="", visible=False)

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, progress: SweepProgress) -> None:
        """Something has come in, or some seconds have passed."""
        self._bars.start()
        if progress.num_runs == 0:
            self._bars.update(self._runs, description="runs looked at", completed=progress.num_surveyed)
            return
        num_done = progress.num_finished + progress.num_failed
        failed = f"{progress.num_failed} failed" if progress.num_failed else ""
        self._bars.update(self._runs, description="runs", total=progress.num_runs, completed=num_done, state=failed)
        total = progress.num_steps_trained + progress.num_steps_left
        others = len(progress.under_way) - MOST_TOLD
        state = "; ".join(progress.under_way[:MOST_TOLD]) + (f"; {others} more" if others > 0 else "")
        self._bars.update(
            self._steps, total=total, completed=progress.num_steps_trained, state=state, visible=total > 0
        )

    def stop(self) -> None:
        """Leave the screen to others."""
        if self._bars.live.is_started:
            self._bars.stop()


# Live progress of a map: of its real runs as a sweep's, then how many strategies in cells have been played.


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
