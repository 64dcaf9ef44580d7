"""The contract of a recovery strategy, and the narrow view of the world it works in.

A strategy imports neither simpy nor torch: it pays with seconds through the world's verbs and answers with
Positions. `attempt`, `transfer` and `bring_back_nodes` end early with the Failure that struck meanwhile, so
every strategy has to say what it does about a second one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar

from pydantic import Field

from models.spec import Config, Routes, plain_routes
from models.training_state import Position
from sim.core.records import Bucket, EventKind, Failure
from sim.core.text import FOLDER_NAME
from sim.workload.config import IterationPlan, WorkloadConfig
from sim.workload.costs import Costs

Result = TypeVar("Result")
Process = Generator[Any, Any, Result]
"""A piece of simulated activity; `yield from` runs it and gives its result."""


class UnrecoverableError(Exception):
    """The strategy cannot rebuild what was lost; the scenario's fallback takes over."""


STORE: Final = "store"
"""The checkpoint store, in place of a stage."""


@dataclass(frozen=True)
class Transfer:
    """Bytes to send from the nodes of one stage to those of another, pipeline by pipeline, or to or from the store.

    To the store, the stage's first working node sends; from it, every node of the stage fetches. Where a pipeline has
    no node that holds the source's state, another one's sends in its place; a place without node receives nothing.
    """

    source: int | Literal["store"]
    target: int | Literal["store"]
    num_bytes: float
    what: str = "state"


@dataclass(frozen=True)
class Routine:
    """What is done after iterations in peace: nothing before the `first` from now has completed, then maybe something.

    transfers: where this is to stand still until they have been sent (`checkpoint_save`), with a record of its start
    and of its end, and nothing until `then` iterations later, when the same is done again; None where it is not.
    """

    first: float = math.inf
    then: float = math.inf
    transfers: Sequence[Transfer] | None = None


class Background(Protocol):
    """Transfers beside the training."""

    under_way: bool


class StrategyWorld(Protocol):
    """What a strategy sees of the world."""

    num_stages: int
    costs: Costs
    num_failures: int
    """Stages lost so far."""

    @property
    def mtbf_seconds(self) -> float:
        """Mean time between failures that strike a stage, or a node of one, by the failure process; may be inf."""
        ...

    @property
    def cut_share(self) -> float:
        """Share of the iteration that was done when the last failure cut it; 0 where none was under way."""
        ...

    def plain_plan(self) -> IterationPlan:
        """An iteration as the workload says, before any strategy changes it."""
        ...

    @property
    def lost_stages(self) -> frozenset[int]:
        """Stages whose state is gone and not rebuilt yet, also where the failure has not been told yet.

        With several replicas a stage is lost with its last node that holds the state.
        """
        ...

    @property
    def covered_stages(self) -> frozenset[int]:
        """Stages whose work and state another one has taken over."""
        ...

    def hold(self, stage: int, what: str, position: Position) -> None:
        """The nodes of a stage now hold, beside their own state, a copy that belongs to a Position."""
        ...

    def held(self, stage: int, what: str) -> Position | None:
        """The Position of a copy that a stage's nodes hold; None if they have none, or have lost it with the stage."""
        ...

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """How long such transfers take when they have the network to themselves."""
        ...

    def detect(self) -> Process[Failure | None]:
        """Wait until the others know of a failure; no time where it was announced."""
        ...

    def cover(self, stage: int, holder: int) -> None:
        """A lost stage's work is done by another stage's nodes, which have its state, until it has its own again."""
        ...

    def resume_iteration(self) -> None:
        """What the iteration that a failure cut had done is not lost: the next one goes on from there."""
        ...

    @property
    def now_seconds(self) -> float:
        """Simulated time."""
        ...

    def attempt(self, seconds: float, bucket: Bucket) -> Process[Failure | None]:
        """Spend seconds; the Failure that cut them short, or None. At a tie the failure wins."""
        ...

    def transfer(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once, sharing links, and wait for the last; a failure ends them all."""
        ...

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> Background:
        """Send beside the training, sharing its links; any failure ends it undone."""
        ...

    def wait_for(self, activity: Background, bucket: Bucket) -> Process[Failure | None]:
        """Stand still until what is under way in the background is done."""
        ...

    def bring_back_nodes(self) -> Process[Failure | None]:
        """Detect the failure, wait until every stage has its nodes again, start the processes."""
        ...

    def record(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        """Note an event in the results."""
        ...


def filled_from_preset(data: Any, presets: dict[str, dict[str, Any]], default: str, fields: Collection[str]) -> Any:
    """A strategy's options as written, the others from the preset they name (or the default one)."""
    name = data.get("preset", default) if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in presets:
        return data
    return {**{field: value for field, value in presets[name].items() if field in fields}, **data}


class StrategyConfig(Config):
    """Options that every strategy has."""

    kind: str
    label: str | None = Field(
        None,
        pattern=FOLDER_NAME,
        max_length=100,
        description="name in tables, figures and folders; default: the kind",
    )

    @property
    def name(self) -> str:
        """What outputs call it."""
        return self.label or self.kind


class Strategy(ABC):
    """How training survives the loss of a stage.

    | method | when the world calls it | what may change after |
    |---|---|---|
    | `check` | when the scenario is read | nothing: says what is impossible |
    | `extra_memory_bytes` | when the scenario is read | nothing: says what its nodes hold beside their own stage |
    | `training_variant` | once, before the start | routes of microbatches, so also the weights |
    | `price` | once, before the start | the work of an iteration |
    | `on_notice` | when nodes are about to leave | transfers may begin in the background |
    | `after_iteration` | when an iteration has completed | time passes |
    | `routine` | before iterations that pass in peace, where nothing learns | nothing |
    | `routine_passed` | when what `routine` says has happened, several times at once | what is kept |
    | `recover` | when a failure struck | time passes; which training state it goes on from |
    """

    kind: ClassVar[str]
    summary: ClassVar[str]
    Config: ClassVar[type[StrategyConfig]]
    stops_on_failures: ClassVar[bool] = True
    serves_as_fallback: ClassVar[bool] = False
    supports_sharding: ClassVar[bool] = False
    """Whether it survives with nodes that each hold a share of their stage's state: its transfers then go to the store
    and come from there, of a whole stage each, which is what all its nodes send together.
    """

    def __init_subclass__(cls) -> None:
        """Who says what is done after an iteration, but not when, may do something after any."""
        if "after_iteration" in vars(cls) and "routine" not in vars(cls):
            cls.routine = after_any  # type: ignore[method-assign, assignment]

    def __init__(self, config: Any, num_stages: int) -> None:
        self.num_stages = num_stages
        self.name = config.name

    @classmethod
    def check(cls, config: Any, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """What makes these options impossible for this workload, in one sentence, or None."""
        return None

    @classmethod
    def extra_memory_bytes(cls, config: Any, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Bytes that a stage's device holds for the strategy, all the time, beside what its own stage takes."""
        return 0.0

    @classmethod
    def host_memory_bytes(cls, config: Any, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Bytes that a stage's node holds for the strategy in its host's memory or on its own disk."""
        return 0.0

    @classmethod
    def joining_bytes(cls, config: Any, costs: Costs, stage: int) -> float:
        """Bytes, beside its stage's state, that a node is sent which joins others of its stage."""
        return cls.extra_memory_bytes(config, costs, stage) + cls.host_memory_bytes(config, costs, stage)

    @classmethod
    def stored_bytes(cls, config: Any, costs: Costs) -> float:  # noqa: ARG003
        """Bytes that the strategy keeps in storage that does not fail."""
        return 0.0

    def training_variant(self) -> Routes:
        """Routes that microbatches take even when nothing fails."""
        return plain_routes(self.num_stages)

    def price(self, plan: IterationPlan) -> IterationPlan:
        """How the strategy changes the work of an iteration."""
        return plan

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Pay for routine work after an iteration that led to `position`."""
        yield from ()
        return None

    def routine(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> Routine:  # noqa: ARG002
        """What `after_iteration` will do in peace after iterations that follow `position`, each of so many seconds."""
        return Routine()

    def routine_passed(self, position: Position, started_seconds: float) -> None:
        """What the routine sends has been sent once more, or several times, the last time from then on: as if by
        `after_iteration`, of this Position.
        """
        raise NotImplementedError(f"{self.kind} says of no routine what it sends")

    def on_notice(self, world: StrategyWorld, position: Position) -> None:  # noqa: B027
        """Nodes are about to leave; `position` is the last completed iteration's. Takes no time of its own."""

    @abstractmethod
    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Pay for the recovery; give the Position to go on from: the same, an earlier or an edited one.

        Handles every stage in `world.lost_stages`, also those lost while it works. Raises UnrecoverableError.
        """


def after_any(strategy: Strategy, world: StrategyWorld, position: Position, iteration_seconds: float) -> Routine:  # noqa: ARG001
    """The next iteration may be one after which something is to do."""
    return Routine(1)
