"""Partial recovery: a lost stage alone goes back to the last checkpoint, all others continue from where they are.

As in SCAR (Qiao et al., ICML 2019, arXiv 1810.07354). The same as `checkfree_hybrid` with `rebuild_from: checkpoint`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE, Routes, plain_routes
from models.training_state import Edit
from sim.strategies.base import StrategyConfig, StrategyWorld, Transfer
from sim.strategies.checkfree_hybrid import CheckFreeHybrid
from sim.workload.config import IterationPlan, WorkloadConfig
from sim.workload.costs import Costs


class StaleStageConfig(StrategyConfig):
    """Options of `stale_stage`."""

    kind: Literal["stale_stage"] = "stale_stage"
    interval_iterations: int = Field(200, ge=1, description="iterations between checkpoints")
    blocking_share: float = Field(
        0.0, ge=0, le=1, description="share of the upload during which training is paused; the rest overlaps with it"
    )
    routes: Literal["swapped", "plain"] = Field(
        "swapped",
        description="swapped: as CheckFree+, with copies of E and E⁻¹, so that stage 0 loses nothing; plain: in order, "
        "without copies: stage 0 goes back to the checkpoint too",
    )
    embedding_copy: Literal["beside", "blocking", "free"] = Field(
        "beside", description="swapped routes: how the copies of E and E⁻¹ are updated, as in `checkfree_plus`"
    )
    optimizer: ClassVar = "fresh"  # of stages that neighbours rebuild: there are none


class StaleStage(CheckFreeHybrid):
    """Recovers any loss; the training loss shows how well a stale stage fits the others."""

    title = "stale stage"
    summary = "restore only the lost stage from a sparse checkpoint; the others keep their state"
    Config = StaleStageConfig

    config: StaleStageConfig  # type: ignore[assignment]

    @property
    def swaps(self) -> bool:
        """Whether routes are swapped."""
        return self.config.routes == "swapped"

    @classmethod
    def check(cls, config: StrategyConfig, workload: WorkloadConfig) -> str | None:
        """Swapping needs two disjoint pairs of stages; a stage that goes back is the whole of what it holds."""
        assert isinstance(config, StaleStageConfig)
        if config.routes == "swapped":
            return super().check(config, workload)
        if config.embedding_copy != "beside":
            return "embedding_copy goes with routes 'swapped', where E and E⁻¹ are copied"
        if workload.loss_at == "last_stage":
            return (
                "a last stage that holds the head would go back without the embedding: choose loss_at "
                "'embedding_stage', found 'last_stage'"
            )
        return None

    @classmethod
    def extra_memory_bytes(cls, config: StrategyConfig, costs: Costs, stage: int) -> float:
        """Copies of E and E⁻¹ where routes are swapped."""
        assert isinstance(config, StaleStageConfig)
        return super().extra_memory_bytes(config, costs, stage) if config.routes == "swapped" else 0.0

    def training_variant(self) -> Routes:
        """Swapped or plain routes."""
        return super().training_variant() if self.swaps else plain_routes(self.num_stages)

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """Swapped routes and gradients for the copies, or nothing."""
        return super().adapt_plan(plan) if self.swaps else plan

    def _divided(self, lost: frozenset[int]) -> tuple[list[Edit], list[int]]:
        """No edits from neighbours; all lost stages go back, but stage 0 where its copies survive."""
        return [], [stage for stage in sorted(lost) if stage != EMBEDDING_STAGE or not self._has_copies(lost)]

    def _has_copies(self, lost: frozenset[int]) -> bool:
        """Whether the copies of E and E⁻¹ survive."""
        return self.swaps and not {1, self.num_stages} & lost

    def transfers(self, world: StrategyWorld, lost: frozenset[int], edits: list[Edit]) -> list[Transfer]:
        """Transfers between stages, for the copies of E and E⁻¹."""
        return super().transfers(world, lost, edits) if self.swaps else []
