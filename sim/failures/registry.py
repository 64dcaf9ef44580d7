"""The table of failure processes, their superposition, and the type of a scenario field that names one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from sim.core.plugins import PluginError, Plugins, choice
from sim.failures import renewal
from sim.failures.base import FailureProcess, Member, ProcessConfig, Superposition
from sim.failures.correlated import BulkFailures, OutageFailures
from sim.failures.script import ScriptFailures
from sim.failures.trace import TraceFailures

SINGLE: tuple[type[FailureProcess], ...] = (
    renewal.ExponentialFailures,
    renewal.WeibullFailures,
    renewal.LognormalFailures,
    renewal.DiurnalFailures,
    renewal.PoissonFailures,
    renewal.PerIterationFailures,
    OutageFailures,
    BulkFailures,
    ScriptFailures,
    TraceFailures,
)
"""Built-in processes, in the order in which they are listed; `compose` and `never` follow. Add a new one here."""

PLUGINS: Plugins[FailureProcess] = Plugins("churnlab.failures", FailureProcess, ProcessConfig)  # by entry point


def process_choice(processes: Sequence[type[FailureProcess]]) -> Any:
    """The type of a field that holds the options of one of these processes, a preset, or a process from outside."""
    return choice([process.Config for process in processes], PLUGINS, "failures")


if TYPE_CHECKING:
    Single = ProcessConfig
else:
    Single = process_choice((*SINGLE, renewal.NoFailures))


class ComposeConfig(ProcessConfig):
    """Options of `compose`."""

    kind: Literal["compose"] = "compose"
    processes: tuple[Single, ...] = Field(
        min_length=1, max_length=100, description="failure processes, each a kind and its options; not compose itself"
    )

    @model_validator(mode="after")
    def _options_belong_to_processes(self) -> Self:
        for option in ("immune_stages", "notice_seconds"):
            if getattr(self, option):
                raise ValueError(f"{option} of compose: give it to each of its processes that has it")
        if sum(process_class(process.kind)(process).supplies_nodes for process in self.processes) > 1:
            raise ValueError(
                "only one of the processes of compose can supply nodes: choose additions 'ignore' for the others"
            )
        return self


class ComposedFailures(Superposition):
    """Several failure processes at once, independent of each other."""

    Config = ComposeConfig
    config: ComposeConfig

    def __init__(self, config: Any, processes: Sequence[FailureProcess] | None = None) -> None:
        super().__init__(config)
        self._processes = processes or [process_class(each.kind)(each) for each in config.processes]

    def for_members(self, members: Sequence[Member]) -> Self:
        """The sum of the processes for these nodes."""
        return type(self)(self.config, [process.for_members(members) for process in self._processes])

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The parts of all its processes; each name begins with the number of its process."""
        return tuple(
            (f"{index}/{name}", part) for index, process in enumerate(self._processes) for name, part in process.parts
        )

    @property
    def num_initial_nodes(self) -> int | None:
        """That of the process that supplies nodes, if there is one."""
        return next((process.num_initial_nodes for process in self._processes if process.supplies_nodes), None)

    @property
    def initial_regions(self) -> Sequence[str] | None:
        """Those of the process that supplies nodes."""
        return next((process.initial_regions for process in self._processes if process.supplies_nodes), None)

    def describe(self) -> str:
        """For captions."""
        return "; and ".join(process.describe() for process in self._processes)


PROCESSES: dict[str, type[FailureProcess]] = {
    **{process.kind: process for process in SINGLE},
    ComposedFailures.kind: ComposedFailures,
    renewal.NoFailures.kind: renewal.NoFailures,
}


def with_default_scope(config: ProcessConfig) -> ProcessConfig:
    """A process whose nodes fail one by one if its scope is not given: the default where a stage has several nodes."""
    if parts := getattr(config, "processes", None):
        scoped = tuple(map(with_default_scope, parts))
        is_changed = any(new is not old for new, old in zip(scoped, parts, strict=True))
        return config.model_copy(update={"processes": scoped}) if is_changed else config
    field = type(config).model_fields.get("scope")
    follows = field is not None and field.default == "stage" and "node" in get_args(field.annotation)
    return config.model_copy(update={"scope": "node"}) if follows and "scope" not in config.model_fields_set else config


def process_class(kind: str) -> type[FailureProcess]:
    """The class of a kind: built in, of an installed package, or `package.module:Class`. Raises PluginError."""
    return PROCESSES.get(kind) or PLUGINS.find(kind)


def processes(config: ProcessConfig) -> tuple[ProcessConfig, ...]:
    """The options of all processes that a configuration composes, or the configuration alone."""
    return config.processes if isinstance(config, ComposeConfig) else (config,)


def known_processes() -> dict[str, type[FailureProcess] | PluginError]:
    """All kinds that have plain names, installed ones last; the error in place of a class that cannot be used."""
    return {**PROCESSES, **{kind: found for kind, found in PLUGINS.known().items() if kind not in PROCESSES}}
