"""Correlated losses: regions are shocked, and nodes fail on their own besides (Marshall and Olkin, JASA 62, 1967)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.failures.base import (
    FailureProcess,
    MeanConfig,
    Member,
    ProcessConfig,
    RenewalProcess,
    Scope,
    SumOfProcesses,
    mean_uptime_of,
    num_members,
)


class OutageConfig(MeanConfig):
    """Options of `outage`. Rate and mean are a node's, whatever it is lost by."""

    kind: Literal["outage"] = "outage"
    shared_part: float = Field(
        1.0, ge=0, le=1, description="part of a node's losses that come with a shock of its region; it fails alone else"
    )
    share_hit: float = Field(
        1.0, ge=1e-6, le=1, description="chance that a shock hits a node of the region; the smaller, the more shocks"
    )


class SharedLosses(FailureProcess):
    """Shocks of a region: Poisson with rate shared_part / (mean × share_hit), each node hit or not by lot."""

    kind = "outage"
    unit = "seconds"
    Config: ClassVar[type[ProcessConfig]] = OutageConfig

    def __init__(self, config: OutageConfig, members: Sequence[Member] = ()) -> None:
        self.config: OutageConfig = config
        self._num_members = num_members(self, members)

    @property
    def scope(self) -> Scope:
        """A region."""
        return "region"

    @property
    def shock_seconds(self) -> float:
        """Mean time between shocks of a region, those that hit nobody among them."""
        shared_part = self.config.shared_part
        return self.config.mean_uptime_seconds * self.config.share_hit / shared_part if shared_part else math.inf

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between shocks of a region that hit somebody; any shock does in regions of unknown size."""
        chances = [1.0 - (1.0 - self.config.share_hit) ** num for num in self._num_members.values()]
        return mean_uptime_of([chance / self.shock_seconds for chance in chances or [1.0]])

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between shocks of one region."""
        while True:
            yield float(rng.standard_exponential()) * self.shock_seconds

    def victims(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """Each node of the region with the same chance."""
        hit = rng.random(len(members)) < self.config.share_hit
        return [member.number for member, is_hit in zip(members, hit, strict=True) if is_hit]

    def in_words(self) -> str:
        """For captions."""
        hit = self.config.share_hit
        return "with its whole region" if hit == 1.0 else f"with {100 * hit:.3g} % of its region"


class OwnLosses(RenewalProcess):
    """Losses of single nodes: exponential with rate (1 - shared_part) / mean."""

    kind = "outage"
    Config: ClassVar[type[ProcessConfig]] = OutageConfig

    def __init__(self, config: OutageConfig) -> None:
        self.config: OutageConfig = config

    @property
    def scope(self) -> Scope:
        """A node."""
        return "node"

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between losses of a node that it suffers alone."""
        own_part = 1.0 - self.config.shared_part
        return self.config.mean_uptime_seconds / own_part if own_part else math.inf

    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""
        return float(rng.standard_exponential())

    def in_words(self) -> str:
        """For captions."""
        return "alone"


class OutageFailures(SumOfProcesses):
    """Shared and own losses of nodes. All that one shock takes come back at the same instant."""

    kind = "outage"
    Config: ClassVar[type[ProcessConfig]] = OutageConfig

    def __init__(self, config: OutageConfig, members: Sequence[Member] = ()) -> None:
        self.config: OutageConfig = config
        self._shared, self._own = SharedLosses(config, members), OwnLosses(config)

    def for_members(self, members: Sequence[Member]) -> OutageFailures:
        """The same process, which knows how many nodes a shock can hit."""
        return OutageFailures(self.config, members)

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The shocks of regions and the failures of nodes."""
        return ("outage/shared", self._shared), ("outage/own", self._own)

    def in_words(self) -> str:
        """For captions."""
        shared_part = self.config.shared_part
        shared = "always" if shared_part == 1.0 else f"{100 * shared_part:.3g} % of the times"
        how = f"{shared} {self._shared.in_words()}" if shared_part else self._own.in_words()
        return f"each node {self.config.how_often}, {how}"
