"""Live progress of a run, a sweep or a map: bars of runs and training steps, and the tasks under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from sim.cli.options import complain, console, say
from sim.cli.pace import Pace
from sim.experiments.sweep import Observer

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sim.experiments.folder import SweepProgress
    from sim.experiments.outline import Outline
    from sim.experiments.plan import SweepRun
    from sim.scenario.scenario import Scenario

MOST_TASKS_NAMED = 2


class Display(Observer):
    """Live progress of a sweep or a map; an interrupt ends it with a hint and code 130. writes: False for a dry run."""

    def __init__(self, writes: bool = True) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._runs = self._bars.add_task("runs", total=None, state="")
        self._steps = self._bars.add_task("training steps", total=None, state="", visible=False)
        self._trials = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._simulated = self._trials.add_task("")
        self._pace = Pace()
        self._writes = writes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for shown in (self._bars, self._trials):
            if shown.live.is_started:
                shown.stop()
        if kind is KeyboardInterrupt:
            kept = " Finished runs and nearly all training steps are kept; the same command resumes."
            complain(f"Interrupted.{kept if self._writes else ''}")
            raise typer.Exit(130) from None

    def planned(self, outline: Outline, finished: Sequence[SweepRun]) -> None:  # noqa: ARG002
        """Print the work ahead."""
        say("\n".join(outline.lines))

    def noted(self, line: str) -> None:
        """Print a line that stays, above the bars."""
        say(line)

    def progressed(self, progress: SweepProgress) -> None:
        """Update the bars."""
        if self._trials.live.is_started:
            self._trials.stop()
        self._bars.start()
        total = progress.num_steps_trained + progress.num_steps_left
        if progress.num_runs == 0 and not total:
            self._bars.update(self._runs, description="runs simulated", completed=progress.num_surveyed)
            self._pace.note(f"{progress.num_surveyed:,} runs simulated")
            return
        num_done = progress.num_finished + progress.num_failed
        failed = f"{progress.num_failed} failed" if progress.num_failed else ""
        self._bars.update(
            self._runs,
            description="runs",
            total=progress.num_runs,
            completed=num_done,
            state=failed,
            visible=progress.num_runs > 0,  # branches train states alone
        )
        others = len(progress.under_way) - MOST_TASKS_NAMED
        state = "; ".join(progress.under_way[:MOST_TASKS_NAMED]) + (f"; {others} more" if others > 0 else "")
        self._bars.update(
            self._steps, total=total, completed=progress.num_steps_trained, state=state, visible=total > 0
        )
        self._pace.note(self._describe(progress, num_done, total))

    def _describe(self, progress: SweepProgress, num_done: int, num_steps: int) -> str:
        """The state of a sweep, or of training alone, in one line. The time left is that of the training."""
        parts = [f"{num_done:,} of {progress.num_runs:,} runs done"] if progress.num_runs else []
        if progress.num_failed:
            parts.append(f"{progress.num_failed:,} of them failed")
        if num_steps:
            parts.append(f"{progress.num_steps_trained:,} of {num_steps:,} training steps")
            left = self._pace.time_left("steps", progress.num_steps_trained, num_steps)
        else:
            left = self._pace.time_left("runs", num_done, progress.num_runs)
        return ", ".join([*parts, left] if left else parts)

    def simulated(self, num_trials: int, num_all: int) -> None:
        """Show the number of finished simulations, of a strategy in a cell each, and of all that are due now."""
        state = f"{num_trials:,} of {num_all:,} simulations done"
        if left := self._pace.time_left(f"{num_all} trials", num_trials, num_all):
            state += f", {left}"
        self._pace.note(state)
        if console.is_terminal:
            if self._bars.live.is_started:
                self._bars.stop()
            self._trials.start()
            self._trials.update(self._simulated, description=state)


class RunDisplay(Display):
    """Progress of a scenario's runs: a bar of training steps for each run, below the bars of all runs."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self._scenario = scenario
        self._lines: dict[str, TaskID] = {}

    def planned(self, outline: Outline, finished: Sequence[SweepRun]) -> None:
        """Print the basis of the numbers, the runs that are not repeated, and the training ahead."""
        from sim.reporting.notes import describe_prices, notes

        for caption in (*notes(self._scenario, outline.corpus), describe_prices(self._scenario.cluster)):
            console.print(caption, style="dim", highlight=False)
        for run in finished:
            say(f"{run.folder}: already finished, skipped")
        if outline.num_steps_alone:
            for line in outline.lines[1:-1]:
                say(line)

    def progressed(self, progress: SweepProgress) -> None:
        """Update the bars."""
        super().progressed(progress)
        for run in progress.runs:
            if run.title not in self._lines:
                self._lines[run.title] = self._bars.add_task(run.title, state="")
            is_over = run.state in ("finished", "failed")
            total, done = (run.num_steps, run.num_steps_done) if run.num_steps else (1, int(is_over))
            self._bars.update(self._lines[run.title], total=total, completed=done, state=run.state)
