"""Several nodes lost at one instant, as clouds take spot machines back (see the traces of Bamboo, NSDI 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.failures.base import FailureProcess, MeanConfig, Member, ProcessConfig, mean_uptime_of, num_members


class BulkConfig(MeanConfig):
    """Options of `bulk`. Rate and mean are a node's."""

    kind: Literal["bulk"] = "bulk"
    scope: Literal["cluster", "region"] = Field(
        "cluster", description="where the nodes lost together are: anywhere, or in one region"
    )
    mean_size: float = Field(
        2.0, ge=1, le=1e6, description="nodes lost at once on average: geometric on 1, 2, ...; before max_size"
    )
    max_size: int | None = Field(None, ge=1, le=10**6, description="never more at once; default: no limit")


class BulkFailures(FailureProcess):
    """Poisson events, each of which takes K nodes of its domain by lot; K is geometric, at most max_size.

    Events of a domain of n nodes come at n × (a node's rate) / E[min(K, n)], so that a node is lost at its rate while
    the domain is as large as at time zero; while some of its nodes are away, the others are lost a little more often.
    """

    kind = "bulk"
    unit = "seconds"
    Config: ClassVar[type[ProcessConfig]] = BulkConfig

    def __init__(self, config: BulkConfig, members: Sequence[Member] | None = None) -> None:
        self.config: BulkConfig = config
        self._num_members = None if members is None else num_members(self, members)

    def for_members(self, members: Sequence[Member]) -> BulkFailures:
        """The same process, which knows how many nodes each domain has."""
        return BulkFailures(self.config, members)

    def mean_lost(self, num_members: int) -> float:
        """E[min(K, n)] = (1 - (1 - p)^n) / p with p = 1 / mean_size, and n at most max_size."""
        at_most = num_members if self.config.max_size is None else min(num_members, self.config.max_size)
        return float(self.config.mean_size * (1.0 - (1.0 - 1.0 / self.config.mean_size) ** at_most))

    def events_per_second(self, num_members: int) -> float:
        """Rate of events that take a node each, or more, of so many."""
        if not num_members:
            return 0.0
        return num_members / (self.config.mean_uptime_seconds * self.mean_lost(num_members))

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between events of a domain, averaged over the domains' rates."""
        assert self._num_members is not None, "bulk needs for_members before it is asked"
        return mean_uptime_of([self.events_per_second(num) for num in self._num_members.values()])

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Seconds between events of one domain."""
        assert self._num_members is not None, "bulk needs for_members before it is asked"
        rate = self.events_per_second(self._num_members.get(domain, 0))
        while rate:
            yield float(rng.standard_exponential()) / rate

    def victims(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """As many as the event takes, or all that are there, by lot."""
        size = int(rng.geometric(1.0 / self.config.mean_size))
        size = min(size, len(members), self.config.max_size or size)
        return [members[which].number for which in sorted(rng.permutation(len(members))[:size])]

    def in_words(self) -> str:
        """For captions."""
        where = "" if self.config.scope == "cluster" else " of a region"
        mean_size = self.config.mean_size if self.config.max_size is None else self.mean_lost(self.config.max_size)
        return f"each node {self.config.how_often}, {mean_size:.3g}{where} at once on average"
