"""Transfers of training state, apart from messages of iterations: recoveries, checkpoints, copies, joining nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import simpy

from sim.cluster.flows import BackgroundTransfer, Flow, Flows, FlowState
from sim.cluster.network import STORAGE
from sim.core.ledger import exact_sum
from sim.core.records import Bucket, Failure
from sim.core.units import to_ticks
from sim.simulation.interruptible import InterruptibleWork, trigger_late
from sim.simulation.state_placement import StatePlacement
from sim.strategies.base import STORE, Place, Process, Transfer
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
        self._messages_of: dict[tuple[Transfer, ...], Messages] = {}
        self._version = 0
        self._sent: list[tuple[Messages, int]] = []

    def send(self, transfers: Sequence[Transfer], bucket: Bucket) -> Process[Failure | None]:
        """Send all at once and wait for the last message; a failure ends them all."""
        if self.has_idle_links:
            self.count(transfers)
            return (yield from self._work.wait(self.seconds_of(transfers), bucket))
        return (yield from self.wait_for(self.send_messages(self._planned(transfers)), bucket))

    def send_messages(self, messages: Messages) -> list[Flow]:
        """Start messages from slot to slot, or from or to the store."""
        flows = self.flows.resume_all(self._states(messages))
        self._count(messages, 1)
        if recorder := self._work.recorder:
            for flow, (source, target, _, what) in zip(flows, messages, strict=True):
                recorder.follow(flow, what, source, target, self._work.now_seconds)
        return flows

    def wait_for(self, flows: Sequence[Flow], bucket: Bucket) -> Process[Failure | None]:
        """Wait for the last of some messages; a failure ends them all."""
        failure = yield from self._work.wait_until(self._work.env.all_of([flow.arrived for flow in flows]), bucket)
        for flow in flows:
            self.flows.cancel(flow)
        return failure

    def background(
        self,
        transfers: Sequence[Transfer],
        when_done: Callable[[], None],
        when_lost: Callable[[], None],
        slots: Collection[int] | None = None,
    ) -> BackgroundTransfer:
        """Send concurrently with training; a failure ends it undone, even at the instant at which it would end.

        slots: of the nodes whose loss, or that of a stage, ends it; None: of any node.
        """
        env, concerned = self._work.env, None if slots is None else frozenset(slots)
        activity = BackgroundTransfer(self.send_messages(self._planned(transfers)), env.event(), when_lost, concerned)
        self._backgrounds.append(activity)

        def finish(_: simpy.Event) -> None:
            if activity.under_way:
                activity.under_way = False
                self._backgrounds.remove(activity)
                when_done()
                activity.done.succeed()

        def finish_after_failures() -> None:
            after_failures = env.event()
            assert after_failures.callbacks is not None
            after_failures.callbacks.append(finish)
            trigger_late(after_failures, rank=2)  # and after what the training process does about them

        def count_one(_: float) -> None:
            activity.num_left -= 1
            if activity.under_way and not activity.num_left:
                finish_after_failures()

        for flow in activity.flows:
            flow.when_ended.append(count_one)
        if not activity.flows:
            finish_after_failures()
        return activity

    def foresee(self, activity: BackgroundTransfer) -> None:
        """Compute at once when a background transfer is done, if no message can begin before that."""
        flows = self.flows
        if flows.are_waiting and not self._gives_notice and set(activity.flows).issuperset(flows.under_way):
            flows.hold(self._cache.arrivals(flows.states()))

    def end_backgrounds(self, lost_slots: Collection[int] | None = None) -> None:
        """End background transfers undone, because of a failure. lost_slots: those of lost nodes; None: end all."""
        ended = [
            activity
            for activity in self._backgrounds
            if activity.slots is None or lost_slots is None or activity.slots.intersection(lost_slots)
        ]
        self._backgrounds = [activity for activity in self._backgrounds if activity not in ended]
        for activity in ended:
            activity.under_way = False
            for flow in activity.flows:
                self.flows.cancel(flow)
            activity.when_lost()

    @property
    def has_idle_links(self) -> bool:
        """Whether what is sent and waited for meets no other message, so that its duration is known from the start."""
        return not (self._gives_notice or self.flows.under_way or self._work.recorder)

    def seconds_of(self, transfers: Sequence[Transfer]) -> float:
        """Duration of some transfers if no other messages are under way."""
        messages = self._planned(transfers)
        return self._cache.transfer_seconds.get(
            messages, lambda: max(self._cache.arrivals(self._states(messages)), default=0.0)
        )

    def count(self, transfers: Sequence[Transfer], num: int = 1) -> None:
        """Count some transfers as sent, `num` times."""
        self._count(self._planned(transfers), num)

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

    def _planned(self, transfers: Sequence[Transfer]) -> Messages:
        """Messages of some transfers, cached until other nodes hold the state."""
        if self._placement.version != self._version:
            self._messages_of.clear()
            self._version = self._placement.version
        key = tuple(transfers)
        if key not in self._messages_of:
            self._messages_of[key] = tuple(self._messages(key))
        return self._messages_of[key]

    def _messages(self, transfers: Sequence[Transfer]) -> Iterator[tuple[int, int, float, str]]:
        """The messages of some transfers: source, target, bytes, and what they are."""
        cluster, placement = self._placement.cluster, self._placement
        for transfer in transfers:
            source, target = transfer.source, transfer.target
            if isinstance(source, Place) or isinstance(target, Place):
                yield end_of(source), end_of(target), *transfer[2:4]
            elif cluster.is_sharded:  # all nodes of the stage send, or fetch, an equal shard at once: one wide message
                assert (source == STORE) != (target == STORE), "shards go to the store or come from there"
                first = cluster.slot(source if target == STORE else target, 0)  # type: ignore[arg-type]
                yield (first, STORAGE, *transfer[2:4]) if target == STORE else (STORAGE, first, *transfer[2:4])
            elif target == STORE:
                assert source != STORE
                yield placement.source(source, 0), STORAGE, *transfer[2:4]
            else:
                for slot in placement.receivers(target):
                    replica = slot % len(cluster.replicas)
                    if transfer.pipelines is None or replica in transfer.pipelines:
                        yield STORAGE if source == STORE else placement.source(source, replica), slot, *transfer[2:4]

    def _states(self, messages: Messages) -> list[FlowState]:
        """States of messages as they are sent."""
        num_shares = self._placement.cluster.num_shares
        paths = [self.network.path(source, target, num_shares) for source, target, _, _ in messages]
        return [
            FlowState(path, to_ticks(path.latency_seconds), message[2])
            for path, message in zip(paths, messages, strict=True)
        ]


def end_of(end: int | Literal["store"] | Place) -> int:
    """The end of a message: the slot of a place, or the store."""
    assert isinstance(end, Place) or end == STORE, "from one place to another, or to or from the store"
    return end.slot if isinstance(end, Place) else STORAGE
