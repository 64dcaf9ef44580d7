"""DiLoCo: pipelines train apart and synchronise every few iterations, without those that are missing then.

As in DiLoCo (arXiv 2311.08105) and its synchronous descendants (INTELLECT-1, arXiv 2412.01152; torchft's `local_sgd`),
each pipeline is a replica with weights and an Adam state of its own, trained on its own rows of the batch. At a
synchronisation, the global weights make an outer step of SGD with Nesterov momentum along the mean difference between
them and the weights of the replicas that are there, which continue from the new global weights. A pipeline that loses a
node loses its steps since the last synchronisation. The others train on; once the node is replaced, the pipeline begins
from the global weights at the next synchronisation, or goes on at once with its other stages as they were and the lost
one rebuilt (`lost_stage`). With fragments, groups of stages are synchronised in turn; with an
overlap, their differences are sent beside the next iterations (Streaming DiLoCo, arXiv 2501.18512). If a stage loses
its last node, the fallback recovers, and all replicas begin from the global weights again.

*Not modelled*: what compression does to the loss; replicas with clocks of their own, which would not wait for each
other before the next iteration; what is sent again where a loss interrupts a synchronisation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from models.recipe import REST
from models.replicas import (
    global_state,
    joined,
    own_rows,
    received,
    rows_learnt,
    split,
    synchronised,
    the_replica,
    with_replica,
    with_state,
    without,
)
from sim.cluster.topology import ClusterConfig
from sim.core.units import to_ticks
from sim.strategies.base import (
    Background,
    Costs,
    Edit,
    Failure,
    IterationPlan,
    Place,
    Position,
    Process,
    Routes,
    StrategyConfig,
    StrategyWorld,
    Transfer,
    UnrecoverableError,
    WorkloadConfig,
    complete_pipelines,
    too_few_replicas,
)
from sim.strategies.baselines import Peer
from sim.strategies.checkfree import CheckFree, CheckFreeConfig, CheckFreePlus, CheckFreePlusConfig

Compression = Literal["none", "bf16", "int8", "int4", "top_k"]

FACTORS: dict[str, float] = {"none": 1.0, "bf16": 1 / 2, "int8": 1 / 4, "int4": 1 / 8, "top_k": 1 / 146}
"""Bytes sent, as a share of those in fp32; top_k: 1.6 % of the values in 2 bits, 146 × fewer (arXiv 2603.08163)."""

FP32_BYTES = 4


class DilocoConfig(StrategyConfig):
    """Options of `diloco`."""

    kind: Literal["diloco"] = "diloco"
    inner_steps: int = Field(100, ge=1, le=10**9, description="iterations between two synchronisations (H)")
    outer_learning_rate: float = Field(0.7, gt=0, le=100, description="learning rate of the outer step")
    outer_momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of the outer step")
    min_replicas: int = Field(1, ge=1, description="fewest complete pipelines to train with (quorum); else it waits")
    join_timeout_seconds: float = Field(
        0.0, ge=0, le=1e8, description="longest wait at a synchronisation for pipelines that are coming back"
    )
    joiner_optimizer: Literal["peer", "fresh"] = Field(
        "peer", description="Adam's state of a pipeline that comes back: that of another one, or none"
    )
    lost_stage: Literal["leave", "global", "checkfree", "checkfree_plus"] = Field(
        "leave",
        description="what a pipeline that lost a node does once it is replaced: leave its steps, and begin from the "
        "global weights at the next synchronisation; or go on at once, with the global weights in the lost stage, or "
        "with the stage rebuilt from the pipeline's own stages, as these strategies do",
    )
    weights: Literal["equal", "tokens"] = Field(
        "equal",
        description="weight of a replica in the mean: equal, or the tokens learnt since the last synchronisation",
    )
    compression: Compression = Field(
        "none",
        description="format of the differences that are sent; it shortens synchronisations, and its effect on the loss "
        "is not computed",
    )
    sent_share: float | None = Field(
        None, gt=0, le=1, description="share of the bytes in fp32 that is sent, in place of that of `compression`"
    )
    fragments: int = Field(1, ge=1, description="groups of stages that are synchronised in turn")
    overlap_iterations: int = Field(
        0,
        ge=0,
        description="iterations during which the differences are sent beside the training; 0: all wait for them",
    )
    mixing: float = Field(
        1.0, gt=0, le=1, description="share of the global weights in those from which a replica continues"
    )


@dataclass(frozen=True)
class Pending:
    """Differences under way: the stages, the states of the replicas they are of, when taken and when due."""

    stages: tuple[int, ...]
    taken: tuple[Position | None, ...]
    taken_iteration: int
    due_iteration: int


REBUILDERS: dict[str, tuple[type[CheckFree], CheckFreeConfig | CheckFreePlusConfig]] = {
    "checkfree": (CheckFree, CheckFreeConfig()),
    "checkfree_plus": (CheckFreePlus, CheckFreePlusConfig()),
}
"""Strategies, with options, that rebuild a stage of a pipeline from its others, by their names in `lost_stage`."""


class Diloco(Peer):
    """Pipelines that train apart between synchronisations."""

    title = "DiLoCo"
    summary = "pipelines train apart for H iterations, then average: missing ones are left out until the next time"
    Config = DilocoConfig
    config: DilocoConfig

    def __init__(self, config: DilocoConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        inner = REBUILDERS.get(config.lost_stage)
        self._inner = inner[0](inner[1], num_stages) if inner else None
        self._apart = config.inner_steps // config.fragments  # iterations between two synchronisations
        self._reached: Position | None = None  # the state that the last iteration led to
        self._begun: Position | None = None  # the state that the next one begins with
        self._broken: dict[int, set[int]] = {}  # replicas that have lost nodes since they trained last, and the stages
        self._since: dict[int, int] = {}  # the iteration from which a replica counts in the next synchronisation
        self._pending: Pending | None = None
        self._sending: Background | None = None  # of the differences that are pending
        self._plans: dict[tuple[IterationPlan, tuple[int, ...], tuple[int, ...]], IterationPlan] = {}

    @classmethod
    def check(cls, config: DilocoConfig, workload: WorkloadConfig) -> str | None:
        """Each fragment has stages and a time of its own; differences arrive before the next ones are sent."""
        num_stages = workload.num_stages + 1
        if config.sent_share is not None and config.compression != "none":
            return (
                f"sent_share {config.sent_share:g} is in place of compression '{config.compression}': give one of them"
            )
        if config.fragments > num_stages:
            return f"fragments {config.fragments} is more than the stages, {num_stages} with that of the embedding"
        if config.inner_steps % config.fragments:
            return f"inner_steps {config.inner_steps} is no multiple of fragments, {config.fragments}"
        if config.overlap_iterations >= config.inner_steps // config.fragments:
            return (
                f"overlap_iterations {config.overlap_iterations} is not less than the iterations between two "
                f"synchronisations, {config.inner_steps // config.fragments}"
            )
        inner = REBUILDERS.get(config.lost_stage)
        return inner[0].check(inner[1], workload) if inner else None

    @classmethod
    def check_site(cls, config: DilocoConfig, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:
        """There are as many pipelines as it needs, and each has rows."""
        return too_few_replicas(config.min_replicas, cluster, sequences_per_batch)

    @classmethod
    def host_memory_bytes(cls, config: DilocoConfig, costs: Costs, stage: int) -> float:
        """The global weights and, with outer momentum, its velocity, in fp32."""
        return float(costs.stage_parameters(stage) * FP32_BYTES * (2 if config.outer_momentum else 1))

    @classmethod
    def extra_memory_bytes(cls, config: DilocoConfig, costs: Costs, stage: int) -> float:
        """What the strategy that rebuilds lost stages takes."""
        inner = REBUILDERS.get(config.lost_stage)
        return inner[0].extra_memory_bytes(inner[1], costs, stage) if inner else 0.0

    def training_variant(self) -> Routes:
        """The routes of the strategy that rebuilds lost stages."""
        return self._inner.training_variant() if self._inner else super().training_variant()

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """No gradients are exchanged; routes and copies are those of the strategy that rebuilds lost stages."""
        return replace(self._inner.adapt_plan(plan) if self._inner else plan, exchanges=())

    # ---- before an iteration -------------------------------------------------------------------------

    def admit(self, world: StrategyWorld) -> Process[Failure | None]:
        """Send nodes the state of their stage beside the training, or what their stage is rebuilt from."""
        return (yield from world.admit_nodes(beside=True, sources=self._sources(world)))

    def can_train(self, world: StrategyWorld) -> bool:
        """Whether `min_replicas` pipelines are complete."""
        return len(complete_pipelines(world)) >= self.config.min_replicas

    def position_for(self, world: StrategyWorld, position: Position) -> Position:
        """Without the replicas that have lost a node; with those that begin from the global weights."""
        there, num_replicas, spec = complete_pipelines(world), world.num_pipelines, position.lineage.spec
        if not position.replicas or position != self._reached:  # the start, or a fallback has gone back
            self._pending = None
            recipes = [own_rows(number, num_replicas, spec) for number in range(num_replicas)]
            position = split(global_state(position), recipes)
            self._broken.clear()
            self._since = dict.fromkeys(range(num_replicas), position.iteration)
        self._note_broken(world)
        for number in set(with_state(position)).intersection(self._broken):
            position = self._with_broken(world, position, number)
        position = self._with_arrived(world, position)
        training = in_training(position)
        if not training or position.iteration % self._apart == 0:
            for number in set(there).difference(with_state(position)):
                is_from_peer = training and self.config.joiner_optimizer == "peer"
                recipe = own_rows(number, num_replicas, spec)
                position = joined(position, number, recipe, training[0] if is_from_peer else "fresh")
                self._since[number] = position.iteration
        self._begun = position
        return position

    def _note_broken(self, world: StrategyWorld) -> None:
        """Note the stages of each pipeline whose nodes are lost."""
        for stage, number in world.vacancies:
            self._broken.setdefault(number, set()).update(world.site.cluster.stages_on(stage))
        if self._pending:  # what they had not sent yet is lost with their nodes
            taken = (None if number in self._broken else state for number, state in enumerate(self._pending.taken))
            self._pending = replace(self._pending, taken=tuple(taken))

    def _with_broken(self, world: StrategyWorld, position: Position, number: int) -> Position:
        """The state without a replica that has lost a node, or in which it waits for its nodes or goes on with them."""
        if self.config.lost_stage == "leave":
            return without(position, number)
        state = the_replica(position, number)
        if number not in complete_pipelines(world):
            return with_replica(position, number, state.entered(REST))
        edits, of_global = self._rebuilding(self._broken[number])
        for stage in of_global:
            state = state.edited(Edit(stage, "zeros"))  # its optimizer's state is lost too
        state = received(state, position, stages=of_global) if of_global else state
        recipe = own_rows(number, world.num_pipelines, position.lineage.spec)
        return with_replica(position, number, state.edited(*edits).entered(recipe))

    def _rebuilding(self, lost: Collection[int]) -> tuple[list[Edit], tuple[int, ...]]:
        """Edits that rebuild lost stages of a pipeline, and the stages that take the global weights instead."""
        edits, of_global = list[Edit](), list[int]()
        for stage in sorted(lost):
            try:
                if self._inner is None:
                    raise UnrecoverableError("no strategy rebuilds stages")
                edit = self._inner.edit(stage, frozenset(lost))  # None: other nodes have the stage's state
                edits += [edit] if edit else []
            except UnrecoverableError:
                of_global.append(stage)
        return edits, tuple(of_global)

    def _sources(self, world: StrategyWorld) -> dict[tuple[int, int], list[tuple[int, float]]]:
        """What nodes are sent whose pipelines wait for them, by place: the stages that send it, and bytes."""
        replicas, costs, cluster = self._begun.replicas if self._begun else (), world.costs, world.site.cluster
        found: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for number, lost in self._broken.items():
            if self.config.lost_stage == "leave" or number >= len(replicas) or replicas[number] is None:
                continue
            edits, of_global = self._rebuilding(lost)
            rebuilding = self._inner.transfers(world, frozenset(lost), edits) if self._inner else []
            sent = [(each.target, each.source, each.num_bytes) for each in rebuilding]
            sent += [(stage, stage, costs.stage_parameters(stage) * FP32_BYTES) for stage in of_global]
            sent += [(stage, stage, self.host_memory_bytes(self.config, costs, stage)) for stage in sorted(lost)]
            for target, source, num_bytes in sent:
                assert isinstance(target, int), "nodes are sent state"
                assert isinstance(source, int), "nodes send it"
                if target in lost:
                    found.setdefault((cluster.host_of(target), number), []).append((source, float(num_bytes)))
        return found

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """The pipelines that train; where they synchronise, the exchange of differences at the end."""
        assert self._begun is not None, "an iteration begins with a position"
        training = in_training(self._begun)
        stages = () if self.config.overlap_iterations else self._due(self._begun.iteration + 1)
        key = plan, training, stages
        if key not in self._plans:
            exchanges = tuple((stage, self._sent_bytes(world, stage)) for stage in stages)
            nodes = dict.fromkeys(range(self.num_stages + 1), training)
            layout = world.layout(nodes) if len(training) < world.num_pipelines else None
            self._plans[key] = replace(plan, exchanges=exchanges, layout=layout)
        return self._plans[key]

    def _due(self, iteration: int) -> tuple[int, ...]:
        """The stages that are synchronised after an iteration."""
        if iteration % self._apart:
            return ()
        fragment, num = (iteration // self._apart - 1) % self.config.fragments, self.config.fragments
        return tuple(stage for stage in range(self.num_stages + 1) if stage * num // (self.num_stages + 1) == fragment)

    def _sent_bytes(self, world: StrategyWorld, stage: int) -> float:
        """Bytes of a stage's differences as nodes send them."""
        factor = FACTORS[self.config.compression] if self.config.sent_share is None else self.config.sent_share
        return world.costs.stage_parameters(stage) * FP32_BYTES * factor

    # ---- after an iteration --------------------------------------------------------------------------

    def completed(self, world: StrategyWorld, position: Position) -> Position:
        """The state with new global weights, if a synchronisation is complete."""
        for number in in_training(position):
            self._broken.pop(number, None)
        position = self._with_arrived(world, position)
        if stages := self._due(position.iteration):
            for number in set(with_state(position)).difference(in_training(position)):
                position = without(position, number)  # not back in time
            taken_iteration = position.iteration
            due = Pending(stages, position.replicas, taken_iteration, taken_iteration + self.config.overlap_iterations)
            if self.config.overlap_iterations:
                self._pending, self._sending = due, None
            else:
                position = self._synchronised(world, position, due)
        self._reached = position
        return position

    def _with_arrived(self, world: StrategyWorld, position: Position) -> Position:
        """The state with new global weights, if differences that are due have arrived."""
        pending, sending = self._pending, self._sending
        if pending is None or pending.due_iteration > position.iteration or sending is None or sending.under_way:
            return position
        self._pending = self._sending = None
        return self._synchronised(world, position, pending)

    def _synchronised(self, world: StrategyWorld, position: Position, due: Pending) -> Position:
        """The state after a synchronisation of the replicas that are still there."""
        training = in_training(position)
        present = [number for number in training if due.taken[number] is not None]
        world.record_synchronisation(position.iteration, len(present), len(complete_pipelines(world)))
        if not present:
            return position
        stages = None if self.config.fragments == 1 else due.stages
        merged = synchronised(
            position,
            rate=self.config.outer_learning_rate,
            momentum=self.config.outer_momentum,
            present=present,
            shares=self._shares(due) if self.config.weights == "tokens" else (),
            stages=stages,
            mixing=self.config.mixing,
            taken=due.taken,
        )
        for number in set(training).difference(present):  # these have begun since the differences were taken
            state = received(the_replica(merged, number), merged, self.config.mixing, stages)
            merged = with_replica(merged, number, state)
        return merged

    def _shares(self, due: Pending) -> list[float]:
        """Tokens that each replica has learnt since it began or was last synchronised, in rows."""
        last = due.taken_iteration - self.config.inner_steps
        shares = []
        for number, state in enumerate(due.taken):
            since_step = max(self._since.get(number, 0), last) // state.iterations_per_step if state else 0
            shares.append(float(max(1, rows_learnt(state, since_step))) if state else 0.0)
        return shares

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Send differences beside the training, wait for those that are due; wait for pipelines that come back."""
        if self._pending and self._sending is None:
            self._send(world, self._pending)
        if self._pending and self._sending and self._pending.due_iteration <= position.iteration:
            failure = yield from world.wait_for(self._sending, "bubble_and_communication")
            if failure is not None:
                return failure
        if position.iteration % self._apart or not self.config.join_timeout_seconds:
            return None
        return (yield from self._wait_for_returning(world))

    def _send(self, world: StrategyWorld, pending: Pending) -> None:
        """Begin to send differences in rings, a ring for each stage."""
        senders = [number for number, state in enumerate(pending.taken) if state is not None]
        share, cluster = 2 * (len(senders) - 1) / max(1, len(senders)), world.site.cluster
        transfers = [
            Transfer(
                Place(cluster.slot(cluster.host_of(stage), source)),
                Place(cluster.slot(cluster.host_of(stage), target)),
                share * self._sent_bytes(world, stage),
                "differences",
            )
            for stage in pending.stages
            for source, target in zip(senders, [*senders[1:], *senders[:1]], strict=True)
            if source != target
        ]
        self._sending = world.background(transfers, lambda: None, self._lose_sent)

    def _lose_sent(self) -> None:
        """Note that differences have not arrived: those that are left send them again."""
        self._sending = None

    def _wait_for_returning(self, world: StrategyWorld) -> Process[Failure | None]:
        """Wait until all pipelines are complete, or for `join_timeout_seconds`."""
        until_seconds = world.now_seconds + to_ticks(self.config.join_timeout_seconds)
        while True:
            failure = yield from world.admit_nodes(beside=True)
            is_over = not world.vacancies or world.now_seconds >= until_seconds
            if failure is not None or is_over:
                return failure
            failure = yield from world.wait_for_joining(until_seconds - world.now_seconds)
            if failure is not None:
                return failure

    def next_action(self, world: StrategyWorld, position: Position, iteration_seconds: float) -> float:  # noqa: ARG002
        """The iteration before the next one whose plan is another, or that leads to another state."""
        left = self._apart - position.iteration % self._apart
        if self._pending:
            left = min(left, self._pending.due_iteration - position.iteration)
        return max(1, left - 1)

    # ---- when something is lost ------------------------------------------------------------------------

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Train on without the pipeline that has lost a node; only at a synchronisation do others notice its loss."""
        self._note_broken(world)
        if self._due(position.iteration + 1) and not self.config.overlap_iterations:
            failure = yield from world.regroup()
            if failure is not None:
                return failure
        if self._begun is not None and set(in_training(self._begun)).difference(self._broken):
            world.resume_iteration()
        return None


def in_training(position: Position) -> tuple[int, ...]:
    """Replicas that train, by number: those with a state, except those that wait for a node."""
    return tuple(n for n, state in enumerate(position.replicas) if state and not state.lineage.is_at_rest)
