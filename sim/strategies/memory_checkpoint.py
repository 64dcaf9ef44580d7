"""In-memory checkpoints on the nodes of other stages (Gemini, SOSP '23): frequent and near, lost with their holders.

Every node keeps the last checkpoint of its own stage and of the stage(s) before it in the ring 0, S1 … Ss.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.training_state import Position
from sim.core.records import Failure
from sim.strategies.base import (
    Background,
    Process,
    Strategy,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
    beginning_of,
)
from sim.workload.config import WorkloadConfig
from sim.workload.costs import Costs


class NeighbourCheckpointConfig(StrategyConfig):
    """Options of `neighbour_checkpoint`."""

    kind: Literal["neighbour_checkpoint"] = "neighbour_checkpoint"
    interval_iterations: int = Field(
        1, ge=1, description="iterations between checkpoints; more where sending the copies takes longer"
    )
    num_copies: int = Field(1, ge=1, le=100, description="number of other stages that hold a copy of a stage")


class NeighbourCheckpoint(Strategy):
    """Copies are sent concurrently with training; a checkpoint replaces the last once all of them have arrived."""

    title = "neighbour checkpoints"
    summary = "keep checkpoints in the memory of other stages' nodes, roll all stages back to the last"
    Config = NeighbourCheckpointConfig
    config: NeighbourCheckpointConfig
    needs_embedding_nodes = True
    where: ClassVar[str] = ""  # said in its events

    def __init__(self, config: NeighbourCheckpointConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self.saved: Position | None = None
        self.begun_iteration = 0
        self.sending: Background | None = None

    @classmethod
    def check(cls, config: NeighbourCheckpointConfig, workload: WorkloadConfig) -> str | None:
        """There are as many other stages as copies."""
        if config.num_copies <= workload.num_stages:
            return None
        return f"num_copies {config.num_copies} needs as many other stages; allowed: at most {workload.num_stages}"

    @classmethod
    def host_memory_bytes(cls, config: NeighbourCheckpointConfig, costs: Costs, stage: int) -> float:
        """Its own checkpoint and those held for others, and as much for those being received."""
        held = [(stage - back) % (costs.workload.num_stages + 1) for back in range(config.num_copies + 1)]
        return 2.0 * sum(costs.checkpoint_bytes(other) for other in held)

    @classmethod
    def joining_bytes(cls, config: NeighbourCheckpointConfig, costs: Costs, stage: int) -> float:
        """The complete checkpoints."""
        return cls.host_memory_bytes(config, costs, stage) / 2

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Begin a checkpoint when one is due and the last is complete; it takes bandwidth, but no time of its own."""
        yield from ()
        since = position.iteration - self.begun_iteration  # negative where the fallback has gone back further
        if (self.sending and self.sending.under_way) or 0 <= since < self.config.interval_iterations:
            return None
        self.begun_iteration = position.iteration
        stages = range(self.num_stages + 1)
        world.record("checkpoint_started", None, position.iteration, self.where)

        def completed() -> None:
            self.saved = position
            for stage in stages:
                for place in (stage, *self.holders(stage)):
                    world.hold(place, copy_of(stage), position)
            world.record("checkpoint_durable", None, position.iteration, self.where)

        def lost() -> None:
            why = "failure while the copies were sent"
            world.record("checkpoint_lost", None, position.iteration, f"{self.where}: {why}" if self.where else why)

        copies = [self._copy(world, stage, stage, holder) for stage in stages for holder in self.holders(stage)]
        self.sending = world.background(copies, completed, lost)
        return None

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float:  # noqa: ARG002
        """The next checkpoint that is due; the next iteration if the last one is under way, or lies ahead."""
        since = position.iteration - self.begun_iteration
        is_sending = self.sending and self.sending.under_way
        return 1 if is_sending or since < 0 else max(1, self.config.interval_iterations - since)

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Send lost stages their state from a holder, and send copies that were lost with a holder again."""
        while True:
            copies = self._missing_copies(world)
            failed = yield from world.bring_back_nodes()
            if not (failed or (yield from world.transfer([transfer for transfer, _ in copies], "state_transfer"))):
                break
        if self.saved is not None:
            for transfer, stage in copies:
                assert isinstance(transfer.target, int)
                world.hold(transfer.target, copy_of(stage), self.saved)
        recovered = self.saved or beginning_of(position)
        self.begun_iteration = recovered.iteration
        return recovered

    def holders(self, stage: int) -> list[int]:
        """The stages that hold copies of a stage: those after it in the ring."""
        return [(stage + ahead) % (self.num_stages + 1) for ahead in range(1, self.config.num_copies + 1)]

    def _missing_copies(self, world: StrategyWorld) -> list[tuple[Transfer, int]]:
        """The transfers that restore missing copies, each with the stage that it is a copy of."""
        if self.saved is None:
            return []  # the initial state is drawn again
        missing = []
        for stage in range(self.num_stages + 1):
            places = [stage, *self.holders(stage)]
            alive = [place for place in places if world.held(place, copy_of(stage)) == self.saved]
            if not alive:
                gone = ", ".join(map(str, places))
                raise UnrecoverableError(f"stages {gone} are lost, which held all copies of stage {stage}")
            missing += [(self._copy(world, stage, alive[0], p), stage) for p in places if p not in alive]
        return missing

    def _copy(self, world: StrategyWorld, stage: int, source: int, target: int) -> Transfer:
        return Transfer(source, target, world.costs.checkpoint_bytes(stage), copy_of(stage))


def copy_of(stage: int) -> str:
    """The name of a copy."""
    return f"checkpoint of stage {stage}"
