"""Links between regions: point to point, latency + bytes / bandwidth. Contention is not modelled yet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.lineage import Config

BYTES_PER_MBIT = 125_000
BYTES_PER_GIB = 2**30


class LinkConfig(Config):
    """A link: one-way latency and bandwidth."""

    latency_ms: float = Field(ge=0, description="one-way latency in ms")
    bandwidth_mbit_per_s: float = Field(gt=0, description="bandwidth in Mbit/s (10^6 bit/s)")

    def seconds(self, num_bytes: float) -> float:
        """Time of one message."""
        return self.latency_ms / 1e3 + num_bytes / (self.bandwidth_mbit_per_s * BYTES_PER_MBIT)


RegionLink = Annotated[
    tuple[str, str, Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]],
    Field(description="region, region, one-way latency ms, bandwidth GiB/s"),
]
"""Region, region, one-way latency in ms, bandwidth in GiB/s; the same both ways."""


class NetworkConfig(Config):
    """The `network:` section of a scenario."""

    name: str = Field("custom", description="what outputs call it")
    same_region: LinkConfig = Field(description="link between two nodes of one region")
    storage: LinkConfig = Field(description="link of the whole cluster to the checkpoint store")
    links: tuple[RegionLink, ...] = Field((), description="rows: region, region, one-way latency ms, bandwidth GiB/s")
    description: str = Field("", description="in words")
    source: str = Field("", description="where the figures are from")

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions the links name, in order of appearance; one region called `local` if none."""
        named = dict.fromkeys(region for link in self.links for region in link[:2])
        return tuple(named) or ("local",)


class Network:
    """Answers how long a message takes between two regions, and to the checkpoint store."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self._links: dict[tuple[str, str], tuple[float, float]] = {}
        for a, b, latency_ms, gib_per_s in config.links:
            link = (latency_ms / 1e3, gib_per_s * BYTES_PER_GIB)
            self._links[a, b] = self._links[b, a] = link
        same = config.same_region
        self._same = (same.latency_ms / 1e3, same.bandwidth_mbit_per_s * BYTES_PER_MBIT)

    def link(self, source: str, target: str) -> tuple[float, float]:
        """Latency in seconds and bandwidth in bytes per second. KeyError when no link joins two regions."""
        return self._same if source == target else self._links[source, target]

    def seconds(self, source: str, target: str, num_bytes: float) -> float:
        """Time of one message between two regions."""
        latency_seconds, bytes_per_second = self.link(source, target)
        return latency_seconds + num_bytes / bytes_per_second

    def all_reduce_seconds(self, regions: tuple[str, ...], num_bytes: float) -> float:
        """Ring all-reduce over nodes in the given regions, paced by the slowest link of the ring.

        2 (N-1)/N · bytes / bandwidth + 2 (N-1) · latency (Thakur et al. 2005). 0 for a single node.
        """
        n = len(regions)
        if n == 1:
            return 0.0
        ring = [self.link(regions[i], regions[(i + 1) % n]) for i in range(n)]
        latency_seconds = max(latency for latency, _ in ring)
        bytes_per_second = min(bandwidth for _, bandwidth in ring)
        return 2 * (n - 1) / n * num_bytes / bytes_per_second + 2 * (n - 1) * latency_seconds

    def storage_seconds(self, num_bytes: float) -> float:
        """Time to bring bytes to the checkpoint store, or back."""
        return self.config.storage.seconds(num_bytes)
