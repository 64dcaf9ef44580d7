"""Network of a scenario: the links that a message crosses, and how concurrent messages share them.

A message between nodes crosses the sender's access link (up), a link between, and the receiver's access link (down).
Concurrent messages get max-min fair shares of the links they have in common (Bertsekas and Gallager, Data Networks,
1992, 6.5.2; the flow model of SimGrid). `sharing` defines the link between:

node_pair:   one for each pair of nodes and direction, as fast as the table says.
region_pair: one for each pair of regions and direction, shared by all their nodes. Within a region as node_pair.
none:        every message has the whole rate to itself; nothing is shared, access links included.

*Not modelled*: TCP's slow start and unfairness between long and short paths, packet loss, cross traffic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from models.spec import Config
from sim.core.units import BYTES_PER_GIB

BYTES_PER_MBIT = 125_000

STORAGE = -1
"""The checkpoint store, in place of a node's number."""


class LinkConfig(Config):
    """A link: one-way latency and bandwidth."""

    latency_ms: float = Field(ge=0, le=1e9, description="one-way latency in ms")
    bandwidth_mbit_per_s: float = Field(ge=1e-6, description="bandwidth in Mbit/s (10^6 bit/s)")


class AccessConfig(Config):
    """Link between a node and the network, such as a home connection."""

    up_mbit_per_s: float = Field(ge=1e-6, description="from the node, in Mbit/s")
    down_mbit_per_s: float = Field(ge=1e-6, description="to the node, in Mbit/s")
    latency_ms: float = Field(0.0, ge=0, le=1e9, description="added at each end, in ms")


class StorageConfig(LinkConfig):
    """The checkpoint store: its link, which all nodes share, equal in both directions."""

    node_mbit_per_s: float | None = Field(None, ge=1e-6, description="highest rate of one node; default: no limit")


RegionLink = Annotated[
    tuple[str, str, Annotated[float, Field(ge=0)], Annotated[float, Field(ge=1e-10)]],
    Field(description="region, region, one-way latency ms, bandwidth GiB/s"),
]
"""Region, region, one-way latency in ms, bandwidth in GiB/s; the same both ways."""


class NetworkConfig(Config):
    """The `network:` section of a scenario."""

    name: str = Field("custom", description="what outputs call it")
    same_region: LinkConfig = Field(description="between two nodes of one region")
    storage: StorageConfig = Field(description="link of the checkpoint store")
    access: AccessConfig | None = Field(None, description="link of each node to the rest; default: no limit")
    links: tuple[RegionLink, ...] = Field((), description="rows: region, region, one-way latency ms, bandwidth GiB/s")
    parallel_streams: int = Field(
        1, ge=1, le=1000, description="connections that a message between regions is spread over; each has a row's rate"
    )
    bandwidth_factor: float = Field(
        1.0, ge=1e-6, le=1e6, description="factor on the bandwidth of all links between nodes, including access links"
    )
    sharing: Literal["node_pair", "region_pair", "none"] = Field(
        "node_pair", description="what concurrent messages share between access links; none: nothing"
    )
    software_seconds_per_hop: float = Field(
        0.0,
        ge=0,
        le=1e8,
        description="software time per activation or gradient sent, in addition to the network's",
    )
    negligible_seconds: float = Field(
        0.0,
        ge=0,
        description="hops of activations that would take less time take none, as in the paper's test bed",
    )
    description: str = Field("", description="in words")
    source: str = Field("", description="source of the figures")

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions named by the links, in order of appearance; `local` if none."""
        named = dict.fromkeys(region for link in self.links for region in link[:2])
        return tuple(named) or ("local",)


@dataclass(frozen=True, eq=False)
class Link:
    """One direction of a link, shared by the messages on it."""

    name: str
    bytes_per_second: float


@dataclass(frozen=True, eq=False)
class Path:
    """Path of a message: latency, a rate it cannot exceed even alone, and links it shares with others.

    ends: the arguments of `Network.path`.
    """

    latency_seconds: float
    bytes_per_second: float
    links: tuple[Link, ...] = ()
    ends: tuple[int, int, int] | None = None

    @cached_property
    def alone_bytes_per_second(self) -> float:
        """Rate of a message without others."""
        return min((self.bytes_per_second, *(link.bytes_per_second for link in self.links)))

    def seconds(self, num_bytes: float) -> float:
        """Time of a message without others: latency + bytes / bandwidth."""
        return self.latency_seconds + num_bytes / self.alone_bytes_per_second


class Network:
    """Paths between the nodes of a cluster, by number, and to the checkpoint store."""

    def __init__(self, config: NetworkConfig, regions_of_nodes: Sequence[str]) -> None:
        self.config = config
        self.regions_of_nodes = tuple(regions_of_nodes)
        self._rows: dict[tuple[str, str], tuple[float, float]] = {}
        for a, b, latency_ms, gib_per_s in config.links:
            row = (latency_ms / 1e3, gib_per_s * BYTES_PER_GIB * config.parallel_streams * config.bandwidth_factor)
            self._rows[a, b] = self._rows[b, a] = row
        self._links: dict[str, Link] = {}
        self._of_storage: dict[Link, None] = {}
        self._paths: dict[tuple[int, int, int], Path] = {}

    @property
    def is_shared(self) -> bool:
        """Whether messages can slow each other down."""
        return self.config.sharing != "none"

    def path(self, source: int, target: int, num_nodes: int = 1) -> Path:
        """Path between two nodes, or a node and STORAGE; KeyError if no link joins their regions.

        num_nodes: nodes like this one, each of which sends to STORAGE, or fetches, an equal part at once.
        """
        ends = source, target, num_nodes
        if ends not in self._paths:
            made = self._make_path(source, target) if num_nodes == 1 else self._make_wide_path(*ends)
            self._paths[ends] = replace(made, ends=ends)
        return self._paths[ends]

    def is_apart(self, path: Path) -> bool:
        """Whether a path shares no link with messages between nodes."""
        return all(link in self._of_storage for link in path.links)

    def _make_wide_path(self, source: int, target: int, num_nodes: int) -> Path:
        """Parallel paths of several nodes. *Not modelled*: other messages on the nodes' own links."""
        assert STORAGE in (source, target), "parallel paths lead to or from the store"
        one = self.path(source, target)
        shared = tuple(link for link in one.links if link in self._of_storage)
        own = (one.bytes_per_second, *(link.bytes_per_second for link in one.links if link not in shared))
        return Path(one.latency_seconds, num_nodes * min(own), shared)

    def _make_path(self, source: int, target: int) -> Path:
        latency_seconds, bytes_per_second, between = self._between(source, target)
        links = [between] if between else []
        access = self.config.access
        if access:
            for node, way, rate in ((source, "up", access.up_mbit_per_s), (target, "down", access.down_mbit_per_s)):
                if node != STORAGE:
                    latency_seconds += access.latency_ms / 1e3
                    links.append(self._link(f"node {node} {way}", rate * BYTES_PER_MBIT * self.config.bandwidth_factor))
        path = Path(latency_seconds, bytes_per_second, tuple(links))
        return path if self.is_shared else Path(latency_seconds, path.alone_bytes_per_second)

    def _between(self, source: int, target: int) -> tuple[float, float, Link | None]:
        """Latency, rate of a message alone, and link between the access links."""
        storage = self.config.storage
        if STORAGE in (source, target):
            most = math.inf if storage.node_mbit_per_s is None else storage.node_mbit_per_s * BYTES_PER_MBIT
            way = "in" if target == STORAGE else "out"
            link = self._link(f"storage {way}", storage.bandwidth_mbit_per_s * BYTES_PER_MBIT)
            self._of_storage[link] = None
            return storage.latency_ms / 1e3, most, link
        a, b = self.regions_of_nodes[source], self.regions_of_nodes[target]
        if a == b:
            same = self.config.same_region
            latency_seconds = same.latency_ms / 1e3
            rate = same.bandwidth_mbit_per_s * BYTES_PER_MBIT * self.config.bandwidth_factor
        else:
            latency_seconds, rate = self._rows[a, b]
        by_region = self.config.sharing == "region_pair" and a != b
        return latency_seconds, rate, self._link(f"{a} to {b}" if by_region else f"node {source} to {target}", rate)

    def _link(self, name: str, bytes_per_second: float) -> Link:
        return self._links.setdefault(name, Link(name, bytes_per_second))

    def hop_seconds(self, source: int, target: int, num_bytes: float) -> float:
        """Time of an activation without other messages and software; 0 where negligible."""
        return self.seconds_of_hop(self.path(source, target), num_bytes)

    def seconds_of_hop(self, path: Path, num_bytes: float) -> float:
        """The same for a path."""
        seconds = path.seconds(num_bytes)
        return seconds if seconds >= self.config.negligible_seconds else 0.0


def max_min_rates(paths: Sequence[Path]) -> list[float]:
    """Max-min fair rates, in bytes per second, of flows on some paths, by progressive filling: all grow equally."""
    rates = [math.inf] * len(paths)
    growing = dict.fromkeys(range(len(paths)))
    users: dict[Link, dict[int, None]] = {}
    for index, path in enumerate(paths):
        for link in path.links:
            users.setdefault(link, {})[index] = None
    left = {link: link.bytes_per_second for link in users}
    while growing:
        level, full = math.inf, None
        for link, on_it in users.items():
            if on_it and left[link] / len(on_it) < level:
                level, full = left[link] / len(on_it), link
        own = min(growing, key=lambda index: paths[index].bytes_per_second)
        if paths[own].bytes_per_second <= level:
            level, stopping = paths[own].bytes_per_second, [own]
        else:
            assert full is not None, "a flow crosses a link or has a limit of its own"
            stopping = list(users[full])
        for index in stopping:
            rates[index] = level
            del growing[index]
            for link in paths[index].links:
                del users[link][index]
                left[link] = max(0.0, left[link] - level)
    return rates
