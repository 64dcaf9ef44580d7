"""Textbook formulas of messages and collectives: latency alpha, bandwidth beta, N members, S bytes.

Ring all-reduce: Patarasuk and Yuan 2009. Max-min fair shares: Bertsekas and Gallager, Data Networks, 1992, 6.5.2.
"""

import math
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.flows import Flows
from sim.cluster.network import Link, Network, NetworkConfig, Path
from sim.core.units import BYTES_PER_GIB
from sim.strategies.base import STORE, Transfer
from support.builders import BYTES_PER_SECOND, TICK, a_link, a_scenario, a_site, a_world, an_iteration, in_turn

STAGE_BYTES = 2720.0
"""A stage's gradient: 680 parameters in fp32."""
latencies = st.floats(0.0, 0.5)
speeds = st.floats(10.0, 1e9)
"""Bytes per second."""
link_rows = st.lists(st.tuples(st.floats(0.0, 300.0), st.floats(1e-7, 1e-3)), min_size=6, max_size=6)
"""Latency in ms and GiB/s between each two of four regions."""
MODERATE = a_link(0.0, 1e12)


def exchange_seconds(num_nodes: int, network: dict[str, Any], gradient_exchange: str = "ring") -> float:
    """The gradient exchange of stage 1, when no activation is on its way any more."""
    options = {"gradient_exchange": gradient_exchange, "overlap_gradient_exchange": False}
    site = a_site(2, 1, network=network, cluster={"nodes_per_stage": num_nodes}, **options)
    assert site.costs.weight_bytes(1) == STAGE_BYTES
    return max(
        message.end_seconds - message.start_seconds
        for message in an_iteration(site).messages
        if message.what == "gradient exchange of stage 1"
    )


def four_regions(rows: list[tuple[float, float]], **options: Any) -> dict[str, Any]:
    names = [(a, b) for i, a in enumerate("abcd") for b in "abcd"[i + 1 :]]
    return {"links": tuple((*pair, *row) for pair, row in zip(names, rows, strict=True)), **options}


def a_path(latency_seconds: float, bytes_per_second: float) -> Path:
    link = a_link(latency_seconds, bytes_per_second)
    return Network(NetworkConfig(same_region=link, storage=link), ("local", "local")).path(0, 1)


def between(rows: list[tuple[float, float]], a: int, b: int) -> tuple[float, float]:
    """Seconds of latency and bytes per second between two of four regions."""
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    latency_ms, gib_per_s = rows[pairs.index((min(a, b), max(a, b)))]
    return latency_ms / 1e3, gib_per_s * BYTES_PER_GIB


def arrivals(sendings: list[tuple[Path, float]]) -> list[float]:
    """When messages arrive that are all sent at time zero."""
    env = simpy.Environment()
    flows, arrived = Flows(env), {}
    for number, (path, num_bytes) in enumerate(sendings):
        flow = flows.send(path, num_bytes)
        flow.arrived.callbacks.append(lambda _, number=number: arrived.setdefault(number, env.now))
    env.run()
    return [arrived[number] for number in range(len(sendings))]


@given(latencies, speeds, st.floats(0.0, 1e9))
def test_a_message_takes_latency_plus_bytes_over_bandwidth(latency, beta, num_bytes):
    expected = latency + num_bytes / beta
    assert arrivals([(a_path(latency, beta), num_bytes)]) == [pytest.approx(expected, rel=1e-12, abs=TICK)]


@given(st.integers(1, 12), latencies, speeds, st.floats(1.0, 1e9))
def test_n_equal_messages_on_a_link_take_n_times_the_bytes(n, latency, beta, num_bytes):
    expected = latency + n * num_bytes / beta
    (end,) = set(arrivals([(a_path(latency, beta), num_bytes)] * n))  # all together
    assert end == pytest.approx(expected, rel=1e-9, abs=TICK)


@given(st.lists(st.floats(1.0, 1e3), min_size=1, max_size=8))
def test_fair_sharing_finishes_messages_in_order_of_size(sizes):
    """Processor sharing of a unit rate: the k-th ends at Σ_{i<k} s_i + (n - k + 1) s_k."""
    sizes, link = sorted(sizes), Link("one", 1.0)
    expected = [sum(sizes[:k]) + (len(sizes) - k) * size for k, size in enumerate(sizes)]
    ends = arrivals([(Path(0.0, math.inf, (link,)), size) for size in sizes])
    assert ends == pytest.approx(expected, rel=1e-9, abs=20 * TICK)


@given(st.integers(1, 6), st.floats(1.0, 100.0))
def test_one_flow_across_all_links_gets_half_of_each(num_links, size):
    """A line of links, a flow over all, one beside it on each: half each, until all end at once."""
    links = [Link(str(number), 1.0) for number in range(num_links)]
    paths = [Path(0.0, math.inf, tuple(links)), *(Path(0.0, math.inf, (link,)) for link in links)]
    assert arrivals([(path, size) for path in paths]) == pytest.approx([2 * size] * (num_links + 1), abs=4 * TICK)


@given(st.integers(2, 9), latencies, speeds)
def test_a_ring_all_reduce_sends_two_n_minus_1_of_n_parts(n, latency, beta):
    expected = 2 * (n - 1) / n * STAGE_BYTES / beta + 2 * (n - 1) * latency
    assert exchange_seconds(n, {"same_region": a_link(latency, beta)}) == pytest.approx(expected, rel=1e-12, abs=TICK)


@given(st.integers(2, 4), link_rows)
def test_a_ring_is_paced_by_its_slowest_link(n, rows):
    """Each of the 2 (N - 1) steps waits for the link with the greatest alpha + S / (N beta)."""
    first = n  # stage 1's nodes come after the n of stage 0; nodes are dealt to the regions in turn
    ring = [((first + i) % 4, (first + (i + 1) % n) % 4) for i in range(n)]
    steps = [latency + STAGE_BYTES / (n * beta) for latency, beta in (between(rows, a, b) for a, b in ring)]
    expected = 2 * (n - 1) * max(steps)
    assert exchange_seconds(n, four_regions(rows)) == pytest.approx(expected, rel=1e-12, abs=TICK)


@given(st.integers(2, 4), link_rows, st.sampled_from(["none", "node_pair"]))
def test_uncontended_all_to_all_takes_its_slowest_pair(n, rows, sharing):
    members = [(n + i) % 4 for i in range(n)]
    pairs = [between(rows, a, b) for a in members for b in members if a < b]
    expected = max(latency + STAGE_BYTES / beta for latency, beta in pairs)
    network = four_regions(rows, sharing=sharing)
    assert exchange_seconds(n, network, "all_to_all") == pytest.approx(expected, rel=1e-12, abs=TICK)


@given(st.integers(2, 6), latencies, speeds)
def test_all_to_all_through_one_uplink_takes_n_minus_1_messages(n, latency, beta):
    access = {"up_mbit_per_s": beta * BYTES_PER_SECOND, "down_mbit_per_s": 1e12 * BYTES_PER_SECOND}
    expected = latency + (n - 1) * STAGE_BYTES / beta
    seconds = exchange_seconds(n, {"same_region": a_link(latency, 1e12), "access": access}, "all_to_all")
    assert seconds == pytest.approx(expected, rel=1e-9, abs=TICK)


@given(st.integers(2, 6), speeds, speeds)
def test_a_ring_needs_each_access_link_once_each_way(n, up, down):
    access = {"up_mbit_per_s": up * BYTES_PER_SECOND, "down_mbit_per_s": down * BYTES_PER_SECOND}
    expected = 2 * (n - 1) / n * STAGE_BYTES / min(up, down)
    seconds = exchange_seconds(n, {"same_region": MODERATE, "access": access})
    assert seconds == pytest.approx(expected, rel=1e-9, abs=TICK)


@pytest.mark.parametrize(("node_rate", "one_node_is_the_limit"), [(None, False), (100.0, True), (1e6, False)])
def test_a_checkpoint_sends_all_its_bytes_over_the_stores_link(node_rate, one_node_is_the_limit):
    """Every stage uploads at once: latency + the greater of all bytes over the link's rate, one's over its node's."""
    storage = a_link(0.15, 1250.0) | ({"node_mbit_per_s": node_rate * BYTES_PER_SECOND} if node_rate else {})
    world = a_world(a_scenario(network={"same_region": MODERATE, "storage": storage}))
    sizes = [world.costs.checkpoint_bytes(stage) for stage in world.cluster.stages]
    by_store, by_node = sum(sizes) / 1250.0, max(sizes) / node_rate if node_rate else 0.0
    assert (by_node > by_store) == one_node_is_the_limit
    expected = 0.15 + max(by_store, by_node)
    uploads = [Transfer(stage, STORE, size) for stage, size in enumerate(sizes)]
    in_turn(world, world.transfer(uploads, "checkpoint_save"))
    assert world.now_seconds == pytest.approx(expected, rel=1e-9, abs=8 * TICK)
    downloads = [Transfer(STORE, stage, size) for stage, size in enumerate(sizes)]
    in_turn(world, world.transfer(downloads, "state_transfer"))
    assert world.now_seconds == pytest.approx(2 * expected, rel=1e-9, abs=16 * TICK)
