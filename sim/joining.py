"""Nodes that join others of their stage: they have come and started up, and get the state from those that hold it."""

from __future__ import annotations

from collections.abc import Callable

from sim.fleet import Fleet, Node
from sim.holders import Holders
from sim.messenger import Messenger
from sim.race import Race
from sim.records import Failure
from sim.strategies.base import Process


class Joining:
    """Admits nodes between iterations; training stands still meanwhile.

    join_bytes: what a node of a stage is sent; tell: told the stage and replica of each that has joined; seconds: that
    training stood still for it so far.
    """

    def __init__(
        self, race: Race, fleet: Fleet, holders: Holders, messenger: Messenger, tell: Callable[[int, int], None]
    ) -> None:
        self._race, self._fleet, self._holders, self._messenger, self._tell = race, fleet, holders, messenger, tell
        self._config = holders.cluster.config
        self.join_bytes: Callable[[int], float] = lambda _: 0.0
        self.seconds = 0.0

    @property
    def is_expected(self) -> bool:
        """Whether a node has come that will join as soon as it has started up, or is about to."""
        return bool(self._coming)

    @property
    def _coming(self) -> dict[int, Node]:
        """Nodes that are there without their stage's state, by place. Shares come with recoveries."""
        if self._holders.cluster.is_sharded:
            return {}
        node_at = self._fleet.node_at
        return {place: node for place in self._holders.missing if (node := node_at[place])}

    def admit(self) -> Process[Failure | None]:
        """All that have started up get the state, and take part."""
        if not self._holders.is_incomplete or self._holders.cluster.is_sharded:
            return None
        ready_seconds = self._race.now_seconds - self._config.startup_seconds
        joining = {place: node for place, node in self._coming.items() if node.seated_seconds <= ready_seconds}
        if not joining:
            return None
        self._holders.receiving = joining
        flows = []
        for place in joining:
            stage, replica = divmod(place, self._config.nodes_per_stage)
            source = self._holders.source(stage, replica)
            flows.append(self._messenger.send_message(source, place, self.join_bytes(stage), "state"))
        started_seconds = self._race.now_seconds
        failure = yield from self._messenger.arrive(flows, "state_transfer")
        self.seconds += self._race.now_seconds - started_seconds
        if failure is None:
            self._holders.gain(joining)
            for place in joining:
                self._tell(*divmod(place, self._config.nodes_per_stage))
        self._holders.receiving = {}
        return failure
