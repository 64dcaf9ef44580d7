"""Constant batch: where a stage has nodes left, these do the work of a lost one, so that every row of the batch counts.

The microbatches of an incomplete pipeline go to the other nodes of the stage in turn, as in ReCycle (arXiv 2405.14009)
and ReCoVer (arXiv 2605.11215): the losses are those of training without failures, and iterations take longer until the
node is replaced. What was done of the interrupted iteration is done again, or kept except the part of the pipelines
that lost a node, whose sums of gradients are gone (ReCoVer). A lost stage is beyond it: the fallback recovers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.training_state import Position
from sim.core.records import Failure
from sim.strategies.base import Process, StrategyConfig, StrategyWorld
from sim.strategies.baselines import Peer


class ConstantBatchConfig(StrategyConfig):
    """Options of `constant_batch`."""

    kind: Literal["constant_batch"] = "constant_batch"
    cut_iteration: Literal["run_again", "kept"] = Field(
        "kept",
        description="the iteration that a loss interrupts: run again from its beginning, or continued without the "
        "microbatches of pipelines that lost a node",
    )


class ConstantBatch(Peer):
    """The nodes left in a stage do all of its work."""

    title = "constant batch"
    summary = "nodes left in a stage take over the microbatches of a lost one: the batch stays, iterations take longer"
    Config = ConstantBatchConfig
    config: ConstantBatchConfig

    def __init__(self, config: ConstantBatchConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._vacant_before: frozenset[tuple[int, int]] = frozenset()

    def can_train(self, world: StrategyWorld) -> bool:
        """Always; which places are vacant as an iteration begins is noted."""
        self._vacant_before = world.vacancies
        return True

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Regroup; continue the interrupted iteration without the part of pipelines that have lost a node in it."""
        failure = yield from world.regroup()
        if failure is None and self.config.cut_iteration == "kept":
            broken = {pipeline for _, pipeline in world.vacancies - self._vacant_before}
            world.resume_iteration(1.0 - len(broken) / world.num_pipelines)
        return failure
