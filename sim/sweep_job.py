"""A sweep from its points to its results folder: what there is to do, doing it, and more replicates where asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sim.executors import Executor
from sim.points import Point
from sim.runner import Texts
from sim.sweep import Sweep, SweepProgress
from sim.sweep_files import End, Purpose, SweepFolder
from sim.sweep_outline import Outline, outline
from sim.sweep_plan import SweepRun, plan_runs

if TYPE_CHECKING:
    from models.workshop import Workshop

SECONDS_BETWEEN_NOTES = 1.0


class SweepJob:
    """The runs of some points, of one results folder and one executor.

    watch: is told how far it is, each time that something comes in. workshop: None where nothing is trained.
    """

    def __init__(
        self,
        points: Sequence[Point],
        base_folder: Path,
        results_folder: Path,
        cache: Path,
        watch: Callable[[SweepProgress], None] = lambda _: None,
        made_for: Purpose = "sweep",
    ) -> None:
        self.points, self.watch = list(points), watch
        self._texts = Texts(base_folder, cache)
        self._folders = base_folder, results_folder, cache
        self.runs = self._plan(self.points)
        self.folder = SweepFolder(results_folder / self.points[0].scenario.name, made_for)
        self.failures: dict[SweepRun, tuple[str, str]] = {}
        self._progress: SweepProgress | None = None
        self._noted_seconds = 0.0
        self._is_doing = False
        self._table: pd.DataFrame | None = None
        self._sweep: Sweep | None = None

    def _plan(self, points: Sequence[Point]) -> list[SweepRun]:
        return plan_runs(points, *self._folders, self._texts)

    @property
    def learns(self) -> bool:
        """Whether any of its runs really trains a model."""
        return any(run.learns for run in self.runs)

    def begin(self, executor: Executor, workshop: Workshop | None) -> None:
        """From now on these do the work."""
        corpora = {run.runner.corpus.content_hash: run.runner.corpus for run in self.runs if run.runner.corpus}
        texts = {content_hash: executor.share(corpus) for content_hash, corpus in corpora.items()}
        self._sweep = Sweep(executor, workshop, texts, self)

    @property
    def sweep(self) -> Sweep:
        """Who does the work."""
        assert self._sweep is not None, "begin first"
        return self._sweep

    def outline(self, runs: Sequence[SweepRun], to_do: Sequence[SweepRun]) -> Outline:
        """What is to be done for some runs, and how long it may take."""
        self.sweep.survey(to_do)
        return outline(self.sweep, runs, to_do)

    def do(self, to_do: Sequence[SweepRun]) -> None:
        """Do runs to their end; those that fail are kept in `failures` and the folder. OSError if the disk refuses."""
        end: End = "stopped"
        reason = ""
        try:
            self.folder.begin(self.runs, to_do)
            self._is_doing = True
            for run in (run for run in to_do if run in self.failures):  # those that could not be surveyed
                self.folder.failed(run, *self.failures[run])
            self.sweep.do([run for run in to_do if run not in self.failures])
            self._table = self.folder.write_table(self.runs)
            end = "finished"
        except KeyboardInterrupt:
            end = "interrupted"
            raise
        except BaseException as error:
            reason = str(error)
            raise
        finally:
            self.folder.progressed(self._progress or SweepProgress(), end, reason)
            if end != "finished":
                with suppress(Exception):  # there is something worse to tell
                    self.folder.write_table(self.runs)

    def table(self) -> pd.DataFrame:
        """A row for each run that is finished or has failed, as the work that was done last has left it."""
        assert self._table is not None, "do something first"
        return self._table

    def add_replicates(self, wanted: dict[int, int]) -> list[SweepRun]:
        """Give points, by their number, more failure seeds, counted up from their last; the runs that this adds."""
        for number, num_seeds in wanted.items():
            self.points[number] = self.points[number].with_more_failure_seeds(num_seeds)
        known = {run.planned.key for run in self.runs}
        added = [run for run in self._plan(self.points) if run.planned.key not in known]
        self.runs += added
        return added

    def keep_added(self) -> list[SweepRun]:
        """Finished runs of failure seeds that an earlier sweep of this folder has added stay among its runs; these."""
        points = list(self.points)
        for number, num_seeds in self.folder.added_seeds([point.scenario.seeds.failures for point in points]).items():
            points[number] = points[number].with_more_failure_seeds(num_seeds)
        known = {run.planned.key for run in self.runs}
        kept = [run for run in self._plan(points) if run.planned.key not in known and run.is_finished]
        self.runs += kept
        return kept

    def progressed(self, progress: SweepProgress) -> None:
        """Something has come in, or some seconds have passed."""
        self._progress = progress
        self.watch(progress)
        if self._is_doing and time.monotonic() - self._noted_seconds > SECONDS_BETWEEN_NOTES:
            self._noted_seconds = time.monotonic()
            self.folder.progressed(progress)

    def failed(self, run: SweepRun, error: str, details: str) -> None:
        """A run could not be done; the others go on."""
        self.failures[run] = error, details
        if self._is_doing:
            self.folder.failed(run, error, details)
