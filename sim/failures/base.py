"""The contract of a failure process, with all that a plug-in needs: subclass `Renewal` (a law) or `FailureProcess`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from models.spec import Config as Config
from sim.core.distributions import Delay as Delay
from sim.core.plugins import Component
from sim.core.units import HOURS_PER_DAY
from sim.core.units import SECONDS_PER_HOUR as SECONDS_PER_HOUR

Scope = Literal["node", "stage", "region", "cluster"]
"""What fails as one. A domain is a node (by number), a stage (by number), a region (by name) or the whole cluster."""

DEFAULT_RATE_PER_HOUR = 0.1


@dataclass(frozen=True)
class Member:
    """A node as a failure process sees it. Nodes are numbered by arrival, from 0; a spare has no stage."""

    number: int
    region: str
    stage: int | None
    replica: int | None = None


class ProcessConfig(Config):
    """Options that every failure process has."""

    kind: str
    immune_stages: tuple[int, ...] = Field(
        (), description="stages that never fail; 0 holds embedding and head, which never fail in the paper's runs"
    )
    notice_seconds: float = Field(
        0.0, ge=0, le=1e6, description="preemption notice before nodes leave; replacements are ordered when it arrives"
    )
    name: str = Field("", description="name of the preset on which it is based")
    description: str = Field("", description="in words, for people")
    source: str = Field("", description="source of the figures")


class MeanConfig(ProcessConfig):
    """Options of processes with a mean uptime, given as a rate or as a mean."""

    rate_per_hour: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="chance of a failure within an hour (0.1 = 10 %) at a constant rate of the same mean, as the paper "
        f"states rates; default, with no mean either: {DEFAULT_RATE_PER_HOUR}",
    )
    rate_per_day: float | None = Field(
        None,
        ge=0,
        lt=1,
        exclude=True,
        description="chance of a failure within a day, in place of rate_per_hour, to which it is converted: "
        "0.1 is 0.00438 per hour",
    )
    mean_uptime_hours: float | None = Field(
        None, ge=1 / 3600, le=1e9, description="mean time from one failure to the next, instead of rate_per_hour"
    )
    downtime: Delay | None = Field(
        None,
        description="time until lost nodes return; no replacements are ordered; default: they never return",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_rate(cls, data: Any) -> Any:
        rates = ("rate_per_hour", "rate_per_day", "mean_uptime_hours")
        if isinstance(data, dict) and all(data.get(rate) is None for rate in rates):
            return {**data, "rate_per_hour": DEFAULT_RATE_PER_HOUR}
        return data

    @model_validator(mode="after")
    def _per_hour(self) -> Self:
        """Convert a rate per day to one per hour, so that both have the same key and results."""
        if self.rate_per_day is None:
            return self
        for other in ("rate_per_hour", "mean_uptime_hours"):
            if getattr(self, other) is not None:
                raise ValueError(f"give {other} or rate_per_day, not both")
        per_hour = -math.expm1(math.log1p(-self.rate_per_day) / HOURS_PER_DAY)
        self.__dict__.update(rate_per_hour=per_hour, rate_per_day=None)  # of a frozen model
        return self

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
        """The mean in words, for captions; the chance of a failure within an hour would depend on the law."""
        if math.isinf(self.mean_uptime_seconds):
            return "never fails"
        hours = self.mean_uptime_seconds / SECONDS_PER_HOUR
        return f"fails every {hours:{'.3g' if hours < 100 else ',.0f'}} h on average"


class RatedConfig(MeanConfig):
    """Options of processes with a mean uptime in which whole domains of one scope fail."""

    scope: Literal["node", "stage", "region"] = Field(
        "stage",
        description="what fails as one: each node by itself, all nodes of a stage, or of a region; where "
        "`cluster.nodes_per_stage` is above 1, the default is node",
    )

    @property
    def describe_rate(self) -> str:
        """What fails how often, for captions: as a chance within an hour where the scenario gives that."""
        if self.mean_uptime_hours is None and self.rate_per_hour is not None:
            return f"each {self.scope} fails within an hour with a chance of {100 * self.rate_per_hour:.3g} %"
        return f"each {self.scope} {self.describe_mean}"


class FailureProcess(Component):
    """When each domain of a scope fails, which nodes are lost then, and when they return.

    Required: `Config`, `uptimes`, `describe`. Order of use: before the start `unit`, `num_initial_nodes`; at time zero
    `for_members`, `parts`, `scope`; when a node arrives (scope node) `starting_at`; for each domain `uptimes`; at each
    failure `lost_nodes`, `downtimes`, `arrivals`; by strategies that adapt to the failure rate `mean_uptime_seconds`.

    A process draws only from the generators that it is given, one for each domain and method, so that strategies and
    other domains do not change its draws. Scale draws of mean 1 by the mean where there is one: runs at two rates under
    one seed then differ in scale only.

    Uptimes of a stage, a region or the cluster count from its last failure, those of a node from its arrival or return:
    a returned node is as good as new. A failure of a domain without nodes has no effect.
    """

    Config: ClassVar[type[ProcessConfig]]
    config: ProcessConfig

    unit: ClassVar[Literal["seconds", "iterations"]] = "seconds"
    """The clock of uptimes: simulated time, or iterations of the training, each counted once, however often it is
    executed (the whole part counts iterations without this failure, the fraction is the instant within the one that
    fails)."""

    accepts_any_order: ClassVar[bool] = False
    """For scope cluster: whether `lost_nodes` accepts the nodes in arbitrary order and with those of immune stages,
    whose loss is then ignored. This saves a pass over all nodes at each failure."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def supplies_nodes(self) -> bool:
        """Whether nodes arrive by this process, so that no replacements are ordered."""
        return self.num_initial_nodes is not None

    @property
    def num_initial_nodes(self) -> int | None:
        """Number of nodes at time zero; None: one for each place and each spare."""
        return None

    def for_members(self, members: Sequence[Member]) -> Self:  # noqa: ARG002
        """The process for a cluster of these nodes, immune stages included; the sequence changes with the cluster."""
        return self

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The processes that this one is the sum of, each with the name of its random streams."""
        return ((self.kind, self),)

    @property
    def scope(self) -> Scope:
        """What fails as one: by default the option `scope`, else a stage."""
        return getattr(self.config, "scope", "stage")

    def starting_at(self, now_seconds: float) -> Self:  # noqa: ARG002
        """The process for uptimes that count from an instant of simulated time."""
        return self

    @abstractmethod
    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Times from one failure of a domain to the next, in `unit`s; after the last one the domain never fails."""

    def lost_nodes(self, rng: np.random.Generator, members: Sequence[Member], index: int) -> Sequence[int]:  # noqa: ARG002
        """Numbers of the nodes, of those present in a domain, that its failure `index` (from 0) takes: all of them."""
        return [member.number for member in members]

    def downtimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float | None]:  # noqa: ARG002
        """Seconds until the nodes lost in each failure return; None or no more: never, and replacements are ordered."""
        downtime = self.config.downtime if isinstance(self.config, MeanConfig) else None
        while downtime:
            yield downtime.seconds(rng)

    def arrivals(self, index: int) -> int:  # noqa: ARG002
        """Number of nodes that arrive at failure number `index`, beside those that return."""
        return 0

    def may_bring_nodes_from(self, index: int) -> bool:  # noqa: ARG002
        """Whether nodes may arrive at failure number `index` or later, or return after it."""
        return type(self).arrivals is not FailureProcess.arrivals or self.returns_nodes

    @property
    def returns_nodes(self) -> bool:
        """Whether nodes that the process takes may return."""
        is_own = type(self).downtimes is not FailureProcess.downtimes
        return is_own or getattr(self.config, "downtime", None) is not None

    @property
    def initial_regions(self) -> Sequence[str] | None:
        """Regions of the nodes at time zero, where the process supplies them; None: the cluster's in turn."""
        return None

    def arrival_regions(self, index: int) -> Sequence[str | None]:
        """Regions of the nodes that arrive at failure number `index`; None: the next one in turn."""
        return (None,) * self.arrivals(index)

    @property
    def mean_uptime_seconds(self) -> float:
        """Mean time between failures of one domain that take a node or more; infinite where there are none."""
        return self.config.mean_uptime_seconds if isinstance(self.config, MeanConfig) else math.inf

    @property
    def mean_uptime_iterations(self) -> float:
        """Mean number of iterations between failures of one domain, where `unit` is iterations."""
        return math.inf

    @abstractmethod
    def describe(self) -> str:
        """The process in a few words, for captions."""


class Renewal(FailureProcess):
    """A process of independent, identically distributed uptimes: a law that is scaled by the mean of the options."""

    law: ClassVar[str] = ""
    """The law in captions, a format string for the options `{0}`."""

    @abstractmethod
    def unit_draw(self, rng: np.random.Generator) -> float:
        """One uptime, for a mean of 1."""

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:  # noqa: ARG002
        """Seconds between failures of one domain."""
        while True:
            yield self.unit_draw(rng) * self.mean_uptime_seconds

    def describe(self) -> str:
        """What fails how often, and the law."""
        assert isinstance(self.config, RatedConfig), "a law with other options describes itself"
        law = f" ({self.law.format(self.config)})" if self.law else ""
        return f"each {self.config.scope} {self.config.describe_mean}{law}"


class Superposition(FailureProcess):
    """A process that is the sum of its `parts`, from which all draws are taken."""

    def uptimes(self, rng: np.random.Generator, domain: int | str) -> Iterator[float]:
        """Not defined for the sum. Raises NotImplementedError."""
        raise NotImplementedError(f"{self.kind} is the sum of its parts: draw from these")
