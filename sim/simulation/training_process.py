"""The training process: iterations, routine work of the strategy, failures, recoveries, until the steps are done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from models.training import Training
from models.training_state import DivergedError, Position
from sim.core.records import EventKind, Failure, IterationRecord
from sim.core.units import EXACT_SECONDS
from sim.scenario.scenario import Scenario
from sim.simulation.interruptible import GaveUpError
from sim.simulation.leap import RepeatedIterations
from sim.simulation.log import IterationLog, Stretch
from sim.simulation.world import World
from sim.strategies import Strategy, StrategyConfig, UnrecoverableError, strategy_class
from sim.strategies.base import Routine


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever watches. num_failures: None where they are ignored."""

    iteration: int
    num_iterations: int
    now_seconds: float
    num_failures: int | None
    train_loss: float | None
    validation_loss: float | None


Watcher = Callable[[Progress], None]


class StoppedError(Exception):
    """The run ends early: nothing could recover it, and the fallback is to stop."""


class TrainingProcess:
    """The active process of a run.

    Its life: an iteration is attempted → it completes, the Position moves on, losses are noted, the strategy
    does its routine work; or a failure ends it, and the strategy (else the fallback) says from which Position
    training goes on → … until the last iteration has completed, or nothing could recover it.
    """

    def __init__(
        self,
        scenario: Scenario,
        world: World,
        config: StrategyConfig,
        strategy: Strategy,
        training: Training,
        watch: Watcher | None,
    ) -> None:
        self.scenario, self.world, self.config, self.strategy = scenario, world, config, strategy
        self.training, self.watch = training, watch
        self.fallback = self._build_fallback()
        self.plan = strategy.adapt_plan(world.plain_plan())
        self.num_iterations = scenario.training.steps * scenario.iterations_per_step
        ideal_seconds = world.pipeline.split(world.plain_plan()).seconds
        world.work.deadline_seconds = min(scenario.give_up_after * self.num_iterations * ideal_seconds, EXACT_SECONDS)
        world.execution.most_executed = scenario.give_up_after * self.num_iterations
        self.stopped: str | None = None
        self._learns = training.learns
        self._log = IterationLog(scenario.iterations_per_step)
        self._records: list[IterationRecord] = []
        self._executions: dict[int, int] = {}
        self._position: Position | None = None
        world.when_noticed = self._notice
        world.joining.join_bytes = self._join_bytes

    def _build_fallback(self) -> Strategy | None:
        """None to stop, and for a strategy that always recovers: it must not pay for what it never needs."""
        config, strategy = self.scenario.fallback, self.strategy
        if config.kind == "stop" or strategy.serves_as_fallback or not strategy.stops_on_failures:
            return None
        return strategy_class(config.kind)(config, self.world.num_stages)

    def process(self) -> Generator[Any, Any, None]:
        """Train until done."""
        position = self.training.root(self.strategy.training_variant())
        try:
            yield from self.world.gather()
            while position.iteration < self.num_iterations:
                self._position = position
                failure = yield from self.world.admit_nodes()
                started_seconds = self.world.now_seconds
                if failure is None and (leap := self._leap(position)):
                    self._position = position = self._landed(leap, position, started_seconds)
                    if leap.is_complete:
                        failure = yield from self._routine(position)
                elif failure is None:
                    failure = yield from self.world.run_iteration(self.plan)
                    if failure is None:
                        self._position = position = position.after(position.iteration + 1)
                        self._note(position, started_seconds)
                        failure = yield from self._routine(position)
                self._position = None
                if failure is not None:
                    position = yield from self._recover(failure, position)
        except StoppedError as reason:
            self.stopped = str(reason)
        except DivergedError as reason:
            self.stopped = f"{reason} (iteration {self.world.execution.num_completed})"
        except GaveUpError:
            limit = f"{self.scenario.give_up_after:g} × the plain iterations' time or number (give_up_after)"
            if self.world.now_seconds > EXACT_SECONDS:
                limit = f"{EXACT_SECONDS:.0f} s (4.2 years), up to which simulated time is exact"
            done = f"after {self.world.execution.num_completed} of {self.num_iterations} iterations"
            self.stopped = f"{done} it had taken more than {limit}"

    @property
    def iterations(self) -> Sequence[IterationRecord]:
        """All that were completed."""
        return self._records if self._learns else self._log

    def _leap(self, position: Position) -> RepeatedIterations | None:
        """Where nothing learns, iterations in which nothing happens go by at once, up to one that the strategies may
        have something to do after that is not what they always do, or to one that a failure ends.
        """
        if self._learns:
            return None

        def routine(iteration_seconds: float) -> Routine:
            own = self.strategy.routine(self.world, position, iteration_seconds)
            if self.fallback is None:
                return own
            return Routine(min(own.first, self.fallback.routine(self.world, position, iteration_seconds).first))

        return self.world.fast_forward.leap(self.plan, self.num_iterations - position.iteration, routine)

    def _landed(self, leap: RepeatedIterations, position: Position, started_seconds: float) -> Position:
        """After a leap from a Position: what it leaves behind."""
        self._log.leap(leap, position.iteration + 1, started_seconds, position.lineage.key)
        lineage, iteration, per_step = position.lineage, position.iteration, position.iterations_per_step
        if leap.num_pauses:
            last = Position(lineage, iteration + leap.num_iterations - leap.rest, per_step)
            self.strategy.routine_passed(last, started_seconds + leap.last_pause_seconds)
        position = Position(lineage, iteration + leap.num_iterations, per_step)
        self._tell(position)
        return position

    def _routine(self, position: Position) -> Generator[Any, Any, Failure | None]:
        """Routine work of the strategy and of the fallback, which must keep what it would fall back on."""
        failure = yield from self.strategy.after_iteration(self.world, position)
        if failure is None and self.fallback:
            failure = yield from self.fallback.after_iteration(self.world, position)
        return failure

    def _notice(self) -> None:
        """Nodes are about to leave: the strategies are told, unless they are busy with a recovery."""
        if self._position is not None:
            for survivor in (self.strategy, self.fallback):
                if survivor is not None:
                    survivor.on_notice(self.world, self._position)

    def _join_bytes(self, stage: int) -> float:
        """Bytes that a node is sent that joins others of its stage: the state, and what the strategies keep there."""
        costs, num_bytes = self.world.costs, self.world.costs.checkpoint_bytes(stage)
        for config in (self.config, self.scenario.fallback):
            if config.kind != "stop":
                num_bytes += strategy_class(config.kind).joining_bytes(config, costs, stage)
        return num_bytes

    def _recover(self, failure: Failure, position: Position) -> Generator[Any, Any, Position]:
        """The strategy recovers, else the fallback; where neither can, the run stops. No strategy is needed where every
        stage still has its state: the others go on without the lost node.
        """
        world = self.world
        while not world.lost_stages:
            struck = yield from world.regroup()
            if struck is None:
                world.rebuilt()
                world.record("regrouped", failure.stage, position.iteration)
                return position
            failure = struck
        for survivor in (self.strategy, self.fallback):
            if survivor is None:
                continue
            try:
                recovered = yield from survivor.recover(world, failure, position)
                break
            except UnrecoverableError as reason:
                kind: EventKind = "unrecoverable" if self.fallback in (None, survivor) else "fallback"
                world.record(kind, failure.stage, position.iteration, f"{survivor.name}: {reason}")
                why = reason
        else:
            raise StoppedError(str(why))
        assert recovered.iteration <= position.iteration, "a recovery never goes ahead"
        world.rebuilt()
        if recovered.iteration < position.iteration:
            world.record("rolled_back", failure.stage, position.iteration, f"to iteration {recovered.iteration}")
            world.execution.roll_back(recovered.iteration)
        world.record("recovered", failure.stage, recovered.iteration, survivor.name)
        return recovered

    def _note(self, position: Position, started_seconds: float) -> None:
        """Record a completed iteration, with losses where a step of the proxy has completed with it."""
        iteration, now_seconds = position.iteration, self.world.now_seconds
        if not self._learns:
            took_seconds = now_seconds - started_seconds
            self._log.complete(Stretch(iteration, 1, started_seconds, took_seconds, position.lineage.key))
            self._tell(position)
            return
        train_loss, validation_loss = self._losses(position)
        self._executions[iteration] = self._executions.get(iteration, 0) + 1
        self._records.append(
            IterationRecord(
                iteration=iteration,
                step=position.step,
                execution=self._executions[iteration],
                started_seconds=started_seconds,
                ended_seconds=now_seconds,
                lineage=position.lineage.key,
                train_loss=train_loss,
                validation_loss=validation_loss,
            )
        )
        self._tell(position, train_loss, validation_loss)

    def _tell(self, position: Position, train_loss: float | None = None, validation_loss: float | None = None) -> None:
        """Tell whoever watches."""
        if self.watch is None:
            return
        now_seconds = self.world.now_seconds
        num_failures = self.world.num_failures if self.world.stops_on_failures else None
        self.watch(
            Progress(position.iteration, self.num_iterations, now_seconds, num_failures, train_loss, validation_loss)
        )

    def _losses(self, position: Position) -> tuple[float | None, float | None]:
        """Of the step that has completed with an iteration, and now and then on held-out text."""
        if position.iteration % self.scenario.iterations_per_step != 0:
            return None, None
        train_loss = self.training.train_loss(position)
        is_last = position.iteration == self.num_iterations
        if position.step % self.scenario.training.evaluation.interval_steps == 0 or is_last:
            return train_loss, self.training.validation_loss(position)
        return train_loss, None
