"""CheckFree and CheckFree+ (Blagoev, Ersoy, Chen: arXiv 2506.15461): a lost stage is rebuilt from its neighbours.

CheckFree: W_i = (w_{i-1} W_{i-1} + w_{i+1} W_{i+1}) / (w_{i-1} + w_{i+1}), w_k the squared norm of the stage's
last gradient; the stage's learning rate becomes 1.1 × the schedule's. It can rebuild neither the first nor the last
stage, nor two neighbours. CheckFree+: every other microbatch runs the first two and the last two stages in swapped
order, so that the stages of such a pair learn each other's part and are recovered by copying; E and E⁻¹ (stage 0) are
copied to the neighbouring stages after each step and come back exactly.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE, Routes, swapped_routes
from models.training_state import Edit, GradientNormWeights, Position
from sim.core.records import Failure
from sim.strategies.base import (
    PresetConfig,
    Process,
    Strategy,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
)
from sim.workload.config import IterationPlan, WorkloadConfig
from sim.workload.costs import Costs
from sim.workload.schedule import SCHEDULES

RELEASED: dict[str, Any] = {
    "norm_exponent": 1.0,
    "norm_after_clip": True,
    "norm_epsilon": 1e-4,
    "learning_rate_factor": 1.1,
    "adjacent_stages": "one_after_the_other",
    "rebuilt_norm": "own",
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "norm_exponent": 2.0,
        "norm_after_clip": False,
        "norm_epsilon": 0.0,
        "learning_rate_factor": 1.1,
        "end_stages": "unrecoverable",
        "adjacent_stages": "unrecoverable",
        "rebuilt_norm": "sources",
    },
    "reference_code": {**RELEASED, "end_stages": "copy_pairs"},
    "reference_code_first_commit": {**RELEASED, "end_stages": "unrecoverable"},
}
"""`paper`: what the text says. `reference_code`: what the authors' released code does at commit 8d7d547 (27 March 2026,
its head). `reference_code_first_commit`: what it does at 0e2711d, where the first and the last stage never fail: go
with it `failures.immune_stages: [0, 1, s]`. Both with the factor of the 124M and 1.5B runs; the 500M runs use 1.2."""


class RebuildOptions(PresetConfig):
    """Options of all strategies that rebuild a stage from others."""

    presets: ClassVar = PRESETS
    preset: Literal["paper", "reference_code", "reference_code_first_commit"] = Field(
        "paper",
        description="values of the options below: of the paper's text, of the released code at commit 8d7d547, or at "
        "0e2711d, where stages 1 and s never fail (set failures.immune_stages: [0, 1, s])",
    )
    learning_rate_factor: float = Field(1.1, gt=0, le=10, description="factor on the learning rate of a rebuilt stage")
    learning_rate_half_life_steps: float | None = Field(
        None, gt=0, description="steps in which the factor's excess over 1 halves; null: the factor stays"
    )
    optimizer: Literal["fresh", "average"] = Field(
        "fresh", description="Adam's state of a rebuilt stage: lost, or averaged from the neighbours'"
    )
    adjacent_stages: Literal["unrecoverable", "one_after_the_other"] = Field(
        "unrecoverable",
        description="two neighbours lost: unrecoverable, or, as the released code does, average with weights that are "
        "in fact lost (only to compare with published numbers)",
    )


class CheckFreeOptions(RebuildOptions):
    """Options that CheckFree and CheckFree+ share."""

    norm_exponent: float = Field(2.0, ge=0, description="w_k = norm^exponent; 0: uniform average")
    norm_after_clip: bool = Field(False, description="take the gradient norm after the per-stage clip")
    norm_epsilon: float = Field(0.0, ge=0, description="added to each w_k")
    rebuilt_norm: Literal["sources", "own"] = Field(
        "sources",
        description="gradient norm of a rebuilt stage until its next step, which weighs it if a neighbour is rebuilt "
        "from it before: the weighted mean of its sources', or, as in the released code, its own last one",
    )


class EndOptions(RebuildOptions):
    """Options for the stages that have only one neighbour."""

    end_stages: Literal["unrecoverable", "copy", "copy_pairs"] = Field(
        "unrecoverable",
        description="first or last stage lost: unrecoverable, or copy its only neighbour; copy_pairs: the first two "
        "stages copy each other, and so do the last two, as in the released code at commit 8d7d547",
    )


class CheckFreeConfig(EndOptions, CheckFreeOptions):
    """Options of `checkfree`."""

    kind: Literal["checkfree"] = "checkfree"


class CheckFreePlusConfig(CheckFreeOptions):
    """Options of `checkfree_plus`."""

    kind: Literal["checkfree_plus"] = "checkfree_plus"
    embedding_copy: Literal["beside", "blocking", "free"] = Field(
        "beside",
        description="how the gradients are sent that update the copies of E on S1 and of E⁻¹ on Ss: beside the next "
        "iteration, on the same links; before it begins; or at no cost, as in the paper's throughput test",
    )


class CheckFree(Strategy):
    """Rebuild a lost stage as the average of its neighbours. Without failures this costs nothing."""

    title = "CheckFree"
    summary = "rebuild a lost stage as the gradient-norm weighted average of its neighbours"
    Config: ClassVar[type[StrategyConfig]] = CheckFreeConfig
    config: RebuildOptions

    @classmethod
    def check(cls, config: RebuildOptions, workload: WorkloadConfig) -> str | None:
        """An average needs two neighbours, a copy needs a neighbour of the same content."""
        if workload.num_stages < 3:
            return f"averaging two neighbours needs at least 3 stages, found {workload.num_stages}"
        ends = config.end_stages if isinstance(config, EndOptions) else "unrecoverable"
        if ends == "copy_pairs" and workload.num_stages < 4:
            return f"end_stages 'copy_pairs' needs two pairs of stages, at least 4 stages, found {workload.num_stages}"
        if ends != "unrecoverable" and workload.loss_at == "last_stage":
            return (
                f"end_stages '{ends}' cannot rebuild a last stage that holds the head (loss_at 'last_stage'), of which "
                "no node has a copy: choose end_stages 'unrecoverable', or loss_at 'embedding_stage'"
            )
        return neighbours_missing(workload)

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Fetch the weights of the sources; after a further failure, start again with the stages lost by then."""
        while True:
            lost = world.lost_stages
            edits = self.edits(lost)
            failed = yield from world.bring_back_nodes()
            if not (failed or (yield from world.transfer(self.transfers(world, lost, edits), "state_transfer"))):
                return position.edited(*edits)

    def edits(self, lost: frozenset[int]) -> list[Edit]:
        """Edits that rebuild the lost stages, in order of stage. Raises UnrecoverableError."""
        return [edit for stage in sorted(lost) if (edit := self.edit(stage, lost))]

    def edit(self, stage: int, lost: frozenset[int]) -> Edit | None:
        """The edit that rebuilds one of the lost stages, or UnrecoverableError; None for stage 0 if replicated."""
        if stage == EMBEDDING_STAGE:
            self._recover_embedding(lost)
            return None
        sources = self._sources(stage)
        missing = [source for source in sources if source in lost]
        if missing and self.config.adjacent_stages == "unrecoverable":
            raise UnrecoverableError(f"stage {stage} is lost together with stage {missing[0]}, its source")
        return self._edit(stage, sources)

    def _sources(self, stage: int) -> tuple[int, ...]:
        """The stages from whose weights a lost one is rebuilt."""
        assert isinstance(self.config, EndOptions)
        is_end = stage in (1, self.num_stages)
        if is_end and self.config.end_stages == "unrecoverable":
            raise UnrecoverableError(f"stage {stage} is at an end and has only one neighbour")
        if is_end or self.config.end_stages == "copy_pairs":
            return pair_or_neighbours(stage, self.num_stages)
        return (stage - 1, stage + 1)

    def _recover_embedding(self, lost: frozenset[int]) -> None:  # noqa: ARG002
        raise UnrecoverableError("stage 0 is lost, and no node holds a copy of the embedding and the head")

    def _edit(self, stage: int, sources: tuple[int, ...]) -> Edit:
        return Edit(
            stage=stage,
            rule=("fresh", "copy", "average")[len(sources)],
            sources=sources,
            weights=self._weights() if len(sources) == 2 else None,
            optimizer=self.config.optimizer,
            learning_rate_factor=self.config.learning_rate_factor,
            learning_rate_half_life_steps=self.config.learning_rate_half_life_steps,
            gradient_norm=self.config.rebuilt_norm if isinstance(self.config, CheckFreeOptions) else "sources",
        )

    def _weights(self) -> GradientNormWeights:
        config = self.config
        assert isinstance(config, CheckFreeOptions)
        return GradientNormWeights(
            exponent=config.norm_exponent, after_clip=config.norm_after_clip, epsilon=config.norm_epsilon
        )

    def transfers(self, world: StrategyWorld, lost: frozenset[int], edits: list[Edit]) -> list[Transfer]:  # noqa: ARG002
        """What the nodes of lost stages are sent for these edits."""
        costs = world.costs
        num_bytes = costs.weight_bytes if self.config.optimizer == "fresh" else costs.checkpoint_bytes
        return [Transfer(source, edit.stage, num_bytes(source)) for edit in edits for source in edit.sources]


class CheckFreePlus(CheckFree):
    """CheckFree with swapped routes, copies for the two pairs at the ends, and replicated E and E⁻¹."""

    title = "CheckFree+"
    summary = "CheckFree with swapped routes: end stages are copied from their twin"
    Config: ClassVar[type[StrategyConfig]] = CheckFreePlusConfig
    config: CheckFreePlusConfig

    @classmethod
    def check(cls, config: StrategyConfig, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """Swapping needs two disjoint pairs of stages."""
        if workload.num_stages < 4:
            return (
                f"swapping the first two and the last two stages needs at least 4 stages, found {workload.num_stages}"
            )
        if workload.loss_at == "last_stage":
            return (
                "swapped routes end at either of the last two stages, so that the head cannot be on one of them: "
                "choose loss_at 'embedding_stage', found 'last_stage'"
            )
        return neighbours_missing(workload)

    @classmethod
    def extra_memory_bytes(cls, config: StrategyConfig, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """S1 holds a copy of E and Ss one of E⁻¹, with their Adam states: half of stage 0 each."""
        return costs.checkpoint_bytes(EMBEDDING_STAGE) / 2 if stage in (1, costs.workload.num_stages) else 0.0

    def training_variant(self) -> Routes:
        """Every other microbatch takes the swapped route."""
        return swapped_routes(self.num_stages)

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """Swapped microbatches visit stages in another order; the gradients of E and E⁻¹ are sent beside them."""
        beside = self.config.embedding_copy == "beside"
        return replace(plan, routes=swapped_routes(self.num_stages), embedding_copies=beside)

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Send the gradients that update the copies of E on S1 and of E⁻¹ on Ss before the next iteration, if blocking.

        Gradients that are sent concurrently with it count as received when a failure interrupts it.
        """
        if self.config.embedding_copy != "blocking":
            return None
        num_bytes = world.costs.embedding_copy_bytes
        copies = [Transfer(EMBEDDING_STAGE, holder, num_bytes, "embedding") for holder in (1, self.num_stages)]
        return (yield from world.transfer(copies, "bubble_and_communication"))

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float:  # noqa: ARG002
        """The next iteration if the copies are sent after each; never if they are sent beside it."""
        return 1 if self.config.embedding_copy == "blocking" else math.inf

    def _sources(self, stage: int) -> tuple[int, ...]:
        return pair_or_neighbours(stage, self.num_stages)

    def _recover_embedding(self, lost: frozenset[int]) -> None:
        holders = sorted({1, self.num_stages} & lost)
        if holders:
            raise UnrecoverableError(
                f"stage 0 is lost together with stage {holders[0]}, which holds a copy of its half"
            )

    def transfers(self, world: StrategyWorld, lost: frozenset[int], edits: list[Edit]) -> list[Transfer]:
        """The same, and the halves of the embedding."""
        transfers = super().transfers(world, lost, edits)
        half_bytes = world.costs.checkpoint_bytes(EMBEDDING_STAGE) / 2
        for holder in (1, self.num_stages):
            if EMBEDDING_STAGE in lost:
                transfers.append(Transfer(holder, EMBEDDING_STAGE, half_bytes))
            if holder in lost:
                transfers.append(Transfer(EMBEDDING_STAGE, holder, half_bytes))
        return transfers


class ReinitConfig(EndOptions):
    """Options of `reinit`."""

    kind: Literal["reinit"] = "reinit"
    rule: Literal["random", "copy_previous", "uniform_average"] = Field(
        "uniform_average",
        description="a lost stage gets new random weights, becomes a copy of the previous one (S1, unless "
        "end_stages is 'unrecoverable': of S2), or becomes the plain average of both neighbours",
    )


class Reinit(CheckFree):
    """The paper's ablation (Fig. 2): CheckFree with another rule. Random weights need no neighbour."""

    title = "reinit"
    summary = (
        "ablation: fill a lost stage with random weights, the previous stage, or the plain average of its neighbours"
    )
    Config = ReinitConfig
    config: ReinitConfig

    @classmethod
    def check(cls, config: RebuildOptions, workload: WorkloadConfig) -> str | None:
        """As for CheckFree; and no other stage of layers holds the head."""
        assert isinstance(config, ReinitConfig)
        if config.rule != "uniform_average" and workload.loss_at == "last_stage":
            return (
                f"rule '{config.rule}' cannot fill a last stage that holds the head (loss_at 'last_stage'), of which "
                "no node has a copy: choose rule 'uniform_average', or loss_at 'embedding_stage'"
            )
        return super().check(config, workload)

    def edit(self, stage: int, lost: frozenset[int]) -> Edit | None:
        """The edit that fills one of the lost stages."""
        return self._edit(stage, ()) if self.config.rule == "random" else super().edit(stage, lost)

    def _sources(self, stage: int) -> tuple[int, ...]:
        if self.config.rule != "copy_previous":
            return super()._sources(stage)
        if stage - 1 != EMBEDDING_STAGE:
            return (stage - 1,)
        if self.config.end_stages == "unrecoverable":
            raise UnrecoverableError(f"stage {stage} is at an end, and no stage of layers precedes it")
        return (stage + 1,)

    def _weights(self) -> GradientNormWeights:
        return GradientNormWeights(exponent=0.0)


def pair_or_neighbours(stage: int, num_stages: int) -> tuple[int, ...]:
    """The other stage of the first or last two, or both neighbours."""
    twins = {2: 1, num_stages - 1: num_stages, 1: 2, num_stages: num_stages - 1}
    return (twins[stage],) if stage in twins else (stage - 1, stage + 1)


def neighbours_missing(workload: WorkloadConfig) -> str | None:
    """Why a stage has no neighbours to be rebuilt from, or None."""
    if not SCHEDULES[workload.schedule].is_interleaved:
        return None
    return (
        f"with schedule '{workload.schedule}' a node holds layers that do not follow each other, so that no stage has "
        "neighbours to be rebuilt from: choose schedule '1f1b'"
    )
