"""Correlated failures: bulk preemptions, and regional outages together with independent failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Literal, Self

import numpy as np
from pydantic import Field

from sim.failures.base import FailureProcess, MeanConfig, Member, Renewal, Scope, Superposition


class CorrelatedFailures(FailureProcess):
    """A process whose rates depend on the nodes that the cluster has at time zero."""

    members: tuple[Member, ...] | None = None

    def for_members(self, members: Sequence[Member]) -> Self:
        """A copy of the process for a cluster of these nodes, immune stages included."""
        process = copy(self)
        process.members = tuple(members)
        return process


class BulkConfig(MeanConfig):
    """Options of `bulk`. Rate and mean are those of a node."""

    kind: Literal["bulk"] = "bulk"
    scope: Literal["cluster", "region"] = Field(
        "cluster", description="where the nodes lost together are: anywhere, or in one region"
    )
    mean_size: float = Field(
        2.0, ge=1, le=1e6, description="mean number of nodes lost at once: geometric on 1, 2, ...; before max_size"
    )
    max_size: int | None = Field(
        None, ge=1, le=10**6, description="largest number of nodes lost at once; default: no limit"
    )


class BulkFailures(CorrelatedFailures):
    """Several nodes lost at one instant, as clouds take spot machines back (see the traces of Bamboo, NSDI 2023).

    Poisson events, each of which takes K random nodes of its domain; K is geometric, at most max_size. The events of a
    domain of n nodes have the rate n × (rate of a node) / E[min(K, n)], so that each node is lost at its rate while the
    domain has as many nodes as at time zero, and a little more often while some are away.
    """

    Config = BulkConfig
    config: BulkConfig

    def mean_lost(self, num_members: int) -> float:
        """E[min(K, n)] = (1 - (1 - p)^n) / p with p = 1 / mean_size, and n at most max_size."""
        at_most = min(num_members, self.config.max_size or num_members)
        return float(self.config.mean_size * (1.0 - (1.0 - 1.0 / self.config.mean_size) ** at_most))

    def _events_per_second(self) -> dict[int | str, float]:
        """Rate of events in each domain that has nodes."""
        assert self.members is not None, "bulk needs for_members first"
        node_seconds = self.config.mean_uptime_seconds
        return {domain: num / (node_seconds * self.mean_lost(num)) for domain, num in num_members(self, self.members)}

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between events of a domain: the inverse of the mean rate of all domains."""
        return mean_uptime_of(list(self._events_per_second().values()))

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Seconds between events of one domain."""
        rate = self._events_per_second().get(domain, 0.0)
        while rate:
            yield float(rng.standard_exponential()) / rate

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """A random sample of as many nodes as the event takes, or all nodes present."""
        size = int(rng.geometric(1.0 / self.config.mean_size))
        size = min(size, len(members), self.config.max_size or size)
        return [members[which].number for which in sorted(rng.permutation(len(members))[:size])]

    def describe(self) -> str:
        """For captions."""
        where = "" if self.config.scope == "cluster" else " of a region"
        mean_size = self.config.mean_size if self.config.max_size is None else self.mean_lost(self.config.max_size)
        return f"each node {self.config.describe_mean}, {mean_size:.3g}{where} at once on average"


class OutageConfig(MeanConfig):
    """Options of `outage`. Rate and mean are those of a node, by all causes."""

    kind: Literal["outage"] = "outage"
    shared_part: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of a node's failures that come with a shock of its region; others: independent",
    )
    share_hit: float = Field(
        1.0,
        ge=1e-6,
        le=1,
        description="probability that a shock hits a node of the region; if smaller, shocks are more frequent",
    )


class RegionalShocks(CorrelatedFailures):
    """Shocks of a region: Poisson with rate shared_part / (mean × share_hit); each node is hit independently."""

    Config = OutageConfig
    config: OutageConfig
    scope: Scope = "region"

    def __init__(self, config: OutageConfig) -> None:
        super().__init__(config)
        shared_part = config.shared_part
        self._shock_seconds = config.mean_uptime_seconds * config.share_hit / shared_part if shared_part else math.inf

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between shocks of a region that hit a node or more; all do in regions of unknown size."""
        chances = [1.0 - (1.0 - self.config.share_hit) ** num for _, num in num_members(self, self.members or ())]
        return mean_uptime_of([chance / self._shock_seconds for chance in chances or [1.0]])

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between shocks of one region, including those that hit no node."""
        while True:
            yield float(rng.standard_exponential()) * self._shock_seconds

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """Each node of the region, with the same chance."""
        hit = rng.random(len(members)) < self.config.share_hit
        return [member.number for member, is_hit in zip(members, hit, strict=True) if is_hit]

    def describe(self) -> str:
        """For captions."""
        hit = self.config.share_hit
        return "with its whole region" if hit == 1.0 else f"with {100 * hit:.3g} % of its region"


class IndependentLosses(Renewal):
    """Independent failures of nodes: exponential with rate (1 - shared_part) / mean."""

    Config = OutageConfig
    config: OutageConfig
    scope: Scope = "node"

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between independent failures of a node."""
        own_part = 1.0 - self.config.shared_part
        return self.config.mean_uptime_seconds / own_part if own_part else math.inf

    def unit_draw(self, rng: np.random.Generator) -> float:
        """Exponential of mean 1."""
        return float(rng.standard_exponential())


class OutageFailures(CorrelatedFailures, Superposition):
    """Correlated losses: regional shocks and independent failures of nodes (Marshall and Olkin, JASA 62, 1967).

    All nodes that one shock takes return at the same instant.
    """

    Config = OutageConfig
    config: OutageConfig

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The shocks of regions and the failures of nodes."""
        shared, own = RegionalShocks(self.config), IndependentLosses(self.config)
        return ("outage/shared", shared.for_members(self.members or ())), ("outage/own", own)

    def describe(self) -> str:
        """For captions."""
        shared_part = self.config.shared_part
        shared = "always" if shared_part == 1.0 else f"{100 * shared_part:.3g} % of the times"
        how = f"{shared} {RegionalShocks(self.config).describe()}" if shared_part else "alone"
        return f"each node {self.config.describe_mean}, {how}"


def num_members(process: FailureProcess, members: Sequence[Member]) -> list[tuple[int | str, int]]:
    """The number of nodes in each domain of scope region or cluster, without those of immune stages."""
    mortal = [member for member in members if member.stage not in process.config.immune_stages]
    if process.scope == "cluster":
        return [("cluster", len(mortal))] if mortal else []
    return list(Counter(member.region for member in mortal).items())


def mean_uptime_of(rates_per_second: Sequence[float]) -> float:
    """Harmonic mean, in seconds, of the mean uptimes of domains that fail at these rates."""
    total = sum(rates_per_second)
    return len(rates_per_second) / total if total else math.inf
