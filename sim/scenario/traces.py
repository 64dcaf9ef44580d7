"""A scenario's churn traces, read from the files that it names when the scenario is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from sim.core.presets import frozen, presets, resolved
from sim.core.text import shortened
from sim.failures.trace_formats import TraceError, filled
from sim.scenario.yaml_reader import Location


def with_traces(data: Any, base_folder: Path) -> tuple[Any, list[tuple[Location, str]]]:
    """A scenario's data with the rows of every churn trace that it names by its file; and where one cannot be read,
    why. That one gets a row, so that its other options are looked at all the same.
    """
    unread: list[tuple[Location, str]] = []

    def read(process: Any, path: Location) -> Any:
        options = options_of_process(process)
        processes = options.get("processes")
        if isinstance(processes, list | tuple):
            parts = [read(part, (*path, "processes", index)) for index, part in enumerate(processes)]
            return process if parts == list(processes) else {**options, "processes": parts}
        if options.get("kind") != "trace" or not isinstance(options.get("file"), str):
            return process
        kept = options.get("rows")
        if kept and not (base_folder / options["file"]).exists():
            return process  # of a run's results, which hold the trace itself
        try:
            found = filled(options, base_folder)
            if kept and frozen(kept) != frozen(found["rows"]):
                found_other = f"found another trace than in '{shortened(options['file'])}': leave one of the two out"
                unread.append(((*path, "rows"), found_other))
            return found
        except TraceError as error:
            unread.append(((*path, "file"), str(error)))
            return {**options, "rows": [[0.0, 10_000, 0, []]]}

    if not isinstance(data, dict) or "failures" not in data:
        return data, []
    return {**data, "failures": read(data["failures"], ("failures",))}, unread


def options_of_process(process: Any) -> dict[str, Any]:
    """A failure process as a scenario names it, as a mapping, a preset's figures filled in; empty if it is none."""
    if isinstance(process, str) and process in presets("failures"):
        process = {"preset": process}
    if not isinstance(process, dict):
        return {}
    try:
        return resolved("failures", process) if "preset" in process else process
    except PydanticCustomError:
        return process
