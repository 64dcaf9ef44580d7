"""DiLoCo: pipelines train apart and synchronise every few iterations, without those that are missing then.

As in DiLoCo (arXiv 2311.08105) and its synchronous descendants (INTELLECT-1, arXiv 2412.01152; torchft's `local_sgd`),
each pipeline is a replica with weights and an Adam state of its own, trained on its own rows of the batch. At a
synchronisation, the global weights make an outer step of SGD with Nesterov momentum along the mean difference between
them and the weights of the replicas that are there, which continue from the new global weights. A pipeline that loses a
node loses its steps since the last synchronisation. The others train on; once the node is replaced, the pipeline begins
from the global weights at the next synchronisation, or continues at once (`lost_stage`, `replica_recovery.py`). With
fragments, groups of stages are synchronised in turn; with an overlap, their differences are sent beside the next
iterations (Streaming DiLoCo, arXiv 2501.18512). If a stage loses its last node, the fallback recovers, and all replicas
begin from the global weights again.

*Not modelled*: what compression does to the loss; replicas with clocks of their own, which would not wait for each
other before the next iteration; what is sent again where a loss interrupts a synchronisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.recipe import REST
from models.replicas import (
    averaged_in_pairs,
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
from sim.core.memo import Memo
from sim.core.units import to_ticks
from sim.strategies.base import (
    Background,
    ClusterConfig,
    Costs,
    Edit,
    Failure,
    IterationPlan,
    Place,
    Position,
    Process,
    Routes,
    Source,
    StrategyWorld,
    Transfer,
    WorkloadConfig,
    complete_pipelines,
)
from sim.strategies.baselines import Peer
from sim.strategies.diloco_options import (
    DilocoConfig,
    global_bytes,
    impossible,
    impossible_on,
    sent_bytes,
)


@dataclass(frozen=True)
class Pending:
    """Differences under way: the stages, the states of the replicas they are of, when taken and when due."""

    stages: tuple[int, ...]
    taken: tuple[Position | None, ...]
    taken_iteration: int
    due_iteration: int


Pairs = tuple[tuple[int, int], ...]


class Diloco(Peer):
    """Pipelines that train apart between synchronisations."""

    title = "DiLoCo"
    summary = "pipelines train apart for H iterations, then average: missing ones are left out until the next time"
    Config = DilocoConfig
    config: DilocoConfig

    def __init__(self, config: DilocoConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._recovery = config.recovery(num_stages, config.intervals) if config.recovery else None
        saves = config.recovery and config.recovery.saves
        self.interval_iterations = config.intervals.iterations if saves else None
        self._in_pairs = config.partners == "pairs"
        self._apart = config.inner_steps // config.fragments  # iterations between two synchronisations
        self._reached: Position | None = None  # the state that the last iteration led to
        self._begun: Position | None = None  # the state that the next one begins with
        self._broken: dict[int, set[int]] = {}  # replicas that have lost nodes since they trained last, and the stages
        self._since: dict[int, int] = {}  # the iteration from which a replica counts in the next synchronisation
        self._synchronised_iteration = -1  # the last one after which new global weights were received
        self._pending: Pending | None = None
        self._sending: Background | None = None  # of the differences that are pending
        self._plans: Memo[tuple[IterationPlan, tuple[int, ...], tuple[int, ...], bool, Pairs | None], IterationPlan] = (
            Memo()
        )

    @classmethod
    def check(cls, config: DilocoConfig, workload: WorkloadConfig) -> str | None:
        """Each fragment has stages and a time of its own; differences arrive before the next ones are sent."""
        return impossible(config, workload)

    @classmethod
    def check_site(cls, config: DilocoConfig, cluster: ClusterConfig, sequences_per_batch: int) -> str | None:
        """There are as many pipelines as it needs, and each has rows; copies need an embedding on nodes of its own."""
        return impossible_on(config, cluster, sequences_per_batch)

    @classmethod
    def host_memory_bytes(cls, config: DilocoConfig, costs: Costs, stage: int) -> float:
        """The global weights, their velocity, and what the recovery inside a replica takes."""
        own = config.recovery.host_memory_bytes(costs, stage) if config.recovery else 0.0
        return global_bytes(config, costs, stage) + own

    @classmethod
    def extra_memory_bytes(cls, config: DilocoConfig, costs: Costs, stage: int) -> float:
        """What the recovery inside a replica takes."""
        return config.recovery.extra_memory_bytes(costs, stage) if config.recovery else 0.0

    @classmethod
    def joining_bytes(cls, config: DilocoConfig, costs: Costs, stage: int) -> float:
        """The global weights, their velocity and copies of other stages; a replica that begins has no saves."""
        return cls.extra_memory_bytes(config, costs, stage) + global_bytes(config, costs, stage)

    @classmethod
    def stored_bytes(cls, config: DilocoConfig, costs: Costs) -> float:
        """The saves of a replica."""
        return config.recovery.stored_bytes(costs) if config.recovery else 0.0

    def training_variant(self) -> Routes:
        """The routes of the recovery inside a replica."""
        return self._recovery.training_variant() if self._recovery else super().training_variant()

    def adapt_plan(self, plan: IterationPlan) -> IterationPlan:
        """No gradients are exchanged; routes and copies are those of the recovery inside a replica."""
        return replace(self._recovery.adapt_plan(plan) if self._recovery else plan, exchanges=())

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
            states = with_state(position) if self._in_pairs else []  # no node has global weights
            position = split(the_replica(position, states[0]) if states else global_state(position), recipes)
            self._broken.clear()
            for number in range(num_replicas):
                self._begin(number, position.iteration)
        self._note_broken(world)
        for number in set(with_state(position)).intersection(self._broken):
            position = self._with_broken(world, position, number)
        position = self._with_arrived(world, position)
        training = in_training(position)
        if not training or position.iteration % self._apart == 0:
            for number in set(there).difference(with_state(position)):
                is_from_peer = training and self.config.joiner_optimizer == "peer"
                recipe = own_rows(number, num_replicas, spec)
                if training and self._in_pairs:
                    position = with_replica(position, number, the_replica(position, training[0]).entered(recipe))
                else:
                    position = joined(position, number, recipe, training[0] if is_from_peer else "fresh")
                self._begin(number, position.iteration)
        self._begun = position
        return position

    def _begin(self, number: int, iteration: int) -> None:
        """Note that a replica begins from the global weights."""
        self._since[number] = iteration
        if self._recovery:
            self._recovery.begin(number, iteration)

    def _note_broken(self, world: StrategyWorld) -> None:
        """Note the stages of each pipeline whose nodes are lost."""
        for stage, number in world.vacancies:
            self._broken.setdefault(number, set()).update(world.site.cluster.stages_on(stage))
        if self._pending:  # what they had not sent yet is lost with their nodes
            taken = (None if number in self._broken else state for number, state in enumerate(self._pending.taken))
            self._pending = replace(self._pending, taken=tuple(taken))

    def _with_broken(self, world: StrategyWorld, position: Position, number: int) -> Position:
        """The state without a replica that has lost a node, or in which it waits for its nodes or goes on with them."""
        if self._recovery is None:
            return without(position, number)
        state = the_replica(position, number)
        if number not in complete_pipelines(world):
            return with_replica(position, number, state.entered(REST))
        edits, of_global = self._recovery.continuation(number, state, self._broken[number])
        for stage in of_global:
            state = state.edited(Edit(stage, "zeros"))  # its optimizer's state is lost too
        state = received(state, position, stages=of_global) if of_global else state
        recipe = own_rows(number, world.num_pipelines, position.lineage.spec)
        return with_replica(position, number, state.edited(*edits).entered(recipe))

    def _sources(self, world: StrategyWorld) -> dict[tuple[int, int], list[Source]]:
        """What nodes are sent whose pipelines wait for them, by place: the stages that send it, and bytes."""
        replicas, costs, cluster = self._begun.replicas if self._begun else (), world.costs, world.site.cluster
        found: dict[tuple[int, int], list[Source]] = {}
        for number, lost in self._broken.items():
            state = replicas[number] if number < len(replicas) else None
            if self._recovery is None or state is None:
                continue
            sent = self._recovery.transfers(world, number, state, lost)
            sent += [Transfer(stage, stage, global_bytes(self.config, costs, stage)) for stage in sorted(lost)]
            for source, target, num_bytes, *_ in sent:
                assert isinstance(target, int), "nodes are sent state"
                assert not isinstance(source, Place), "nodes of a stage send it, or the store"
                if target in lost:
                    found.setdefault((cluster.host_of(target), number), []).append((source, float(num_bytes)))
        return found

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """The pipelines that train; where they synchronise, the exchange of differences at the end."""
        assert self._begun is not None, "an iteration begins with a position"
        training = in_training(self._begun)
        stages = () if self.config.overlap_iterations else self._due(self._begun.iteration + 1)
        is_new = self._has_new_weights(self._begun.iteration)
        pairs = self._pairs(training, self._begun.iteration + 1) if stages and self._in_pairs else None

        def changed() -> IterationPlan:
            exchanges = tuple((stage, sent_bytes(self.config, world.costs, stage)) for stage in stages)
            nodes = dict.fromkeys(range(self.num_stages + 1), training)
            layout = world.layout(nodes) if len(training) < world.num_pipelines else None
            after = self._recovery.plan_after_synchronisation(plan) if self._recovery and is_new else plan
            places = {number: place for place, number in enumerate(training)}
            exchanging = pairs and tuple((places[one], places[other]) for one, other in pairs)
            return replace(after, exchanges=exchanges, layout=layout, pairs=exchanging)

        return self._plans.get((plan, training, stages, is_new, pairs), changed)

    def _pairs(self, training: Sequence[int], iteration: int) -> Pairs:
        """The replicas that average with each other after an iteration; of all fragments before the next in turn."""
        return pairs_in_turn(training, (iteration - 1) // self.config.inner_steps)

    def _has_new_weights(self, iteration: int) -> bool:
        """Whether an iteration after this one has a plan of its own, since its replicas have new weights."""
        sends_them = self._recovery is not None and self._recovery.sends_new_weights
        return sends_them and iteration == self._synchronised_iteration

    def _due(self, iteration: int) -> tuple[int, ...]:
        """The stages that are synchronised after an iteration."""
        if iteration % self._apart:
            return ()
        fragment, num = (iteration // self._apart - 1) % self.config.fragments, self.config.fragments
        return tuple(stage for stage in range(self.num_stages + 1) if stage * num // (self.num_stages + 1) == fragment)

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
        self._synchronised_iteration = position.iteration
        stages = None if self.config.fragments == 1 else due.stages
        if self._in_pairs:
            return averaged_in_pairs(position, self._pairs(training, position.iteration), training, stages)
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
            if state is None:
                shares.append(0.0)
                continue
            since_step = max(self._since.get(number, 0), last) // state.iterations_per_step
            undone = self._recovery.undone_steps(number) if self._recovery else ()
            num_rows = rows_learnt(state, since_step)
            for before, until in undone:
                num_rows -= rows_learnt(state, max(before, since_step)) - rows_learnt(state, max(until, since_step))
            shares.append(float(max(1, num_rows)))
        return shares

    def after_iteration(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Save replicas, send differences beside the training and wait for those that are due, wait for pipelines."""
        if self._recovery:
            replicas = {number: the_replica(position, number) for number in in_training(position)}
            failure = yield from self._recovery.after_iteration(world, replicas)
            if failure is not None:
                return failure
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
                share * sent_bytes(self.config, world.costs, stage),
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
        if self._has_new_weights(position.iteration):
            return 1
        if self._recovery is None or self._begun is None:
            return max(1, left - 1)
        return max(1, min(left - 1, self._recovery.iterations_left(in_training(self._begun), position.iteration)))

    # ---- when something is lost ------------------------------------------------------------------------

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:
        """Train on without the pipeline that has lost a node; only at a synchronisation do others notice its loss."""
        self._note_broken(world)
        if self._due(position.iteration + 1) and not self.config.overlap_iterations:
            failure = yield from world.regroup()
            if failure is not None:
                return failure
        left = set(in_training(self._begun)).difference(self._broken) if self._begun else ()
        waits_for_the_lost = self._recovery is not None and len(left) < self.config.min_replicas
        if left and not waits_for_the_lost:  # else these train in it too, and their work is lost
            world.resume_iteration()
        return None

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Impossible, as for replicas alone; all pipelines begin from the global weights after the fallback."""
        self._reached = self._begun = None
        self._broken.clear()
        return (yield from super().recover(world, failure, position))


def in_training(position: Position) -> tuple[int, ...]:
    """Replicas that train, by number: those with a state, except those that wait for a node."""
    return tuple(n for n, state in enumerate(position.replicas) if state and not state.lineage.is_at_rest)


def pairs_in_turn(numbers: Sequence[int], turn: int) -> Pairs:
    """Pairs of a round-robin tournament: in as many turns as there are others, each meets each of them once.

    With an odd number, one is without a partner in each turn.
    """
    first, *others = [*numbers, *([-1] if len(numbers) % 2 else [])]
    shift = turn % len(others)
    seats = [first, *others[shift:], *others[:shift]]
    met = zip(seats[: len(seats) // 2], seats[: len(seats) // 2 - 1 : -1], strict=True)
    return tuple((one, other) for one, other in met if -1 not in (one, other))
