"""What is sent beside the iterations' own messages: recoveries, checkpoints, copies; by those who hold it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import simpy

from sim.flows import BackgroundTransfer, Flow, Flows
from sim.holders import Holders
from sim.network import STORAGE, Path
from sim.prices import PriceList
from sim.race import Last, Race
from sim.records import Bucket, Failure
from sim.strategies.base import STORE, Process, Transfer


class Messenger:
    """Sends transfers: at once and waited for, or beside the training."""

    def __init__(self, race: Race, flows: Flows, holders: Holders, prices: PriceList) -> None:
        self._race, self._flows, self._holders = race, flows, holders
        self._network, self._prices = prices.network, prices
        self._backgrounds: list[BackgroundTransfer] = []
        self.num_bytes_sent = 0.0

    def send(self, transfers: Sequence[Transfer]) -> list[Flow]:
        """Start the messages of some transfers."""
        return [self.send_message(*message) for message in self._messages(transfers)]

    def send_message(self, source: int, target: int, num_bytes: float, what: str) -> Flow:
        """Start one message from place to place, or from or to the store."""
        flow = self._flows.send(self._path(source, target), num_bytes)
        self.num_bytes_sent += num_bytes
        if self._race.trace:
            self._race.trace.follow(flow, what, source, target, self._race.now_seconds)
        return flow

    def arrive(self, flows: Sequence[Flow], bucket: Bucket) -> Process[Failure | None]:
        """Wait for the last message; a failure ends them all."""
        failure = yield from self._race.spend(self._race.env.all_of([flow.arrived for flow in flows]), bucket)
        for flow in flows:
            self._flows.cancel(flow)
        return failure

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> BackgroundTransfer:
        """Send beside the training; any failure ends it undone, also one at the instant it ends."""
        env = self._race.env
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

    def passes(self, transfers: Sequence[Transfer], bucket: Bucket) -> bool:
        """Send all in one leap, if nothing at all happens until the last has arrived; whether it has."""
        if self._flows.busy or not self._race.passes(seconds := self.seconds_of(transfers)):
            return False
        self._race.ledger.spend(bucket, seconds)
        self.num_bytes_sent += sum(num_bytes for _, _, num_bytes, _ in self._messages(transfers))
        return True

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """How long such transfers take when they have the network to themselves."""
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
