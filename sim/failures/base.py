"""The contract of a failure process."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from models.spec import Config
from sim.core.distributions import Delay
from sim.core.units import SECONDS_PER_HOUR

Scope = Literal["node", "stage", "region", "cluster"]
"""What fails as one: a domain is a node (by number), a stage (by number), a region (by name) or the whole cluster."""

DEFAULT_RATE_PER_HOUR = 0.1


@dataclass(frozen=True)
class Member:
    """A node as a failure process sees it: numbers count arrivals, from 0; a spare has no stage."""

    number: int
    region: str
    stage: int | None
    replica: int | None = None


class ProcessConfig(Config):
    """Options that every failure process has."""

    kind: str
    immune_stages: tuple[int, ...] = Field(
        (), description="stages that never fail; 0 holds embedding and head, which the paper's runs spare"
    )
    notice_seconds: float = Field(
        0.0, ge=0, le=1e6, description="warning before nodes leave; a replacement is ordered as it comes"
    )
    name: str = Field("", description="of the preset that it is, or was")
    description: str = Field("", description="in words, for people")
    source: str = Field("", description="where the figures are from")


class MeanConfig(ProcessConfig):
    """Options of processes with a mean: give rate or mean, so that processes of equal mean compare."""

    rate_per_hour: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="chance of a failure within an hour (0.1 = 10 %) at a constant rate of the same mean, as the paper "
        f"states rates; default, with no mean either: {DEFAULT_RATE_PER_HOUR}",
    )
    mean_uptime_hours: float | None = Field(
        None, ge=1 / 3600, le=1e9, description="mean time from one failure to the next, in place of rate_per_hour"
    )
    downtime: Delay | None = Field(
        None, description="lost nodes come back after it, and nobody orders new ones; default: they never do"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_rate(cls, data: Any) -> Any:
        """The rate is spelled out where nothing is said of it."""
        if isinstance(data, dict) and data.get("rate_per_hour") is None and data.get("mean_uptime_hours") is None:
            return {**data, "rate_per_hour": DEFAULT_RATE_PER_HOUR}
        return data

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between failures of a domain; infinite at rate 0."""
        if self.mean_uptime_hours is not None:
            return self.mean_uptime_hours * SECONDS_PER_HOUR
        assert self.rate_per_hour is not None
        rate_per_second = -math.log1p(-self.rate_per_hour) / SECONDS_PER_HOUR
        return 1.0 / rate_per_second if rate_per_second else math.inf

    @property
    def describe_mean(self) -> str:
        """For captions, after who it is: by the mean, since a chance within an hour depends on the law."""
        if math.isinf(self.mean_uptime_seconds):
            return "never fails"
        hours = self.mean_uptime_seconds / SECONDS_PER_HOUR
        return f"fails every {hours:{'.3g' if hours < 100 else ',.0f'}} h on average"


class RatedConfig(MeanConfig):
    """Options of processes with a mean that strike whole domains of any one scope."""

    scope: Literal["node", "stage", "region"] = Field(
        "stage", description="what fails as one: each node for itself, all nodes of a stage, or of a region"
    )

    @property
    def describe_rate(self) -> str:
        """For captions: who fails how often, at a constant rate."""
        if self.mean_uptime_hours is None and self.rate_per_hour is not None:
            return f"each {self.scope} fails within an hour with a chance of {100 * self.rate_per_hour:.3g} %"
        return f"each {self.scope} {self.describe_mean}"


class FailureProcess(ABC):
    """Says, for each domain of its scope, when it is struck, who is lost then, and when these come back.

    Pure: what it draws comes from the generators it is given, one stream for each domain and question, so that a
    strategy, or another domain, moves nothing. `unit` is the clock of an uptime: seconds of simulated time, or
    iterations executed (the whole part counts iterations that end without this failure, the fraction is the instant
    in the one that fails).

    Uptimes of a stage, a region or the cluster count from the strike before, whatever happens meanwhile; those of a
    node from its arrival, or its return: a node keeps its age when others fail, and is as good as new when it comes
    back. A strike that finds nobody there strikes nobody.

    Before anything is drawn, `for_members` tells a process the nodes that are there at time zero; before the uptimes of
    a node, `starting_at` tells it when these begin. Most processes care for neither.
    """

    kind: ClassVar[str]
    unit: ClassVar[Literal["seconds", "iterations"]]
    Config: ClassVar[type[ProcessConfig]]
    config: ProcessConfig

    accepts_any_order: ClassVar[bool] = False
    """Of scope cluster: whether `lost_nodes` may be given all that are there in an order of no meaning, also those of
    immune stages, whom it then strikes in vain. This spares a look at every node for each strike.
    """

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Take the process's own options."""

    @abstractmethod
    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Uptimes of a domain, in `unit`s, from one strike to the next; when they end, nothing strikes it any more."""

    @abstractmethod
    def describe(self) -> str:
        """The process in a few words, for captions."""

    def for_members(self, members: Sequence[Member]) -> FailureProcess:  # noqa: ARG002
        """The process for a cluster of these nodes (at time zero, immune stages among them): itself, for most."""
        return self

    def starting_at(self, now_seconds: float) -> FailureProcess:  # noqa: ARG002
        """The process for uptimes that count from then, a node's arrival or return: itself, unless the hour matters."""
        return self

    @property
    def scope(self) -> Scope:
        """What fails as one."""
        scope: Scope = getattr(self.config, "scope", "stage")
        return scope

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between two strikes of one domain that take somebody; infinite where nothing fails."""
        return self.config.mean_uptime_seconds if isinstance(self.config, MeanConfig) else math.inf

    @property
    def mean_uptime_iterations(self) -> float:
        """The same for what counts iterations."""
        return math.inf

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The processes that it is made of, each with the name of its random streams."""
        return ((self.kind, self),)

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """Numbers of the nodes that the index-th strike (from 0) of a domain takes, of those now in it: all of them."""
        return [member.number for member in members]

    def downtimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float | None]:  # noqa: ARG002
        """Seconds that those lost in each strike of a domain stay away, one for each strike; they never come back
        where it is None or there is none: new ones are ordered in their place.
        """
        downtime = self.config.downtime if isinstance(self.config, MeanConfig) else None
        while downtime:
            yield downtime.seconds(rng)

    def arrivals(self, index: int) -> int:  # noqa: ARG002
        """Nodes that come at the index-th strike, of themselves: none."""
        return 0

    @property
    def num_initial_nodes(self) -> int | None:
        """Nodes that are there at time zero; None: every place has one, and so has every spare's."""
        return None

    @property
    def supplies_nodes(self) -> bool:
        """Whether nodes come of themselves, so that nobody orders any."""
        return self.num_initial_nodes is not None


class RenewalProcess(FailureProcess):
    """Uptimes are draws of mean 1, one like the other, times the mean: two rates under one seed see the same luck."""

    unit = "seconds"

    @abstractmethod
    def unit_draw(self, rng: np.random.Generator) -> float:
        """An uptime, for a mean of 1."""

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures of one domain."""
        while True:
            yield self.unit_draw(rng) * self.mean_uptime_seconds


class Superposition(FailureProcess):
    """A process that is the sum of its parts: these are asked for what they draw, never the whole."""

    unit = "seconds"

    @property
    @abstractmethod
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The processes that it is made of, each with the name of its random streams."""

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Never asked. NotImplementedError."""
        raise NotImplementedError(f"{self.kind} is the sum of its parts: ask these")


def num_members(process: FailureProcess, members: Sequence[Member]) -> dict[int | str, int]:
    """How many nodes each domain of a process has, those of immune stages left out."""
    mortal = [member for member in members if member.stage is None or member.stage not in process.config.immune_stages]
    if process.scope == "cluster":
        return {"cluster": len(mortal)}
    domain_of = {"node": "number", "stage": "stage", "region": "region"}[process.scope]
    return dict(Counter(domain for member in mortal if (domain := getattr(member, domain_of)) is not None))


def mean_uptime_of(rates_per_second: Sequence[float]) -> float:
    """Seconds between strikes of one domain such that as many domains of that mean have the same rate in all."""
    total = sum(rates_per_second)
    return len(rates_per_second) / total if total else math.inf
