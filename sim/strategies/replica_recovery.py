"""Recovery inside a replica: how a pipeline that trains apart continues once its lost nodes are replaced.

Each class recovers as a strategy does, for the nodes of one pipeline; the other pipelines train meanwhile. Stages that
cannot be restored take the global weights of the last synchronisation, which the nodes of other pipelines have in host
memory. Recovery from saves is in `replica_saves.py`. *Not modelled*: transfers between device and host memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

from sim.strategies.base import (
    Costs,
    Edit,
    Failure,
    IterationPlan,
    Position,
    Process,
    Routes,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
    WorkloadConfig,
    plain_routes,
)
from sim.strategies.checkfree import (
    CheckFree,
    CheckFreeConfig,
    CheckFreePlus,
    CheckFreePlusConfig,
    RebuildOptions,
    Reinit,
    ReinitConfig,
)
from sim.strategies.redundant import Redundant, RedundantConfig

FP32_BYTES = 4


class Intervals(NamedTuple):
    """Iterations between two saves of a replica."""

    iterations: int
    memory_iterations: int
    """In memory, where the replica saves in the store too."""


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

    saves_in_two_tiers: ClassVar[bool] = False
    """Whether replicas also save them in memory, every `memory_interval_iterations`."""

    def __init__(self, num_stages: int, intervals: Intervals) -> None:  # noqa: ARG002
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
    config: ClassVar[RebuildOptions] = CheckFreeConfig()

    def __init__(self, num_stages: int, intervals: Intervals) -> None:
        super().__init__(num_stages, intervals)
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


class RebuiltByPlainAverage(Rebuilt):
    """Lost stages become the plain average of their neighbours, as under `reinit` with its default rule."""

    of = Reinit
    config = ReinitConfig()


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

    def __init__(self, num_stages: int, intervals: Intervals) -> None:
        super().__init__(num_stages, intervals)
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
