"""Messages in flight on the event loop: each waits for its latency, then shares its links until it is transmitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import simpy

from sim.cluster.network import Link, Path, max_min_rates
from sim.core.units import to_ticks


@dataclass(frozen=True)
class FlowState:
    """State of a message in flight: remaining latency and bytes."""

    path: Path
    latency_seconds: float
    num_bytes: float


def call_after(env: simpy.Environment, seconds: float, action: Callable[[], None]) -> None:
    """Call a function after some ticked seconds."""
    timeout = env.timeout(seconds)
    assert timeout.callbacks is not None
    timeout.callbacks.append(lambda _: action())


def call_each_after(
    env: simpy.Environment, flows: Iterable[tuple[Flow, float]], action: Callable[[Flow], None]
) -> None:
    """Call a function of each message after its ticked seconds: one event for all messages of an instant."""
    by_seconds: dict[float, list[Flow]] = {}
    for flow, seconds in flows:
        by_seconds.setdefault(seconds, []).append(flow)

    def call(together: list[Flow]) -> None:
        for flow in together:
            action(flow)

    for seconds, together in by_seconds.items():
        call_after(env, seconds, partial(call, together))


class Flow:
    """One message. Life: sent → latency → waits for its channel → shares links → `arrived`; or cancelled.

    Messages of one channel are transmitted one after the other. when_ended: callbacks, whether it arrived or not.
    """

    def __init__(self, env: simpy.Environment, state: FlowState, number: int, channel: Hashable) -> None:
        self.path, self.number, self.channel = state.path, number, channel
        self.latency_seconds = state.latency_seconds
        self.num_bytes = self.bytes_left = state.num_bytes
        self.enters_seconds = float(env.now) + state.latency_seconds
        self.arrived = env.event()
        self.when_ended: list[Callable[[float], None]] = []
        self.bytes_per_second = 0.0
        self.since_seconds = self.ends_seconds = -1.0


@dataclass(eq=False)
class BackgroundTransfer:
    """Messages sent concurrently with training. Life: under way → `done`; or ended by a failure.

    slots: of the nodes whose loss is such a failure; None: of any node.
    """

    flows: list[Flow]
    done: simpy.Event
    when_lost: Callable[[], None]
    slots: frozenset[int] | None = None
    under_way: bool = True

    def __post_init__(self) -> None:
        self.num_left = len(self.flows)


class Flows:
    """All messages of an event loop. Rates change only when a message starts, arrives or is cancelled."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._on: dict[Link, dict[Flow, None]] = {}
        self.under_way: dict[Flow, None] = {}  # messages that have neither arrived nor been cancelled, as sent
        self._held: list[Flow] = []
        self._channels: dict[Hashable, deque[Flow]] = {}
        self._num_sent = 0

    def send(self, path: Path, num_bytes: float, num_latencies: int = 1, channel: Hashable = None) -> Flow:
        """Send bytes as `num_latencies` messages one after the other; the flow's `arrived` triggers at the end."""
        return self.resume(FlowState(path, to_ticks(num_latencies * path.latency_seconds), num_bytes), channel)

    def resume(self, state: FlowState, channel: Hashable = None) -> Flow:
        """Continue a message from a state."""
        flow = self._under_way_from(state, channel)
        call_after(self._env, state.latency_seconds, partial(self._enter, flow))
        return flow

    def resume_all(self, states: Iterable[FlowState]) -> list[Flow]:
        """Continue messages from their states, or send them, in this order."""
        flows = [self._under_way_from(state) for state in states]
        call_each_after(self._env, ((flow, flow.latency_seconds) for flow in flows), self._enter)
        return flows

    def _under_way_from(self, state: FlowState, channel: Hashable = None) -> Flow:
        flow = Flow(self._env, state, self._num_sent, channel)
        self._num_sent += 1
        self.under_way[flow] = None
        return flow

    def cancel(self, flow: Flow) -> None:
        """End a message before it arrives."""
        if flow in self.under_way:
            self._end(flow)

    @property
    def are_waiting(self) -> bool:
        """Whether all messages in flight are still to enter their links, or are held."""
        return not any(flow.bytes_per_second for flow in self.under_way)

    def states(self) -> tuple[FlowState, ...]:
        """State of every message in flight. Its remaining time is rounded to ticks again."""
        states = []
        for flow in self.under_way:
            if flow.bytes_per_second:
                self._set_rate(flow, flow.bytes_per_second)
            latency_seconds = max(0.0, flow.enters_seconds - float(self._env.now))
            states.append(FlowState(flow.path, latency_seconds, flow.bytes_left))
        return tuple(states)

    def hold(self, arrivals_seconds: Sequence[float | None]) -> None:
        """Take all messages off their links: the seconds until each arrives are known, None if not before `release`."""
        self._held = list(self.under_way)
        for flow in self._held:
            if flow.bytes_per_second:
                self._on_links(flow, False)
            flow.bytes_per_second, flow.enters_seconds, flow.ends_seconds = 0.0, -1.0, -1.0
        arrivals = zip(self._held, arrivals_seconds, strict=True)
        held = self._held

        def arrive(flow: Flow) -> None:
            if self._held is held:  # no failure has put it back on its links before
                self._arrive(flow)

        call_each_after(self._env, ((flow, at) for flow, at in arrivals if at is not None), arrive)

    def release(self, states: Sequence[FlowState]) -> None:
        """Put the held messages that have not arrived back on their links, in these states, unless cancelled."""
        held = [flow for flow in self._held if not flow.arrived.triggered]
        paired = [(flow, state) for flow, state in zip(held, states, strict=True) if flow in self.under_way]
        still_held, states, self._held = [flow for flow, _ in paired], [state for _, state in paired], []
        for flow, state in zip(still_held, states, strict=True):
            flow.bytes_left = state.num_bytes
            flow.enters_seconds = float(self._env.now) + state.latency_seconds
        entering = zip(still_held, (state.latency_seconds for state in states), strict=True)
        call_each_after(self._env, entering, self._enter)

    def _enter(self, flow: Flow) -> None:
        """Begin to transmit after the latency, unless held, ended or begun since."""
        is_due = flow.enters_seconds == float(self._env.now)
        if not is_due or flow not in self.under_way or flow.bytes_per_second:
            return
        if flow.channel is not None:
            queue = self._channels.setdefault(flow.channel, deque())
            queue.append(flow)
            if queue[0] is not flow:
                return
        self._transmit(flow)

    def _transmit(self, flow: Flow) -> None:
        flow.since_seconds = float(self._env.now)
        self._on_links(flow, True)
        self._share(flow)

    def _on_links(self, flow: Flow, there: bool) -> None:
        for link in flow.path.links:
            if there:
                self._on.setdefault(link, {})[flow] = None
            else:
                self._on[link].pop(flow, None)

    def _share(self, changed: Flow) -> None:
        """Set fair rates of all flows connected to one by shared links."""
        flows = self._connected(changed)
        is_alone = len(flows) == 1
        rates = [changed.path.alone_bytes_per_second] if is_alone else max_min_rates([flow.path for flow in flows])
        for flow, rate in zip(flows, rates, strict=True):
            if rate != flow.bytes_per_second:
                self._set_rate(flow, rate)

    def _set_rate(self, flow: Flow, bytes_per_second: float) -> None:
        now_seconds = float(self._env.now)
        through = flow.bytes_per_second * (now_seconds - flow.since_seconds)
        flow.bytes_left = max(0.0, flow.bytes_left - through)
        flow.since_seconds, flow.bytes_per_second = now_seconds, bytes_per_second
        remaining_seconds = to_ticks(flow.bytes_left / bytes_per_second)
        flow.ends_seconds = now_seconds + remaining_seconds
        call_after(self._env, remaining_seconds, partial(self._arrive_if_due, flow))

    def _connected(self, flow: Flow) -> list[Flow]:
        """Flows connected to one by shared links, in the order sent, in which simultaneous ones arrive."""
        found = {flow: None}
        links: dict[Link, None] = {}
        waiting = [flow]
        while waiting:
            for link in waiting.pop().path.links:
                if link in links:
                    continue
                links[link] = None
                for other in self._on[link]:
                    if other not in found:
                        found[other] = None
                        waiting.append(other)
        return sorted(found, key=lambda flow: flow.number)

    def _arrive_if_due(self, flow: Flow) -> None:
        """Arrive, unless the rate has changed since this event was scheduled."""
        if flow.ends_seconds == float(self._env.now):
            self._arrive(flow)

    def _arrive(self, flow: Flow) -> None:
        if flow not in self.under_way:
            return
        flow.bytes_left = 0.0
        flow.arrived.succeed()
        self._end(flow)

    def _end(self, flow: Flow) -> None:
        """Free the links, run the callbacks, start the next message of the channel."""
        del self.under_way[flow]
        is_on_links = flow.bytes_per_second > 0.0
        if is_on_links:
            self._on_links(flow, False)
        for callback in flow.when_ended:
            callback(float(self._env.now))
        for link in flow.path.links if is_on_links else ():
            if others := self._on[link]:
                self._share(next(iter(others)))  # any of them, since all on a link are connected
        queue = self._channels.get(flow.channel)
        if not queue or flow not in queue:
            return
        was_first = queue[0] is flow
        queue.remove(flow)
        if was_first and queue:
            self._transmit(queue[0])


def arrivals_alone(states: Sequence[FlowState]) -> tuple[float, ...]:
    """Seconds until each of some messages arrives if there are no others."""
    env = simpy.Environment()
    flows = Flows(env).resume_all(states)
    arrivals: dict[Flow, float] = {}
    for flow in flows:
        flow.when_ended.append(partial(arrivals.__setitem__, flow))
    env.run()
    return tuple(arrivals[flow] for flow in flows)


def sharing_of(states: Sequence[FlowState]) -> Hashable:
    """All that the times of some messages depend on: equal for messages that share equal links alike."""
    links: dict[Link, int] = {}
    messages = tuple(
        (
            state.latency_seconds,
            state.num_bytes,
            state.path.bytes_per_second,
            *[links.setdefault(link, len(links)) for link in state.path.links],
        )
        for state in states
    )
    return messages, tuple(link.bytes_per_second for link in links)
