"""Checkpoints in two tiers: in the memory of other stages' nodes often, and in the store rarely.

What large production runs do: most failures take few nodes, whose stages return from memory; the store is for the
failures that take a stage with all its copies. Composed of `checkpoint` and `neighbour_checkpoint`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.training_state import Position
from sim.core.records import Failure
from sim.strategies.base import PeriodicSave, Process, StrategyWorld, UnrecoverableError
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig
from sim.strategies.memory_checkpoint import NeighbourCheckpoint, NeighbourCheckpointConfig
from sim.workload.config import WorkloadConfig
from sim.workload.costs import Costs


class TwoTierCheckpointConfig(CheckpointConfig):
    """Options of `two_tier_checkpoint`: those of `checkpoint` for the store, and two for the copies in memory."""

    kind: Literal["two_tier_checkpoint"] = "two_tier_checkpoint"  # type: ignore[assignment]
    memory_interval_iterations: int = Field(
        1,
        ge=1,
        description="iterations between checkpoints in memory; more where sending the copies takes longer",
    )
    num_copies: int = Field(1, ge=1, le=100, description="number of other stages that hold a copy of a stage")

    @property
    def in_memory(self) -> NeighbourCheckpointConfig:
        """The options of the copies in memory."""
        return NeighbourCheckpointConfig(
            interval_iterations=self.memory_interval_iterations, num_copies=self.num_copies
        )


class CopiesInMemory(NeighbourCheckpoint):
    """The tier in memory; its events say so."""

    where = "in memory"


class TwoTierCheckpoint(Checkpoint):
    """All stages roll back to the latest checkpoint that survives, in memory if both tiers have it.

    Both tiers send concurrently with training and share its links.
    """

    title = "two-tier checkpoints"
    summary = (
        "keep checkpoints in memory often and in the store rarely, roll all stages back to the latest that survives"
    )
    Config = TwoTierCheckpointConfig
    config: TwoTierCheckpointConfig
    serves_as_fallback = False
    supports_sharding = False
    needs_embedding_nodes = True

    def __init__(self, config: TwoTierCheckpointConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self.memory = CopiesInMemory(config.in_memory, num_stages)

    @classmethod
    def check(cls, config: CheckpointConfig, workload: WorkloadConfig) -> str | None:
        """What makes either tier impossible."""
        assert isinstance(config, TwoTierCheckpointConfig)
        return super().check(config, workload) or CopiesInMemory.check(config.in_memory, workload)

    @classmethod
    def host_memory_bytes(cls, config: CheckpointConfig, costs: Costs, stage: int) -> float:
        """Copies in memory, and on local disks where the store has these."""
        assert isinstance(config, TwoTierCheckpointConfig)
        return super().host_memory_bytes(config, costs, stage) + CopiesInMemory.host_memory_bytes(
            config.in_memory, costs, stage
        )

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Begin a checkpoint in each tier where one is due."""
        failure = yield from self.memory.after_iteration(world, position)
        return failure or (yield from super().after_iteration(world, position))

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float:
        """The earlier of both tiers'."""
        stored = super().next_action(world, position, iteration_seconds)
        until_stored = stored.first if isinstance(stored, PeriodicSave) else stored
        return min(self.memory.next_action(world, position, iteration_seconds), 1 if self.was_cut else until_stored)

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Fetch from memory what was lost; from the store where memory has lost it too, or the store has later ones."""
        saved, durable = self.memory.saved, self.stored_before(position)
        if saved and position.descends_from(saved) and saved.iteration >= (durable.iteration if durable else 0):
            try:
                return (yield from self.memory.recover(world, failure, position))
            except UnrecoverableError:
                pass
        recovered = yield from super().recover(world, failure, position)
        self.memory.saved, self.memory.begun_iteration, self.was_cut = None, recovered.iteration, False
        return recovered

    def _due(self, world: StrategyWorld, position: Position) -> bool:
        """Whether an upload is due; one that a failure cut is begun again, since training may not come back to it."""
        return self.was_cut or super()._due(world, position)
