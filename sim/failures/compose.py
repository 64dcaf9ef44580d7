"""Several failure processes at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sim.failures.base import FailureProcess, Member, ProcessConfig, Superposition
from sim.failures.correlated import BulkFailures, OutageFailures
from sim.failures.diurnal import DiurnalFailures
from sim.failures.per_iteration import PerIterationFailures
from sim.failures.poisson import PoissonFailures
from sim.failures.registry import PLUGINS, process_choice
from sim.failures.renewal import ExponentialFailures, LognormalFailures, NoFailures, WeibullFailures
from sim.failures.script import ScriptFailures
from sim.failures.trace import TraceFailures

SINGLE: tuple[type[FailureProcess], ...] = (
    ExponentialFailures,
    WeibullFailures,
    LognormalFailures,
    DiurnalFailures,
    PoissonFailures,
    PerIterationFailures,
    OutageFailures,
    BulkFailures,
    ScriptFailures,
    TraceFailures,
)
"""Processes that can be composed, `never` apart."""
MEMBERS: tuple[type[FailureProcess], ...] = (*SINGLE, NoFailures)

if TYPE_CHECKING:
    Single = ProcessConfig
else:
    Single = process_choice([process.Config for process in MEMBERS])


def build_process(config: ProcessConfig) -> FailureProcess:
    """The process of a configuration, built in or from outside."""
    built_in = {process.kind: process for process in MEMBERS}
    return (built_in.get(config.kind) or PLUGINS.find(config.kind))(config)


class ComposeConfig(ProcessConfig):
    """Options of `compose`."""

    kind: Literal["compose"] = "compose"
    processes: tuple[Single, ...] = Field(
        min_length=1, max_length=100, description="failure processes, each a kind and its options; compose is none"
    )

    @model_validator(mode="after")
    def _members_have_their_own(self) -> Self:
        for option in ("immune_stages", "notice_seconds"):
            if getattr(self, option):
                raise ValueError(f"{option} of compose: give it to each of its processes that has it")
        if sum(build_process(process).supplies_nodes for process in self.processes) > 1:
            raise ValueError("only one of the processes of compose can say when nodes come: choose additions 'ignore'")
        return self


class ComposedFailures(Superposition):
    """Several failure processes at once, independent of each other.

    The losses of all its processes; each keeps its own scope, clock, immune stages, notice and downtimes.
    """

    kind = "compose"
    Config: ClassVar[type[ProcessConfig]] = ComposeConfig

    def __init__(self, config: ComposeConfig, members: Sequence[FailureProcess] | None = None) -> None:
        self.config: ComposeConfig = config
        self._members = members or [build_process(member) for member in config.processes]

    def for_members(self, members: Sequence[Member]) -> ComposedFailures:
        """The same, each process told of the nodes."""
        return ComposedFailures(self.config, [process.for_members(members) for process in self._members])

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The parts of all its processes, their names behind the process's position."""
        return tuple(
            (f"{index}/{name}", part) for index, member in enumerate(self._members) for name, part in member.parts
        )

    @property
    def num_initial_nodes(self) -> int | None:
        """As the process says that brings nodes, if there is one."""
        return next((num for member in self._members if (num := member.num_initial_nodes) is not None), None)

    def describe(self) -> str:
        """For captions."""
        return "; and ".join(member.describe() for member in self._members)
