"""Recovery inside a replica from its own saves, in the store or in the memory of its nodes.

A save is that of one replica, and complete when all its parts have arrived. Stages that no save covers take the global
weights (`replica_recovery.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Literal

from sim.strategies.base import (
    SAVED,
    STORE,
    Background,
    Costs,
    Failure,
    IterationPlan,
    Place,
    Position,
    Process,
    Routes,
    StrategyWorld,
    Transfer,
    WorkloadConfig,
    complete_pipelines,
)
from sim.strategies.checkfree_hybrid import edits_back_to
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig
from sim.strategies.memory_checkpoint import NeighbourCheckpoint as MemoryCheckpoint
from sim.strategies.memory_checkpoint import NeighbourCheckpointConfig
from sim.strategies.replica_recovery import Continuation, Intervals, RebuiltPlus, ReplicaRecovery, global_weights
from sim.strategies.stale_stage import StaleStage, StaleStageConfig


class OwnCheckpoint(ReplicaRecovery):
    """The whole replica rolls back to its own last save, as under `checkpoint`.

    Each replica uploads its state at intervals, concurrently with training; a save is complete when all its stages are
    in the store. The nodes also keep their part in host memory, so that only those of lost stages download it. The
    updates since the save are lost for this replica. If the next save is due before the upload is complete, training
    waits.
    """

    saves = True
    goes_back_alone: ClassVar[bool] = False  # whether the other stages keep their state
    waits: ClassVar[bool] = True  # whether training waits for a save where the next one is due
    where: ClassVar[str] = ""  # said in its events

    def __init__(self, num_stages: int, intervals: Intervals) -> None:
        super().__init__(num_stages, intervals)
        self._interval = intervals.iterations
        self._saved: dict[int, Position] = {}  # last complete save of each replica
        self._begun: dict[int, int] = {}  # iteration of the last one begun and not lost, or at which the replica began
        self._uploads: dict[int, Background] = {}
        self._undone: dict[int, list[tuple[int, int]]] = {}

    @classmethod
    def host_memory_bytes(cls, costs: Costs, stage: int) -> float:
        """The node's part of the last save, and of the next one while it is uploaded."""
        return 2.0 * costs.checkpoint_bytes(stage)

    @classmethod
    def stored_bytes(cls, costs: Costs) -> float:
        """The whole model with its optimizer state."""
        return Checkpoint.stored_bytes(CheckpointConfig(), costs)

    def continuation(self, number: int, state: Position, lost: Collection[int]) -> Continuation:
        """Stages roll back to the save; before the first save, the lost ones take the global weights."""
        saved = self.saved_before(number, state, lost)
        if saved is None:
            self.forget(number)
            return Continuation((), tuple(sorted(lost)))
        if not self.goes_back_alone:
            kept = [(before, last) for before, last in self._undone.get(number, []) if last <= saved.step]
            self._undone[number] = [*kept, (saved.step, state.step)]
        stages = sorted(lost) if self.goes_back_alone else range(self.num_stages + 1)
        return Continuation(edits_back_to(saved, state, stages), ())

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """The save of the lost stages, from the store."""
        if self.saved_before(number, state, lost) is None:
            return global_weights(world, lost)
        return self._from_store(world, lost)

    def _from_store(self, world: StrategyWorld, lost: Collection[int]) -> list[Transfer]:
        return [Transfer(STORE, stage, world.costs.checkpoint_bytes(stage), SAVED) for stage in sorted(lost)]

    def saved_before(self, number: int, state: Position, lost: Collection[int]) -> Position | None:  # noqa: ARG002
        """The last complete save of a replica, if it was made on the way to a state and survives the loss of stages."""
        saved = self._saved.get(number)
        return saved if saved and state.descends_from(saved) else None

    def after_iteration(self, world: StrategyWorld, replicas: Mapping[int, Position]) -> Process[Failure | None]:
        """Begin the saves that are due."""
        complete = complete_pipelines(world)
        due = [n for n, state in replicas.items() if n in complete and self._due_iteration(n) <= state.iteration]
        for number in due if self.waits else ():
            if self._is_saving(number):
                failure = yield from world.wait_for(self._uploads[number], "checkpoint_save")
                if failure is not None:
                    return failure
        for number in due:
            if not self._is_saving(number):
                self._save(world, number, replicas[number])
        return None

    def _is_saving(self, number: int) -> bool:
        return number in self._uploads and self._uploads[number].under_way

    def iterations_left(self, numbers: Collection[int], iteration: int) -> float:
        """Until the next save of one of the replicas; 1 if it is due, but the last one is under way."""
        return max(1, min((self._due_iteration(number) - iteration for number in numbers), default=math.inf))

    def _due_iteration(self, number: int) -> int:
        """The iteration after which the next save of a replica is due: multiples of the interval."""
        begun = self._begun.get(number, 0)
        return begun - begun % self._interval + self._interval

    def begin(self, number: int, iteration: int) -> None:
        """The replica's first save is the next that is due; saves of older weights do not count."""
        self.forget(number)
        self._begun[number] = iteration

    def forget(self, number: int) -> None:
        """Note that the last save of a replica is of no further use."""
        self._saved.pop(number, None)

    def _save(self, world: StrategyWorld, number: int, state: Position) -> None:
        """Begin to upload the state of a replica beside the training."""
        cluster, before, detail = world.site.cluster, self._begun.get(number, 0), f"replica {number}{self.where}"
        slots = [cluster.slot(cluster.host_of(stage), number) for stage in range(self.num_stages + 1)]
        uploads = [
            Transfer(Place(slot), self._target(slots, stage), world.costs.checkpoint_bytes(stage), SAVED)
            for stage, slot in enumerate(slots)
        ]

        def completed() -> None:
            self._saved[number] = state
            world.record("checkpoint_durable", None, state.iteration, detail)

        def lost() -> None:
            self._begun[number] = before  # due again once the replica has trained
            world.record("checkpoint_lost", None, state.iteration, f"{detail}: failure during the upload")

        self._begun[number] = state.iteration
        world.record("checkpoint_started", None, state.iteration, detail)
        self._uploads[number] = world.background(uploads, completed, lost, slots)

    def _target(self, slots: Sequence[int], stage: int) -> Literal["store"] | Place:  # noqa: ARG002
        """Where a stage's part of a save is sent. slots: of the replica's nodes, by stage."""
        return STORE

    def undone_steps(self, number: int) -> Sequence[tuple[int, int]]:
        """The steps between saves and the losses after which the replica went back to them."""
        return self._undone.get(number, ())


class NeighbourCheckpoints(OwnCheckpoint):
    """The whole replica rolls back to its own last save, in the memory of its nodes, as under `neighbour_checkpoint`.

    Each node sends its part of a save to the node of the next stage in the ring 0, S1 ... Ss, and keeps it. The save is
    lost if a stage is lost together with the next one. If the next save is due before the copies have arrived, it is
    that of the first iteration after that.
    """

    waits = False
    needs_embedding_nodes = MemoryCheckpoint.needs_embedding_nodes
    config: ClassVar[NeighbourCheckpointConfig] = NeighbourCheckpointConfig()

    def __init__(self, num_stages: int, intervals: Intervals) -> None:
        super().__init__(num_stages, intervals)
        self._holders = [MemoryCheckpoint(self.config, num_stages).holders(stage)[0] for stage in range(num_stages + 1)]

    @classmethod
    def host_memory_bytes(cls, costs: Costs, stage: int) -> float:
        """The node's part of the last save, the one that it holds, and as much for the next save."""
        return MemoryCheckpoint.host_memory_bytes(cls.config, costs, stage)

    @classmethod
    def stored_bytes(cls, costs: Costs) -> float:  # noqa: ARG003
        """Nothing is in the store."""
        return 0.0

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """The save of the lost stages, from its holders, and what their nodes hold of others."""
        if self.saved_before(number, state, lost) is None:
            return global_weights(world, lost)
        found = []
        for stage, holder in enumerate(self._holders):
            for target, source in ((stage, holder), (holder, stage)):
                if target in lost:
                    found.append(Transfer(source, target, world.costs.checkpoint_bytes(stage), SAVED))
        return found

    def saved_before(self, number: int, state: Position, lost: Collection[int]) -> Position | None:
        """None also if the nodes with a stage's part of the save are lost."""
        if any(stage in lost and holder in lost for stage, holder in enumerate(self._holders)):
            return None
        return super().saved_before(number, state, lost)

    def _target(self, slots: Sequence[int], stage: int) -> Literal["store"] | Place:
        """The node of the next stage in the ring."""
        return Place(slots[self._holders[stage]])


class InMemory(NeighbourCheckpoints):
    """The tier in memory; its events say so."""

    where = ", in memory"


class TwoTierCheckpoints(OwnCheckpoint):
    """The whole replica rolls back to the latest of its saves in the store and in memory, as `two_tier_checkpoint`.

    It is that in memory if both are of the same iteration. Nodes keep their parts of both.
    """

    saves_in_two_tiers = True
    needs_embedding_nodes = InMemory.needs_embedding_nodes

    def __init__(self, num_stages: int, intervals: Intervals) -> None:
        super().__init__(num_stages, intervals)
        self._memory = InMemory(num_stages, intervals._replace(iterations=intervals.memory_iterations))

    @classmethod
    def host_memory_bytes(cls, costs: Costs, stage: int) -> float:
        """Those of both tiers."""
        return super().host_memory_bytes(costs, stage) + InMemory.host_memory_bytes(costs, stage)

    def continuation(self, number: int, state: Position, lost: Collection[int]) -> Continuation:
        """Stages roll back to the latest save; an older one in memory is of no further use: new nodes have no part."""
        if self._in_memory(number, state, lost) is None:
            self._memory.forget(number)
        return super().continuation(number, state, lost)

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """The save of the lost stages and, if it is in memory, also their parts of the one in the store."""
        stored = self._from_store(world, lost) if super().saved_before(number, state, lost) else []
        if self._in_memory(number, state, lost):
            return [*self._memory.transfers(world, number, state, lost), *stored]
        return stored or global_weights(world, lost)

    def saved_before(self, number: int, state: Position, lost: Collection[int]) -> Position | None:
        """The latest save of both tiers."""
        return self._in_memory(number, state, lost) or super().saved_before(number, state, lost)

    def _in_memory(self, number: int, state: Position, lost: Collection[int]) -> Position | None:
        """The save in memory, unless it is lost or the store has a later one."""
        saved, stored = self._memory.saved_before(number, state, lost), super().saved_before(number, state, lost)
        return None if saved is None or (stored and stored.iteration > saved.iteration) else saved

    def after_iteration(self, world: StrategyWorld, replicas: Mapping[int, Position]) -> Process[Failure | None]:
        """Begin the saves that are due in each tier."""
        failure = yield from self._memory.after_iteration(world, replicas)
        return failure or (yield from super().after_iteration(world, replicas))

    def iterations_left(self, numbers: Collection[int], iteration: int) -> float:
        """Until the next save in either tier."""
        return min(super().iterations_left(numbers, iteration), self._memory.iterations_left(numbers, iteration))

    def begin(self, number: int, iteration: int) -> None:
        """The same in both tiers."""
        super().begin(number, iteration)
        self._memory.begin(number, iteration)


class StaleStages(OwnCheckpoint):
    """Only lost stages roll back to the replica's own last save, as under `stale_stage` with plain routes."""

    goes_back_alone = True

    @classmethod
    def check(cls, workload: WorkloadConfig) -> str | None:
        """A stage that goes back is the whole of what it holds."""
        return StaleStage.check(StaleStageConfig(routes="plain"), workload)

    @classmethod
    def host_memory_bytes(cls, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Nothing: no other node rolls back."""
        return 0.0


class RebuiltOrStale(StaleStages):
    """Lost stages are rebuilt as CheckFree+ does, or else roll back to the replica's last save: `checkfree_hybrid`."""

    def __init__(self, num_stages: int, intervals: Intervals) -> None:
        super().__init__(num_stages, intervals)
        self._rebuilt = RebuiltPlus(num_stages, intervals)

    @classmethod
    def check(cls, workload: WorkloadConfig) -> str | None:
        """As for CheckFree+."""
        return RebuiltPlus.check(workload)

    @classmethod
    def extra_memory_bytes(cls, costs: Costs, stage: int) -> float:
        """Copies of E and E⁻¹."""
        return RebuiltPlus.extra_memory_bytes(costs, stage)

    def training_variant(self) -> Routes:
        """Swapped routes."""
        return self._rebuilt.training_variant()

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """Swapped routes, and gradients for the copies."""
        return self._rebuilt.adapt_plan(plan)

    def continuation(self, number: int, state: Position, lost: Collection[int]) -> Continuation:
        """Stages that are not rebuilt roll back; before the first save, they take the global weights."""
        edits, others = self._rebuilt.continuation(number, state, lost)
        back, of_global = super().continuation(number, state, others)
        return Continuation([*back, *edits], of_global)

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """Weights of the sources, and saves of the other stages."""
        edits, others = self._rebuilt.continuation(number, state, lost)
        return [*self._rebuilt.sources_of(world, lost, edits), *super().transfers(world, number, state, others)]
