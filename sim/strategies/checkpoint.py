"""Checkpointing: the whole training state goes to a store now and then, and everybody rolls back to it.

Restores weights, optimizer, learning-rate schedule and data position of all stages, to the bit.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.lineage import Position
from sim.costs import WorkloadConfig
from sim.records import Failure
from sim.strategies.base import STORE, Background, Process, Strategy, StrategyConfig, StrategyWorld, Transfer
from sim.strategies.restart import beginning_of


class CheckpointConfig(StrategyConfig):
    """Options of `checkpoint`. Give one interval; with neither, every 100 iterations."""

    kind: Literal["checkpoint"] = "checkpoint"
    interval_iterations: int | None = Field(None, ge=1, description="iterations between checkpoints")
    interval_seconds: float | None = Field(None, gt=0, description="simulated seconds between checkpoints")
    blocking_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the upload during which training stands still; the rest is hidden",
    )


class Checkpoint(Strategy):
    """Uploads go on beside the training after their blocking share; only a completed one is durable.

    A failure during an upload loses it. When the next checkpoint is due before the last is up, training
    waits for it. The initial state can always be drawn again, so it counts as the first checkpoint.
    """

    kind = "checkpoint"
    summary = "upload the training state now and then, roll everybody back to the last upload"
    Config: ClassVar[type[StrategyConfig]] = CheckpointConfig
    serves_as_fallback = True

    def __init__(self, config: CheckpointConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self.config = config
        self.interval_iterations = config.interval_iterations
        if config.interval_iterations is None and config.interval_seconds is None:
            self.interval_iterations = 100
        self.durable: Position | None = None
        self.upload: Background | None = None
        self.started_at_seconds = 0.0

    @classmethod
    def check(cls, config: CheckpointConfig, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """Two intervals contradict each other."""
        if config.interval_iterations is not None and config.interval_seconds is not None:
            return "give interval_iterations or interval_seconds, not both"
        return None

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Begin a checkpoint when one is due."""
        if not self._due(world, position):
            return None
        if self.upload and self.upload.under_way:
            failure = yield from world.wait_for(self.upload, "checkpoint_save")
            if failure:
                return failure
        self.started_at_seconds = world.now_seconds
        world.record("checkpoint_started", None, position.iteration)
        share = self.config.blocking_share
        if share:
            failure = yield from world.transfer(uploads(world, share), "checkpoint_save")
            if failure:
                world.record("checkpoint_lost", failure.stage, position.iteration, "failure during the upload")
                return failure

        def completed() -> None:
            self.durable = position
            world.record("checkpoint_durable", None, position.iteration)

        def lost() -> None:
            world.record("checkpoint_lost", None, position.iteration, "failure during the upload")

        if share == 1.0:
            completed()
        else:
            self.upload = world.background(uploads(world, 1.0 - share), completed, lost)
        return None

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Bring the nodes back and have every node fetch its stage's state from the last durable checkpoint."""
        struck: Failure | None = failure
        while struck is not None:
            struck = yield from world.bring_back_nodes()
            if struck is None and self.durable is not None:
                struck = yield from world.transfer(downloads(world), "state_transfer")
        self.started_at_seconds = world.now_seconds
        return self.durable or beginning_of(position)

    def _due(self, world: StrategyWorld, position: Position) -> bool:
        if self.interval_iterations is not None:
            return position.iteration % self.interval_iterations == 0
        assert self.config.interval_seconds is not None
        return world.now_seconds - self.started_at_seconds >= self.config.interval_seconds


def uploads(world: StrategyWorld, share: float) -> list[Transfer]:
    """A share of the weights and optimizer state of every stage, to the store."""
    stages = range(world.num_stages + 1)
    return [Transfer(stage, STORE, share * world.costs.checkpoint_bytes(stage), "checkpoint") for stage in stages]


def downloads(world: StrategyWorld) -> list[Transfer]:
    """The checkpoint, from the store to every node."""
    stages = range(world.num_stages + 1)
    return [Transfer(STORE, stage, world.costs.checkpoint_bytes(stage), "checkpoint") for stage in stages]
