"""Training of states that are asked for directly, not by the runs of a sweep; each step once, from a shared store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from models.training_plan import Demands, Segment
from sim.experiments.executors import Executor
from sim.experiments.folder import SweepProgress
from sim.experiments.queue import Item, WorkQueue
from sim.experiments.segment_work import SegmentWork
from sim.experiments.training_workers import TrainingWorkers

if TYPE_CHECKING:
    from models.shared_training import SharedTraining

MOST_IDLE_ROUNDS = 100
VANISHING = "training states disappear from the cache as fast as they are written: is another process pruning it?"


@contextmanager
def shared_training(cache: Path, cache_bytes: int | None = None, dry_run: bool = False) -> Iterator[SharedTraining]:
    """Context with the training kept in a cache. A dry run makes no cache. cache_bytes: None: the default size."""
    from models.shared_training import SharedTraining
    from models.trajectory_store import DEFAULT_BUDGET_BYTES, TrajectoryStore

    if dry_run and not (cache / "trajectory.sqlite").is_file():
        yield SharedTraining(None)
        return
    with closing(TrajectoryStore(cache, DEFAULT_BUDGET_BYTES if cache_bytes is None else cache_bytes)) as store:
        yield SharedTraining(store)


class DemandWork(SegmentWork):
    """The segments that some demands need. The error of a segment ends the work."""

    watch: Callable[[SweepProgress], None]

    def gave_up(self, segment: Segment, error: BaseException) -> None:
        """Raise the error."""
        raise ValueError(f"training of steps {segment.first_step} to {segment.last_step} failed: {error}") from error

    def heartbeat(self, under_way: Sequence[Item]) -> None:
        """Report the progress."""
        self.watch(
            SweepProgress(
                num_steps_trained=self.trained.num_trained_steps,
                num_steps_left=self.queue.num_steps_left,
                under_way=self.names_of(under_way),
            )
        )


def train(
    demands: Demands,
    training: SharedTraining,
    trainers: TrainingWorkers,
    executor: Executor,
    watch: Callable[[SweepProgress], None],
) -> None:
    """Train what demands need and the store does not have, up to steps where training diverges.

    ValueError if training fails; RuntimeError if states vanish from the store.
    """
    num_idle_rounds = 0
    while segments := training.plan(demands):
        before = training.num_trained_steps
        work = DemandWork(executor, trainers, training, WorkQueue(segments, {}))
        work.watch = watch
        work.run()
        num_idle_rounds = num_idle_rounds + 1 if training.num_trained_steps == before else 0
        if num_idle_rounds == MOST_IDLE_ROUNDS:
            raise RuntimeError(VANISHING)
