"""Transfers of training state, apart from messages of iterations: recoveries, checkpoints, copies, joining nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import simpy

from sim.cluster.flows import BackgroundTransfer, Flow, Flows
from sim.cluster.network import STORAGE, Path
from sim.core.ledger import exact_sum
from sim.core.records import Bucket, Failure
from sim.simulation.interruptible import InterruptibleWork, trigger_late
from sim.simulation.state_placement import StatePlacement
from sim.strategies.base import STORE, Process, Transfer
from sim.workload.iteration_time import IterationTimeCache, Messages


class StateTransfers:
    """Sends transfers and waits for them, or sends them in the background; notices may start others at any time."""

    def __init__(
        self,
        work: InterruptibleWork,
        flows: Flows,
        placement: StatePlacement,
        cache: IterationTimeCache,
        gives_notice: bool = False,
    ) -> None:
        self.flows, self.network = flows, cache.network
        self._work, self._placement, self._cache, self._gives_notice = work, placement, cache, gives_notice
        self._backgrounds: list[BackgroundTransfer] = []
        self._cached: dict[tuple[Transfer, ...], tuple[Messages, float]] = {}
        self._version = 0
        self._sent: list[tuple[Messages, int]] = []

    def send(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once and wait for the last message; a failure ends them all."""
        if self.has_idle_links:
            self.count(transfers)
            return (yield from self._work.wait(self.seconds_of(transfers), bucket))
        flows = [self.send_message(*message) for message in self._messages(transfers)]
        return (yield from self.wait_for(flows, bucket))

    def send_message(self, source: int, target: int, num_bytes: float, what: str) -> Flow:
        """Start one message from slot to slot, or from or to the store."""
        flow = self.flows.send(self._path(source, target), num_bytes)
        self._count(((source, target, num_bytes, what),), 1)
        if self._work.recorder:
            self._work.recorder.follow(flow, what, source, target, self._work.now_seconds)
        return flow

    def wait_for(self, flows: Sequence[Flow], bucket: Bucket) -> Process[Failure | None]:
        """Wait for the last of some messages; a failure ends them all."""
        failure = yield from self._work.wait_until(self._work.env.all_of([flow.arrived for flow in flows]), bucket)
        for flow in flows:
            self.flows.cancel(flow)
        return failure

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> BackgroundTransfer:
        """Send concurrently with training; a failure ends it undone, even at the instant at which it would end."""
        env = self._work.env
        flows = [self.send_message(*message) for message in self._messages(transfers)]
        activity = BackgroundTransfer(flows, env.event(), when_lost)
        self._backgrounds.append(activity)

        def run() -> Generator[simpy.Event, Any, None]:
            yield env.all_of([flow.arrived for flow in activity.flows])
            after_failures = env.event()
            trigger_late(after_failures, rank=2)  # and after what the training process does about them
            yield after_failures
            if activity.under_way:
                activity.under_way = False
                self._backgrounds.remove(activity)
                when_done()
                activity.done.succeed()

        env.process(run())
        return activity

    def end_backgrounds(self) -> None:
        """End all background transfers undone, because of a failure."""
        for activity in self._backgrounds:
            activity.under_way = False
            for flow in activity.flows:
                self.flows.cancel(flow)
            activity.when_lost()
        self._backgrounds.clear()

    @property
    def has_idle_links(self) -> bool:
        """Whether what is sent and waited for meets no other message, so that its duration is known from the start."""
        return not (self._gives_notice or self.flows.under_way or self._work.recorder)

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """Duration of some transfers if no other messages are under way."""
        return self._planned(transfers)[1]

    def count(self, transfers: Sequence[Transfer], num: int = 1) -> None:
        """Count some transfers as sent, `num` times."""
        self._count(self._planned(transfers)[0], num)

    def _count(self, messages: Messages, num: int) -> None:
        if self._sent and self._sent[-1][0] is messages:
            num += self._sent.pop()[1]
        self._sent.append((messages, num))

    @property
    def num_bytes_sent(self) -> float:
        """Bytes of all messages, including those that a failure ended."""
        if not self._placement.cluster.is_sharded:
            return sum((message[2] for messages, num in self._sent for _ in range(num) for message in messages), 0.0)
        known, num_sent = {id(messages): messages for messages, _ in self._sent}, Counter[int]()
        for messages, num in self._sent:
            num_sent[id(messages)] += num
        return exact_sum((message[2], num) for each, num in num_sent.items() for message in known[each])

    def _planned(self, transfers: Sequence[Transfer]) -> tuple[Messages, float]:
        """Messages of some transfers and their duration without others, cached until other nodes hold the state."""
        if self._placement.version != self._version:
            self._cached.clear()
            self._version = self._placement.version
        key = tuple(transfers)
        if key not in self._cached:
            messages = tuple(self._messages(key))
            seconds = self._cache.transfer_seconds.get(messages, lambda: self._measure_seconds(messages))
            self._cached[key] = messages, seconds
        return self._cached[key]

    def _measure_seconds(self, messages: Messages) -> float:
        env = simpy.Environment()
        flows = Flows(env)
        sent = [flows.send(self._path(source, target), num_bytes) for source, target, num_bytes, _ in messages]
        env.run(until=env.all_of([flow.arrived for flow in sent]))
        return float(env.now)

    def _messages(self, transfers: Sequence[Transfer]) -> Iterator[tuple[int, int, float, str]]:
        """The messages of some transfers: source, target, bytes, and what they are."""
        cluster, placement = self._placement.cluster, self._placement
        for transfer in transfers:
            source, target = transfer.source, transfer.target
            if cluster.is_sharded:  # all nodes of the stage send, or fetch, an equal shard at once: one wide message
                assert (source == STORE) != (target == STORE), "shards go to the store or come from there"
                first = cluster.slot(source if target == STORE else target, 0)  # type: ignore[arg-type]
                yield (first, STORAGE, *transfer[2:]) if target == STORE else (STORAGE, first, *transfer[2:])
            elif target == STORE:
                assert source != STORE
                yield placement.source(source, 0), STORAGE, *transfer[2:]
            else:
                for slot in placement.receivers(target):
                    replica = slot % len(cluster.replicas)
                    yield STORAGE if source == STORE else placement.source(source, replica), slot, *transfer[2:]

    def _path(self, source: int, target: int) -> Path:
        return self.network.path(source, target, self._placement.cluster.num_shares)
