"""Work that trains the segments of a queue, for sweeps and for branches."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from models.training_plan import Segment
from sim.experiments.executors import Executor, Work
from sim.experiments.queue import Item, WorkQueue
from sim.experiments.training_workers import TrainingWorkers, on_gpu

if TYPE_CHECKING:
    from models.segment import SegmentWithStates
    from models.shared_training import SharedTraining

MOST_ON_GPU = 2
"""Tasks of training on a GPU at a time: one is trained, one waits."""


class SegmentWork(Work[Item]):
    """The segments of a queue, trained and committed to a store. Segments whose states are gone stay open.

    A segment whose recipe trains several replicates at once takes others along that are ready: its stack.
    """

    def __init__(
        self,
        executor: Executor,
        trainers: TrainingWorkers,
        training: SharedTraining | None,
        queue: WorkQueue,
        attempts: Counter[Item] | None = None,
    ) -> None:
        """training: None where the queue has no segments."""
        super().__init__(executor, attempts=attempts)
        self.trainers, self.training, self.queue = trainers, training, queue
        self._stacks: dict[Item, list[Segment]] = {}  # of segments under way, by the one that took the others along
        self._alone: set[Segment] = set()  # trained in no company, since their stack has failed

    @property
    def trained(self) -> SharedTraining:
        """The training of a queue with segments."""
        assert self.training is not None
        return self.training

    def next(self) -> Item | None:
        """The next item."""
        return self.queue.next()

    def again(self, task: Item) -> None:
        """Submit an item, with the segments of its stack, once more."""
        for item in self._stacks.pop(task, [task]):
            self.queue.again(item)

    def has_room(self, task: Item) -> bool:
        """Whether a task would not wait for long: on a GPU, one is trained and one waits."""
        is_on_gpu = [isinstance(one, Segment) and on_gpu(one.lineage.spec) for one in (task, *self._under_way.values())]
        if is_on_gpu[0]:
            return sum(is_on_gpu) <= MOST_ON_GPU
        return is_on_gpu.count(False) <= self.most_at_once

    def submit(self, task: Item) -> Future[Any] | None:
        """Train a stack of segments; None where states of all of them are gone."""
        from models.segment import train_segments
        from models.trajectory import environment_of

        assert isinstance(task, Segment)
        spec, stack = task.lineage.spec, [task]
        if task not in self._alone and not self._attempts.get(task):
            stack += self.queue.take_alike(task, spec.replicates_at_once - 1, without=self._alone)
        work: list[SegmentWithStates] = []
        for segment in stack:
            states = {state: data for state in segment.needs if (data := self.trained.state(state)) is not None}
            if len(states) < len(set(segment.needs)):
                self.queue.give_up(segment)  # the next round plans again
                continue
            start = states[segment.start] if segment.start else None
            used = {state.outlined: states[state] for state in segment.used}
            work.append((segment.outlined, start, used))
        if not work:
            return None
        self._stacks[task] = [segment for segment, _, _ in work]
        executor, text = self.trainers.of(spec)
        return executor.submit(train_segments, work, text, environment_of(spec))

    def done(self, task: Item, result: Any) -> None:
        """Let others start from the states of segments."""
        for segment, trained in zip(self._stacks[task], result, strict=True):
            self.trained.add_state(segment, trained)
            if trained.divergence is None:
                self.queue.done(segment)
            else:
                self.queue.give_up(segment)

    def keep(self, task: Item, result: Any) -> None:
        """Commit the results of segments, so that runs that wait for them can be simulated."""
        for segment, trained in zip(self._stacks.pop(task), result, strict=True):
            self.trained.commit(segment, trained, lambda: self.queue.needed_states)
            self.trained.discard_states(self.queue.needs)
            self.queue.kept(segment)

    def failed(self, task: Item, error: BaseException) -> None:
        """Give up a segment; segments of a stack are first tried one by one."""
        stack = self._stacks.pop(task)
        if len(stack) > 1:
            self._alone.update(stack)
            for segment in stack:
                self.queue.again(segment)
            return
        self.gave_up(stack[0], error)

    @abstractmethod
    def gave_up(self, segment: Segment, error: BaseException) -> None:
        """Process the error of a segment."""

    def names_of(self, under_way: Sequence[Item]) -> tuple[str, ...]:
        """The tasks under way, for the progress."""
        return tuple(
            f"training {task.lineage.key[:8]} steps {task.first_step} to {task.last_step}"
            if isinstance(task, Segment)
            else task.name
            for item in under_way
            for task in self._stacks.get(item, [item])
        )
