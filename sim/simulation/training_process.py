"""The training process: iterations, routine work of the strategy, failures and recoveries, until all steps are done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from models.training import Training
from models.training_state import DivergedError, Edits, Position
from sim.core.records import EventKind, Failure, IterationRecord
from sim.core.text import format_name
from sim.core.units import EXACT_SECONDS
from sim.scenario.memory_check import plan_on
from sim.scenario.scenario import Scenario
from sim.simulation.fast_forward import Action, FastForward, next_action
from sim.simulation.interruptible import GaveUpError, NoNodesError
from sim.simulation.leap import RepeatedIterations, plain_leap
from sim.simulation.log import IterationLog
from sim.simulation.plugin_calls import admit, after_iteration, answer_of, gather, recover, regroup, take_back
from sim.simulation.world import World
from sim.strategies import Strategy, UnrecoverableError, strategy_class
from sim.strategies.base import PeriodicSave, Process
from sim.workload.config import IterationPlan


@dataclass(frozen=True)
class Progress:
    """How far a run has come. num_failures: None if failures have no effect."""

    iteration: int
    num_iterations: int
    now_seconds: float
    num_failures: int | None
    train_loss: float | None
    validation_loss: float | None


Watcher = Callable[[Progress], None]


class StoppedError(Exception):
    """The run ends early: neither the strategy nor the fallback can recover it."""


class TrainingProcess:
    """The active process of a run; `train` is its life.

    An iteration is executed → it completes, losses are recorded, the strategy does its routine work; or a failure
    interrupts it, and the strategy (else the fallback) returns the Position to continue from → …
    """

    def __init__(self, scenario: Scenario, strategy: Strategy, training: Training, watch: Watcher | None) -> None:
        self.scenario, self.strategy, self.training, self.watch = scenario, strategy, training, watch
        self.fallback: Strategy | None = None  # to stop; a strategy that always recovers must not pay for a fallback
        uses_fallback = strategy.uses_fallback and not strategy.serves_as_fallback and strategy.stops_on_failures
        if scenario.fallback.kind != "stop" and uses_fallback:
            self.fallback = strategy_class(scenario.fallback.kind)(scenario.fallback, strategy.num_stages)
        self.num_iterations = scenario.training.steps * scenario.iterations_per_step
        self.stopped: str | None = None
        self.world: World
        self._position: Position
        self._accepts_notices = False
        self._log = IterationLog(scenario.iterations_per_step)
        self._records: list[IterationRecord] = []
        self._executions: Counter[int] = Counter()
        self._num_rows = self._num_counted = 0  # of the batches of all completed iterations

    @property
    def iterations(self) -> Sequence[IterationRecord]:
        """Records of all completed iterations."""
        return self._records if self.training.learns else self._log

    @property
    def edits(self) -> Edits:
        """The edits and recipes on the way to the current state; none of replicas that train apart."""
        return () if self._position.replicas else self._position.lineage.edits

    @property
    def batch_share(self) -> float:
        """Share of the batch that counted, as a mean over the completed iterations."""
        return self._num_counted / self._num_rows if self._num_rows else 1.0

    def train(self, world: World) -> Generator[Any, Any, None]:
        """Train in a world until all iterations are done, or the run stops."""
        self.world, self._fast_forward = world, FastForward(world)
        self.plan = plan_on(self.scenario, self.strategy.config, world.iteration_times.deployment, world.plain_plan())
        self._position = self.training.root(self.strategy.training_variant())
        try:
            yield from world.gather(partial(gather, self.strategy, world))
            while self._position.iteration < self.num_iterations:
                self._accepts_notices = True
                failure = yield from self._gather_nodes()
                if failure is None:
                    failure = yield from self._advance()
                self._accepts_notices = False
                if failure is not None:
                    self._position = yield from self._recover(failure)
        except (StoppedError, NoNodesError) as reason:
            self.stopped = str(reason)
        except DivergedError as reason:
            self.stopped = f"{reason} (iteration {world.iterations.num_completed})"
        except GaveUpError:
            self.stopped = self._describe_limit()

    def _gather_nodes(self) -> Process[Failure | None]:
        """Let nodes join; wait for more where the strategy needs them."""
        while True:
            failure = None
            if self.world.joining.nodes():
                started_seconds = self.world.now_seconds
                failure = yield from admit(self.strategy, self.world)
                self.world.joining.waited_seconds += self.world.now_seconds - started_seconds
                failure = failure or (yield from self._take_back())
            if failure is not None or answer_of(self.strategy, "can_train", self.world):
                return failure
            if (failure := (yield from self.world.wait_for_joining())) is not None:
                return failure

    def _take_back(self) -> Process[Failure | None]:
        """Let stages that were left out return whose nodes have started up."""
        if not self.world.returning_stages:
            return None
        found = yield from take_back(self.strategy, self.world, self._position)
        if isinstance(found, Failure):
            return found
        self._position = found
        return None

    @property
    def _at_work(self) -> Sequence[Strategy]:
        """The strategies that do routine work: the fallback keeps what it would fall back on, if it is complete."""
        if self.fallback is None or self.world.left_out:
            return (self.strategy,)
        return self.strategy, self.fallback

    def _advance(self) -> Process[Failure | None]:
        """Execute the next iteration and the routine work after it, or skip iterations up to the next routine work."""
        begun = self._begun()
        plan = answer_of(self.strategy, "plan_for", self.world, self.plan)
        leap = None if self.training.learns else (yield from self._skip(plan, begun))
        if leap is None:
            started_seconds = self.world.now_seconds
            failure = yield from self.world.run_iteration(plan)
            if failure is None:
                self._count(begun, 1)
                self._complete(begun.after(begun.iteration + 1))
                self._record(started_seconds)
        else:
            failure = leap[1]
        if failure is not None or (leap and not leap[0].is_complete):
            return failure
        for strategy in self._at_work:
            failure = yield from after_iteration(strategy, self.world, self._position)
            if failure is not None:
                return failure
        return None

    def _begun(self) -> Position:
        """The state that the next iteration begins with, trained by the recipe of the strategy."""
        begun: Position = answer_of(self.strategy, "position_for", self.world, self._position)
        recipe = answer_of(self.strategy, "recipe_for", self.world, begun)
        return begun if begun.replicas else begun.entered(recipe)

    def _complete(self, position: Position) -> None:
        """Continue from the state that completed iterations have led to."""
        self._position = answer_of(self.strategy, "completed", self.world, position)

    def _skip(
        self, plan: IterationPlan, position: Position
    ) -> Process[tuple[RepeatedIterations, Failure | None] | None]:
        """Skip iterations up to the next routine work that is no periodic save, or to a failure; None: no iteration."""
        started_seconds = self.world.now_seconds
        leap = yield from self._fast_forward.leap(plan, position, self.num_iterations, self._next_action)
        if leap and leap[0].num_iterations:
            self._count(position, leap[0].num_iterations)
            self._complete(position.after(position.iteration + leap[0].num_iterations))
            self._log.add(position.iteration + 1, started_seconds, leap[0], self._position.lineage.key)
            self._report()
        return leap

    def _count(self, position: Position, num: int) -> None:
        """Count the rows of some iterations from a Position on."""
        spec = position.lineage.spec
        self._num_rows += num * spec.sequences_per_batch
        for state in filter(None, position.replicas or (position,)):
            self._num_counted += num * state.lineage.recipe.num_rows(spec)

    def _next_action(self, iteration_seconds: float) -> Action:
        """The next action of the strategy, or of the fallback, from the current Position on."""
        actions = [next_action(each, self.world, self._position, iteration_seconds) for each in self._at_work]
        if len(actions) == 1:
            return actions[0]
        return min(one.first if isinstance(one, PeriodicSave) else one for one in actions)

    def _recover(self, failure: Failure) -> Process[Position]:
        """Recover by the strategy, else by the fallback; the others continue if every stage still has its state."""
        world, position = self.world, self._position
        while not world.lost_stages:
            next_failure = yield from regroup(self.strategy, world, position)
            if next_failure is None:
                world.finish_recovery()
                world.record("regrouped", failure.stage, position.iteration)
                return position
            failure = next_failure
        for strategy in (self.strategy, self.fallback):
            if strategy is None:
                continue
            if strategy is self.fallback:
                world.placement.lose_left_out()
            try:
                recovered = yield from recover(strategy, world, failure, position)
                break
            except UnrecoverableError as reason:
                kind: EventKind = "unrecoverable" if self.fallback in (None, strategy) else "fallback"
                world.record(kind, failure.stage, position.iteration, f"{strategy.name}: {reason}")
                why = reason
        else:
            raise StoppedError(str(why))
        world.finish_recovery()
        if recovered.iteration < position.iteration:
            world.record("rolled_back", failure.stage, position.iteration, f"to iteration {recovered.iteration}")
            world.ledger.roll_back(recovered.iteration)
            world.joining.roll_back()
        world.record("recovered", failure.stage, recovered.iteration, strategy.name)
        return recovered

    def on_notice(self) -> None:
        """Let the strategies react to a preemption notice, unless a recovery is under way or due."""
        if self._accepts_notices and not self.world.work.queued:
            for strategy in self._at_work:
                strategy.on_notice(self.world, self._position)

    def _describe_limit(self) -> str:
        num_completed = self.world.iterations.num_completed
        so_far = f"after {num_completed} of {self.num_iterations} iterations"
        if math.isinf(self.world.work.deadline_seconds):
            most = f"{self.scenario.give_up_after_events:,} events"
            return f"{so_far} it had taken more than {most} to simulate (give_up_after_events)"
        limit = f"{self.scenario.give_up_after:g} × the plain iterations' time or number (give_up_after)"
        if self.world.now_seconds > EXACT_SECONDS:
            limit = f"{EXACT_SECONDS:.0f} s (4.2 years), up to which simulated time is exact"
        buckets = self.world.ledger.buckets()
        bucket = max(buckets, key=buckets.__getitem__)
        share = 100 * buckets[bucket] / (self.world.now_seconds or 1.0)
        return f"{so_far} it had taken more than {limit}, {share:.0f} % of it in {format_name(bucket)}"

    def _record(self, started_seconds: float) -> None:
        """Record the iteration that led to the current Position, with losses if it completes a step of the proxy."""
        position, now_seconds, training = self._position, self.world.now_seconds, self.scenario.training
        iteration, lineage = position.iteration, position.lineage.key
        if not self.training.learns:
            self._log.add(iteration, started_seconds, plain_leap(1, now_seconds - started_seconds), lineage)
            self._report()
            return
        train_loss = validation_loss = None
        if iteration % self.scenario.iterations_per_step == 0:
            train_loss = self.training.train_loss(position)
            if position.step % training.evaluation.interval_steps == 0 or iteration == self.num_iterations:
                validation_loss = self.training.validation_loss(position)
        self._executions[iteration] += 1
        numbers, losses = (iteration, position.step, self._executions[iteration]), (train_loss, validation_loss)
        self._records.append(IterationRecord(*numbers, started_seconds, now_seconds, lineage, *losses))
        self._report(*losses)

    def _report(self, train_loss: float | None = None, validation_loss: float | None = None) -> None:
        if self.watch is None:
            return
        num_failures = self.world.num_failures if self.world.stops_on_failures else None
        progress = self._position.iteration, self.num_iterations, self.world.now_seconds, num_failures
        self.watch(Progress(*progress, train_loss, validation_loss))
