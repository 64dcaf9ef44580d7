"""Joining: nodes that have arrived at stages which still work are sent the state of their stage, then take part.

`cluster.joining` says whether everybody waits meanwhile, or whether the state is sent beside the training. A node then
takes part from the first iteration on that begins after its state has arrived. *Not modelled*: what the stage has
learnt while the state was under way, which the node is taken to receive with the gradients of these iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import simpy

from sim.cluster.flows import Flow
from sim.cluster.membership import Membership, Node
from sim.cluster.network import STORAGE
from sim.core.records import Failure
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import StateTransfers
from sim.strategies.base import SAVED, STORE, Process, Source

Sources = Mapping[tuple[int, int], Sequence[Source]]
"""By stage and pipeline of a place: the stages from whose nodes, or the store, a node there is sent state."""


@dataclass
class Fetch:
    """State on its way to a node that joins, beside the training, and the slots that send it."""

    sources: list[int]
    flows: list[Flow]

    @property
    def has_arrived(self) -> bool:
        """Whether all of it has."""
        return all(flow.arrived.triggered for flow in self.flows)


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

    def admit(
        self, env: simpy.Environment, beside: bool | None = None, sources: Sources | None = None
    ) -> Process[Failure | None]:
        """Let nodes take part that have the state; send it to those that have started up. Waits unless beside.

        beside: None: as `cluster.joining` says. sources: for nodes that are sent other things than their stage's state.
        """
        if self._fetches:
            self._admit_fetched()
        sources = sources or {}
        left_out = self._placement.left_out
        ready = {slot: n for slot, n in self.ready(env).items() if self._cluster.stage_of(slot) not in left_out}
        if self._cluster.config.joining == "beside" if beside is None else beside:
            self._fetch([slot for slot in ready if slot not in self._fetches], sources)
            return None
        return (yield from self._send_and_wait(ready, sources)) if ready else None

    def _send_and_wait(self, ready: dict[int, Node], sources: Sources) -> Process[Failure | None]:
        """Send the state to nodes while all wait, so that they take part."""
        self._placement.receive(ready)
        messages = chain.from_iterable(self._messages(slot, sources) for slot in ready)
        flows = self._transfers.send_messages(tuple(messages))
        failure = yield from self._transfers.wait_for(flows, "state_transfer")
        if failure is None:
            self._gain(ready)
        self._placement.receive({})
        return failure

    def _messages(self, slot: int, sources: Sources) -> list[tuple[int, int, float, str]]:
        """What a node is sent: by default the state of its stage, and what its strategies keep there, by a peer."""
        stage, replica = self._cluster.place_of(slot)
        own: list[Source] = [(stage, math.fsum(map(self._num_bytes, self._cluster.stages_on(stage))))]
        return [
            (STORAGE, slot, num_bytes, SAVED)
            if of == STORE
            else (self._placement.source(of, replica), slot, num_bytes, "state")
            for of, num_bytes in sources.get((stage, replica), own)
        ]

    def _gain(self, slots: Collection[int]) -> None:
        self._placement.gain(slots)
        for slot in slots:
            self._joined(*self._cluster.place_of(slot))

    # ---- beside the training ---------------------------------------------------------------------------

    def _fetch(self, slots: list[int], sources: Sources) -> None:
        """Begin to send the nodes of slots their state."""
        messages = [message for slot in slots for message in self._messages(slot, sources)]
        for (source, slot, *_), flow in zip(messages, self._transfers.send_messages(tuple(messages)), strict=True):
            fetch = self._fetches.setdefault(slot, Fetch([], []))
            fetch.sources.append(source)
            fetch.flows.append(flow)

    def _admit_fetched(self) -> None:
        """Let the nodes take part whose state has arrived."""
        done = [slot for slot, fetch in self._fetches.items() if fetch.has_arrived]
        for slot in done:
            del self._fetches[slot]
        self._gain([slot for slot in done if self._membership.node_at[slot]])

    def arrived(self, env: simpy.Environment) -> simpy.Event:
        """An event that occurs when the state of the next node has arrived."""
        return env.any_of([env.all_of([flow.arrived for flow in fetch.flows]) for fetch in self._fetches.values()])

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
        lost = set(slots)
        self._end([slot for slot, fetch in self._fetches.items() if slot in lost or lost.intersection(fetch.sources)])

    def roll_back(self) -> None:
        """End all that is sent: it is no longer the state from which training continues."""
        self._end(list(self._fetches))

    def _end(self, slots: Collection[int]) -> None:
        for flow in [flow for slot in slots for flow in self._fetches.pop(slot).flows]:
            if self._iteration_runs:
                self._in_vain.append(flow)
            else:
                self._transfers.flows.cancel(flow)
