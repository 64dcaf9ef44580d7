"""Does the runs of a sweep: plays them without training to learn what they ask for, trains that once, finishes them.

A run's seconds do not depend on losses. So all runs are first surveyed (`training_plan`); what they ask for together
is
cut into pieces that no two workers do twice; and as soon as a run's pieces are done, it is played again with its losses
and written. Workers only compute: this process alone writes, so that the death of a worker, or of this process, loses
no more than what was under way.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from models.training_plan import Demands, Segment, together
from sim.experiments.executors import Executor, WorkerDiedError
from sim.experiments.plan import Kind, SweepRun, play_known, play_untrained, rehearse, survey
from sim.experiments.queue import Item, WorkQueue
from sim.simulation.run import Run
from sim.workload.iteration_time import Prices

if TYPE_CHECKING:
    from models.shared_training import SharedTraining

MOST_ATTEMPTS, MOST_IDLE_ROUNDS = 3, 100

MOST_PLAYS, FEWEST_REHEARSED = 50, 4

HEARTBEAT_SECONDS = 2.0


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is; of runs those that were not finished before."""

    num_runs: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_surveyed: int = 0
    num_steps_trained: int = 0
    num_steps_left: int = 0
    under_way: tuple[str, ...] = ()


class SweepObserver(Protocol):
    """Whoever wants to know how a sweep comes along."""

    def progressed(self, progress: SweepProgress) -> None:
        """Something has come in, or some seconds have passed."""
        ...

    def failed(self, run: SweepRun, error: str, details: str) -> None:
        """A run could not be done; the others go on. error: in a line; details: where in the code."""
        ...


class Sweep:
    """Some runs, and who does them.

    texts: stand-ins, by content hash, for the texts that are learnt; workshop: where training is kept; None where
    nothing is trained. Raises OSError as soon as the disk refuses anything: then nothing of what is there is lost.
    """

    def __init__(
        self, executor: Executor, workshop: SharedTraining | None, texts: Mapping[str, Any], observer: SweepObserver
    ) -> None:
        self.executor, self.workshop, self.texts, self.observer = executor, workshop, texts, observer
        self.demands: dict[SweepRun, Demands] = {}
        self.survey_seconds = 0.0
        self.play_seconds: dict[Kind, float] = {}
        self._prices: dict[Kind, Prices] = {}
        self._attempts: Counter[Item] = Counter()
        self._surveys: Counter[Item] = Counter()  # attempts likewise
        self._open: dict[SweepRun, None] = {}
        self._num_runs = self._num_finished = self._num_failed = 0

    def survey(self, runs: Sequence[SweepRun]) -> None:
        """Find out what runs ask of their training, and prices; of many that train nothing, one of each kind is played.

        A run that cannot be played fails. The first of each kind goes before the others, so that what it finds out of
        prices is found out once.
        """
        began_seconds = time.monotonic()
        numbers = Counter(run.kind for run in runs)
        firsts: dict[Kind, SweepRun] = {}
        others: dict[Kind, list[SweepRun]] = {}
        for run in runs:
            is_worth_it = run.learns or numbers[run.kind] >= FEWEST_REHEARSED
            if is_worth_it and run.kind not in self._prices and run.kind not in firsts:
                firsts[run.kind] = run
            elif run.learns and run not in self.demands:
                others.setdefault(run.kind, []).append(run)
        self._look_at([[run] for run in firsts.values()])
        self._look_at([some[n : n + MOST_PLAYS] for some in others.values() for n in range(0, len(some), MOST_PLAYS)])
        self.survey_seconds += time.monotonic() - began_seconds

    def _look_at(self, groups: Sequence[list[SweepRun]]) -> None:
        """Survey runs, some of one kind at a time."""
        waiting = deque(groups)
        in_flight: dict[Future[Any], list[SweepRun]] = {}
        while waiting or in_flight:
            while waiting and self._may_go_out(waiting[0][0], [some[0] for some in in_flight.values()], self._surveys):
                some = waiting.popleft()
                in_flight[self._begin_survey(some)] = some
            done, _ = wait(in_flight, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                some = in_flight.pop(future)
                error = future.exception()
                if error is None:
                    self._is_surveyed(some, *future.result())
                elif len(some) > 1:  # one by one, so that each has its own error
                    waiting.extend([run] for run in some)
                elif isinstance(error, WorkerDiedError) and self._may_try_again(some[0], self._surveys):
                    waiting.append(some)
                else:
                    self._fail(some[0], error)
            self._tell(None, ())

    def _is_surveyed(self, some: list[SweepRun], found: Any, prices: Prices) -> None:
        self._prices[some[0].kind] = prices
        if some[0].learns:
            self.demands.update(zip(some, found, strict=True))
        else:
            self.play_seconds[some[0].kind] = found

    def _begin_survey(self, some: list[SweepRun]) -> Future[Any]:
        if some[0].learns:
            return self.executor.submit(survey, [run.play for run in some], self._prices.get(some[0].kind))
        return self.executor.submit(rehearse, some[0].play, some[0].keeps_records)

    def do(self, runs: Sequence[SweepRun]) -> None:
        """Do runs to their end: each is written, or has failed."""
        self._open = dict.fromkeys(runs)
        self._num_runs += len(runs)
        self.survey(runs)
        num_idle_rounds = 0
        while self._open:
            before = len(self._open), self._num_trained_steps
            asked = {run: self.demands.get(run, {}) for run in self._open}
            pieces = self.workshop.plan(together(asked.values())) if self.workshop else []
            self._drain(WorkQueue(pieces, asked))
            num_idle_rounds = num_idle_rounds + 1 if before == (len(self._open), self._num_trained_steps) else 0
            if num_idle_rounds == MOST_IDLE_ROUNDS:
                raise RuntimeError("training states vanish from the cache as fast as they come: is it being pruned?")

    @property
    def _num_trained_steps(self) -> int:
        return self.workshop.num_trained_steps if self.workshop else 0

    def _drain(self, queue: WorkQueue) -> None:
        """Do all that a queue holds. Runs whose states were gone, or whose training diverged, stay open."""
        in_flight: dict[Future[Any], Item] = {}
        while True:
            self._hand_out(queue, in_flight)
            if not in_flight:
                return
            done, _ = wait(in_flight, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
            came_in: list[tuple[Item, Any]] = []
            for item, future in [(in_flight.pop(future), future) for future in done]:
                error = future.exception()
                if error is not None:
                    self._went_wrong(queue, item, error)
                    continue
                came_in.append((item, future.result()))
                if isinstance(item, Segment):
                    self._piece_is_done(queue, item, future.result())
            self._hand_out(queue, in_flight)  # before anything is written: the disk keeps nobody waiting
            for item, result in came_in:
                if isinstance(item, Segment):
                    self._keep(queue, item, result)
                else:
                    self._write(item, result)
            self._tell(queue, tuple(name_of(item) for item in in_flight.values()))

    def _hand_out(self, queue: WorkQueue, in_flight: dict[Future[Any], Item]) -> None:
        """Keep all workers busy."""
        while (item := queue.next()) is not None:
            if not self._may_go_out(item, list(in_flight.values()), self._attempts):
                queue.again(item)
                return
            future = self._begin_piece(queue, item) if isinstance(item, Segment) else self._begin_run(item)
            if future is not None:
                in_flight[future] = item

    def _may_go_out(self, item: Item, in_flight: Sequence[Item], attempts: Mapping[Item, int]) -> bool:
        """Whether it can be handed out now: one for each worker, and one each that waits for it, so that none waits.

        What may have killed its workers has its last try alone: no others die with it.
        """
        suspects = [one for one in (item, *in_flight) if attempts.get(one, 0) == MOST_ATTEMPTS - 1]
        num_workers = self.executor.num_workers
        return not in_flight or (not suspects and len(in_flight) < num_workers * (1 + (num_workers > 1)))

    def _begin_run(self, run: SweepRun) -> Future[Any]:
        if run.learns:
            assert self.workshop is not None
            losses = self.workshop.losses(self.demands[run])
            return self.executor.submit(play_known, run.play, self._prices.get(run.kind), losses, run.keeps_records)
        return self.executor.submit(play_untrained, run.play, self._prices.get(run.kind), run.keeps_records)

    def _begin_piece(self, queue: WorkQueue, piece: Segment) -> Future[Any] | None:
        """None where a state that it needs is gone: the next round plans anew."""
        from models.segment import train_segment

        assert self.workshop is not None
        states = {state: self.workshop.state(state) for state in piece.needs}
        if None in states.values():
            queue.give_up(piece)
            return None
        older = {state: states[state] for state in piece.older}
        start = states[piece.start] if piece.start else None
        text = self.texts[piece.lineage.spec.corpus]
        return self.executor.submit(train_segment, piece, text, start, older, self.workshop.environment)

    def _piece_is_done(self, queue: WorkQueue, piece: Segment, result: Any) -> None:
        assert self.workshop is not None
        self.workshop.add_state(piece, result)
        if result.dead_end is None:
            queue.done(piece)
        else:
            queue.give_up(piece)

    def _keep(self, queue: WorkQueue, piece: Segment, result: Any) -> None:
        """Make a piece's results durable; runs that waited for them can be played."""
        assert self.workshop is not None
        self.workshop.commit(piece, result, lambda: queue.needed_states)
        self.workshop.discard_states(queue.needs)
        queue.kept(piece)

    def _went_wrong(self, queue: WorkQueue, item: Item, error: BaseException) -> None:
        """A worker's death may be chance: again, some times. Else whatever needs it fails."""
        if isinstance(error, WorkerDiedError) and self._may_try_again(item, self._attempts):
            queue.again(item)
            return
        for run in queue.give_up(item) if isinstance(item, Segment) else [item]:
            self._fail(run, error)

    def _may_try_again(self, item: Item, attempts: Counter[Item]) -> bool:
        attempts[item] += 1
        return attempts[item] < MOST_ATTEMPTS

    def _write(self, run: SweepRun, result: Run | dict[str, Any]) -> None:
        run.write(result, self.demands.get(run))
        del self._open[run]
        self._num_finished += 1

    def _fail(self, run: SweepRun, error: BaseException) -> None:
        self._num_runs += run not in self._open  # it failed when it was surveyed, before it was to be done
        self._open.pop(run, None)
        self._num_failed += 1
        message = str(error) or type(error).__name__
        if isinstance(error, WorkerDiedError):
            message = f"its worker died {MOST_ATTEMPTS} times, out of memory perhaps: {message}"
        self.observer.failed(run, message, "".join(traceback.format_exception(error)))

    def _tell(self, queue: WorkQueue | None, under_way: tuple[str, ...]) -> None:
        trained = self._num_trained_steps
        left = queue.num_steps_left if queue else 0
        self.observer.progressed(
            SweepProgress(
                self._num_runs, self._num_finished, self._num_failed, len(self.demands), trained, left, under_way
            )
        )


def name_of(item: Item) -> str:
    """What a worker is at, in words."""
    if isinstance(item, Segment):
        return f"training {item.lineage.key[:8]} steps {item.first_step} to {item.last_step}"
    return item.name
