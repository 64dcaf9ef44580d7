"""Redundant computation (Bamboo, NSDI '23): each stage also holds the next one and runs its forwards.

Stages form a ring: 0 (embedding and head) shadows S1, S1 shadows S2 … Ss shadows 0. A lost stage is restored exactly;
two neighbours lost together cannot be recovered. All stages wait for a replacement and run the iteration again, as in
the CheckFree paper; or, as in Bamboo, the holder of the shadow recomputes the lost part of the iteration and works for
both stages until the replacement has its state. *Not modelled*: transfers between device and host memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE
from models.training_state import Position
from sim.core.records import Failure
from sim.strategies.base import PresetConfig, Process, Strategy, StrategyWorld, Transfer, UnrecoverableError
from sim.workload.config import IterationPlan, Shadow, WorkloadConfig
from sim.workload.costs import Costs
from sim.workload.schedule import SCHEDULES

BAMBOO: dict[str, Any] = {
    "microbatch_size_factor": 1.0,
    "microbatch_count_factor": 1,
    "shadow": "eager",
    "on_failure": "carry_on",
    "synchronisation": "none",
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper_text": {
        "microbatch_size_factor": 0.5,
        "microbatch_count_factor": 2,
        "shadow_forwards": 1.0,
        "synchronisation": "gradients_and_weights",
    },
    "paper_table2": {
        "microbatch_size_factor": 1.0,
        "microbatch_count_factor": 2,
        "shadow_forwards": 1.0,
        "synchronisation": "none",
    },
    "bamboo": {**BAMBOO, "shadow_forwards": 1.0},
    "bamboo_lazy": {**BAMBOO, "shadow_forwards": 0.0},
    "bamboo_forward_and_backward": {**BAMBOO, "shadow_forwards": 1.0, "shadow_backwards": 1.0},
}
"""`paper_text`: half the size, twice the count, as the CheckFree paper says, and communication of the order of the
model, as its Table 1 says: each stage sends the holder of its shadow gradients and weights. `paper_table2`: twice the
count of full-size microbatches and nothing sent, which take as long. `bamboo`: the shadow's forwards run beside the
training, its backwards only after a failure; `bamboo_lazy`: neither; `bamboo_forward_and_backward`: both. These carry
on after a failure, after a pause for what the shadow has not computed yet."""


class RedundantConfig(PresetConfig):
    """Options of `redundant`."""

    presets: ClassVar = PRESETS
    kind: Literal["redundant"] = "redundant"
    preset: Literal["paper_text", "paper_table2", "bamboo", "bamboo_lazy", "bamboo_forward_and_backward"] = Field(
        "paper_text", description="values of the options below"
    )
    microbatch_size_factor: float = Field(0.5, gt=0, le=1, description="microbatch size, relative to the workload's")
    microbatch_count_factor: int = Field(2, ge=1, description="number of microbatches, relative to the workload's")
    shadow_forwards: float = Field(1.0, ge=0, description="forwards of the next stage per microbatch")
    shadow_backwards: float = Field(0.0, ge=0, description="backwards of the next stage per microbatch")
    on_failure: Literal["wait", "carry_on"] = Field(
        "wait",
        description="wait for a replacement and run the iteration again; or compute on the holder of the shadow what "
        "it has not computed yet of the lost stage's part, and continue the iteration there",
    )
    shadow: Shadow = Field(
        "with_forward",
        description="when a shadow forward runs: with the stage's own, whose activation waits for it; eager: right "
        "after the activation has been sent; lazy: while the node waits for its next work",
    )
    max_in_flight: int | None = Field(None, ge=1, description="microbatches in flight; default: the workload's")
    synchronisation: Literal["none", "gradients", "weights", "gradients_and_weights"] = Field(
        "gradients_and_weights",
        description="what each stage sends to the holder of its shadow, once an iteration: nothing, as if the holder "
        "had it already; its gradients; its new weights; or both",
    )


class Redundant(Strategy):
    """The node of the previous stage always holds an exact copy."""

    summary = "each stage also holds the next stage's state and computes its forward passes: exact recovery"
    Config = RedundantConfig
    config: RedundantConfig
    needs_embedding_nodes = True

    @classmethod
    def check(cls, config: RedundantConfig, workload: WorkloadConfig) -> str | None:
        """A microbatch holds whole sequences; some schedules have no limit in flight."""
        if config.max_in_flight is not None and not SCHEDULES[workload.schedule].limits_in_flight:
            return (
                f"max_in_flight {config.max_in_flight} goes with schedules other than '{workload.schedule}', which has "
                "all in flight"
            )
        if SCHEDULES[workload.schedule].splits_backward and (config.shadow_forwards or config.shadow_backwards):
            others = ", ".join(name for name, schedule in SCHEDULES.items() if not schedule.splits_backward)
            return (
                f"shadow_forwards and shadow_backwards go with workload.schedule {others}: in '{workload.schedule}' "
                "gradients of weights fill the waits"
            )
        sequences = config.microbatch_size_factor * workload.sequences_per_microbatch
        if sequences >= 1 and math.isclose(sequences, round(sequences)):
            return None
        return (
            f"microbatch_size_factor {config.microbatch_size_factor} × {workload.sequences_per_microbatch} "
            f"sequences gives {sequences:g} sequences per microbatch: choose a factor that leaves whole ones"
        )

    @classmethod
    def extra_memory_bytes(cls, config: RedundantConfig, costs: Costs, stage: int) -> float:
        """Weights and optimizer state of the next stage in the ring, and its gradient where the shadow computes it."""
        following = (stage + 1) % (costs.workload.num_stages + 1)
        return costs.state_bytes(following) if config.shadow_backwards else costs.checkpoint_bytes(following)

    @classmethod
    def joining_bytes(cls, config: RedundantConfig, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """The state that it shadows, without the gradient."""
        return costs.checkpoint_bytes((stage + 1) % (costs.workload.num_stages + 1))

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """More and smaller microbatches, each with the next stage's forward on top."""
        return replace(
            plan,
            num_microbatches=plan.num_microbatches * self.config.microbatch_count_factor,
            microbatch_size=plan.microbatch_size * self.config.microbatch_size_factor,
            max_in_flight=self.config.max_in_flight or plan.max_in_flight,
            shadow_forwards=self.config.shadow_forwards,
            shadow_backwards=self.config.shadow_backwards,
            shadow=self.config.shadow,
            shadow_transfers={"none": 0, "gradients_and_weights": 2}.get(self.config.synchronisation, 1),
        )

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Carry on at the holder of the shadow; or restore the lost stage and the state that it shadows."""
        if self.config.on_failure == "carry_on":
            return (yield from self._carry_on(world, position))
        while True:
            self._require_no_neighbours_lost(world.lost_stages)
            failed = yield from world.bring_back_nodes()
            if not (failed or (yield from world.transfer(self.transfers(world, world.lost_stages), "state_transfer"))):
                return position

    def _carry_on(self, world: StrategyWorld, position: Position) -> Process[Position]:
        """Recompute the lost part of the iteration at the holder of the shadow, which then works for the lost stage."""
        while True:
            self._require_no_neighbours_lost(world.lost_stages | world.covered_stages)
            failed = yield from world.detect()
            if not (failed or (yield from world.attempt(self._pause_seconds(world), "redundant_compute"))):
                break
        for stage in sorted(world.lost_stages):
            world.cover(stage, self.holder(stage))
        world.resume_iteration()
        return position

    def _pause_seconds(self, world: StrategyWorld) -> float:
        """Duration of what the shadows of the lost stages have not computed yet of the part that was done."""
        plan, costs = self.adapt_plan(world.plain_plan()), world.costs
        forwards, backwards = (max(0.0, 1.0 - done) for done in (plan.shadow_forwards, plan.shadow_backwards))

        def per_microbatch_seconds(stage: int) -> float:
            works = {stage} - {EMBEDDING_STAGE} | ({EMBEDDING_STAGE} if stage == costs.head_stage else set())
            return sum(
                forwards * costs.forward_seconds(work, plan.microbatch_size)
                + backwards * costs.backward_seconds(work, plan.microbatch_size)
                for work in works
            )

        return world.cut_share * plan.num_microbatches * max(map(per_microbatch_seconds, world.lost_stages))

    def holder(self, stage: int) -> int:
        """The stage whose node holds the shadow of a stage: the one before it in the ring."""
        return (stage - 1) % (self.num_stages + 1)

    def _require_no_neighbours_lost(self, lost: frozenset[int]) -> None:
        for stage in sorted(lost):
            following = (stage + 1) % (self.num_stages + 1)
            if following in lost:
                raise UnrecoverableError(f"stages {stage} and {following} are lost, a stage and its shadow")

    def transfers(self, world: StrategyWorld, lost: Collection[int]) -> list[Transfer]:
        """What the nodes of lost stages are sent: their state by the holder, and the state that they shadow."""
        transfers = []
        for stage in sorted(lost):
            before, following = self.holder(stage), (stage + 1) % (self.num_stages + 1)
            transfers.append(Transfer(before, stage, world.costs.checkpoint_bytes(stage)))
            transfers.append(Transfer(following, stage, world.costs.checkpoint_bytes(following)))
        return transfers
