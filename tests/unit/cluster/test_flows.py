"""Messages on shared links: when they arrive, to the tick, and that no byte is lost or made."""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.flows import Flow, Flows, FlowState, arrivals_alone, sharing_of
from sim.cluster.network import Link, Path
from sim.core.units import to_ticks
from support.builders import TICK


@dataclass
class Wire:
    """An event loop with messages, which are sent and cancelled at given times, and when each of them ended."""

    env: simpy.Environment = field(default_factory=simpy.Environment)
    ends: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flows = Flows(self.env)
        self.sent: dict[str, Flow] = {}

    def send(
        self, name: str, path: Path, num_bytes: float, at: float = 0.0, num_latencies: int = 1, channel: object = None
    ) -> None:
        def start() -> None:
            flow = self.sent[name] = self.flows.send(path, num_bytes, num_latencies, channel)
            flow.when_ended.append(lambda now: self.ends.__setitem__(name, now))

        self.at(at, start)

    def cancel(self, name: str, at: float) -> None:
        self.at(at, lambda: self.flows.cancel(self.sent[name]))

    def at(self, seconds: float, action) -> None:
        self.env.timeout(seconds).callbacks.append(lambda _: action())

    def run(self) -> dict[str, float]:
        self.env.run()
        return self.ends

    def has_arrived(self, name: str) -> bool:
        return self.sent[name].arrived.triggered


def on(*links: Link, latency: float = 0.0, limit: float = math.inf) -> Path:
    return Path(latency, limit, links)


LINK = Link("one", 100.0)


# ---- one message ------------------------------------------------------------------------------------
@given(st.floats(0.0, 1e3), st.floats(0.0, 1e9), st.floats(1.0, 1e9), st.floats(0.0, 1e4), st.booleans())
def test_a_lone_message_takes_latency_plus_bytes_over_bandwidth(latency, num_bytes, rate, start, shared):
    path = on(Link("one", rate), latency=latency) if shared else Path(latency, rate)
    wire = Wire()
    wire.send("it", path, num_bytes, at=to_ticks(start))
    assert wire.run() == {"it": to_ticks(start) + to_ticks(latency) + to_ticks(num_bytes / rate)}
    assert wire.has_arrived("it")
    assert wire.sent["it"].bytes_left == 0.0
    assert not wire.flows.under_way


def test_messages_one_after_the_other_pay_each_its_latency():
    wire = Wire()
    wire.send("six", on(LINK, latency=2.0), 600.0, num_latencies=6)
    assert wire.run() == {"six": 12.0 + 6.0}


@pytest.mark.parametrize("links", [(), (LINK,)])
def test_no_bytes_take_the_latency_only(links):
    wire = Wire()
    wire.send("none", on(*links, latency=3.0, limit=100.0), 0.0)
    wire.send("nothing at all", on(*links, limit=100.0), 0.0, at=1.0)
    assert wire.run() == {"none": 3.0, "nothing at all": 1.0}


# ---- sharing, by hand ---------------------------------------------------------------------------------
def test_shares_change_as_messages_start_and_end():
    wire = Wire()
    wire.send("short", on(LINK), 100.0)
    wire.send("long", on(LINK), 300.0)
    # Both at 50 until 2 s; then 200 bytes are left, at 100.
    assert wire.run() == {"short": 2.0, "long": 4.0}
    wire = Wire()
    wire.send("a", on(LINK), 400.0)  # alone 1 s: 300 left; with b 2 s: 200; with b and c 3 s: 100; alone again 1 s
    wire.send("b", on(LINK), 200.0, at=1.0)  # 2 s at 50, 3 s at 33.3: ends at 6 s
    wire.send("c", on(LINK), 100.0, at=3.0)  # 3 s at 33.3: ends at 6 s
    assert wire.run() == {"a": 7.0, "b": 6.0, "c": 6.0}
    wire = Wire()
    wire.send("there", on(LINK), 300.0)
    wire.send("far", on(LINK, latency=2.0), 100.0)
    # Alone for 2 s: 100 left; both at 50 for 2 s.
    assert wire.run() == {"there": 4.0, "far": 4.0}


def test_a_departure_speeds_up_messages_on_other_links():
    first, second = Link("first", 90.0), Link("second", 90.0)
    wire = Wire()
    wire.send("crossing", on(first, second), 90.0)
    wire.send("on the first", on(first), 90.0)
    wire.send("on the second", on(second), 180.0)
    # All at 45 until 2 s, when the first two end; the second link then gives 90 to the last.
    assert wire.run() == {"crossing": 2.0, "on the first": 2.0, "on the second": 3.0}
    wire = Wire()
    narrow = Link("narrow", 30.0)
    wire.send("x", on(narrow), 15.0)  # 15 a second: ends at 1 s
    wire.send("y", on(narrow, first), 45.0)  # 15 a second, from 1 s on 30: ends at 2 s
    wire.send("z", on(first), 225.0)  # 75 a second; 60 from 1 s on, since y takes more; 90 from 2 s on
    assert wire.run() == {"x": 1.0, "y": 2.0, "z": 3.0}


def test_messages_at_limits_or_on_other_links_keep_their_rate():
    wire = Wire()
    wire.send("a", on(LINK), 300.0)
    wire.send("b", on(Link("one", 100.0)), 300.0, at=1.0)  # another link of the same name
    wire.send("c", Path(0.0, 100.0), 300.0, at=1.5)
    assert wire.run() == {"a": 3.0, "b": 4.0, "c": 4.5}
    wire = Wire()
    wire.send("slow", on(LINK, limit=20.0), 100.0)
    wire.send("fast", on(LINK), 400.0)
    assert wire.run() == {"slow": 5.0, "fast": 5.0}
    wire = Wire()
    for name in "badc":
        wire.send(name, on(LINK), 100.0)
    assert list(wire.run()) == list("badc")


# ---- one after the other on a channel -----------------------------------------------------------------
def test_messages_of_a_channel_go_one_after_the_other():
    wire = Wire()
    for name, num_bytes in (("a", 300.0), ("b", 100.0), ("c", 200.0)):
        wire.send(name, on(LINK), num_bytes, channel="x")
    assert wire.run() == {"a": 3.0, "b": 4.0, "c": 6.0}
    wire = Wire()
    wire.send("far", on(LINK, latency=5.0), 100.0, channel="x")
    wire.send("near", on(LINK, latency=1.0), 100.0, at=1.0, channel="x")
    wire.send("nearer", on(LINK), 100.0, at=2.5, channel="x")
    assert wire.run() == {"near": 3.0, "nearer": 4.0, "far": 6.0}


def test_a_channel_has_one_message_share_and_waits_for_none():
    wire = Wire()
    for number in range(3):
        wire.send(f"x{number}", on(LINK), 100.0, channel="x")
    wire.send("other", on(LINK), 300.0)
    assert wire.run() == {"x0": 2.0, "x1": 4.0, "x2": 6.0, "other": 6.0}
    wire = Wire()
    wire.send("x", on(LINK), 100.0, channel="x")
    wire.send("y", on(LINK), 100.0, channel="y")
    wire.send("x on another link", on(Link("two", 50.0)), 100.0, channel="z")
    assert wire.run() == {"x": 2.0, "y": 2.0, "x on another link": 2.0}


@pytest.mark.parametrize(
    ("cancelled", "ends"),
    [
        ("a", {"a": 1.0, "b": 2.0, "c": 4.0}),  # the first makes way at once
        ("b", {"b": 1.0, "a": 3.0, "c": 5.0}),  # one that waits is skipped
        ("c", {"c": 1.0, "a": 3.0, "b": 4.0}),
    ],
)
def test_a_cancelled_message_of_a_channel_makes_way_for_the_next(cancelled, ends):
    wire = Wire()
    for name, num_bytes in (("a", 300.0), ("b", 100.0), ("c", 200.0)):
        wire.send(name, on(LINK), num_bytes, channel="x")
    wire.cancel(cancelled, at=1.0)
    assert wire.run() == ends


# ---- cancelled ----------------------------------------------------------------------------------------
def test_a_cancelled_message_never_arrives_and_frees_its_share():
    wire = Wire()
    wire.send("lost", on(LINK), 1000.0)
    wire.send("kept", on(LINK), 200.0)
    wire.cancel("lost", at=2.0)
    assert wire.run() == {"lost": 2.0, "kept": 3.0}
    assert (wire.has_arrived("lost"), wire.has_arrived("kept")) == (False, True)
    assert wire.sent["lost"].num_bytes == 1000.0
    wire = Wire()
    wire.send("lost", on(LINK, latency=5.0), 1000.0)
    wire.send("kept", on(LINK), 1000.0)
    wire.cancel("lost", at=2.0)
    assert wire.run() == {"lost": 2.0, "kept": 10.0}
    assert not wire.has_arrived("lost")
    wire = Wire()
    wire.send("a", on(LINK), 300.0, channel="x")
    wire.send("b", on(LINK), 100.0, channel="x")
    wire.cancel("b", at=1.0)
    wire.send("other", on(LINK), 100.0, at=2.0)
    assert wire.run() == {"b": 1.0, "a": 4.0, "other": 4.0}
    wire = Wire()
    wire.send("done", on(LINK), 100.0)
    wire.cancel("done", at=1.5)
    wire.cancel("done", at=1.75)
    assert wire.run() == {"done": 1.0}
    assert wire.has_arrived("done")


# ---- states: the same way in two parts ------------------------------------------------------------------
def test_resuming_from_a_state_arrives_as_without_interruption():
    wire = Wire()
    wire.send("near", on(LINK), 400.0)
    wire.send("far", on(LINK, latency=3.0), 200.0)
    states = []
    wire.at(2.0, lambda: states.extend(wire.flows.states()))
    ends = wire.run()
    assert [(state.latency_seconds, state.num_bytes) for state in states] == [(0.0, 200.0), (1.0, 200.0)]
    later = simpy.Environment(2.0)
    resumed, arrivals = Flows(later), []
    for state in states:
        resumed.resume(state).when_ended.append(arrivals.append)
    later.run()
    assert arrivals == [ends["near"], ends["far"]] == [5.0, 6.0]


def test_held_messages_arrive_on_release_unless_cancelled():
    wire = Wire()
    wire.send("a", on(LINK), 400.0)
    wire.send("b", on(LINK), 700.0)
    wire.at(2.0, lambda: wire.flows.hold([5.0, None]))  # 300 and 600 left
    wire.send("meanwhile", on(LINK), 400.0, at=2.0)
    wire.at(8.0, lambda: wire.flows.release([FlowState(on(LINK), 1.0, 50.0)]))
    assert wire.run() == {"meanwhile": 6.0, "a": 7.0, "b": 9.5}
    wire = Wire()
    wire.send("a", on(LINK), 400.0)
    wire.send("b", on(LINK, latency=9.0), 400.0)
    wire.at(1.0, lambda: wire.flows.hold([5.0, None]))
    wire.cancel("a", at=2.0)
    wire.cancel("b", at=3.0)
    assert wire.run() == {"a": 2.0, "b": 3.0}
    assert not wire.has_arrived("a")
    assert not wire.has_arrived("b")


# ---- whatever is sent -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sending:
    """A message, when it is sent and, if at all, when it is cancelled."""

    path: Path
    num_bytes: float
    at: float
    cancelled_after: float | None
    channel: str | None


@st.composite
def traffic(draw) -> list[Sending]:
    rates = st.floats(1.0, 1e3)
    links = [Link(f"link {number}", draw(rates)) for number in range(draw(st.integers(1, 4)))]
    instants = st.one_of(st.integers(0, 5).map(float), st.floats(0.0, 20.0).map(to_ticks))
    sendings = []
    for _ in range(draw(st.integers(1, 8))):
        crossed = draw(st.lists(st.sampled_from(links), unique=True, max_size=3))
        limit = draw(rates) if not crossed or draw(st.booleans()) else math.inf
        path = Path(draw(st.one_of(st.just(0.0), instants)), limit, tuple(crossed))
        num_bytes = draw(st.one_of(st.just(0.0), st.sampled_from([100.0, 200.0]), st.floats(0.0, 1e4)))
        cancelled_after = draw(st.one_of(st.none(), instants))
        channel = draw(st.sampled_from([None, None, "x", "y"]))
        sendings.append(Sending(path, num_bytes, draw(instants), cancelled_after, channel))
    return sendings


@given(traffic())
def test_bytes_are_conserved_within_the_capacity_of_links(sendings):
    """Rates integrated over time are the bytes of each message that arrives, and no more of one that does not."""
    wire = Wire()
    for number, sending in enumerate(sendings):
        wire.send(str(number), sending.path, sending.num_bytes, at=sending.at, channel=sending.channel)
        if sending.cancelled_after is not None:
            wire.cancel(str(number), at=sending.at + sending.cancelled_after)
    through = dict.fromkeys(map(str, range(len(sendings))), 0.0)
    links = {link for sending in sendings for link in sending.path.links}
    num_changes = 0
    while wire.env.peek() < math.inf:
        wire.env.step()
        passed_seconds = wire.env.peek() - wire.env.now  # rates hold until the next event
        if not 0.0 < passed_seconds < math.inf:
            continue
        num_changes += 1
        rates = {name: flow.bytes_per_second for name, flow in wire.sent.items() if flow in wire.flows.under_way}
        for name, rate in rates.items():
            assert rate <= wire.sent[name].path.bytes_per_second
            through[name] += rate * passed_seconds
        for link in links:
            carried = sum(rate for name, rate in rates.items() if link in wire.sent[name].path.links)
            assert carried <= link.bytes_per_second * (1 + 1e-9)
        busy = [sendings[int(name)].channel for name, rate in rates.items() if rate]
        assert all(busy.count(channel) <= 1 for channel in busy if channel)
    assert not wire.flows.under_way
    for name, sending in zip(through, sendings, strict=True):
        rounding = 1e3 * TICK * (num_changes + 1) + 1e-9 * sending.num_bytes
        if wire.has_arrived(name):
            assert through[name] == pytest.approx(sending.num_bytes, abs=rounding)
            alone = to_ticks(sending.path.latency_seconds) + sending.num_bytes / sending.path.alone_bytes_per_second
            assert wire.ends[name] - sending.at >= alone - TICK * (num_changes + 1)
        else:
            assert through[name] <= sending.num_bytes + rounding
            assert wire.ends[name] == sending.at + sending.cancelled_after


@given(traffic(), st.floats(0.0, 40.0).map(to_ticks))
def test_reading_progress_moves_arrivals_by_rounding_only(sendings, looked_at):
    looked, reference = Wire(), Wire()
    for wire in (looked, reference):
        for number, sending in enumerate(sendings):
            wire.send(str(number), sending.path, sending.num_bytes, at=sending.at)
    looked.at(looked_at, looked.flows.states)
    ends = reference.run()
    assert looked.run() == pytest.approx(ends, abs=20 * TICK)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(1.0, 1e4)), min_size=1, max_size=6))
def test_known_arrivals_are_those_of_messages_on_a_loop(sent):
    links = [Link(str(number), 100.0 * (number + 1)) for number in range(3)]
    states = [FlowState(on(*{links[a], links[b]}, limit=250.0), a / 2, num_bytes) for a, b, num_bytes in sent]
    wire = Wire()
    for number, state in enumerate(states):
        flow = wire.flows.resume(state)
        flow.when_ended.append(partial(wire.ends.__setitem__, number))
    wire.run()
    assert arrivals_alone(states) == tuple(wire.ends[number] for number in range(len(states)))
    others = [Link(link.name, link.bytes_per_second) for link in links]
    moved = [
        replace(state, path=replace(state.path, links=tuple(others[links.index(one)] for one in state.path.links)))
        for state in states
    ]
    assert sharing_of(moved) == sharing_of(states)
    faster = replace(states[0], path=replace(states[0].path, bytes_per_second=251.0))
    assert sharing_of([faster, *states[1:]]) != sharing_of(states)
