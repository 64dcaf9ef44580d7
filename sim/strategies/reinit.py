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
        description="a lost stage is drawn anew as at the start; becomes a copy of the one before (S1, with end_stages "
        "'copy': of S2); becomes the plain average of both neighbours",
    )


class Reinit(CheckFree):
    """As CheckFree, with another rule. What is drawn anew needs no neighbour, so every stage can be."""

    title = "reinit"
    summary = "fill a lost stage anew, with the stage before it, or with its neighbours' plain average: the ablation"
    Config = ReinitConfig
    config: ReinitConfig

    @classmethod
    def check(cls, config: RebuildOptions, workload: WorkloadConfig) -> str | None:
        """As CheckFree; nor does any other stage of layers have the head."""
        assert isinstance(config, ReinitConfig)
        if config.rule != "uniform_average" and workload.loss_at == "last_stage":
            return (
                f"rule '{config.rule}' cannot fill a last stage that holds the head (loss_at 'last_stage'), of which "
                "nobody has a copy: choose rule 'uniform_average', or loss_at 'embedding_stage'"
            )
        return super().check(config, workload)

    def edit(self, stage: int, lost: frozenset[int]) -> Edit | None:
        """How one of the lost stages is filled."""
        if self.config.rule == "random":
            return self._edit(stage, ())
        return super().edit(stage, lost)

    def _sources(self, stage: int) -> tuple[int, ...]:
        if self.config.rule != "copy_previous":
            return super()._sources(stage)
        if stage - 1 != EMBEDDING_STAGE:
            return (stage - 1,)
        if self.config.end_stages == "unrecoverable":
            raise UnrecoverableError(f"stage {stage} is at an end, and no stage of layers is before it")
        return (stage + 1,)

    def _edit(self, stage: int, sources: tuple[int, ...]) -> Edit:
        options = self.config
        average = len(sources) > 1
        return Edit(
            stage=stage,
            rule="average" if average else "copy" if sources else "fresh",
            sources=sources,
            weights=GradientNormWeights(exponent=0.0) if average else None,
            optimizer=options.optimizer,
            learning_rate_factor=options.learning_rate_factor,
            learning_rate_half_life_steps=options.learning_rate_half_life_steps,
        )
