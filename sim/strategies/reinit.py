"""The paper's ablation of re-initialisation (Fig. 2): simpler ways to fill a lost stage than the weighted average."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE
from models.training_state import Edit, GradientNormWeights
from sim.strategies.base import UnrecoverableError
from sim.strategies.checkfree import CheckFree, EndOptions, RebuildOptions
from sim.workload.config import WorkloadConfig


class ReinitConfig(EndOptions):
    """Options of `reinit`."""

    kind: Literal["reinit"] = "reinit"
    rule: Literal["random", "copy_previous", "uniform_average"] = Field(
        "uniform_average",
        description="a lost stage gets new random weights, becomes a copy of the previous one (S1, with end_stages "
        "'copy': of S2), or becomes the plain average of both neighbours",
    )


class Reinit(CheckFree):
    """CheckFree with another rule. Random weights need no neighbour, so every stage can get them."""

    title = "reinit"
    summary = (
        "fill a lost stage with random weights, the previous stage, or its neighbours' plain average: the ablation"
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
