"""The scheduler: keeps an executor's workers busy with tasks, and does the runs of a sweep with it.

A run's seconds do not depend on losses. So all runs are first surveyed, which is a simulation without training
(`training_plan`); the training that they ask for together is cut into segments, each trained once; and as soon as the
segments of a run are done, it is simulated again with its losses and written. Workers only compute: this process alone
writes, so that the death of a worker, or of this process, loses no more than the tasks under way.
"""

from __future__ import annotations

import math
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from models.training_plan import Demands, Segment, num_steps, together
from sim.experiments.executors import Executor, WorkerDiedError
from sim.experiments.plan import RunKind, SweepRun
from sim.experiments.queue import Item, WorkQueue
from sim.experiments.tasks import Outcomes, simulate_trained, simulate_untrained, survey, time_simulation
from sim.simulation.run import Run

if TYPE_CHECKING:
    from models.shared_training import SharedTraining

MOST_ATTEMPTS, MOST_IDLE_ROUNDS = 3, 100

MOST_SURVEYED, FEWEST_TIMED = 50, 4
"""Runs of one task of a survey, at most; runs of a kind without training, from which on one is timed."""

MOST_RUNS_REPORTED = 32
"""Of a sweep with more runs to do, progress says nothing of single ones."""

HEARTBEAT_SECONDS = 2.0

Task = TypeVar("Task")


class Work(ABC, Generic[Task]):
    """Tasks to do, in the order of `waiting` unless `next` and `again` say otherwise. A task can be hashed."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self.waiting = deque(tasks)

    def next(self) -> Task | None:
        """The next task to submit; None where none is ready now."""
        return self.waiting.popleft() if self.waiting else None

    def again(self, task: Task) -> None:
        """Have a task submitted once more, first of all."""
        self.waiting.appendleft(task)

    @abstractmethod
    def submit(self, task: Task) -> Future[Any] | None:
        """Submit a task to the executor; None where it cannot be done now."""

    @abstractmethod
    def done(self, task: Task, result: Any) -> None:
        """Take a result in: called before other tasks are submitted, so that those that need it are ready."""

    def keep(self, task: Task, result: Any) -> None:
        """Keep a result: called after other tasks are submitted, so that no worker waits for the disk."""

    @abstractmethod
    def failed(self, task: Task, error: BaseException) -> None:
        """A task raised an error, or its worker died at each attempt."""

    def heartbeat(self, under_way: Sequence[Task]) -> None:
        """Results have come in, or some seconds have passed."""


class Scheduler(Generic[Task]):
    """Does all tasks of some work on an executor. A task whose worker died is repeated, at most `MOST_ATTEMPTS` times.

    attempts: failed attempts by task, where they are to be counted over several schedulers.
    """

    def __init__(self, executor: Executor, work: Work[Task], attempts: Counter[Task] | None = None) -> None:
        self.executor, self.work = executor, work
        self._attempts: Counter[Task] = Counter() if attempts is None else attempts
        self._under_way: dict[Future[Any], Task] = {}

    def run(self) -> None:
        """Do the tasks until none is left that is ready."""
        self._submit()
        while self._under_way:
            finished, _ = wait(self._under_way, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
            results: list[tuple[Task, Any]] = []
            for future in finished:
                task, error = self._under_way.pop(future), future.exception()
                if error is None:
                    results.append((task, future.result()))
                    self.work.done(task, future.result())
                elif isinstance(error, WorkerDiedError) and self._may_retry(task):
                    self.work.again(task)
                else:
                    self.work.failed(task, error)
            self._submit()
            for task, result in results:
                self.work.keep(task, result)
            self.work.heartbeat(list(self._under_way.values()))
            self._submit()

    def _submit(self) -> None:
        """Keep all workers busy."""
        while (task := self.work.next()) is not None:
            if not self._may_submit(task):
                self.work.again(task)
                return
            if (future := self.work.submit(task)) is not None:
                self._under_way[future] = task

    def _may_submit(self, task: Task) -> bool:
        """Whether a task can be submitted now: one for each worker, and one that waits for each, so that none is idle.

        A task that may have killed its workers has its last attempt alone: no others die with it.
        """
        suspects = [one for one in (task, *self._under_way.values()) if self._attempts.get(one) == MOST_ATTEMPTS - 1]
        num_workers = self.executor.num_workers
        most = num_workers * (1 + (num_workers > 1))
        return not self._under_way or (not suspects and len(self._under_way) < most)

    def _may_retry(self, task: Task) -> bool:
        self._attempts[task] += 1
        return self._attempts[task] < MOST_ATTEMPTS


@dataclass(frozen=True)
class RunProgress:
    """The steps that a run asks for and those of them still to be trained; whether it is finished or has failed."""

    title: str
    num_steps: int = 0
    num_steps_left: int = 0
    is_finished: bool = False
    has_failed: bool = False


@dataclass(frozen=True)
class SweepProgress:
    """Counts of runs, without those that were finished before, and of steps. runs: of each, if there are few."""

    num_runs: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_surveyed: int = 0
    num_steps_trained: int = 0
    num_steps_left: int = 0
    under_way: tuple[str, ...] = ()
    runs: tuple[RunProgress, ...] = ()


class Sweep:
    """Runs, and the executor and training that they are done with.

    texts: stand-ins, by content hash, for the texts that are learnt. training: None where nothing is trained. failed:
    called with a run that cannot be done, its error in a line, and details. Raises OSError as soon as the disk refuses
    anything: then nothing of what is there is lost.
    """

    def __init__(
        self,
        executor: Executor,
        training: SharedTraining | None,
        texts: Mapping[str, Any],
        progressed: Callable[[SweepProgress], None],
        failed: Callable[[SweepRun, str, str], None],
    ) -> None:
        self.executor, self.training, self.texts = executor, training, texts
        self._progressed, self._failed = progressed, failed
        self.demands: dict[SweepRun, Demands] = {}
        self.survey_seconds = 0.0
        self.simulation_seconds: dict[RunKind, float] = {}
        self.attempts: Counter[Item] = Counter()
        self.open: dict[SweepRun, None] = {}
        self._to_do: dict[SweepRun, bool | None] = {}  # whether it is finished or, if False, has failed

    def survey(self, runs: Sequence[SweepRun]) -> None:
        """Find what runs ask of their training; of many runs without training, one of each kind is timed.

        A run that cannot be simulated fails.
        """
        began_seconds = time.monotonic()
        Scheduler(self.executor, SurveyWork(self, runs)).run()
        self.survey_seconds += time.monotonic() - began_seconds

    def do(self, runs: Sequence[SweepRun]) -> None:
        """Do runs to their end: each is written, or has failed."""
        self.open = dict.fromkeys(runs)
        self._to_do |= dict.fromkeys(runs)
        self.survey(runs)
        num_idle_rounds = 0
        while self.open:
            before = len(self.open), self.num_trained_steps
            asked = {run: self.demands.get(run, {}) for run in self.open}
            segments = self.training.plan(together(asked.values())) if self.training else []
            Scheduler(self.executor, SweepWork(self, WorkQueue(segments, asked)), self.attempts).run()
            num_idle_rounds = num_idle_rounds + 1 if before == (len(self.open), self.num_trained_steps) else 0
            if num_idle_rounds == MOST_IDLE_ROUNDS:
                raise RuntimeError("training states vanish from the cache as fast as they come: is it being pruned?")

    @property
    def num_trained_steps(self) -> int:
        """Steps trained so far."""
        return self.training.num_trained_steps if self.training else 0

    def write(self, run: SweepRun, result: Run | Outcomes) -> None:
        """Write a run that is done."""
        run.write(result, self.demands.get(run))
        del self.open[run]
        self._to_do[run] = True

    def fail(self, run: SweepRun, error: BaseException) -> None:
        """Give a run up."""
        self.open.pop(run, None)
        self._to_do[run] = False
        message = str(error) or type(error).__name__
        if isinstance(error, WorkerDiedError):
            message = f"its worker died {MOST_ATTEMPTS} times, out of memory perhaps: {message}"
        self._failed(run, message, "".join(traceback.format_exception(error)))

    def report(self, queue: WorkQueue | None = None, under_way: tuple[str, ...] = ()) -> None:
        """Report the progress."""
        ends = Counter(self._to_do.values())
        runs = list(self._to_do) if len(self._to_do) <= MOST_RUNS_REPORTED else []
        self._progressed(
            SweepProgress(
                num_runs=len(self._to_do),
                num_finished=ends[True],
                num_failed=ends[False],
                num_surveyed=len(self.demands),
                num_steps_trained=self.num_trained_steps,
                num_steps_left=queue.num_steps_left if queue else 0,
                under_way=under_way,
                runs=tuple(self._progress_of(run, queue) for run in runs),
            )
        )

    def _progress_of(self, run: SweepRun, queue: WorkQueue | None) -> RunProgress:
        asked = num_steps(self.demands.get(run, {}))
        left = queue.num_steps_left_of(run) if queue and run in self.open else 0
        return RunProgress(run.title, asked, left, self._to_do[run] is True, self._to_do[run] is False)


Runs = tuple[SweepRun, ...]


class SurveyWork(Work[Runs]):
    """The survey of runs of a sweep: a task is some runs of one kind, or a single one without training to time."""

    def __init__(self, sweep: Sweep, runs: Sequence[SweepRun]) -> None:
        super().__init__()
        self.sweep = sweep
        by_kind: dict[RunKind, list[SweepRun]] = {}
        for run in runs:
            by_kind.setdefault(run.kind, []).append(run)
        most = max(1, min(MOST_SURVEYED, math.ceil(len(runs) / (2 * sweep.executor.num_workers))))
        for kind, alike in by_kind.items():
            if kind.learns:
                new = [run for run in alike if run not in sweep.demands]
                self.waiting.extend(tuple(new[start : start + most]) for start in range(0, len(new), most))
            elif len(alike) >= FEWEST_TIMED and kind not in sweep.simulation_seconds:
                self.waiting.append((alike[0],))

    def submit(self, task: Runs) -> Future[Any]:
        """Simulate them without training."""
        if task[0].learns:
            return self.sweep.executor.submit(survey, [run.task for run in task])
        return self.sweep.executor.submit(time_simulation, task[0].task, task[0].keeps_records)

    def done(self, task: Runs, result: Any) -> None:
        """Keep what they ask for, or the time."""
        if task[0].learns:
            self.sweep.demands.update(zip(task, result, strict=True))
        else:
            self.sweep.simulation_seconds[task[0].kind] = result

    def failed(self, task: Runs, error: BaseException) -> None:
        """A single run fails; several are tried one by one, so that each has its own error."""
        if len(task) > 1:
            self.waiting.extend((run,) for run in task)
        else:
            self.sweep.fail(task[0], error)

    def heartbeat(self, under_way: Sequence[Runs]) -> None:  # noqa: ARG002
        """Report the progress."""
        self.sweep.report()


class SweepWork(Work[Item]):
    """The segments and runs of a queue. Runs whose states were gone, or whose training diverged, stay open."""

    def __init__(self, sweep: Sweep, queue: WorkQueue) -> None:
        super().__init__()
        self.sweep, self.queue = sweep, queue

    def next(self) -> Item | None:
        """The next segment or run."""
        return self.queue.next()

    def again(self, task: Item) -> None:
        """The same again."""
        self.queue.again(task)

    def submit(self, task: Item) -> Future[Any] | None:
        """Train a segment, or simulate a run with its losses."""
        if isinstance(task, Segment):
            return self._submit_segment(task)
        submit, training = self.sweep.executor.submit, self.sweep.training
        if not task.learns:
            return submit(simulate_untrained, task.task, task.keeps_records)
        assert training is not None
        return submit(simulate_trained, task.task, training.losses(self.sweep.demands[task]), task.keeps_records)

    def _submit_segment(self, segment: Segment) -> Future[Any] | None:
        """None where a state that it needs is gone: the next round plans anew."""
        from models.segment import train_segment

        training = self.sweep.training
        assert training is not None
        states = {state: training.state(state) for state in segment.needs}
        if None in states.values():
            self.queue.give_up(segment)
            return None
        older = {state: states[state] for state in segment.older}
        start = states[segment.start] if segment.start else None
        text = self.sweep.texts[segment.lineage.spec.corpus]
        return self.sweep.executor.submit(train_segment, segment, text, start, older, training.environment)

    def done(self, task: Item, result: Any) -> None:
        """The state of a segment is there: others can start from it."""
        if isinstance(task, Segment):
            assert self.sweep.training is not None
            self.sweep.training.add_state(task, result)
            if result.divergence is None:
                self.queue.done(task)
            else:
                self.queue.give_up(task)

    def keep(self, task: Item, result: Any) -> None:
        """Write a run; make a segment's results durable, so that runs that wait for them can be simulated."""
        if not isinstance(task, Segment):
            self.sweep.write(task, result)
            return
        training = self.sweep.training
        assert training is not None
        training.commit(task, result, lambda: self.queue.needed_states)
        training.discard_states(self.queue.needs)
        self.queue.kept(task)

    def failed(self, task: Item, error: BaseException) -> None:
        """The run fails, or all that ask for the segment."""
        for run in self.queue.give_up(task) if isinstance(task, Segment) else [task]:
            self.sweep.fail(run, error)

    def heartbeat(self, under_way: Sequence[Item]) -> None:
        """Report the progress."""
        self.sweep.report(self.queue, tuple(name_of(task) for task in under_way))


def name_of(item: Item) -> str:
    """A segment or a run, for people."""
    if isinstance(item, Segment):
        return f"training {item.lineage.key[:8]} steps {item.first_step} to {item.last_step}"
    return item.name
