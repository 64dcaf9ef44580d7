"""Live progress of a run, a sweep and a map: bars of runs and training steps, and the tasks under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from sim.cli.options import console, say
from sim.experiments.strategy_map.study import MapObserver
from sim.experiments.sweep import SweepObserver

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sim.experiments.outline import Outline
    from sim.experiments.plan import SweepRun
    from sim.experiments.scheduler import RunProgress, SweepProgress
    from sim.scenario.scenario import Scenario

MOST_TASKS_NAMED = 2


class SweepDisplay(SweepObserver):
    """Progress of a sweep, shown from the first progress on, until stopped."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def planned(self, outline: Outline, finished: Sequence[SweepRun]) -> None:  # noqa: ARG002
        """Print the work ahead."""
        for line in outline.in_words():
            say(line)

    def noted(self, line: str) -> None:
        """Print a line that stays, above the bars."""
        say(line)

    def progressed(self, progress: SweepProgress) -> None:
        """Update the bars."""
        self._bars.start()
        if progress.num_runs == 0:
            self._bars.update(self._runs, description="runs surveyed", completed=progress.num_surveyed)
            return
        num_done = progress.num_finished + progress.num_failed
        failed = f"{progress.num_failed} failed" if progress.num_failed else ""
        self._bars.update(self._runs, description="runs", total=progress.num_runs, completed=num_done, state=failed)
        total = progress.num_steps_trained + progress.num_steps_left
        others = len(progress.under_way) - MOST_TASKS_NAMED
        state = "; ".join(progress.under_way[:MOST_TASKS_NAMED]) + (f"; {others} more" if others > 0 else "")
        self._bars.update(
            self._steps, total=total, completed=progress.num_steps_trained, state=state, visible=total > 0
        )

    def stop(self) -> None:
        """Remove the bars."""
        if self._bars.live.is_started:
            self._bars.stop()


class RunDisplay(SweepDisplay):
    """Progress of a scenario's runs: a bar for each, of the steps that it asks for, above those of all."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self._scenario = scenario
        self._lines: dict[str, TaskID] = {}

    def planned(self, outline: Outline, finished: Sequence[SweepRun]) -> None:
        """Print what the numbers are of, the runs that are not repeated, and the training ahead."""
        from sim.reporting.notes import describe_prices, notes

        for caption in (*notes(self._scenario, outline.corpus), describe_prices(self._scenario.cluster)):
            console.print(caption, style="dim", highlight=False)
        for run in finished:
            say(f"{run.planned.folder}: finished before, not run again")
        if outline.num_steps_alone:
            say(outline.in_words()[1])

    def progressed(self, progress: SweepProgress) -> None:
        """Update the bars."""
        super().progressed(progress)
        for run in progress.runs:
            if run.title not in self._lines:
                self._lines[run.title] = self._bars.add_task(run.title, state="")
            total, done, state = bar_of(run)
            self._bars.update(self._lines[run.title], total=total, completed=done, state=state)


def bar_of(run: RunProgress) -> tuple[int, int, str]:
    """The length of a run's bar, how much of it is filled, and the state in words."""
    if run.is_finished or run.has_failed:
        total = max(1, run.num_steps)
        return total, total, "failed" if run.has_failed else "finished"
    if not run.num_steps:
        return 1, 0, ""
    return run.num_steps, run.num_steps - run.num_steps_left, "training" if run.num_steps_left else "simulating"


class MapDisplay(MapObserver):
    """Progress of a map's trained runs as a sweep's, then the number of strategies in cells that were simulated."""

    def __init__(self) -> None:
        self._runs = SweepDisplay()
        self._trials = Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True)
        self._task = self._trials.add_task("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def progressed(self, progress: SweepProgress) -> None:
        """Show the progress of trained runs."""
        if self._trials.live.is_started:
            self._trials.stop()
        self._runs.progressed(progress)

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
        """Remove the bars."""
        self._runs.stop()
        if self._trials.live.is_started:
            self._trials.stop()
