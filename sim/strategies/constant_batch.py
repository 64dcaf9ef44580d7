"""Constant batch: where a stage has nodes left, these do the work of a lost one, so that every row of the batch counts.

The microbatches of an incomplete pipeline go to the other nodes of the stage in turn, as in ReCycle (arXiv 2405.14009),
or to the complete pipelines, as evenly as they can be dealt, as in ReCoVer (arXiv 2605.11215). The losses are those of
training without failures, and iterations take longer until the node is replaced. What was done of the interrupted
iteration is done again, or kept except the part of the pipelines that lost a node, whose sums of gradients are gone
(ReCoVer). A lost stage is beyond it: the fallback recovers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from models.training_state import Position
from sim.core.memo import Memo
from sim.core.records import Failure
from sim.strategies.base import IterationPlan, Process, StrategyConfig, StrategyWorld, complete_pipelines
from sim.strategies.baselines import Peer


class ConstantBatchConfig(StrategyConfig):
    """Options of `constant_batch`."""

    kind: Literal["constant_batch"] = "constant_batch"
    cut_iteration: Literal["run_again", "kept"] = Field(
        "kept",
        description="the iteration that a loss interrupts: run again from its beginning, or continued without the "
        "microbatches of pipelines that lost a node",
    )
    dealing: Literal["by_stage", "by_pipeline"] = Field(
        "by_stage",
        description="microbatches of an incomplete pipeline go, stage by stage, to the other nodes of the stage that "
        "lacks one; or to the complete pipelines, while the other nodes of the incomplete one wait",
    )


class ConstantBatch(Peer):
    """The nodes left in a stage do all of its work."""

    title = "constant batch"
    summary = "the remaining nodes of a stage take over the microbatches of a lost one: same batch, longer iterations"
    Config = ConstantBatchConfig
    config: ConstantBatchConfig

    def __init__(self, config: ConstantBatchConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._vacant_before: frozenset[tuple[int, int]] = frozenset()
        self._plans: Memo[tuple[IterationPlan, tuple[int, ...]], IterationPlan] = Memo()

    def can_train(self, world: StrategyWorld) -> bool:
        """Always; which places are vacant as an iteration begins is noted."""
        self._vacant_before = world.vacancies
        return True

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """The complete pipelines with the microbatches of all, if they are dealt by pipeline and there is one."""
        complete = complete_pipelines(world)
        if self.config.dealing == "by_stage" or len(complete) in (0, world.num_pipelines):
            return plan
        return self._plans.get((plan, complete), lambda: self._dealt(world, plan, complete))

    def _dealt(self, world: StrategyWorld, plan: IterationPlan, complete: tuple[int, ...]) -> IterationPlan:
        """The microbatches of all pipelines, dealt among the complete ones."""
        dealt_at_once = world.costs.schedule(plan).microbatch_multiple(self.num_stages)
        total = world.num_pipelines * plan.num_microbatches // dealt_at_once
        each, more = divmod(total, len(complete))
        shares = tuple(dealt_at_once * (each + (number < more)) for number in range(len(complete)))
        layout = world.layout(dict.fromkeys(range(self.num_stages + 1), complete))
        return replace(plan, num_microbatches=shares[0], layout=layout, shares=shares if more else None)

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Regroup; continue the interrupted iteration without the part of pipelines that have lost a node in it."""
        failure = yield from world.regroup()
        if failure is None and self.config.cut_iteration == "kept":
            broken = {pipeline for _, pipeline in world.vacancies - self._vacant_before}
            world.resume_iteration(1.0 - len(broken) / world.num_pipelines)
        return failure
