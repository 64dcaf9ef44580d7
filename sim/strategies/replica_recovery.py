"""Recovery inside a replica: how a pipeline that trains apart continues once its lost nodes are replaced.

Each class recovers as a strategy does, for the nodes of one pipeline; the other pipelines train meanwhile. Stages that
cannot be restored take the global weights of the last synchronisation, which the nodes of other pipelines have in host
memory. *Not modelled*: transfers between device and host memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

from sim.strategies.base import (
    SAVED,
    STORE,
    Background,
    Costs,
    Edit,
    Failure,
    IterationPlan,
    Place,
    Position,
    Process,
    Routes,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
    WorkloadConfig,
    complete_pipelines,
    plain_routes,
)
from sim.strategies.checkfree import CheckFree, CheckFreeConfig, CheckFreePlus, CheckFreePlusConfig
from sim.strategies.checkfree_hybrid import edits_back_to
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig
from sim.strategies.memory_checkpoint import NeighbourCheckpoint as MemoryCheckpoint
from sim.strategies.memory_checkpoint import NeighbourCheckpointConfig
from sim.strategies.redundant import Redundant, RedundantConfig
from sim.strategies.stale_stage import StaleStage, StaleStageConfig

FP32_BYTES = 4


class Continuation(NamedTuple):
    """Edits of a replica's state with which it continues, and the stages that take the global weights."""

    edits: Sequence[Edit]
    of_global: tuple[int, ...]


class ReplicaRecovery:
    """Recovery inside a replica, and the simplest one: the lost stages take the global weights.

    number: of the replica; state: its training state when it lost nodes; lost: the stages of these nodes.
    """

    sends_new_weights: ClassVar[bool] = False
    """Whether the plan of the iteration after a synchronisation is another one."""

    needs_embedding_nodes: ClassVar[bool] = False
    """Whether the embedding must be on nodes of its own."""

    saves: ClassVar[bool] = False
    """Whether replicas save their states every `interval_iterations`."""

    def __init__(self, num_stages: int, interval_iterations: int) -> None:  # noqa: ARG002
        self.num_stages = num_stages

    @classmethod
    def check(cls, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """What makes the recovery impossible for a workload, in one sentence, or None."""
        return None

    @classmethod
    def extra_memory_bytes(cls, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Bytes of device memory beside the stage's own, on each node of a stage."""
        return 0.0

    @classmethod
    def host_memory_bytes(cls, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Bytes of host memory on each node of a stage, beside the global weights."""
        return 0.0

    @classmethod
    def stored_bytes(cls, costs: Costs) -> float:  # noqa: ARG003
        """Bytes that each replica keeps in the store."""
        return 0.0

    def training_variant(self) -> Routes:
        """The routes of microbatches."""
        return plain_routes(self.num_stages)

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """The plan of an iteration."""
        return plan

    def plan_after_synchronisation(self, plan: IterationPlan) -> IterationPlan:
        """The plan of the iteration after a synchronisation."""
        return plan

    def continuation(self, number: int, state: Position, lost: Collection[int]) -> Continuation:  # noqa: ARG002
        """How a replica continues that has all of its nodes again; called once for each recovery."""
        return Continuation((), tuple(sorted(lost)))

    def transfers(
        self,
        world: StrategyWorld,
        number: int,  # noqa: ARG002
        state: Position,  # noqa: ARG002
        lost: Collection[int],
    ) -> list[Transfer]:
        """What the nodes of lost stages are sent, by nodes of the same pipeline if these have it."""
        return global_weights(world, lost)

    def after_iteration(self, world: StrategyWorld, replicas: Mapping[int, Position]) -> Process[Failure | None]:  # noqa: ARG002
        """Do the routine work for the replicas that have trained; replicas: their states by number."""
        yield from ()
        return None

    def iterations_left(self, numbers: Collection[int], iteration: int) -> float:  # noqa: ARG002
        """Number of iterations until the routine work for replicas is due, after an iteration."""
        return math.inf

    def begin(self, number: int, iteration: int) -> None:
        """Note that a replica begins from the global weights."""

    def undone_steps(self, number: int) -> Sequence[tuple[int, int]]:  # noqa: ARG002
        """Steps whose updates a replica has lost: pairs of the step before the first of them, and the last."""
        return ()


def global_weights(world: StrategyWorld, stages: Collection[int]) -> list[Transfer]:
    """Global weights in fp32, from nodes of the same stages in other pipelines."""
    return [Transfer(s, s, float(world.costs.stage_parameters(s) * FP32_BYTES)) for s in sorted(stages)]


class Rebuilt(ReplicaRecovery):
    """Lost stages are rebuilt from the pipeline's own stages, as CheckFree does with its default options."""

    of: ClassVar[type[CheckFree]] = CheckFree
    config: ClassVar[CheckFreeConfig | CheckFreePlusConfig] = CheckFreeConfig()

    def __init__(self, num_stages: int, interval_iterations: int) -> None:
        super().__init__(num_stages, interval_iterations)
        self._strategy = self.of(self.config, num_stages)

    @classmethod
    def check(cls, workload: WorkloadConfig) -> str | None:
        """As for the strategy."""
        return cls.of.check(cls.config, workload)

    @classmethod
    def extra_memory_bytes(cls, costs: Costs, stage: int) -> float:
        """What the strategy takes."""
        return cls.of.extra_memory_bytes(cls.config, costs, stage)

    def training_variant(self) -> Routes:
        """The routes of the strategy."""
        return self._strategy.training_variant()

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """Routes and copies of the strategy."""
        return self._strategy.adapt_plan(plan)

    def continuation(self, number: int, state: Position, lost: Collection[int]) -> Continuation:  # noqa: ARG002
        """Edits of the stages that the strategy rebuilds; the others take the global weights."""
        edits, of_global = list[Edit](), list[int]()
        for stage in sorted(lost):
            try:
                edit = self._strategy.edit(stage, frozenset(lost))  # None: other nodes have the stage's state
                edits += [edit] if edit else []
            except UnrecoverableError:
                of_global.append(stage)
        return Continuation(edits, tuple(of_global))

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """Weights of the sources."""
        edits, of_global = self.continuation(number, state, lost)
        return [*self.sources_of(world, lost, edits), *global_weights(world, of_global)]

    def sources_of(self, world: StrategyWorld, lost: Collection[int], edits: Sequence[Edit]) -> list[Transfer]:
        """Weights from which stages are rebuilt by edits."""
        return self._strategy.transfers(world, frozenset(lost), [*edits])


class RebuiltPlus(Rebuilt):
    """Lost stages are rebuilt as CheckFree+ does, with swapped routes and copies of E and E⁻¹."""

    of = CheckFreePlus
    config = CheckFreePlusConfig()


class NeighbourCopy(ReplicaRecovery):
    """The node of the stage before holds an exact copy, as in redundant computation, but without shadow forwards.

    The holder takes the same optimizer steps: each node sends it the gradients at the end of each iteration, and the
    weights at the end of the first one after a synchronisation. If the node is lost before that, the new weights are
    the global ones, which other pipelines have.
    """

    sends_new_weights = True
    needs_embedding_nodes = Redundant.needs_embedding_nodes
    config: ClassVar[RedundantConfig] = RedundantConfig.model_validate(
        {"preset": "bamboo_lazy", "synchronisation": "gradients"}
    )

    def __init__(self, num_stages: int, interval_iterations: int) -> None:
        super().__init__(num_stages, interval_iterations)
        self._strategy = Redundant(self.config, num_stages)

    @classmethod
    def check(cls, workload: WorkloadConfig) -> str | None:
        """As for redundant computation."""
        return Redundant.check(cls.config, workload)

    @classmethod
    def extra_memory_bytes(cls, costs: Costs, stage: int) -> float:
        """The copy of the next stage's state."""
        return Redundant.extra_memory_bytes(cls.config, costs, stage)

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """Gradients are sent to the holders."""
        return self._strategy.adapt_plan(plan)

    def plan_after_synchronisation(self, plan: IterationPlan) -> IterationPlan:
        """The new weights are sent too."""
        return replace(plan, shadow_transfers=2 * plan.shadow_transfers)

    def continuation(self, number: int, state: Position, lost: Collection[int]) -> Continuation:  # noqa: ARG002
        """The state as it was, except for stages lost together with their holders."""
        return Continuation((), tuple(stage for stage in sorted(lost) if self._strategy.holder(stage) in lost))

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """The states of lost stages and of those that their nodes hold copies of, from nodes that have them."""
        of_global = set(self.continuation(number, state, lost).of_global)
        found = [each for each in self._strategy.transfers(world, lost) if each.source not in lost]
        held_anew = {(stage, self._strategy.holder(stage)) for stage in of_global}
        weights = {each.source: each for each in global_weights(world, of_global)}
        return [*found, *weights.values(), *(weights[stage]._replace(target=to) for stage, to in sorted(held_anew))]


class OwnCheckpoint(ReplicaRecovery):
    """The whole replica rolls back to its own last save, as under `checkpoint`.

    Each replica uploads its state at intervals, concurrently with training; a save is complete when all its stages are
    in the store. The nodes also keep their part in host memory, so that only those of lost stages download it. The
    updates since the save are lost for this replica. If the next save is due before the upload is complete, training
    waits.
    """

    saves = True
    goes_back_alone: ClassVar[bool] = False  # whether the other stages keep their state

    def __init__(self, num_stages: int, interval_iterations: int) -> None:
        super().__init__(num_stages, interval_iterations)
        self._interval = interval_iterations
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
        saved = self._saved_before(number, state, lost)
        if saved is None:
            self._saved.pop(number, None)
            return Continuation((), tuple(sorted(lost)))
        if not self.goes_back_alone:
            kept = [(before, last) for before, last in self._undone.get(number, []) if last <= saved.step]
            self._undone[number] = [*kept, (saved.step, state.step)]
        stages = sorted(lost) if self.goes_back_alone else range(self.num_stages + 1)
        return Continuation(edits_back_to(saved, state, stages), ())

    def transfers(self, world: StrategyWorld, number: int, state: Position, lost: Collection[int]) -> list[Transfer]:
        """The save of the lost stages, from the store."""
        if self._saved_before(number, state, lost) is None:
            return global_weights(world, lost)
        return [Transfer(STORE, stage, world.costs.checkpoint_bytes(stage), SAVED) for stage in sorted(lost)]

    def _saved_before(self, number: int, state: Position, lost: Collection[int]) -> Position | None:  # noqa: ARG002
        """The last complete save of a replica, if it was made on the way to a state and survives the loss of stages."""
        saved = self._saved.get(number)
        return saved if saved and state.descends_from(saved) else None

    def after_iteration(self, world: StrategyWorld, replicas: Mapping[int, Position]) -> Process[Failure | None]:
        """Begin the saves that are due."""
        complete = complete_pipelines(world)
        due = [n for n, state in replicas.items() if n in complete and self._due_iteration(n) <= state.iteration]
        for number in due:
            if number in self._uploads and self._uploads[number].under_way:
                failure = yield from world.wait_for(self._uploads[number], "checkpoint_save")
                if failure is not None:
                    return failure
        for number in due:
            self._save(world, number, replicas[number])
        return None

    def iterations_left(self, numbers: Collection[int], iteration: int) -> float:
        """Until the next save of one of the replicas."""
        return max(1, min((self._due_iteration(number) - iteration for number in numbers), default=math.inf))

    def _due_iteration(self, number: int) -> int:
        """The iteration after which the next save of a replica is due: multiples of the interval."""
        begun = self._begun.get(number, 0)
        return begun - begun % self._interval + self._interval

    def begin(self, number: int, iteration: int) -> None:
        """The replica's first save is the next that is due; saves of older weights do not count."""
        self._saved.pop(number, None)
        self._begun[number] = iteration

    def _save(self, world: StrategyWorld, number: int, state: Position) -> None:
        """Begin to upload the state of a replica beside the training."""
        cluster, before, detail = world.site.cluster, self._begun.get(number, 0), f"replica {number}"
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
    lost if a stage is lost together with the next one.
    """

    needs_embedding_nodes = MemoryCheckpoint.needs_embedding_nodes
    config: ClassVar[NeighbourCheckpointConfig] = NeighbourCheckpointConfig()

    def __init__(self, num_stages: int, interval_iterations: int) -> None:
        super().__init__(num_stages, interval_iterations)
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
        if self._saved_before(number, state, lost) is None:
            return global_weights(world, lost)
        found = []
        for stage, holder in enumerate(self._holders):
            for target, source in ((stage, holder), (holder, stage)):
                if target in lost:
                    found.append(Transfer(source, target, world.costs.checkpoint_bytes(stage), SAVED))
        return found

    def _saved_before(self, number: int, state: Position, lost: Collection[int]) -> Position | None:
        """None also if the nodes with a stage's part of the save are lost."""
        if any(stage in lost and holder in lost for stage, holder in enumerate(self._holders)):
            return None
        return super()._saved_before(number, state, lost)

    def _target(self, slots: Sequence[int], stage: int) -> Literal["store"] | Place:
        """The node of the next stage in the ring."""
        return Place(slots[self._holders[stage]])


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

    def __init__(self, num_stages: int, interval_iterations: int) -> None:
        super().__init__(num_stages, interval_iterations)
        self._rebuilt = RebuiltPlus(num_stages, interval_iterations)

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


RECOVERIES: dict[str, type[ReplicaRecovery]] = {
    "global": ReplicaRecovery,
    "checkfree": Rebuilt,
    "checkfree_plus": RebuiltPlus,
    "neighbour_copy": NeighbourCopy,
    "checkpoint": OwnCheckpoint,
    "neighbour_checkpoint": NeighbourCheckpoints,
    "stale_stage": StaleStages,
    "checkfree_hybrid": RebuiltOrStale,
}
"""By the names of `lost_stage`."""
