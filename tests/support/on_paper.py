"""A world without an event loop, in which each call of a strategy takes a second, for tests of strategies' contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from types import SimpleNamespace
from typing import Any

from models.training_state import Position
from sim.core.records import Failure
from sim.simulation.run import build_site
from sim.strategies import STRATEGIES, Strategy, UnrecoverableError
from sim.strategies.base import Transfer
from sim.workload.config import IterationPlan, plain_plan
from support.builders import a_scenario, a_strategy

Steps = Generator[Any, Any, Failure | None]


def strategy_of(kind: str, num_stages: int = 6, **options: object) -> Strategy:
    """A strategy with some options set."""
    return a_strategy(STRATEGIES[kind].Config(**options), num_stages)


class WorldOnPaper:
    """The interface of a world for strategies.

    `failures` happen in the calls of the given numbers (from 1). Background transfers end when they are waited for, or
    when a test calls `when_done`.
    """

    num_stages = 6

    def __init__(
        self, failures: dict[int, int] | None = None, lost: Collection[int] = (), covered: Collection[int] = ()
    ) -> None:
        scenario = a_scenario(num_stages=6)
        self.site = build_site(scenario)
        self.costs = self.site.costs
        self.failures = failures or {}
        self.lost_stages = frozenset(lost)
        self.covered_stages = frozenset(covered)
        self.left_out: frozenset[int] = frozenset()
        self.num_failures = len(self.lost_stages)
        self.now_seconds = 0.0
        self.mtbf_seconds = 3600.0
        self.cut_share = 0.5
        self.num_calls = 0
        self.resumed = False
        self.holders: dict[int, int] = {}
        self.transfers: list[Transfer] = []
        self.copies: dict[tuple[int, str], Position] = {}
        self.attempted_seconds: list[float] = []
        self.begun: list[SimpleNamespace] = []

    def plain_plan(self) -> IterationPlan:
        return plain_plan(self.costs.workload)

    def iteration_seconds(self, plan: IterationPlan) -> float:
        return float(len(plan.layout.layers_per_stage)) if plan.layout else 21.0

    def slots(self, ready: bool = False) -> list[int]:
        return [slot for slot in range(self.num_stages + 1) if slot not in self.lost_stages]

    def holds(self, slot: int) -> bool:
        return slot not in self.lost_stages

    def wait_for_nodes(self, least: int) -> Steps:
        return self.attempt(15.0, "waiting_for_nodes")

    def recut(self, stage_at: Any, transfers: Sequence[Transfer], least_seconds: float, detail: str) -> Steps:
        return self.transfer(transfers, "state_transfer")

    def set_aside(self, slots: Collection[int]) -> None:
        pass

    def lose(self, stage: int) -> None:
        """Lose a stage's nodes with all that they held."""
        self.num_failures += 1
        self.lost_stages |= {stage}
        self.copies = {(holder, what): held for (holder, what), held in self.copies.items() if holder != stage}

    def hold(self, stage: int, what: str, position: Position) -> None:
        self.copies[stage, what] = position

    def held(self, stage: int, what: str) -> Position | None:
        return self.copies.get((stage, what))

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        return math.fsum(transfer.num_bytes for transfer in transfers) / 1e4

    def attempt(self, seconds: float, bucket: str) -> Steps:
        yield from ()
        self.attempted_seconds.append(seconds)
        self.num_calls += 1
        self.now_seconds += 1.0
        if self.num_calls not in self.failures:
            return None
        stage = self.failures[self.num_calls]
        self.lose(stage)
        return Failure(self.now_seconds, stage)

    def transfer(self, transfers: Sequence[Transfer], bucket: str) -> Steps:
        self.transfers = list(transfers)
        return self.attempt(1.0, bucket)

    def detect(self) -> Steps:
        return self.attempt(10.0, "detection")

    def bring_back_nodes(self) -> Steps:
        return self.attempt(15.0, "detection")

    def regroup(self) -> Steps:
        return self.attempt(14.0, "detection")

    def leave_out(self, stage: int) -> None:
        self.left_out |= {stage}
        self.lost_stages -= {stage}

    def cover(self, stage: int, holder: int) -> None:
        self.holders[stage] = holder

    def resume_iteration(self) -> None:
        self.resumed = True

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> SimpleNamespace:
        self.transfers = list(transfers)
        self.begun.append(SimpleNamespace(under_way=True, when_done=when_done, when_lost=when_lost))
        return self.begun[-1]

    def wait_for(self, activity: SimpleNamespace, bucket: str) -> Steps:
        activity.under_way = False
        activity.when_done()
        return self.attempt(1.0, bucket)

    def record(self, kind: str, stage: int | None, iteration: int, detail: str = "") -> None:
        pass


def result_of(process: Generator[Any, Any, Any]) -> Any:
    """The value of a process that does not yield: only the world's methods let time pass."""
    try:
        next(process)
    except StopIteration as end:
        return end.value
    raise AssertionError("a strategy yielded by itself")


def rebuild(strategy: Strategy, world: WorldOnPaper, position: Position) -> Position | UnrecoverableError:
    """The Position after a recovery, or the reason why there is none."""
    failure = Failure(0.0, min(world.lost_stages))
    try:
        return result_of(strategy.recover(world, failure, position))
    except UnrecoverableError as reason:
        return reason


def keep(strategy: Strategy, world: WorldOnPaper, position: Position) -> None:
    """The work after an iteration, and the background transfers that it started."""
    assert result_of(strategy.after_iteration(world, position)) is None
    for activity in world.begun:
        if activity.under_way:
            activity.under_way = False
            activity.when_done()
