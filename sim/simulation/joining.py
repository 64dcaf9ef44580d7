"""Joining: nodes that have arrived at stages which still work are sent the state of their stage, then take part.

`cluster.joining` says whether everybody waits meanwhile, or whether the state is sent beside the training. A node then
takes part from the first iteration on that begins after its state has arrived. *Not modelled*: what the stage has
learnt while the state was under way, which the node is taken to receive with the gradients of these iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import simpy

from sim.cluster.flows import Flow
from sim.cluster.membership import Membership, Node
from sim.core.records import Failure
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import StateTransfers
from sim.strategies.base import Process


@dataclass
class Fetch:
    """The state of a stage on its way from a slot to a node that joins, beside the training."""

    source: int
    flow: Flow


class Joining:
    """Nodes that join, by slot. num_bytes: what a node of a stage is sent; joined: called with stage, pipeline.

    waited_seconds: how long training has waited for them.
    """

    def __init__(
        self,
        membership: Membership,
        placement: StatePlacement,
        transfers: StateTransfers,
        num_bytes: Callable[[int], float],
        joined: Callable[[int, int], None],
    ) -> None:
        self._membership, self._placement, self._transfers = membership, placement, transfers
        self._num_bytes, self._joined, self._cluster = num_bytes, joined, membership.cluster
        self._fetches: dict[int, Fetch] = {}
        self._in_vain: list[Flow] = []
        self._iteration_runs = False
        self.waited_seconds = 0.0

    def nodes(self) -> dict[int, Node]:
        """Nodes that have arrived at stages that are not lost, by slot; none if sharded: recoveries bring shards."""
        if self._cluster.is_sharded:
            return {}
        node_at, set_aside = self._membership.node_at, self._placement.set_aside
        return {
            slot: node
            for slot in self._placement.missing
            if (node := node_at[slot]) and set_aside.get(slot) is not node
        }

    def ready(self, env: simpy.Environment) -> dict[int, Node]:
        """Those of `nodes` that have started up."""
        ready_seconds = float(env.now) - self._cluster.config.startup_seconds
        return {slot: node for slot, node in self.nodes().items() if node.assigned_seconds <= ready_seconds}

    def admit(self, env: simpy.Environment, beside: bool | None = None) -> Process[Failure | None]:
        """Let nodes take part that have the state; send it to those that have started up. Waits unless beside.

        beside: None: as `cluster.joining` says.
        """
        if self._fetches:
            self._admit_fetched()
        left_out = self._placement.left_out
        ready = {slot: n for slot, n in self.ready(env).items() if self._cluster.stage_of(slot) not in left_out}
        if self._cluster.config.joining == "beside" if beside is None else beside:
            self._fetch({slot: node for slot, node in ready.items() if slot not in self._fetches})
            return None
        return (yield from self._send_and_wait(ready)) if ready else None

    def _send_and_wait(self, ready: dict[int, Node]) -> Process[Failure | None]:
        """Send the state to nodes while all wait, so that they take part."""
        self._placement.receive(ready)
        flows = self._transfers.send_messages(tuple(self._message(slot) for slot in ready))
        failure = yield from self._transfers.wait_for(flows, "state_transfer")
        if failure is None:
            self._gain(ready)
        self._placement.receive({})
        return failure

    def _message(self, slot: int) -> tuple[int, int, float, str]:
        """The state of a slot's stage, and what its strategies keep there, from a node that holds it."""
        stage, replica = self._cluster.place_of(slot)
        num_bytes = math.fsum(map(self._num_bytes, self._cluster.stages_on(stage)))
        return self._placement.source(stage, replica), slot, num_bytes, "state"

    def _gain(self, slots: Collection[int]) -> None:
        self._placement.gain(slots)
        for slot in slots:
            self._joined(*self._cluster.place_of(slot))

    # ---- beside the training ---------------------------------------------------------------------------

    def _fetch(self, nodes: dict[int, Node]) -> None:
        """Begin to send the state to nodes."""
        if not nodes:
            return
        messages = tuple(self._message(slot) for slot in nodes)
        flows = self._transfers.send_messages(messages)
        for slot, (source, *_), flow in zip(nodes, messages, flows, strict=True):
            self._fetches[slot] = Fetch(source, flow)

    def _admit_fetched(self) -> None:
        """Let the nodes take part whose state has arrived."""
        done = [slot for slot, fetch in self._fetches.items() if fetch.flow.arrived.triggered]
        for slot in done:
            del self._fetches[slot]
        self._gain([slot for slot in done if self._membership.node_at[slot]])

    def arrived(self, env: simpy.Environment) -> simpy.Event:
        """An event that occurs when the state of the next node has arrived."""
        return env.any_of([fetch.flow.arrived for fetch in self._fetches.values()])

    @property
    def is_under_way(self) -> bool:
        """Whether state is being sent beside the training."""
        return bool(self._fetches)

    def run_beside(self, iteration: Process[Failure | None]) -> Process[Failure | None]:
        """Run an iteration; messages to and from nodes that are lost meanwhile take up their links until its end."""
        self._iteration_runs = True
        failure = yield from iteration
        self._iteration_runs = False
        for flow in self._in_vain:
            self._transfers.flows.cancel(flow)
        self._in_vain.clear()
        return failure

    def lose(self, slots: Collection[int]) -> None:
        """End what is sent to or from nodes that are lost; those that remain fetch it again, from others."""
        self._end([slot for slot, fetch in self._fetches.items() if slot in slots or fetch.source in slots])

    def roll_back(self) -> None:
        """End all that is sent: it is no longer the state from which training continues."""
        self._end(list(self._fetches))

    def _end(self, slots: Collection[int]) -> None:
        for slot in slots:
            flow = self._fetches.pop(slot).flow
            if self._iteration_runs:
                self._in_vain.append(flow)
            else:
                self._transfers.flows.cancel(flow)
