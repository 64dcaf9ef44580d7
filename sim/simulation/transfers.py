"""What is sent beside the iterations' own messages: recoveries, checkpoints, copies; by those who hold it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from sim.cluster.flows import BackgroundTransfer, Flow, Flows
from sim.cluster.membership import Membership, Node
from sim.cluster.network import STORAGE, Path
from sim.core.ledger import exact_sum
from sim.core.records import Bucket, Failure
from sim.simulation.interruptible import InterruptibleWork, Last
from sim.simulation.state_placement import StatePlacement
from sim.strategies.base import STORE, Process, Transfer
from sim.workload.iteration_time import IterationTimeCache


@dataclass
class Shares:
    """Transfers by nodes that hold shares: how long they take alone, their sizes, and how often they have been sent."""

    transfers: Sequence[Transfer]
    seconds: float
    sizes_bytes: tuple[float, ...]
    num_sent: int = 0


class StateTransfers:
    """Sends transfers: at once and waited for, or beside the training."""

    def __init__(
        self,
        work: InterruptibleWork,
        flows: Flows,
        holders: StatePlacement,
        prices: IterationTimeCache,
        gives_notice: bool = False,
    ) -> None:
        self._work, self._flows, self._holders = work, flows, holders
        self._network, self._prices = prices.network, prices
        self._backgrounds: list[BackgroundTransfer] = []
        self._gives_notice = gives_notice
        self._bytes_sent = 0.0
        self._sizes_bytes: dict[float, int] = {}
        """Of messages of shares, how many of each size."""
        self._shares: dict[int, Shares] = {}

    def send(self, transfers: Sequence[Transfer]) -> list[Flow]:
        """Start the messages of some transfers."""
        return [self.send_message(*message) for message in self._messages(transfers)]

    def send_message(self, source: int, target: int, num_bytes: float, what: str) -> Flow:
        """Start one message from place to place, or from or to the store."""
        flow = self._flows.send(self._path(source, target), num_bytes)
        if self._holders.cluster.is_sharded:
            self._sizes_bytes[num_bytes] = self._sizes_bytes.get(num_bytes, 0) + 1
        else:
            self._bytes_sent += num_bytes
        if self._work.recorder:
            self._work.recorder.follow(flow, what, source, target, self._work.now_seconds)
        return flow

    def arrive(self, flows: Sequence[Flow], bucket: Bucket) -> Process[Failure | None]:
        """Wait for the last message; a failure ends them all."""
        failure = yield from self._work.wait_until(self._work.env.all_of([flow.arrived for flow in flows]), bucket)
        for flow in flows:
            self._flows.cancel(flow)
        return failure

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> BackgroundTransfer:
        """Send beside the training; any failure ends it undone, also one at the instant it ends."""
        env = self._work.env
        activity = BackgroundTransfer(self.send(transfers), env.event(), when_lost)
        self._backgrounds.append(activity)

        def run() -> Generator[simpy.Event, Any, None]:
            yield env.all_of([flow.arrived for flow in activity.flows])
            yield Last(env)  # failures of this very instant come first
            if activity.under_way:
                activity.under_way = False
                self._backgrounds.remove(activity)
                when_done()
                activity.done.succeed()

        env.process(run())
        return activity

    def end_backgrounds(self) -> None:
        """A failure undoes what is under way in the background."""
        for activity in self._backgrounds:
            activity.under_way = False
            for flow in activity.flows:
                self._flows.cancel(flow)
            activity.when_lost()
        self._backgrounds.clear()

    @property
    def is_busy(self) -> bool:
        """Whether messages are under way that share links with others."""
        return self._network.is_shared and self._flows.busy

    @property
    def is_alone(self) -> bool:
        """Whether what is sent now and waited for has the links to itself: nodes that hold shares, and no notices."""
        return self._holders.cluster.is_sharded and not (self._gives_notice or self._flows.busy or self._work.recorder)

    def stand_still(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all, alone, and wait for the last: as `send` and `arrive` do, without a message on the event loop."""
        self.count(transfers)
        return (yield from self._work.wait(self.seconds_of(transfers), bucket))

    def count(self, transfers: Sequence[Transfer], num: int = 1) -> None:
        """They have been sent, or so many times."""
        self._of_shares(transfers).num_sent += num

    @property
    def num_bytes_sent(self) -> float:
        """Of all messages, also of those that a failure ended."""
        sizes = [(size, sent.num_sent) for sent in self._shares.values() for size in sent.sizes_bytes]
        return exact_sum([(self._bytes_sent, 1), *self._sizes_bytes.items(), *sizes])

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """How long such transfers take when they have the network to themselves."""
        if self._holders.cluster.is_sharded:
            return self._of_shares(transfers).seconds
        return self._seconds_of(transfers)

    def _of_shares(self, transfers: Sequence[Transfer]) -> Shares:
        """What is known of transfers by nodes that hold shares, which all take part in them, always."""
        known = self._shares.get(id(transfers))
        if known is None or known.transfers is not transfers:
            sizes = tuple(num_bytes for _, _, num_bytes, _ in self._messages(transfers))
            known = self._shares[id(transfers)] = Shares(transfers, self._seconds_of(transfers), sizes)
        return known

    def _seconds_of(self, transfers: Sequence[Transfer]) -> float:
        messages = tuple(self._messages(transfers))

        def seconds() -> float:
            env = simpy.Environment()
            flows = Flows(env)
            sent = [flows.send(self._path(a, b), num_bytes) for a, b, num_bytes, _ in messages]
            env.run(until=env.all_of([flow.arrived for flow in sent]))
            return float(env.now)

        return self._prices.transfer_seconds.get(messages, seconds)

    def _messages(self, transfers: Sequence[Transfer]) -> Iterator[tuple[int, int, float, str]]:
        """The messages of some transfers: source, target, bytes, and what they are."""
        if self._holders.cluster.is_sharded:
            yield from self._messages_of_shares(transfers)
            return
        num_replicas = len(self._holders.cluster.replicas)
        for transfer in transfers:
            if transfer.target == STORE:
                assert transfer.source != STORE
                yield self._holders.source(transfer.source, 0), STORAGE, transfer.num_bytes, transfer.what
                continue
            for place in self._holders.receivers(transfer.target):
                stage = transfer.source
                source = STORAGE if stage == STORE else self._holders.source(stage, place % num_replicas)
                yield source, place, transfer.num_bytes, transfer.what

    def _messages_of_shares(self, transfers: Sequence[Transfer]) -> Iterator[tuple[int, int, float, str]]:
        """The same where nodes hold shares: all of a stage send, or fetch, an equal one at once, as one message."""
        for transfer in transfers:
            stage = transfer.source if transfer.target == STORE else transfer.target
            assert isinstance(stage, int)
            assert STORE in (transfer.source, transfer.target), "shares go to the store and come from there"
            first = self._holders.cluster.node(stage, 0)
            ends = (first, STORAGE) if transfer.target == STORE else (STORAGE, first)
            yield *ends, transfer.num_bytes, transfer.what

    def _path(self, source: int, target: int) -> Path:
        return self._network.path(source, target, self._holders.cluster.num_shares)


# Nodes that join others of their stage: they have come and started up, and get the state from those that hold it.


class NodeAdmission:
    """Admits nodes between iterations; training stands still meanwhile.

    join_bytes: what a node of a stage is sent; tell: told the stage and replica of each that has joined; seconds: that
    training stood still for it so far.
    """

    def __init__(
        self,
        work: InterruptibleWork,
        fleet: Membership,
        holders: StatePlacement,
        messenger: StateTransfers,
        tell: Callable[[int, int], None],
    ) -> None:
        self._work, self._fleet, self._holders, self._messenger, self._tell = work, fleet, holders, messenger, tell
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
        ready_seconds = self._work.now_seconds - self._config.startup_seconds
        joining = {place: node for place, node in self._coming.items() if node.seated_seconds <= ready_seconds}
        if not joining:
            return None
        self._holders.receiving = joining
        flows = []
        for place in joining:
            stage, replica = divmod(place, self._config.nodes_per_stage)
            source = self._holders.source(stage, replica)
            flows.append(self._messenger.send_message(source, place, self.join_bytes(stage), "state"))
        started_seconds = self._work.now_seconds
        failure = yield from self._messenger.arrive(flows, "state_transfer")
        self.seconds += self._work.now_seconds - started_seconds
        if failure is None:
            self._holders.gain(joining)
            for place in joining:
                self._tell(*divmod(place, self._config.nodes_per_stage))
        self._holders.receiving = {}
        return failure
