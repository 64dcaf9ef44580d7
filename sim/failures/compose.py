"""The superposition of several failure processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from sim.failures.base import FailureProcess, Member, ProcessConfig, Superposition
from sim.failures.registry import COMPOSABLE, build_process, process_choice

if TYPE_CHECKING:
    Single = ProcessConfig
else:
    Single = process_choice(tuple(COMPOSABLE.values()))


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
        if sum(build_process(process).supplies_nodes for process in self.processes) > 1:
            raise ValueError(
                "only one of the processes of compose can supply nodes: choose additions 'ignore' for the others"
            )
        return self


class ComposedFailures(Superposition):
    """Several failure processes at once, independent of each other.

    Each process keeps its own scope, clock, immune stages, notice and downtimes.
    """

    Config = ComposeConfig
    config: ComposeConfig

    def __init__(self, config: Any, members: Sequence[FailureProcess] | None = None) -> None:
        super().__init__(config)
        self._members = members or [build_process(member) for member in config.processes]

    def for_members(self, members: Sequence[Member]) -> ComposedFailures:
        """The sum of the processes for these nodes."""
        return ComposedFailures(self.config, [process.for_members(members) for process in self._members])

    @property
    def parts(self) -> tuple[tuple[str, FailureProcess], ...]:
        """The parts of all its processes; each name begins with the number of its process."""
        return tuple(
            (f"{index}/{name}", part) for index, member in enumerate(self._members) for name, part in member.parts
        )

    @property
    def num_initial_nodes(self) -> int | None:
        """That of the process that supplies nodes, if there is one."""
        return next((num for member in self._members if (num := member.num_initial_nodes) is not None), None)

    def describe(self) -> str:
        """For captions."""
        return "; and ".join(member.describe() for member in self._members)
