"""Fleets that checkpoint, lose single nodes at a constant rate, and stand still to save: a run as a chain of renewals.

After each recovery everybody is where the last checkpoint is, whatever was before. So a run is work up to the next
loss, what that loss costs, and the same again. This gives what happens on the event loop, to the bit, without it: three
times as fast. `tests/validation/test_leaps.py` holds both to each other.
"""

from __future__ import annotations

import math
from collections import deque

from sim.core.records import Bucket, EventKind
from sim.core.rng import stream
from sim.core.units import to_ticks
from sim.failures.poisson import PoissonConfig, PoissonFailures
from sim.scenario.scenario import Scenario
from sim.simulation.fast_forward import saves
from sim.simulation.leap import Cadence, RepeatedIterations, longest
from sim.simulation.log import IterationLog
from sim.simulation.world import World
from sim.strategies import Strategy
from sim.strategies.base import Routine
from sim.strategies.checkpoint import Checkpoint, downloads


def renews_itself(scenario: Scenario, strategy: Strategy) -> bool:
    """Whether nothing can happen in a scenario's runs under a strategy but what is said above."""
    cluster, failures = scenario.cluster, scenario.failures
    return (
        type(strategy) is Checkpoint
        and strategy.config.blocking_share == 1.0
        and strategy.config.local_gib_per_s is None
        and strategy.config.interval != "adaptive"
        and cluster.stage_state == "sharded"
        and not (cluster.jitter or cluster.provisioning_sigma)
        and isinstance(failures, PoissonConfig)
        and not (failures.notice_seconds or failures.downtime)
        and scenario.fidelity == "iteration"
    )


class Renewals:
    """One such run, on the fleet of a world whose event loop stands still meanwhile."""

    def __init__(self, scenario: Scenario, seed: int, world: World, routine: Routine, log: IterationLog) -> None:
        assert routine.transfers is not None
        assert isinstance(scenario.failures, PoissonConfig)
        self.world, self.fleet, self.ledger, self.events, self.log = world, world.fleet, world.ledger, world.events, log
        self._config, self._uploads = scenario.cluster, routine.transfers
        self._downloads = downloads(world, range(world.num_stages + 1))
        price, pause_seconds = world.pipeline.price(world.plain_plan()), world.seconds_of(self._uploads)
        self._split, self._rhythm = price.split, Cadence(price.seconds, routine.first, routine.then, pause_seconds)
        self._process = PoissonFailures(scenario.failures, len(self.fleet.nodes))
        path = {"process": self._process.kind, "domain": "cluster"}
        self._rng = stream(seed, "victims", **path)
        self._uptimes = self._process.uptimes(stream(seed, "failures", **path), "cluster")
        self._strike_seconds = to_ticks(next(self._uptimes, math.inf))
        self._arrivals: deque[tuple[float, str]] = deque()
        self._saved: int | None = None
        self.now_seconds = 0.0
        self.num_completed = self.num_executed = 0

    def run(self, num_iterations: int, strategy: str, lineage: str) -> bool:
        """All iterations; False where it takes more time, or more of them, than the scenario allows."""
        race, execution = self.world.race, self.world.execution
        while (lost := self._work(num_iterations, lineage)) is not None:
            stage, num_completed = lost, self.num_completed
            self._recover()
            self.num_completed = self._saved or 0
            if self.num_completed < num_completed:
                self._note("rolled_back", stage, num_completed, f"to iteration {self.num_completed}")
                self.ledger.roll_back(self.num_completed)
            self._note("recovered", stage, self.num_completed, strategy)
            if self.now_seconds > race.deadline_seconds or self.num_executed >= execution.most_executed:
                return False
        if self.now_seconds > race.deadline_seconds or self.num_executed > execution.most_executed:
            return False
        self._receive(self.now_seconds)
        execution.num_completed = self.num_completed
        race.env.end_at(self.now_seconds)
        return True

    # ---- work ------------------------------------------------------------------------------------

    def _work(self, num_iterations: int, lineage: str) -> int | None:
        """From where the last checkpoint is, until a stage is lost, or all is done."""
        began_seconds, most = self.now_seconds, num_iterations - self.num_completed
        place = None
        while True:
            struck_seconds = self._strike_seconds
            leap = longest(self._rhythm, struck_seconds - began_seconds, most)
            is_done = leap.num_iterations == most and not leap.is_complete
            if is_done or (place := self._strike()) is not None:
                break
        self._complete(leap, began_seconds, lineage)
        left_off_seconds = began_seconds + leap.seconds
        if is_done:
            self.now_seconds = left_off_seconds
            return None
        assert place is not None
        if leap.is_complete:
            self.now_seconds = left_off_seconds
            self._note("checkpoint_started", None, self.num_completed)
            self.world.messenger.count(self._uploads)
        else:
            self.num_executed += 1
        self.ledger.spend("checkpoint_save" if leap.is_complete else "lost_work", struck_seconds - left_off_seconds)
        stage = self._lose(place, struck_seconds)
        if leap.is_complete:
            self._note("checkpoint_lost", stage, self.num_completed, "failure during the upload")
        return stage

    def _complete(self, leap: RepeatedIterations, began_seconds: float, lineage: str) -> None:
        """A leap has passed."""
        if leap.num_pauses:
            self.events.repeat(saves(leap, began_seconds, self.num_completed))
            self.world.messenger.count(self._uploads, leap.num_pauses)
            self.ledger.spend("checkpoint_save", leap.num_pauses * leap.pause_seconds)
            self._saved = self.num_completed + leap.num_iterations - leap.rest
        if leap.num_iterations:
            self.log.leap(leap, self.num_completed + 1, began_seconds, lineage)
            self.ledger.complete_iteration(self._split, leap.num_iterations)
            self.num_completed += leap.num_iterations
            self.num_executed += leap.num_iterations

    # ---- losses and recoveries -------------------------------------------------------------------

    def _strike(self) -> int | None:
        """The next strike, and all arrivals before it; the place that has lost its node, if one has."""
        at_seconds, fleet = self._strike_seconds, self.fleet
        self._strike_seconds = at_seconds + to_ticks(next(self._uptimes, math.inf))
        self._receive(at_seconds)
        entry = self._process.entry(self._rng, len(fleet.roster))
        if entry is None:
            return None
        node, cluster = fleet.nodes[fleet.roster[entry]], self.world.cluster
        place, region = node.place, node.region
        if place is not None:
            if cluster.stage_of(place) in self._process.config.immune_stages:
                return None
            region = cluster.regions_of_nodes[place]
        fleet.lose((node.number,), at_seconds)
        fleet.seat_spares(at_seconds)
        provisioning_seconds = to_ticks(self._config.provisioning_seconds)
        if provisioning_seconds:
            self._arrivals.append((at_seconds + provisioning_seconds, region))
        else:
            fleet.arrive(at_seconds, region)
        return place

    def _receive(self, until_seconds: float) -> None:
        """Nodes that have been ordered come."""
        while self._arrivals and self._arrivals[0][0] <= until_seconds:
            self.fleet.arrive(*self._arrivals.popleft())

    def _lose(self, place: int, at_seconds: float) -> int:
        """A share of a stage is gone; which stage."""
        stage, self.now_seconds = self.world.cluster.stage_of(place), at_seconds
        self.world.num_failures += 1
        self._note("failure", stage, self.num_completed)
        return stage

    def _recover(self) -> None:
        """Detect, wait until no place is vacant, start, fetch; from the beginning when another node is lost."""
        config, world = self._config, self.world
        while True:
            if not self._passes(config.detection_seconds, "detection"):
                continue
            if not self._waits() or not self._passes(config.startup_seconds, "provisioning"):
                continue
            if self._saved is None:
                return
            world.messenger.count(self._downloads)
            if self._passes(world.seconds_of(self._downloads), "state_transfer"):
                return

    def _waits(self) -> bool:
        """Until every place has its node; whether no other has been lost meanwhile."""
        self._receive(self.now_seconds)
        while self.fleet.lacking_stages:
            until_seconds = self._arrivals[0][0]
            if not self._passes(until_seconds - self.now_seconds, "provisioning"):
                return False
            self._receive(until_seconds)
        return True

    def _passes(self, seconds: float, bucket: Bucket) -> bool:
        """Let time pass; whether no place has lost its node meanwhile."""
        began_seconds = self.now_seconds
        ends_seconds = began_seconds + to_ticks(seconds)
        while self._strike_seconds <= ends_seconds and ends_seconds > began_seconds:
            struck_seconds, place = self._strike_seconds, self._strike()
            if place is not None:
                self.ledger.spend(bucket, struck_seconds - began_seconds)
                self._lose(place, struck_seconds)
                return False
        self.ledger.spend(bucket, ends_seconds - began_seconds)
        self.now_seconds = ends_seconds
        return True

    def _note(self, kind: EventKind, stage: int | None, iteration: int, detail: str = "") -> None:
        self.events.note(self.now_seconds, kind, stage, iteration, detail)
