"""Nodes that fail at a constant rate, each for itself, drawn as one process: for fleets of thousands.

The failures of n exponential nodes are one Poisson process of rate n λ that takes each with the same chance
(superposition). In law this is `exponential` of scope `node`; one stream of draws takes the place of one a node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from sim.failures.base import FailureProcess, MeanConfig, Member, Scope

NUM_DRAWN_AT_ONCE = 256


class PoissonConfig(MeanConfig):
    """Options of `poisson`. Rate and mean are a node's."""

    kind: Literal["poisson"] = "poisson"


class PoissonFailures(FailureProcess):
    """Independent node failures at a constant rate, drawn as one process: for clusters of thousands of nodes.

    A strike finds one of as many places in a roster as there were nodes at time zero, spares among them, or a gap.

    So each node that is there fails at its rate, whoever is away; where more have come than were there at first, all
    together fail as often as these did. A strike on a node of an immune stage takes nobody.
    """

    Config = PoissonConfig
    config: PoissonConfig
    accepts_any_order = True

    def __init__(self, config: PoissonConfig, num_nodes: int | None = None) -> None:
        super().__init__(config)
        self._num_nodes = num_nodes

    def for_members(self, members: Sequence[Member]) -> PoissonFailures:
        """The process of so many nodes."""
        return PoissonFailures(self.config, len(members))

    @property
    def scope(self) -> Scope:
        """All nodes."""
        return "cluster"

    @property
    def num_nodes(self) -> int:
        """Nodes at time zero."""
        assert self._num_nodes is not None, "poisson needs for_members before it is asked"
        return self._num_nodes

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between strikes on the nodes that were there at time zero."""
        return self.config.mean_uptime_seconds / self.num_nodes if self.num_nodes else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between strikes: unit draws times the mean, so that two rates under one seed see the same luck."""
        mean_seconds = self.mean_uptime_seconds
        while not math.isinf(mean_seconds):
            for unit in rng.standard_exponential(NUM_DRAWN_AT_ONCE).tolist():
                yield unit * mean_seconds

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """One of those that are there, each with the same chance, or nobody."""
        found = int(rng.random() * max(self.num_nodes, len(members)))
        return [members[found].number] if found < len(members) else []

    def describe(self) -> str:
        """For captions."""
        return f"each node {self.config.describe_mean}"
