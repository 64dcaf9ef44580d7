"""The contract of a recovery strategy, and the view of the simulated world that it works with.

All that a strategy needs is imported from here. It imports neither simpy nor torch: it spends simulated time through
the methods of `StrategyWorld` and returns a `Position`. `attempt`, `transfer` and `bring_back_nodes` return early with
a Failure that occurs meanwhile, so that every strategy handles a second failure explicitly.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeVar

from pydantic import Field, model_validator

from models.recipe import PLAIN as PLAIN
from models.recipe import ApproximateBackward as ApproximateBackward
from models.recipe import Recipe as Recipe
from models.recipe import rows_of_parts as rows_of_parts
from models.spec import EMBEDDING_STAGE as EMBEDDING_STAGE
from models.spec import Config
from models.spec import Routes as Routes
from models.spec import plain_routes as plain_routes
from models.spec import swapped_routes as swapped_routes
from models.training_state import Edit as Edit
from models.training_state import GradientNormWeights as GradientNormWeights
from models.training_state import Lineage
from models.training_state import Position as Position
from models.training_state import Term as Term
from sim.cluster.topology import ClusterConfig as ClusterConfig
from sim.core.plugins import Component
from sim.core.records import Bucket as Bucket
from sim.core.records import EventKind as EventKind
from sim.core.records import Failure as Failure
from sim.core.text import FOLDER_NAME
from sim.workload.config import IterationPlan as IterationPlan
from sim.workload.config import Layout as Layout
from sim.workload.config import WorkFactor as WorkFactor
from sim.workload.config import WorkloadConfig as WorkloadConfig
from sim.workload.costs import Costs as Costs
from sim.workload.deployment import Deployment as Deployment

Result = TypeVar("Result")
Process = Generator[Any, Any, Result]
"""A simulated activity; `yield from` runs it and gives its result."""


class UnrecoverableError(Exception):
    """What was lost cannot be recovered; the scenario's fallback takes over."""


def beginning_of(position: Position) -> Position:
    """The initial state of the training that a Position belongs to."""
    return Position(Lineage(position.lineage.spec), 0, position.iterations_per_step)


STORE: Final = "store"
"""The checkpoint store, in place of a stage."""

SAVED: Final = "saved state"
"""What is sent to the store by the nodes of one pipeline, and from it to one of them."""


@dataclass(frozen=True)
class Place:
    """One place of the cluster, by the number of its slot, as an end of a transfer in place of a stage."""

    slot: int


Source = tuple[int | Literal["store"], float]
"""A stage whose node sends state to a node that joins, or the store, and the bytes."""


class Transfer(NamedTuple):
    """Bytes to send from the nodes of one stage to those of another, pipeline by pipeline, or to or from the store.

    To the store, the first working node of the stage sends; from it, every node of the stage fetches. Where a pipeline
    has no node that holds the source's state, the node of another pipeline sends; a place without node receives
    nothing. From or to a `Place` it is one message; the other end is then a place too, or the store.
    pipelines: only to the nodes of these; None: of all.
    """

    source: int | Literal["store"] | Place
    target: int | Literal["store"] | Place
    num_bytes: float
    what: str = "state"
    pipelines: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PeriodicSave:
    """A blocking save that repeats in the same way: after `first` more iterations, and then after every `period`.

    Training waits until `transfers` have been sent (bucket `checkpoint_save`), between the events `checkpoint_started`
    and `checkpoint_durable`; a save does nothing else.
    completed: called once for skipped saves, with the Position and the start time of the last one.
    """

    first: float
    period: float
    transfers: Sequence[Transfer]
    completed: Callable[[Position, float], None]


class Background(Protocol):
    """Transfers that proceed concurrently with training."""

    under_way: bool


class StrategyWorld(Protocol):
    """What a strategy can ask of the simulated world, and do in it."""

    # ---- what is known -----------------------------------------------------------------------------

    num_stages: int
    num_pipelines: int
    costs: Costs

    @property
    def now_seconds(self) -> float:
        """Simulated time."""

    @property
    def num_failures(self) -> int:
        """Number of stages lost so far."""

    @property
    def mtbf_seconds(self) -> float:
        """Mean time between failures of a stage, or of a node of one, by the failure process; may be infinite."""

    @property
    def lost_stages(self) -> frozenset[int]:
        """Stages whose state is lost and not rebuilt yet, also where the failure is still undetected.

        With several replicas a stage is lost with the last node that holds its state.
        """

    @property
    def covered_stages(self) -> frozenset[int]:
        """Stages whose work and state another stage has taken over."""

    @property
    def left_out(self) -> frozenset[int]:
        """Stages without their state, around which training continues."""

    @property
    def returning_stages(self) -> frozenset[int]:
        """Stages left out of which a node has started up, so that they can take part again."""

    @property
    def vacancies(self) -> frozenset[tuple[int, int]]:
        """Stage and pipeline of each place without a node that holds its stage's state."""

    @property
    def cut_share(self) -> float:
        """Share of the iteration that was done when the last failure interrupted it; 0 where none was in progress."""

    def plain_plan(self) -> IterationPlan:
        """The plan of an iteration by the workload alone, before a strategy adapts it."""

    def layout(self, nodes: Mapping[int, Sequence[int]]) -> Layout:
        """Pipelines made of the nodes of some stages, each by the number of the pipeline that it belongs to.

        `{stage: (0, 2, 3) for stage in range(num_stages + 1)}` is the cluster without its pipeline 1. Stages that are
        not named are left out. Stage 0 is named, and uses the nodes of S1 where it has none of its own.
        """

    @property
    def site(self) -> Deployment:
        """The nodes and links of the scenario, and what its iterations cost there."""

    def iteration_seconds(self, plan: IterationPlan) -> float:
        """Duration of an iteration of a plan on the nodes of its layout, else on all places; without jitter."""

    def holds(self, slot: int) -> bool:
        """Whether the node at a place takes part, with the state of its stage, or of the recut pipelines."""

    def slots(self, ready: bool = False) -> list[int]:
        """Places that have a node, by number; ready: only those whose node takes part or has started up."""

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """Duration of transfers that share the network with nothing else."""

    def held(self, stage: int, what: str) -> Position | None:
        """The Position of a copy that a stage's nodes hold; None if they hold none, or have lost it with the stage."""

    # ---- what takes time: `yield from`, and handle the Failure --------------------------------------

    def attempt(self, seconds: float, bucket: Bucket) -> Process[Failure | None]:
        """Spend seconds; return the Failure that ended them early, or None. At a tie the failure comes first."""

    def transfer(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once, sharing links, and wait for the last; a failure ends them all."""

    def wait_for(self, activity: Background, bucket: Bucket) -> Process[Failure | None]:
        """Pause the training until transfers in the background are done."""

    def detect(self) -> Process[Failure | None]:
        """Wait until the failure is detected; takes no time where it was announced."""

    def bring_back_nodes(self) -> Process[Failure | None]:
        """Detect the failure, wait until every stage has its nodes again, start the processes."""

    def regroup(self) -> Process[Failure | None]:
        """Detect the loss of nodes whose stages have others, and let these form groups anew (`regroup_seconds`)."""

    def wait_for_nodes(self, least: int) -> Process[Failure | None]:
        """Wait until so many places have a node."""

    def recut(
        self, stage_at: Mapping[int, int], transfers: Sequence[Transfer], least_seconds: float, detail: str
    ) -> Process[Failure | None]:
        """Recut pipelines: the nodes of some places, by number, hold a stage each from then on, all others nothing.

        Nodes that have not taken part before start up first; that or `least_seconds`, if longer, and the transfers are
        waited for. A failure leaves everything as it was. detail: of the event `recut`.
        """

    def admit_nodes(
        self, beside: bool | None = None, sources: Mapping[tuple[int, int], Sequence[Source]] | None = None
    ) -> Process[Failure | None]:
        """Send nodes that are ready the state of their stage, so that they take part.

        beside: whether it is sent beside the training; None: as `cluster.joining` says. sources: by stage and pipeline
        of a place, the stages from whose nodes it is sent something else, or the store, and the bytes from each.
        """

    def wait_for_joining(self, most_seconds: float = math.inf) -> Process[Failure | None]:
        """Wait for the next event that may let more nodes join: an arrival, the end of a start-up or of a transfer.

        At most for so long; without a limit, the run ends where no node can come any more.
        """

    def rejoin(self, stages: Collection[int], transfers: Sequence[Transfer]) -> Process[Failure | None]:
        """Send stages of `returning_stages` their state, so that they are no longer left out."""

    # ---- what takes no time --------------------------------------------------------------------------

    def background(
        self,
        transfers: Sequence[Transfer],
        when_done: Callable[[], None],
        when_lost: Callable[[], None],
        slots: Collection[int] | None = None,
    ) -> Background:
        """Send concurrently with training, sharing its links; any failure cancels what is not done.

        slots: of the places whose nodes send and receive; then only their loss cancels it, or that of a whole stage.
        """

    def hold(self, stage: int, what: str, position: Position) -> None:
        """Note that the nodes of a stage hold, beside their own state, a copy that belongs to a Position."""

    def cover(self, stage: int, holder: int) -> None:
        """Let another stage's nodes, which have a lost stage's state, do its work until it has its own state again."""

    def leave_out(self, stage: int) -> None:
        """Let training continue around a lost stage of layers: its plans have a layout without it, its recipes routes.

        A node that comes to the stage waits for `take_back`. A fallback that recovers also recovers stages left out;
        until then its routine work pauses, as the state is not complete.
        """

    def set_aside(self, slots: Iterable[int]) -> None:
        """Leave out the nodes of some places, so that `admit` is not called for them, until pipelines are recut."""

    def resume_iteration(self, kept: float = 1.0) -> None:
        """Continue the interrupted iteration with a share of what was done of it, which is then not lost."""

    def record(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        """Record an event in the results."""

    def record_synchronisation(self, iteration: int, num_replicas: int, num_complete: int) -> None:
        """Record that so many replicas have been averaged while so many pipelines were complete."""


def complete_pipelines(world: StrategyWorld) -> tuple[int, ...]:
    """Pipelines of which every node is there with its stage's state, by number."""
    broken = {pipeline for _, pipeline in world.vacancies}
    return tuple(pipeline for pipeline in range(world.num_pipelines) if pipeline not in broken)


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
        """The name in outputs."""
        return self.label or self.kind


class PresetConfig(StrategyConfig):
    """Options with a field `preset`, which names the values of those that are not written."""

    presets: ClassVar[dict[str, dict[str, Any]]]

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        name = data.get("preset", cls.model_fields["preset"].default) if isinstance(data, dict) else None
        if not isinstance(name, str) or name not in cls.presets:
            return data
        return {**{field: value for field, value in cls.presets[name].items() if field in cls.model_fields}, **data}


class Strategy(Component):
    """How training survives the loss of a stage.

    The kind of a built-in strategy is the Literal type of the field `kind` of its Config. A class from outside the
    project sets `kind` on the class and leaves the field out.

    | attribute or method | when it is used | default |
    |---|---|---|
    | `kind`, `Config` | when the scenario is read: the name and the options | required |
    | `check`, `check_site` | when the scenario is read: what makes the options impossible | nothing |
    | `extra_memory_bytes`, `host_memory_bytes`, `stored_bytes` | when the scenario is read: what is stored | 0 |
    | `serves_as_fallback`, `supports_sharding`, `needs_embedding_nodes` | when the scenario is read | no |
    | `uses_fallback` | once, before the start: whether the scenario's fallback runs beside it | yes |
    | `summary`, `title` | in lists and in figures | required, the kind |
    | `training_variant` | once, before the start: the routes of microbatches | in order |
    | `adapt_plan` | once, before the start: the work of an iteration | unchanged |
    | `stops_on_failures` | once, before the start | yes |
    | `gather` | at the start, where places have no node: takes time | waits until every stage has one |
    | `admit` | before an iteration, if nodes are ready to join: takes time | sends them the state of their stage |
    | `take_back` | before an iteration, if stages that were left out have nodes again: takes time | not at all |
    | `can_train` | before an iteration: whether the nodes at hand suffice; if not, training waits for more | yes |
    | `position_for` | before an iteration: the training state that it begins with | that of the iteration before |
    | `recipe_for` | before an iteration: how the proxy is trained in it | as without failures |
    | `plan_for` | before an iteration: its plan on the nodes at hand | that of `adapt_plan` |
    | `completed` | when an iteration has completed: the training state that it has led to | as trained |
    | `after_iteration` | when an iteration has completed: routine work, takes time | nothing |
    | `next_action` | when nothing is trained: how far away the next routine work is | the next iteration |
    | `on_notice` | when a preemption notice arrives: may start background transfers | nothing |
    | `regroup` | after a loss of nodes whose stages have others: takes time | detection and `regroup_seconds` |
    | `recover` | after the loss of a stage: takes time, returns the training state to continue from | required |
    | `joining_bytes` | when a node joins others of its stage: what it is sent | what it stores |
    """

    summary: ClassVar[str]
    """What it does, in one line, for lists."""

    title: ClassVar[str] = ""
    """Display name in figures and reports; default: the kind."""

    Config: ClassVar[type[StrategyConfig]]

    stops_on_failures: ClassVar[bool] = True
    """Whether a failure interrupts the training; otherwise it is only counted."""

    serves_as_fallback: ClassVar[bool] = False
    """Whether it can recover any loss at any time, so that a scenario may name it as `fallback`."""

    uses_fallback: ClassVar[bool] = True
    """Whether the scenario's fallback keeps what it needs beside the strategy, and recovers what this cannot."""

    supports_sharding: ClassVar[bool] = False
    """Whether it works with nodes that each hold a shard of their stage's state. Its transfers then go to the store
    and come from there; each is of a whole stage, the sum of what the stage's nodes send.
    """

    needs_embedding_nodes: ClassVar[bool] = False
    """Whether the embedding must be on nodes of its own (`cluster.embedding_on`)."""

    config: StrategyConfig

    def __init__(self, config: Any, num_stages: int) -> None:
        self.config = config
        self.num_stages = num_stages
        self.name = config.name

    @classmethod
    def check(cls, config: Any, workload: WorkloadConfig) -> str | None:  # noqa: ARG003
        """What makes these options impossible for this workload, in one sentence, or None."""
        return None

    @classmethod
    def check_site(cls, config: Any, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:  # noqa: ARG003
        """What makes these options impossible on a cluster, for batches of so many sequences of the proxy, or None."""
        return None

    @classmethod
    def extra_memory_bytes(cls, config: Any, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Bytes of device memory that the strategy always takes on a stage's nodes, beside the stage's own."""
        return 0.0

    @classmethod
    def host_memory_bytes(cls, config: Any, costs: Costs, stage: int) -> float:  # noqa: ARG003
        """Bytes of host memory, or of a local disk, that the strategy takes on a stage's nodes."""
        return 0.0

    @classmethod
    def stored_bytes(cls, config: Any, costs: Costs) -> float:  # noqa: ARG003
        """Bytes that the strategy keeps in storage that does not fail; of each pipeline where these train apart."""
        return 0.0

    @classmethod
    def joining_bytes(cls, config: Any, costs: Costs, stage: int) -> float:
        """Bytes, beside the state of its stage, that are sent to a node that joins others of the stage."""
        return cls.extra_memory_bytes(config, costs, stage) + cls.host_memory_bytes(config, costs, stage)

    def training_variant(self) -> Routes:
        """The routes that microbatches take also without failures."""
        return plain_routes(self.num_stages)

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """The plan of an iteration under this strategy."""
        return plan

    def gather(self, world: StrategyWorld) -> Process[Failure | None]:
        """Wait at the start for nodes; return a Failure that interrupts it. What is there holds the initial state."""
        return (yield from world.bring_back_nodes()) if world.lost_stages else None

    def admit(self, world: StrategyWorld) -> Process[Failure | None]:
        """Let nodes join that have arrived at stages with a state; return a Failure that interrupts it."""
        return (yield from world.admit_nodes())

    def take_back(self, world: StrategyWorld, position: Position) -> Process[Position | Failure]:  # noqa: ARG002
        """Bring `world.returning_stages` back (`world.rejoin`): the Position to go on from, or a Failure meanwhile."""
        yield from ()
        return position

    def can_train(self, world: StrategyWorld) -> bool:  # noqa: ARG002
        """Whether the nodes at hand suffice for an iteration; every stage has at least one."""
        return True

    def position_for(self, world: StrategyWorld, position: Position) -> Position:  # noqa: ARG002
        """The training state that the next iteration begins with; position: that of the iteration before.

        It changes where replicas train apart: some leave, or begin from the global state (`models.replicas`).
        """
        return position

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:  # noqa: ARG002
        """The plan of the next iteration on the nodes at hand; plan: that of `adapt_plan`. Equal nodes, equal plan."""
        return plan

    def recipe_for(self, world: StrategyWorld, position: Position) -> Recipe:  # noqa: ARG002
        """How the proxy is trained in the next iteration; of no effect on replicas that train apart."""
        return PLAIN

    def completed(self, world: StrategyWorld, position: Position) -> Position:  # noqa: ARG002
        """The training state that an iteration has led to; its losses are recorded. position: as it was trained."""
        return position

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Do the routine work after an iteration that led to `position`; return a Failure that interrupts it."""
        yield from ()
        return None

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float | PeriodicSave:  # noqa: ARG002
        """Number of iterations after which `after_iteration` acts next, at the earliest; inf: never.

        Less where the plan changes before, or `completed` the state: that iteration is to be the first one of its kind.

        Optional: it allows runs that train nothing to skip iterations. A class that overrides `after_iteration` alone
        is called after every iteration.
        """
        return math.inf

    def on_notice(self, world: StrategyWorld, position: Position) -> None:
        """React to a notice that nodes will leave, in no time; `position` is the last completed iteration's."""

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """React to the loss of nodes whose stages have others; return a Failure that interrupts it.

        `world.resume_iteration()` keeps what was done of the interrupted iteration.
        """
        return (yield from world.regroup())

    @abstractmethod
    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Recover every stage in `world.lost_stages`, also those lost meanwhile; give the Position to continue from.

        That is `position` itself, an edited one (`position.edited`) or, to roll back, an older Position that the
        strategy has kept, such as at a save, or `beginning_of(position)`. Raises UnrecoverableError.

        Where the strategy serves as fallback, or beside one, another strategy may have rolled back or edited the state
        since: a kept Position can be ahead of `position` or on another lineage. Use one only if
        `position.descends_from(kept)`.
        """
