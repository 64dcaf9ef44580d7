"""Skip: training continues around a lost stage, by the residual path, until a node has come; then the stage returns.

Related to SkipPipe (Blagoev et al., arXiv 2502.19913), whose microbatches leave out stages by schedule, so that the
model works without any of them. Weights and Adam's moments of a stage that is left out stay as they are; but no node
holds them, so that it returns with other ones: those of a sparse checkpoint, or rebuilt from the nearest stages, as in
CheckFree. Stage 0 and the stage with the head cannot be left out: the fallback recovers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from models.spec import EMBEDDING_STAGE, Routes
from models.training_state import Edit, GradientNormWeights, Position
from sim.core.memo import Memo
from sim.core.records import Failure
from sim.strategies.base import (
    PLAIN,
    STORE,
    IterationPlan,
    PeriodicSave,
    Process,
    Recipe,
    Strategy,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
    WorkFactor,
    WorkloadConfig,
    beginning_of,
)
from sim.strategies.checkfree_hybrid import edits_back_to
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig
from sim.workload.costs import Costs

FEWEST_LEFT = 2
"""Stages of layers that are never left out at once."""


class SkipConfig(StrategyConfig):
    """Options of `skip`."""

    kind: Literal["skip"] = "skip"
    most_skipped: int = Field(
        1,
        ge=1,
        description="largest number of stages left out at a time; if more are lost, training waits for their nodes",
    )
    returns: Literal["rebuilt", "stale"] = Field(
        "rebuilt",
        description="how a stage returns: rebuilt from the nearest stages, as in `checkfree`, or with its own state "
        "from the last sparse checkpoint, as in `stale_stage`",
    )
    learning_rate_factor: float = Field(1.1, gt=0, le=10, description="factor on the learning rate of a rebuilt stage")
    interval_iterations: int = Field(200, ge=1, description="returns stale: iterations between checkpoints")
    blocking_share: float = Field(
        0.0, ge=0, le=1, description="returns stale: share of the upload during which training is paused"
    )
    trained_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the microbatches that leave out a stage from the start, one stage each in turn, so that "
        "the model is used to it; at least one microbatch where it is above 0",
    )


class Skip(Strategy):
    """Leave out a lost stage, and take it back with a node."""

    title = "skip"
    summary = "train without a lost stage until a node arrives, then rebuild it or restore it from a sparse checkpoint"
    Config = SkipConfig
    config: SkipConfig

    def __init__(self, config: SkipConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._plans: Memo[tuple[IterationPlan, frozenset[int], frozenset[tuple[int, int]]], IterationPlan] = Memo()
        self._checkpoint: Checkpoint | None = None
        if config.returns == "stale":
            options = {name: getattr(config, name) for name in ("interval_iterations", "blocking_share")}
            self._checkpoint = Checkpoint(CheckpointConfig(**options), num_stages)

    @classmethod
    def check(cls, config: SkipConfig, workload: WorkloadConfig) -> str | None:
        """Stages remain, in a schedule that works for any number of them; checkpoints are for stale stages."""
        most = workload.num_stages - FEWEST_LEFT
        if config.most_skipped > most:
            return (
                f"most_skipped {config.most_skipped} of {workload.num_stages} stages leaves fewer than {FEWEST_LEFT}: "
                + (f"at most {most}" if most > 0 else f"it needs at least {FEWEST_LEFT + 1} stages")
            )
        if workload.schedule == "interleaved_1f1b":
            return "schedule 'interleaved_1f1b' needs a multiple of the stages as microbatches, also with one left out"
        for name, returns in (
            ("interval_iterations", "stale"),
            ("blocking_share", "stale"),
            ("learning_rate_factor", "rebuilt"),
        ):
            if config.returns != returns and getattr(config, name) != SkipConfig.model_fields[name].default:
                return f"{name} goes with returns '{returns}', found '{config.returns}'"
        return None

    @classmethod
    def stored_bytes(cls, config: SkipConfig, costs: Costs) -> float:
        """The checkpoint, if stages return stale."""
        return Checkpoint.stored_bytes(CheckpointConfig(), costs) if config.returns == "stale" else 0.0

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """Microbatches that leave out a stage by schedule pass its node, which computes nothing for them."""
        skipping = self._skipping(plan.num_microbatches)
        stages = sorted(set(skipping.values()))
        microbatches = {stage: tuple(each for each, of in skipping.items() if of == stage) for stage in stages}
        return replace(plan, factors=tuple(WorkFactor(stage, 0.0, 0.0, microbatches[stage]) for stage in stages))

    def _skipping(self, num_microbatches: int) -> dict[int, int]:
        """Microbatches that leave out a stage by schedule, and the stage: both spread evenly."""
        share = self.config.trained_share
        num = min(num_microbatches, max(1, round(share * num_microbatches))) if share else 0
        num_turns = max(num, self.num_stages)  # with fewer microbatches than stages, some stages have no turn
        return {
            (2 * turn + 1) * num_microbatches // (2 * num): turn * num_turns // num % self.num_stages + 1
            for turn in range(num)
        }

    # ---- training around a stage ------------------------------------------------------------------------

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """Pipelines of the stages that are not left out, and all microbatches of the batch."""
        if not world.left_out:
            return plan

        def changed() -> IterationPlan:
            nodes = complete_pipelines(world, self._others(world.left_out, first=EMBEDDING_STAGE))
            share = world.num_pipelines / len(nodes[EMBEDDING_STAGE])
            return replace(
                plan,
                num_microbatches=math.ceil(plan.num_microbatches * share),
                routes=(tuple(range(1, len(nodes))),),
                factors=(),
                layout=world.layout(nodes),
            )

        return self._plans.get((plan, world.left_out, world.vacancies), changed)

    def recipe_for(self, world: StrategyWorld, position: Position) -> Recipe:
        """All microbatches go around the stages that are left out; the loss of the model is measured so, too."""
        if not world.left_out:
            return self._by_schedule(position.lineage.spec.num_microbatches)
        return Recipe(routes=self._around(world.left_out), validate_on_routes=True)

    def _by_schedule(self, num_microbatches: int) -> Recipe:
        """The routes without lost stages."""
        skipping = self._skipping(num_microbatches)
        if not skipping:
            return PLAIN
        return Recipe(routes=tuple(tuple(self._others([skipping.get(each, 0)])) for each in range(num_microbatches)))

    def _around(self, left_out: frozenset[int]) -> Routes:
        return (tuple(self._others(left_out)),)

    def _others(self, stages: Iterable[int], first: int = EMBEDDING_STAGE + 1) -> list[int]:
        """The other stages, in order."""
        return [stage for stage in range(first, self.num_stages + 1) if stage not in set(stages)]

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Begin a checkpoint when one is due; none while the state is not complete."""
        if self._checkpoint is None or world.left_out:
            return None
        return (yield from self._checkpoint.after_iteration(world, position))

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float | PeriodicSave:
        """The next checkpoint, if any."""
        if self._checkpoint is None or world.left_out:
            return math.inf
        return self._checkpoint.next_action(world, position, iteration_seconds)

    # ---- leaving and returning ----------------------------------------------------------------------------

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Leave out the lost stages; where they are too many, wait for their nodes and restore them."""
        while True:
            lost = world.lost_stages
            if needed := sorted(lost & {EMBEDDING_STAGE, world.costs.head_stage}):
                raise UnrecoverableError(f"stage {needed[0]} is lost, which microbatches cannot leave out")
            if len(lost | world.left_out) <= self.config.most_skipped:
                if not (yield from world.regroup()):
                    for stage in sorted(lost):
                        world.leave_out(stage)
                        world.record("stage_left_out", stage, position.iteration)
                    return position
                continue
            edits = self._edits(world, lost, position)
            transfers = self._transfers(world, edits, position)
            failed = yield from world.bring_back_nodes()
            if not (failed or (yield from world.transfer(transfers, "state_transfer"))):
                return position.edited(*edits)

    def take_back(self, world: StrategyWorld, position: Position) -> Process[Position | Failure]:
        """Restore the stages that have nodes again, while all wait."""
        stages = world.returning_stages
        edits = self._edits(world, stages, position)
        failure = yield from world.rejoin(stages, self._transfers(world, edits, position))
        return failure or position.edited(*edits)

    def _edits(self, world: StrategyWorld, stages: Iterable[int], position: Position) -> list[Edit]:
        """Edits that give stages a state again. Raises UnrecoverableError."""
        if self._checkpoint:
            return edits_back_to(self._stored(position), position, sorted(stages))
        held = self._others(world.lost_stages | world.left_out)
        return [self._rebuilt(stage, held) for stage in sorted(stages)]

    def _stored(self, position: Position) -> Position:
        """The last complete checkpoint; else the initial state, which is drawn again."""
        stored = self._checkpoint.durable if self._checkpoint else None
        return stored if stored and position.descends_from(stored) else beginning_of(position)

    def _rebuilt(self, stage: int, held: Sequence[int]) -> Edit:
        """The average of the nearest stages before and after a stage; at an end, a copy of the only one."""
        before, after = (
            [other for other in held if other < stage][-1:],
            [other for other in held if other > stage][:1],
        )
        sources = (*before, *after)
        if not sources:
            raise UnrecoverableError(f"stage {stage} has no other stage of layers from which it could be rebuilt")
        return Edit(
            stage=stage,
            rule="average" if len(sources) == 2 else "copy",
            sources=sources,
            weights=GradientNormWeights() if len(sources) == 2 else None,
            learning_rate_factor=self.config.learning_rate_factor,
        )

    def _transfers(self, world: StrategyWorld, edits: Sequence[Edit], position: Position) -> list[Transfer]:
        """What the stages of edits are sent: the weights of their sources, or their own state."""
        costs = world.costs
        if self._checkpoint:
            stages = [edit.stage for edit in edits] if self._stored(position).iteration else []
            return [Transfer(STORE, stage, costs.checkpoint_bytes(stage), "checkpoint") for stage in stages]
        return [Transfer(source, edit.stage, costs.weight_bytes(source)) for edit in edits for source in edit.sources]


def complete_pipelines(world: StrategyWorld, stages: Sequence[int]) -> dict[int, list[int]]:
    """As many pipelines of some stages as the nodes suffice for, stage by stage: its own node, or another one's.

    *Not modelled*: nodes beyond these, which could take a part of the work.
    """
    missing = {stage: {pipeline for of, pipeline in world.vacancies if of == stage} for stage in stages}
    pipelines = range(world.num_pipelines)
    num_complete = world.num_pipelines - max(map(len, missing.values()))
    best = sorted(pipelines, key=lambda pipeline: sum(pipeline in vacant for vacant in missing.values()))
    running = sorted(best[:num_complete])
    nodes = {}
    for stage in stages:
        idle = [pipeline for pipeline in pipelines if pipeline not in missing[stage] and pipeline not in running]
        nodes[stage] = [idle.pop(0) if pipeline in missing[stage] else pipeline for pipeline in running]
    return nodes
