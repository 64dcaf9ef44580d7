"""Live progress of a sweep: a bar of runs, a bar of training steps, and what the workers are at."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from sim.cli.options import console, say
from sim.experiments.scheduler import SweepProgress
from sim.experiments.strategy_map.study import MapObserver

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


class MapDisplay(MapObserver):
    """Progress of a map's trained runs as a sweep's, then the number of strategies in cells that were simulated."""

    def __init__(self) -> None:
        self._runs = SweepDisplay()
        self._trials = Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True)
        self._task = self._trials.add_task("")

    def __enter__(self) -> MapDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def progressed(self, progress: SweepProgress) -> None:
        """Show the progress of trained runs."""
        if self._trials.live.is_started:
            self._trials.stop()
        self._runs(progress)

    def simulated(self, num_trials: int) -> None:
        """Show the number of simulated strategies in cells."""
        if console.is_terminal:
            self._runs.stop()
            self._trials.start()
            self._trials.update(self._task, description=f"{num_trials:,} strategies in cells simulated")

    def noted(self, line: str) -> None:
        """Print a line above the bars."""
        say(line)

    def stop(self) -> None:
        """Leave the screen to others."""
        self._runs.stop()
        if self._trials.live.is_started:
            self._trials.stop()
