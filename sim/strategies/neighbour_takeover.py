"""Neighbour takeover: the node of a neighbouring stage also does the work of a lost node, with a cheap backward pass.

The idea of MeCeFO (arXiv 2510.16415), not its code: in a pipeline that has lost a node, the node before it, else the
one after it, works for both stages until the replacement is there. For the rows of this pipeline the backward pass goes
around attention, the forward pass of the feed-forward parts is computed again, and the gradients of their matrices are
of low rank. The neighbour is sent the state of the stage by another pipeline's node. A stage that has lost its last
node is beyond it, even if a neighbour works for it: the fallback recovers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from models.recipe import ApproximateBackward, rows_of_parts
from models.training_state import Position
from sim.cluster.topology import ClusterConfig
from sim.core.memo import Memo
from sim.core.records import Failure
from sim.strategies.base import (
    EMBEDDING_STAGE,
    PLAIN,
    IterationPlan,
    Process,
    Recipe,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    WorkFactor,
)
from sim.strategies.baselines import Peer, too_few_rows
from sim.workload.costs import Costs

Place = tuple[int, int]
"""Stage and pipeline."""


class NeighbourTakeoverConfig(StrategyConfig):
    """Options of `neighbour_takeover`."""

    kind: Literal["neighbour_takeover"] = "neighbour_takeover"
    approximate: Literal["both_stages", "lost_stage"] = Field(
        "both_stages",
        description="where the backward pass is cheap: in all that the neighbour does, or for the lost stage",
    )
    rank_share: float = Field(
        0.125,
        gt=0,
        le=1,
        description="rank of the gradients of feed-forward matrices, as a share of their smaller side",
    )


class NeighbourTakeover(Peer):
    """Nodes that work for the neighbouring stage in their pipeline too."""

    title = "neighbour takeover"
    summary = (
        "a neighbouring stage's node also does a lost node's work, with a cheaper backward pass, until it is replaced"
    )
    Config = NeighbourTakeoverConfig
    config: NeighbourTakeoverConfig

    def __init__(self, config: NeighbourTakeoverConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._substitutes: dict[Place, int] = {}  # missing nodes, and the stage that has the state and works for them
        self._plans: Memo[tuple[IterationPlan, tuple[tuple[int, int, int], ...]], IterationPlan] = Memo()

    @classmethod
    def check_site(cls, config: StrategyConfig, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:  # noqa: ARG003
        """Each pipeline has rows, and a neighbour takes over layers alone."""
        if problem := too_few_rows(cluster, sequences_per_batch):
            return problem
        if cluster.embedding_on == "first_stage":
            return "no neighbour takes over an S1 that holds the embedding too: choose cluster.embedding_on 'own_node'"
        return None

    @classmethod
    def extra_memory_bytes(cls, config: NeighbourTakeoverConfig, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Room for the state of the largest neighbour, kept free."""
        return max((costs.state_bytes(other) for other in neighbours(stage, costs.workload.num_stages)), default=0.0)

    @classmethod
    def joining_bytes(cls, config: NeighbourTakeoverConfig, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Nothing but the state of its stage."""
        return 0.0

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Regroup, and send the neighbours of missing nodes the state of the stage that they work for from now on."""
        failure = yield from world.regroup()
        if failure is not None:
            return failure
        chosen = self._chosen(world.vacancies)
        new = {place: to for place, to in chosen.items() if self._substitutes.get(place) != to}
        transfers = [
            Transfer(stage, to, world.costs.checkpoint_bytes(stage), pipelines=(pipeline,))
            for (stage, pipeline), to in sorted(new.items())
        ]
        failure = yield from world.transfer(transfers, "state_transfer")
        self._substitutes = chosen if failure is None else {}
        return failure

    def _chosen(self, vacancies: frozenset[Place]) -> dict[Place, int]:
        """The neighbour that works for each missing node: the same as before, else the first that is there."""
        chosen = {}
        for stage, pipeline in sorted(vacancies):
            there = [other for other in neighbours(stage, self.num_stages) if (other, pipeline) not in vacancies]
            before = self._substitutes.get((stage, pipeline))
            if there:
                chosen[stage, pipeline] = before if before in there else there[0]
        return chosen

    def _at_work(self, world: StrategyWorld) -> Mapping[Place, int]:
        """Missing nodes, and the neighbours that work for them."""
        vacancies = world.vacancies
        return {place: to for place, to in sorted(self._substitutes.items()) if place in vacancies}

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """The neighbours' work, and its cost."""
        if not (at_work := self._at_work(world)):
            return plan
        substitutes = tuple((stage, pipeline, to) for (stage, pipeline), to in at_work.items())

        def changed() -> IterationPlan:
            factors = tuple(
                WorkFactor(stage, 1.0, cheap_backward(world.costs, stage, self.config.rank_share), pipelines=pipelines)
                for stage, pipelines in self._approximated(at_work).items()
            )
            return replace(plan, substitutes=substitutes, factors=plan.factors + factors)

        return self._plans.get((plan, substitutes), changed)

    def recipe_for(self, world: StrategyWorld, position: Position) -> Recipe:
        """Approximate gradients for the rows of the pipelines that miss a node."""
        if not (at_work := self._at_work(world)):
            return PLAIN
        spec = position.lineage.spec
        smaller_side = min(spec.model.dim, spec.model.width_of_feed_forward)
        rank = max(1, round(self.config.rank_share * smaller_side))
        return Recipe(
            backward=tuple(
                ApproximateBackward(
                    stage, rows_of_parts(pipelines, world.num_pipelines, spec.sequences_per_batch), rank=rank
                )
                for stage, pipelines in self._approximated(at_work).items()
            )
        )

    def _approximated(self, at_work: Mapping[Place, int]) -> dict[int, tuple[int, ...]]:
        """Stages with a cheap backward pass, and in which pipelines."""
        places = set(at_work)
        if self.config.approximate == "both_stages":
            places |= {(to, pipeline) for (_, pipeline), to in at_work.items()}
        found: dict[int, tuple[int, ...]] = {}
        for stage, pipeline in sorted(places):
            found[stage] = (*found.get(stage, ()), pipeline)
        return found

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Impossible: the fallback decides what every node holds."""
        self._substitutes.clear()
        return (yield from super().recover(world, failure, position))


def neighbours(stage: int, num_stages: int) -> list[int]:
    """Stages of layers before and after a stage of layers; none of stage 0."""
    if stage == EMBEDDING_STAGE:
        return []
    return [other for other in (stage - 1, stage + 1) if 1 <= other <= num_stages]


def cheap_backward(costs: Costs, stage: int, rank_share: float) -> float:
    """Time of the cheap backward pass over that of the usual one, by FLOPs.

    Of the feed-forward part: its forward pass again, the gradient of its input, and that of its matrices, of which
    r (d + f) / (d f) is computed at rank r: less than all if r is small. Nothing of attention.
    """
    model = costs.workload.model
    of_feed_forward = 6.0 * model.dim * model.hidden_dim * costs.tokens_per_microbatch * costs.num_layers(stage)
    rank = rank_share * min(model.dim, model.hidden_dim)
    of_matrices = min(1.0, rank * (model.dim + model.hidden_dim) / (model.dim * model.hidden_dim))
    usual = (3.0 if costs.workload.recompute_activations else 2.0) * costs.forward_flops(stage)
    return of_feed_forward * (2.0 + of_matrices) / usual
