"""Elastic data parallelism: a pipeline that loses a node leaves; the batch shrinks until the node is replaced.

As in torchft (meta-pytorch/torchft) and FT-HSDP (arXiv 2602.00277): gradients are averaged over the pipelines that are
there, so that the rows of the others are not learnt in these steps. The other nodes of a pipeline that has left are
taken to receive the averages, so that only the replacement fetches state; *not modelled*: the time that this takes.
A stage that has lost its last node is beyond it: the fallback recovers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from models.recipe import rows_of_parts
from models.training_state import Position
from sim.cluster.topology import ClusterConfig
from sim.core.memo import Memo
from sim.strategies.base import (
    PLAIN,
    IterationPlan,
    Recipe,
    StrategyConfig,
    StrategyWorld,
    WorkloadConfig,
    complete_pipelines,
)
from sim.strategies.baselines import Peer, too_few_replicas

EXPONENTS = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}


class ElasticConfig(StrategyConfig):
    """Options of `elastic`."""

    kind: Literal["elastic"] = "elastic"
    min_replicas: int = Field(
        1, ge=1, description="smallest number of pipelines to train with; with fewer, training waits for nodes"
    )
    world_size: Literal["dynamic", "fixed_with_spares"] = Field(
        "dynamic",
        description="dynamic: the batch is that of the present pipelines; fixed_with_spares: always that of "
        "min_replicas, and the others are spares whose gradients are zero",
    )
    learning_rate: Literal["constant", "sqrt", "linear"] = Field(
        "constant", description="learning rate with a smaller batch: unchanged, or × the square root, or × its share"
    )
    pipelines: Literal["as_placed", "formed_anew"] = Field(
        "as_placed",
        description="as_placed: a pipeline leaves with any of its nodes; formed_anew: nodes of several broken "
        "pipelines form a complete one",
    )
    first_step_without_gradient: bool = Field(
        False, description="a pipeline that has come back does not count in its first step, as in torchft by default"
    )


class Elastic(Peer):
    """Pipelines that are there train the rows of theirs."""

    title = "elastic batch"
    summary = "a pipeline that loses a node is left out: smaller batch until the node is replaced"
    Config = ElasticConfig
    config: ElasticConfig

    def __init__(self, config: ElasticConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._plans: Memo[tuple[IterationPlan, frozenset[tuple[int, int]]], IterationPlan] = Memo()
        self._counted: tuple[int, Sequence[int]] = (-1, ())  # the last iteration and the pipelines that are in it
        self._before: Sequence[int] = ()  # those of the iteration before

    @classmethod
    def check(cls, config: ElasticConfig, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """A fixed batch has one learning rate, and spares have no gradients at any time."""
        for field, default in (("learning_rate", "constant"), ("first_step_without_gradient", False)):
            if config.world_size == "fixed_with_spares" and getattr(config, field) != default:
                return f"{field} goes with world_size 'dynamic': with 'fixed_with_spares' the batch never changes"
        return None

    @classmethod
    def check_site(cls, config: ElasticConfig, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:
        """There are as many pipelines as it needs, and each has rows."""
        return too_few_replicas(config.min_replicas, cluster, sequences_per_batch)

    def can_train(self, world: StrategyWorld) -> bool:
        """Whether `min_replicas` pipelines are there."""
        return len(self._there(world)) >= self.config.min_replicas

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """The pipelines that are there; `min_replicas` of them where the others are spares."""
        vacancies = world.vacancies
        if not vacancies and self.config.world_size == "dynamic":
            return plan
        return self._plans.get((plan, vacancies), lambda: replace(plan, layout=world.layout(self._nodes(world))))

    def recipe_for(self, world: StrategyWorld, position: Position) -> Recipe:
        """The rows of the pipelines that are there; with spares, those of the first `min_replicas` at all times."""
        num_rows, num_pipelines = position.lineage.spec.sequences_per_batch, world.num_pipelines
        if self.config.world_size == "fixed_with_spares":
            counted: Sequence[int] = range(self.config.min_replicas)
        else:
            counted = self._with_gradients(self._there(world), position.iteration)
        if len(counted) == num_pipelines:
            return PLAIN
        factor = (len(counted) / num_pipelines) ** EXPONENTS[self.config.learning_rate]
        return Recipe(rows=rows_of_parts(counted, num_pipelines, num_rows), rate_factor=factor)

    def _with_gradients(self, there: Sequence[int], iteration: int) -> Sequence[int]:
        """The pipelines whose gradients count in the iteration after `iteration`: if so chosen, not those just back."""
        if not self.config.first_step_without_gradient:
            return there
        if iteration != self._counted[0]:
            self._before = self._counted[1]
        self._counted = iteration, there
        return [one for one in there if one in self._before] or there

    def _there(self, world: StrategyWorld) -> Sequence[int]:
        """Pipelines that run, by number."""
        complete = complete_pipelines(world)
        if self.config.pipelines == "as_placed":
            return complete
        broken = sorted(set(range(world.num_pipelines)).difference(complete))
        num_missing = [sum(stage == of for of, _ in world.vacancies) for stage in range(world.num_stages + 1)]
        num_mended = world.num_pipelines - max(num_missing) - len(complete)
        return sorted([*complete, *broken[:num_mended]])

    def _nodes(self, world: StrategyWorld) -> dict[int, list[int]]:
        """The pipelines whose nodes run, stage by stage: a pipeline's own, or one of a pipeline that does not run."""
        running = self._there(world)
        if self.config.world_size == "fixed_with_spares":
            running = running[: self.config.min_replicas]
        nodes: dict[int, list[int]] = {}
        for stage in range(world.num_stages + 1):
            vacant = {pipeline for of, pipeline in world.vacancies if of == stage}
            idle = [one for one in range(world.num_pipelines) if one not in vacant and one not in running]
            nodes[stage] = [idle.pop(0) if pipeline in vacant else pipeline for pipeline in running]
        return nodes
