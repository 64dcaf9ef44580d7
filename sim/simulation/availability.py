"""What losses, arrivals and preemption notices of nodes mean for the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import simpy

from sim.cluster.membership import Membership, Node
from sim.core.records import Bucket, EventKind, Failure
from sim.core.units import to_ticks
from sim.simulation.failure_injection import MembershipObserver
from sim.simulation.interruptible import InterruptibleWork, trigger
from sim.simulation.log import EventLog
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import StateTransfers
from sim.strategies.base import Process


@dataclass
class Availability(MembershipObserver):
    """Observes the membership: records failures, updates the placement of state, and interrupts the training.

    on_notice: called at a notice that concerns the last nodes with a stage's state. With `stops_on_failures` false,
    failures are recorded and have no other effect.
    num_failures: stages lost so far; is_undetected: whether a failure without notice has not been detected yet.
    """

    work: InterruptibleWork
    membership: Membership
    placement: StatePlacement
    transfers: StateTransfers
    events: EventLog
    stops_on_failures: bool
    on_notice: Callable[[], None]
    num_failures: int = 0
    is_undetected: bool = False
    _arrival: simpy.Event | None = None
    _leaving: list[Node] = field(default_factory=list)  # nodes whose loss a notice has announced

    def nodes_lost(self, nodes: list[Node], announced: bool) -> None:
        """Handle the loss of nodes, stage by stage: the last that held a stage's state, or some of several."""
        placement, lost = self.placement, sorted(node.slot for node in nodes if node.slot is not None)
        for stage, slots_of_stage in groupby(lost, self.membership.cluster.stage_of):
            slots = list(slots_of_stage)
            was_lost, is_empty = stage in placement.lost_stages, not self.membership.works(stage)
            is_relevant = was_lost or any(placement.holds(slot) or slot in placement.receiving for slot in slots)
            is_failure = is_empty
            if self.stops_on_failures:
                took_the_state = [placement.lose(slot) for slot in slots]
                is_failure = any(took_the_state) or (was_lost and is_empty)
            self.num_failures += is_failure
            self._record("failure" if is_failure else "node_lost", stage)
            if self.stops_on_failures and is_relevant:
                self.is_undetected = self.is_undetected or not announced
                self.transfers.end_backgrounds()
                self.work.interrupt(Failure(self.work.now_seconds, stage, announced))

    def nodes_arrived(self) -> None:
        """Let the training process check whether the nodes that it waits for are there."""
        if self._arrival:
            trigger(self._arrival)

    def notice_given(self, numbers: Sequence[int]) -> None:
        """Handle a notice that nodes will leave; strategies react if these are the last with a stage's state."""
        self._leaving = [node for node in self._leaving if self.membership.nodes.get(node.number) is node]
        self._leaving += [self.membership.nodes[number] for number in numbers]
        slots = {node.slot for node in self._leaving}
        new_slots = [slot for number in numbers if (slot := self.membership.nodes[number].slot) is not None]
        stages = sorted(set(map(self.membership.cluster.stage_of, new_slots)))
        for stage in stages:
            self._record("notice", stage)
        if not self.stops_on_failures:
            return
        if self.membership.cluster.is_sharded:
            is_needed = bool(set(stages) - self.placement.lost_stages)
        else:
            is_needed = any(last and slots.issuperset(last) for last in map(self.placement.of, stages))
        if is_needed:
            self.on_notice()

    def wait_for_nodes(self, is_ordered: Callable[[], bool]) -> Process[Failure | None]:
        """Wait until every stage that no other stage covers has a node, or all nodes if its state is sharded.

        is_ordered: whether nodes have been ordered that have not arrived yet.
        """
        work = self.work
        while any(stage not in self.placement.covers for stage in self.membership.lacking_stages):
            bucket: Bucket = "provisioning" if is_ordered() else "waiting_for_nodes"
            self._arrival = until = work.env.event()
            if not math.isinf(work.deadline_seconds):
                left_seconds = max(0.0, work.deadline_seconds - work.now_seconds) + 1.0
                until = work.env.any_of([until, work.env.timeout(to_ticks(left_seconds))])
            failure = yield from work.wait_until(until, bucket)
            if failure:
                return failure
        return work.next_failure()

    def _record(self, kind: EventKind, stage: int) -> None:
        self.events.note(self.work.now_seconds, kind, stage, self.work.ledger.num_iterations, "")
