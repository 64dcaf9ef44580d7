"""Checkpointing: the training state is uploaded to a store at intervals, and all stages roll back to it.

The interval is given, or one of the optimal intervals of Young and Daly, in seconds of work between two saves.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from models.training_state import Position
from sim.core.records import Failure
from sim.core.units import BYTES_PER_GIB, SECONDS_PER_HOUR
from sim.strategies.base import (
    STORE,
    Background,
    PeriodicSave,
    Process,
    Strategy,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    beginning_of,
)
from sim.workload.config import WorkloadConfig
from sim.workload.costs import Costs


def young_seconds(save_seconds: float, mtbf_seconds: float) -> float:
    """√(2 δ M): first order in δ / M (Young, Comm. ACM 17(9), 1974)."""
    return math.sqrt(2.0 * save_seconds * mtbf_seconds) if save_seconds else 0.0


def daly_seconds(save_seconds: float, mtbf_seconds: float) -> float:
    """√(2 δ M) · [1 + ⅓ √(δ / 2M) + ⅑ δ / 2M] - δ, and M where δ ≥ 2 M (Daly, FGCS 22(3), 2006)."""
    if save_seconds >= 2.0 * mtbf_seconds:
        return mtbf_seconds
    if math.isinf(mtbf_seconds):
        return math.inf
    ratio = save_seconds / (2.0 * mtbf_seconds)
    return young_seconds(save_seconds, mtbf_seconds) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - save_seconds


def observed_mtbf_seconds(prior_seconds: float, elapsed_seconds: float, num_failures: int) -> float:
    """Mean time between failures observed in a run, with a prior of one failure in `prior_seconds`."""
    return (prior_seconds + elapsed_seconds) / (1 + num_failures)


LOCAL = "checkpoint"  # name of the copies on local disks
PRIOR_MTBF_HOURS = 1.0


class CheckpointConfig(StrategyConfig):
    """Options of `checkpoint`. Give one interval; with none, every 100 iterations."""

    kind: Literal["checkpoint"] = "checkpoint"
    interval_iterations: int | None = Field(None, ge=1, description="iterations between checkpoints")
    interval_seconds: float | None = Field(None, ge=1e-6, description="simulated seconds between checkpoints")
    interval: Literal["young", "daly", "adaptive"] | None = Field(
        None,
        description="the optimal interval for the duration of a save and the mean time between failures, by Young's or "
        "Daly's formula; adaptive: Young's, for the failures observed so far",
    )
    mtbf_hours: float | None = Field(
        None,
        ge=1e-6,
        description="young, daly: mean time between failures; default: that of the failure process. adaptive: "
        "the prior before the first failure; default: 1",
    )
    blocking_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the upload during which training is paused; the rest overlaps with it",
    )
    just_in_time: bool = Field(False, description="begin a checkpoint when a preemption notice arrives for a stage")
    local_gib_per_s: float | None = Field(
        None,
        ge=1e-6,
        description="each node first writes its stage to a local disk at this rate, while training is paused, and "
        "reads it after a failure, so that only lost stages are downloaded; default: no local copy",
    )


class Checkpoint(Strategy):
    """Uploads overlap with the training after their blocking share; only a completed one is durable.

    A failure cancels an upload. If the next checkpoint is due before the last upload is complete, training waits.
    """

    title = "checkpointing"
    summary = "upload the training state at intervals, roll all stages back to the last upload"
    Config: ClassVar[type[StrategyConfig]] = CheckpointConfig
    config: CheckpointConfig
    serves_as_fallback = True
    supports_sharding = True

    def __init__(self, config: CheckpointConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        is_timed = config.interval_seconds is not None or config.interval is not None
        self.interval_iterations = config.interval_iterations or (None if is_timed else 100)
        self.kept: list[Position] = []
        self.upload: Background | None = None
        self.uploading: Position | None = None
        self.was_cut = False  # whether a failure ended the last upload
        self.started_at_seconds = 0.0
        self._transfers: dict[float, tuple[Transfer, ...]] = {}

    @classmethod
    def check(cls, config: CheckpointConfig, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """Only one interval is given."""
        given = (config.interval_iterations, config.interval_seconds, config.interval)
        if sum(interval is not None for interval in given) > 1:
            return "give one of interval_iterations, interval_seconds and interval, not several"
        if config.mtbf_hours is not None and config.interval is None:
            return "mtbf_hours goes with interval 'young', 'daly' or 'adaptive'"
        return None

    @classmethod
    def host_memory_bytes(cls, config: CheckpointConfig, costs: Costs, stage: int) -> float:
        """The local copy of the durable checkpoint, and of the next one while it is uploaded."""
        return 2.0 * costs.checkpoint_bytes(stage) if config.local_gib_per_s else 0.0

    @classmethod
    def joining_bytes(cls, config: CheckpointConfig, costs: Costs, stage: int) -> float:
        """The local copy of the durable checkpoint."""
        return cls.host_memory_bytes(config, costs, stage) / 2

    @classmethod
    def stored_bytes(cls, config: CheckpointConfig, costs: Costs) -> float:  # noqa: ARG003
        """The whole model with its optimizer state."""
        return sum(costs.checkpoint_bytes(stage) for stage in range(costs.workload.num_stages + 1))

    @property
    def durable(self) -> Position | None:
        """The last checkpoint whose upload has completed."""
        return self.kept[-1] if self.kept else None

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Begin a checkpoint when one is due."""
        if not self._due(world, position):
            return None
        if self.upload and self.upload.under_way:
            failure = yield from world.wait_for(self.upload, "checkpoint_save")
            if failure:
                return failure
        self.started_at_seconds, self.uploading, self.was_cut = world.now_seconds, position, False
        world.record("checkpoint_started", None, position.iteration)
        failure = yield from world.attempt(self._local_seconds(world), "checkpoint_save")
        share = self.config.blocking_share
        if share and not failure:
            failure = yield from world.transfer(self._uploads(world, share), "checkpoint_save")
        if failure:
            self.uploading, self.was_cut = None, True
            world.record("checkpoint_lost", failure.stage, position.iteration, "failure during the upload")
            return failure
        self._upload_rest(world, position, 1.0 - share)
        return None

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float | PeriodicSave:
        """The next checkpoint that is due; a PeriodicSave if all of it is blocking and the interval is fixed."""
        transfers = None
        if self.config.blocking_share == 1.0 and self.config.local_gib_per_s is None:
            transfers = self._uploads(world, 1.0)
        first: float
        period: float
        if self.interval_iterations is not None:
            period = self.interval_iterations
            first = period - position.iteration % period
        elif self.config.interval == "adaptive" or iteration_seconds <= 0.0:
            return 1
        else:
            interval_seconds = self.seconds_between_saves(world)
            since_seconds = world.now_seconds - self.started_at_seconds
            first = num_until(interval_seconds, since_seconds, iteration_seconds)
            save_seconds = world.seconds_of(transfers) if transfers else 0.0
            period = num_until(interval_seconds, save_seconds, iteration_seconds)
        return first if transfers is None else PeriodicSave(first, period, transfers, self._saved)

    def _saved(self, position: Position, started_seconds: float) -> None:
        self.kept.append(position)
        self.started_at_seconds = started_seconds

    def on_notice(self, world: StrategyWorld, position: Position) -> None:
        """Begin a checkpoint of the last completed iteration, unless there is one."""
        known = [known.iteration for known in (*self.kept[-1:], self.uploading) if known]
        if self.config.just_in_time and position.iteration > max(known, default=0):
            self.started_at_seconds = world.now_seconds
            world.record("checkpoint_started", None, position.iteration, "just in time")
            self._upload_rest(world, position, 1.0)

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """Every node gets its stage's state from the last durable checkpoint that is not ahead of `position`."""
        durable = self.stored_before(position)
        while (yield from world.bring_back_nodes()) or (durable and (yield from self._download(world, durable))):
            pass
        self.started_at_seconds = world.now_seconds
        return durable or beginning_of(position)

    def stored_before(self, position: Position) -> Position | None:
        """The last durable checkpoint that is not ahead of a state."""
        return next((kept for kept in reversed(self.kept) if kept.iteration <= position.iteration), None)

    def _upload_rest(self, world: StrategyWorld, position: Position, share: float) -> None:
        """Continue an upload concurrently with training: the share that is left of it."""

        def completed() -> None:
            self.kept.append(position)
            if self.uploading == position:  # not a later one, begun by a notice
                self.uploading = None
            if self.config.local_gib_per_s:
                for stage in range(world.num_stages + 1):
                    world.hold(stage, LOCAL, position)
            world.record("checkpoint_durable", None, position.iteration)

        def lost() -> None:
            self.uploading, self.was_cut = None, True
            world.record("checkpoint_lost", None, position.iteration, "failure during the upload")

        if share == 0.0:
            completed()
        else:
            self.uploading = position
            self.upload = world.background(self._uploads(world, share), completed, lost)

    def _download(self, world: StrategyWorld, durable: Position) -> Process[Failure | None]:
        """Fetch a checkpoint from the store, or from local disks for stages whose nodes still have it there."""
        fetching, started_seconds = list(range(world.num_stages + 1)), world.now_seconds
        if self.config.local_gib_per_s:
            fetching = [stage for stage in fetching if world.held(stage, LOCAL) != durable]
        downloads = [Transfer(STORE, s, world.costs.checkpoint_bytes(s), "checkpoint") for s in fetching]
        failure = yield from world.transfer(downloads, "state_transfer")
        if failure is None and len(fetching) <= world.num_stages:
            left_seconds = self._local_seconds(world) - (world.now_seconds - started_seconds)
            failure = yield from world.attempt(left_seconds, "state_transfer")
        if failure is None and self.config.local_gib_per_s:
            for stage in fetching:
                world.hold(stage, LOCAL, durable)
        return failure

    def _uploads(self, world: StrategyWorld, share: float) -> tuple[Transfer, ...]:
        """Transfers of a share of the weights and optimizer state of every stage to the store, cached."""
        if share not in self._transfers:
            each = ((stage, share * world.costs.checkpoint_bytes(stage)) for stage in range(world.num_stages + 1))
            self._transfers[share] = tuple(Transfer(stage, STORE, num, "checkpoint") for stage, num in each)
        return self._transfers[share]

    def _local_seconds(self, world: StrategyWorld) -> float:
        """Duration of writing or reading the largest stage on a local disk."""
        if self.config.local_gib_per_s is None:
            return 0.0
        most_bytes = max(world.costs.checkpoint_bytes(stage) for stage in range(world.num_stages + 1))
        return most_bytes / (self.config.local_gib_per_s * BYTES_PER_GIB)

    def _due(self, world: StrategyWorld, position: Position) -> bool:
        if self.interval_iterations is not None:
            return position.iteration % self.interval_iterations == 0
        return world.now_seconds - self.started_at_seconds >= self.seconds_between_saves(world)

    def seconds_between_saves(self, world: StrategyWorld) -> float:
        """Seconds from the start of one save to the next, at least an upload's; only the pause is a save's cost."""
        if self.config.interval_seconds is not None:
            return self.config.interval_seconds
        upload_seconds, still_seconds = world.seconds_of(self._uploads(world, 1.0)), self.seconds_of_save(world)
        given_hours = self.config.mtbf_hours
        if self.config.interval == "adaptive":
            prior_seconds = (PRIOR_MTBF_HOURS if given_hours is None else given_hours) * SECONDS_PER_HOUR
            mtbf_seconds = observed_mtbf_seconds(prior_seconds, world.now_seconds, world.num_failures)
        else:
            mtbf_seconds = world.mtbf_seconds if given_hours is None else given_hours * SECONDS_PER_HOUR
        formula = daly_seconds if self.config.interval == "daly" else young_seconds
        return max(upload_seconds, still_seconds + formula(still_seconds, mtbf_seconds))

    def seconds_of_save(self, world: StrategyWorld) -> float:
        """Seconds for which a save stops training: the copy on local disks, and the blocking share of the upload."""
        upload_seconds = world.seconds_of(self._uploads(world, 1.0))
        return self._local_seconds(world) + self.config.blocking_share * upload_seconds


def num_until(interval_seconds: float, since_seconds: float, iteration_seconds: float) -> float:
    """Number of iterations, at least one, until an interval has passed of which `since_seconds` have already."""
    left_seconds = interval_seconds - since_seconds
    if math.isinf(left_seconds):
        return math.inf
    num = max(1, math.ceil(left_seconds / iteration_seconds) - 1)  # quotients are rounded
    while since_seconds + num * iteration_seconds < interval_seconds:
        num += 1
    return num
