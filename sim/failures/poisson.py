"""Independent node failures at a constant rate, drawn as one process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from sim.failures.base import FailureProcess, MeanConfig, Member, Scope

NUM_DRAWN_AT_ONCE = 256


class PoissonConfig(MeanConfig):
    """Options of `poisson`. Rate and mean are those of a node."""

    kind: Literal["poisson"] = "poisson"


class PoissonFailures(FailureProcess):
    """Independent node failures at a constant rate, drawn as one process: for clusters of thousands of nodes.

    In law this is `exponential` of scope `node` (superposition), with one random stream in place of one per node.

    Failures occur at the rate of as many nodes as there were at time zero, spares included. Each takes one of as many
    slots at random: a present node, or none. So each node fails at its rate while others are away; if more nodes are
    present than at time zero, all together fail as often as those did. A failure at an immune stage has no effect.
    """

    Config = PoissonConfig
    config: PoissonConfig
    scope: Scope = "cluster"
    accepts_any_order = True

    def __init__(self, config: PoissonConfig, num_nodes: int | None = None) -> None:
        super().__init__(config)
        self._num_nodes = num_nodes

    def for_members(self, members: Sequence[Member]) -> PoissonFailures:
        """The process for so many nodes."""
        return PoissonFailures(self.config, len(members))

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between failures of the nodes present at time zero."""
        assert self._num_nodes is not None, "poisson needs for_members first"
        return self.config.mean_uptime_seconds / self._num_nodes if self._num_nodes else math.inf

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures."""
        mean_seconds = self.mean_uptime_seconds
        while not math.isinf(mean_seconds):
            for unit in rng.standard_exponential(NUM_DRAWN_AT_ONCE).tolist():
                yield unit * mean_seconds

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """One of the present nodes, each with the same chance, or none."""
        assert self._num_nodes is not None, "poisson needs for_members first"
        found = int(rng.random() * max(self._num_nodes, len(members)))
        return [members[found].number] if found < len(members) else []

    def describe(self) -> str:
        """For captions."""
        return f"each node {self.config.describe_mean}"
