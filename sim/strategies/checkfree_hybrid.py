"""CheckFree+ with an infrequent checkpoint, from which only the stages that neighbours cannot rebuild are restored.

The CheckFree paper's future work; partial recovery as in SCAR (Qiao et al., ICML 2019, arXiv 1810.07354). All other
stages continue from where they are. Before the first checkpoint the initial weights, drawn again, take its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE
from models.training_state import Edit, Position, Term
from sim.core.records import Failure
from sim.strategies.base import (
    STORE,
    PeriodicSave,
    Process,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
    beginning_of,
)
from sim.strategies.checkfree import CheckFreePlus, CheckFreePlusConfig
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig
from sim.workload.costs import Costs


class CheckFreeHybridConfig(CheckFreePlusConfig):
    """Options of `checkfree_hybrid`: those of `checkfree_plus`, and of its checkpoints."""

    kind: Literal["checkfree_hybrid"] = "checkfree_hybrid"  # type: ignore[assignment]
    interval_iterations: int = Field(200, ge=1, description="iterations between checkpoints")
    blocking_share: float = Field(
        0.0, ge=0, le=1, description="share of the upload during which training is paused; the rest overlaps with it"
    )
    rebuild_from: Literal["neighbours", "checkpoint"] = Field(
        "neighbours",
        description="source of a stage that its neighbours could rebuild: the neighbours, or the checkpoint as for the "
        "others",
    )


class CheckFreeHybrid(CheckFreePlus):
    """Recovers any loss; the training loss shows how well a stale stage fits the others."""

    title = "CheckFree+ hybrid"
    summary = (
        "CheckFree+ with a sparse checkpoint for stages that neighbours cannot rebuild: only these are rolled back"
    )
    Config: ClassVar[type[StrategyConfig]] = CheckFreeHybridConfig
    config: CheckFreeHybridConfig

    def __init__(self, config: Any, num_stages: int) -> None:
        super().__init__(config, num_stages)
        beneath = CheckpointConfig(interval_iterations=config.interval_iterations, blocking_share=config.blocking_share)
        self.checkpoint = Checkpoint(beneath, num_stages)

    @classmethod
    def stored_bytes(cls, config: StrategyConfig, costs: Costs) -> float:  # noqa: ARG003
        """The checkpoint."""
        return Checkpoint.stored_bytes(CheckpointConfig(), costs)

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Update the copies of E and E⁻¹, and begin a checkpoint when one is due."""
        failure = yield from super().after_iteration(world, position)
        return failure or (yield from self.checkpoint.after_iteration(world, position))

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float:
        """The earlier of the copies and the checkpoint."""
        beneath = self.checkpoint.next_action(world, position, iteration_seconds)
        until_checkpoint = beneath.first if isinstance(beneath, PeriodicSave) else beneath
        return min(super().next_action(world, position, iteration_seconds), until_checkpoint)

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Rebuild from neighbours the stages that they can rebuild, and fetch the others from the store."""
        stored = self.checkpoint.durable
        if stored is None or not position.descends_from(stored):
            stored = beginning_of(position)
        while True:
            lost = world.lost_stages
            rebuilt, stale = self._divided(lost)
            failed = yield from world.bring_back_nodes()
            if failed:
                continue
            transfers = self.transfers(world, lost - ({EMBEDDING_STAGE} & set(stale)), rebuilt)
            if EMBEDDING_STAGE in stale:  # what it would send is in the store
                transfers = [t._replace(source=STORE) if t.source == EMBEDDING_STAGE else t for t in transfers]
            transfers += [Transfer(STORE, s, world.costs.checkpoint_bytes(s), "checkpoint") for s in stale]
            if not stored.iteration:  # initial weights are drawn again
                transfers = [transfer for transfer in transfers if transfer.source != STORE]
            if not (yield from world.transfer(transfers, "state_transfer")):
                break
        return position.edited(*edits_back_to(stored, position, stale), *rebuilt)

    def _divided(self, lost: frozenset[int]) -> tuple[list[Edit], list[int]]:
        """Edits of the lost stages that neighbours rebuild, and the stages to restore from the checkpoint."""
        rebuilt: list[Edit] = []
        stale: list[int] = []
        for stage in sorted(lost):
            try:
                edit = self.edit(stage, lost)
            except UnrecoverableError:
                stale.append(stage)
                continue
            if edit and (set(edit.sources) & lost or self.config.rebuild_from == "checkpoint"):
                stale.append(stage)
            elif edit:
                rebuilt.append(edit)
        return rebuilt, stale


def edits_back_to(older: Position, position: Position, stages: Iterable[int]) -> list[Edit]:
    """Edits by which stages go back to an older state, optimizer state included, at the scheduled learning rate."""
    moment = position.moment_of(older)
    return [Edit(stage=s, rule="sum", terms=(Term(s, 1.0, moment),), optimizer="older") for s in stages]
