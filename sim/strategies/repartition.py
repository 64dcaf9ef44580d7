"""Repartitioning: at every loss, pipelines are recut for the nodes at hand; training continues immediately.

As in Oobleck (SOSP '23), Varuna (EuroSys '22) and Parcae (NSDI '24): of all depths that fit in memory, the one with the
fastest iteration, for a batch that stays. Layers move from the nodes that hold them; where all holders of a part are
lost, every node fetches its part of the last durable checkpoint. The weights stay what they are: losses are those of
training without failures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from models.training_state import Position
from sim.core.records import Failure
from sim.strategies.base import (
    STORE,
    IterationPlan,
    Layout,
    Place,
    Process,
    StrategyWorld,
    Transfer,
    beginning_of,
)
from sim.strategies.checkpoint import Checkpoint, CheckpointConfig
from sim.workload.config import WorkloadConfig
from sim.workload.cuts import (
    Cut,
    PlacedCut,
    fewest_nodes,
    fitting_cuts,
    least_seconds,
    placed_by_region,
    plan_of,
    scenario_cut,
)
from sim.workload.holdings import Holdings, bytes_of, parts_of
from sim.workload.schedule import SCHEDULES


class RepartitionConfig(CheckpointConfig):
    """Options of `repartition`: those of `checkpoint` for what all holders have lost, and when nodes are taken in."""

    kind: Literal["repartition"] = "repartition"  # type: ignore[assignment]
    grow: Literal["at_once", "at_next_loss"] = Field(
        "at_once",
        description="nodes that arrive: pipelines are recut as soon as that makes iterations faster, or not before "
        "the next loss",
    )

    min_pipelines: int = Field(
        1,
        ge=1,
        description="pipelines to have as long as the nodes suffice for so many: with 2, each part of the state has "
        "two holders (Oobleck's f + 1)",
    )


@dataclass(frozen=True)
class PricedCut:
    """A cut on its nodes, the plan of an iteration, and its duration. moved_bytes: to get there from the cut before."""

    placed: PlacedCut
    plan: IterationPlan
    iteration_seconds: float
    moved_bytes: float = 0.0


class Repartition(Checkpoint):
    """All nodes wait while pipelines are recut, then continue from the same state or from the last checkpoint."""

    title = "repartitioning"
    summary = "recut pipelines for the available nodes; if part of the state is lost, roll back to the last upload"
    Config = RepartitionConfig
    config: RepartitionConfig
    serves_as_fallback = False
    uses_fallback = False
    supports_sharding = False

    def __init__(self, config: RepartitionConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self._in_force: PricedCut | None = None  # None: the scenario's, on all places
        self._cuts: dict[int, list[tuple[float, Cut]]] = {}
        self._priced: dict[tuple[Cut, Layout], tuple[IterationPlan, float]] = {}
        self._fewest = 0
        self._considered: list[int] = []

    @classmethod
    def check(cls, config: CheckpointConfig, workload: WorkloadConfig) -> str | None:
        """Copies of a checkpoint in places that change are not supported, nor are stages of several chunks."""
        if config.just_in_time or config.local_gib_per_s:
            field = "just_in_time" if config.just_in_time else "local_gib_per_s"
            return f"{field} goes with kind 'checkpoint': here nodes do not keep their stages"
        if SCHEDULES[workload.schedule].is_interleaved:
            return f"schedule '{workload.schedule}' is for a fixed number of stages: choose another, such as 1f1b"
        return super().check(config, workload)

    # ---- iterations --------------------------------------------------------------------------------------

    def plan_for(self, world: StrategyWorld, plan: IterationPlan) -> IterationPlan:
        """The plan of the pipelines that were cut last; the scenario's, where these are the same."""
        in_force = self._in_force
        return plan if in_force is None or in_force.placed == scenario_cut(world.site) else in_force.plan

    def _uploads(self, world: StrategyWorld, share: float) -> tuple[Transfer, ...]:
        """Transfers of a share of every stage to the store, from the nodes of the first pipeline."""
        if share not in self._transfers:
            placed = self._current(world).placed
            ends = [
                (slot, self._parts(world, placed.cut, stage))
                for number, (slot, stage) in enumerate(placed.stage_at(world.site.cluster.first_stage).items())
                if number % placed.cut.num_pipelines == 0
            ]
            self._transfers[share] = tuple(
                Transfer(Place(slot), STORE, share * bytes_of(world.costs, parts), "checkpoint") for slot, parts in ends
            )
        return self._transfers[share]

    # ---- changes of the nodes ----------------------------------------------------------------------------

    def gather(self, world: StrategyWorld) -> Process[Failure | None]:
        """Begin with the nodes that are there, if they suffice; all hold the initial state."""
        return (yield from self._cut_for_all(world, "nothing"))

    def admit(self, world: StrategyWorld) -> Process[Failure | None]:
        """Recut pipelines if that makes iterations faster with the nodes that have arrived and started up."""
        yield from ()
        slots = world.slots(ready=True)
        if self.config.grow == "at_next_loss":
            world.set_aside(world.slots())
        elif slots != self._considered:
            self._considered = slots
            best = self._best(world, slots)
            if self._is_better(best, self._current(world)):
                return (yield from self._cut(world, best, slots, "nodes"))
            world.set_aside(slots)
        return None

    def regroup(self, world: StrategyWorld, position: Position) -> Process[Failure | None]:  # noqa: ARG002
        """Recut pipelines; the nodes that are left hold all parts of the state."""
        failure = yield from world.detect()
        return failure or (yield from self._cut_for_all(world, "nodes"))

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:
        """Recut pipelines; every node fetches its part of the last durable checkpoint."""
        durable, next_failure = self.stored_before(position), failure
        while next_failure:
            found = yield from world.detect()
            found = found or (yield from self._cut_for_all(world, "store" if durable else "nothing"))
            if found is None:
                break
            next_failure = found
        self.started_at_seconds = world.now_seconds
        return durable or beginning_of(position)

    def _cut_for_all(
        self, world: StrategyWorld, source: Literal["nodes", "store", "nothing"]
    ) -> Process[Failure | None]:
        """Wait until there are enough nodes, and recut pipelines for all of them; source: of what nodes lack."""
        self._fewest = self._fewest or fewest_nodes(world.costs, world.site.cluster.config)
        failure = yield from world.wait_for_nodes(self._fewest)
        if failure is not None:
            return failure
        slots = world.slots()
        return (yield from self._cut(world, self._best(world, slots), slots, source))

    def _cut(
        self, world: StrategyWorld, best: PricedCut, slots: list[int], source: Literal["nodes", "store", "nothing"]
    ) -> Process[Failure | None]:
        """Recut pipelines, for nodes of some places; return a Failure that interrupts it."""
        cluster, cut = world.site.cluster, best.placed.cut
        stage_at = best.placed.stage_at(cluster.first_stage)
        transfers: list[Transfer] = []
        if source == "nodes":
            moves = self._holdings(world).moves(best.placed, cluster.regions_of_nodes)
            transfers = [Transfer(Place(one), Place(other), num, "state") for one, other, num in moves]
        elif source == "store":
            parts = {slot: self._parts(world, cut, stage) for slot, stage in stage_at.items()}
            transfers = [Transfer(STORE, Place(s), bytes_of(world.costs, of), "checkpoint") for s, of in parts.items()]
        detail = f"{cut} on {len(stage_at)} of {len(slots)} nodes"
        is_start = source == "nothing" and not world.now_seconds
        least_seconds = 0.0 if is_start else cluster.config.regroup_seconds
        failure = yield from world.recut(stage_at, transfers, least_seconds, detail)
        if failure is None:
            self._in_force, self._considered = best, slots
            self._transfers.clear()
            world.set_aside(slots)
        return failure

    # ---- the choice --------------------------------------------------------------------------------------

    def _current(self, world: StrategyWorld) -> PricedCut:
        """The cut in force."""
        return self._in_force or self._price(world, scenario_cut(world.site), 0.0)

    def _best(self, world: StrategyWorld, slots: Sequence[int]) -> PricedCut:
        """Of the cuts for the nodes of some places that fit in memory, the one with the fastest iteration.

        Of equally fast ones, the one for which the fewest bytes move, and then the shallowest.
        """
        held, best = self._holdings(world), None
        for bound_seconds, cut in self._cuts_for(world, len(slots)):
            if best and bound_seconds > best.iteration_seconds:
                break
            for placed in self._placed(world, held, cut, slots):
                found = self._price(world, placed, held.lacking_bytes(placed))
                if best is None or rank(found) < rank(best):
                    best = found
        assert best, "a cut fits for as many nodes as were waited for"
        return best

    def _cuts_for(self, world: StrategyWorld, num_nodes: int) -> list[tuple[float, Cut]]:
        """Cuts that fit, each with a lower bound of its iteration, by that bound; cached.

        Only those with `min_pipelines`, where there are any.
        """
        if num_nodes not in self._cuts:
            costs, config = world.costs, world.site.cluster.config
            slowest = min((slow.slowdown for slow in config.stragglers), default=1.0)
            factor = min(1.0, slowest)  # a straggler may be faster than the device
            fitting = fitting_cuts(costs, config, num_nodes)
            chosen = [cut for cut in fitting if cut.num_pipelines >= self.config.min_pipelines] or fitting
            bounds = [(factor * least_seconds(costs, cut), cut) for cut in chosen]
            self._cuts[num_nodes] = sorted(bounds, key=lambda bound: bound[0])
        return self._cuts[num_nodes]

    def _is_better(self, found: PricedCut, current: PricedCut) -> bool:
        """Whether a cut is worth a pause: it has `min_pipelines` for the first time, or is faster."""
        has_enough = [one.placed.cut.num_pipelines >= self.config.min_pipelines for one in (current, found)]
        return has_enough == [False, True] or found.iteration_seconds < current.iteration_seconds

    def _placed(self, world: StrategyWorld, held: Holdings, cut: Cut, slots: Sequence[int]) -> Iterator[PlacedCut]:
        """Ways to place a cut: with the fewest bytes to move and, where nodes differ in region, region by region."""
        cluster = world.site.cluster
        yield held.place(cut, slots)
        if len(cluster.regions) > 1:
            yield from placed_by_region(cut, slots, cluster.regions_of_nodes, cluster.first_stage)

    def _price(self, world: StrategyWorld, placed: PlacedCut, moved_bytes: float) -> PricedCut:
        """A cut with its plan and the duration of an iteration; cached for all nodes that are alike."""
        layout = Layout(placed.cut.layers_per_stage, placed.places)
        key = placed.cut, world.site.standard(layout)
        if key not in self._priced:
            plan = plan_of(world.site, placed)
            self._priced[key] = plan, world.iteration_seconds(plan)
        plan, seconds = self._priced[key]
        return PricedCut(placed, replace(plan, layout=layout), seconds, moved_bytes)

    def _holdings(self, world: StrategyWorld) -> Holdings:
        """The parts of the state that nodes hold which take part."""
        placed, first_stage = self._current(world).placed, world.site.cluster.first_stage
        parts_at = {
            slot: self._parts(world, placed.cut, stage)
            for slot, stage in placed.stage_at(first_stage).items()
            if world.holds(slot)
        }
        return Holdings(world.costs, first_stage, parts_at)

    def _parts(self, world: StrategyWorld, cut: Cut, stage: int) -> frozenset[int]:
        """The parts of the state that the nodes of a stage of a cut hold."""
        return parts_of(world.costs, cut, stage, world.site.cluster.first_stage)


def rank(priced: PricedCut) -> tuple[float, float, int]:
    """What the choice goes by, the least first."""
    return priced.iteration_seconds, priced.moved_bytes, priced.placed.cut.num_stages
