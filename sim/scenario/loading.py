"""From YAML text or data to a Scenario, or to an error with all problems: place, value found, values allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from sim.core.presets import frozen, presets, resolved
from sim.core.text import shortened
from sim.failures.trace_formats import TraceError, filled
from sim.scenario.checks import CHECKS
from sim.scenario.document import Document, Overrides, Problem, ScenarioError
from sim.scenario.error_messages import describe_error, intended_path, suggest_file
from sim.scenario.scenario import Scenario
from sim.scenario.yaml_reader import Location

DATA: Location = ("training", "data")
"""The path of the training text."""


class DataError(ValueError):
    """A value that a command cannot use, such as missing training text; `field` is its path in the scenario."""

    def __init__(self, message: str, field: Location) -> None:
        super().__init__(message)
        self.field = field


ScenarioSource = str | Path | Scenario
"""A scenario, or the file that holds it."""


def document_of(source: ScenarioSource) -> tuple[Document, Path]:
    """The document of a scenario, and the folder at which its relative paths start."""
    if isinstance(source, Scenario):
        return Document(f"scenario '{source.name}'", source), Path()
    path = Path(source)
    return Document(str(path), read_scenario_text(path)), path.parent


def load_scenario(path: str | Path, overrides: Overrides = ()) -> Scenario:
    """Read a scenario file. Raises ScenarioError with every problem found.

    The scenario can be used from any folder: paths to texts are absolute, churn traces are read.
    """
    path = Path(path)
    scenario = parse_scenario(read_scenario_text(path), str(path), overrides, path.parent)
    return with_absolute_paths(scenario, path.parent)


def build_scenario(
    content: str | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    base_folder: str | Path = "",
    **sections: Any,
) -> Scenario:
    """Build a scenario from YAML text, from a mapping, or from its sections, with the checks of a scenario file.

    Sections may be plain data or configuration objects. Raises ScenarioError with every problem found.

    Example: `build_scenario(name="small", workload={"num_stages": 4}, strategies=["none", "checkfree"])`
    """
    content = sections if content is None else content
    if sections and content is not sections:
        content = {**(content if isinstance(content, Mapping) else Document("scenario", content).data), **sections}
    folder = Path(base_folder)
    return with_absolute_paths(parse_scenario(content, "scenario", overrides, folder), folder)


def with_absolute_paths(scenario: Scenario, base_folder: Path) -> Scenario:
    """The scenario with absolute paths to its text, so that it can be used from any folder."""
    data = scenario.training.data
    folder = base_folder.resolve()
    found: dict[str, Any] = {"files": tuple(str(folder / pattern) for pattern in data.files)}
    for field in ("train_tokens", "validation_tokens", "dataset"):
        path = getattr(data, field)
        if path is not None and (folder / path).exists():
            found[field] = str(folder / path)
    training = scenario.training.model_copy(update={"data": data.model_copy(update=found)})
    return scenario.model_copy(update={"training": training})


def read_scenario_text(path: Path) -> str:
    """The text of a scenario file. Raises ScenarioError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = "not text in UTF-8: save the file in that encoding"
        raise ScenarioError(str(path), [Problem(f"line {line}", "", message)]) from None
    except IsADirectoryError:
        inside = sorted(str(file) for file in path.glob("*.y*ml"))
        message = f"is a folder; give one of its files{': ' + ', '.join(inside) if inside else ''}"
        raise ScenarioError(str(path), [Problem("", "", message)]) from None
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise ScenarioError(str(path), [Problem("", "", f"cannot be read: {reason}{suggest_file(path)}")]) from None


def parse_scenario(
    content: str | Mapping[str, Any],
    source: str = "scenario",
    overrides: Overrides = (),
    base_folder: Path | None = None,
) -> Scenario:
    """Build a Scenario from YAML text, or its data, and overrides. Raises ScenarioError with every problem found.

    Reads the files of availability traces; relative paths start at `base_folder`, by default the current one.
    """
    document = Document(source, content)
    return scenario_of(document, base_folder or Path(), document.change(overrides))


def scenario_of(document: Document, base_folder: Path, problems: list[Problem]) -> Scenario:
    """The scenario of a document. Raises ScenarioError with the problems given and all others found."""
    data, unread = with_traces(document.data, base_folder)
    problems += [document.problem(path, message) for path, message in unread]
    scenario: Scenario | None
    faulty: list[Location] = []
    try:
        scenario = Scenario.model_validate(frozen(data))
    except ValidationError as error:
        problems += [document.problem(*describe_error(details, data)) for details in relevant_errors(error)]
        scenario, faulty = without_faults(data, error)
    if scenario is not None:
        problems += consistency_problems(document, scenario, faulty)
    if problems or scenario is None:
        raise ScenarioError(document.source, problems)
    return scenario


def relevant_errors(error: ValidationError) -> list[Any]:
    """Pydantic's errors, without those of lists that are too short only because entries in them are faulty."""
    return [
        details
        for details in error.errors()
        if details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]
    ]


def consistency_problems(document: Document, scenario: Scenario, faulty: list[Location]) -> list[Problem]:
    """Findings of the consistency checks, as far as all fields concerned are valid by themselves."""
    problems = []
    for check, needs in CHECKS:
        needed = [location(field) for field in needs]
        if any(overlap(field, fault) or overlap(fault, field) for field in needed for fault in faulty):
            continue
        for field, message in check(scenario):
            path = location(field)
            if not any(overlap(path, fault) for fault in faulty):
                problems.append(document.problem(path, message))
    return problems


def location(field: str) -> Location:
    """A dotted path as a location."""
    return tuple(int(part) if part.isdecimal() else part for part in field.split("."))


def overlap(a: Location, b: Location) -> bool:
    """Whether one path is the other or lies below it."""
    return a[: len(b)] == b[: len(a)]


def without_faults(data: Any, error: ValidationError) -> tuple[Scenario | None, list[Location]]:
    """The scenario with faulty fields at their defaults (None if that fails too), and the paths of these fields."""
    faulty: list[Location] = []
    for _ in range(10):  # removing a field may leave its section without a required one, which then goes too
        errors = [(details["type"], describe_error(details, data)[0]) for details in relevant_errors(error)]
        faulty += [intended_path(path, data) for kind, path in errors if kind == "extra_forbidden"]
        paths = [path[:-1] if kind == "missing" and isinstance(path[-1], str) else path for kind, path in errors]
        faulty += [path for path in paths if path]
        for path in faulty:
            data = without(data, path)
        data = {"name": "unnamed", "strategies": ["none"], **data}
        try:
            return Scenario.model_validate(frozen(data)), faulty
        except ValidationError as again:
            error = again
    return None, faulty


def without(data: Any, path: Location) -> Any:
    """A copy of the data without the key or the list at a path; a faulty strategy is replaced by `none`."""
    head, rest = path[0], path[1:]
    if not isinstance(data, dict) or head not in data:
        return data
    if head == "strategies" and rest and isinstance(data[head], list):
        left_out = {"kind": "none", "label": f"left-out-{rest[0]}"}
        return {**data, head: [left_out if index == rest[0] else item for index, item in enumerate(data[head])]}
    if rest and isinstance(data[head], dict):
        return {**data, head: without(data[head], rest)}
    return {key: item for key, item in data.items() if key != head}


# ---- files of availability traces -----------------------------------------------------------------


def with_traces(data: Any, base_folder: Path) -> tuple[Any, list[tuple[Location, str]]]:
    """A scenario's data with the rows of every availability trace that it names by file, and the errors by path.

    A trace that cannot be read gets one row, so that its other options are checked all the same.
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
            return process  # the results of a run contain the trace itself
        try:
            found = filled(options, base_folder)
            if kept and frozen(kept) != frozen(found["rows"]):
                found_other = f"differs from the trace in '{shortened(options['file'])}': leave out one of the two"
                unread.append(((*path, "rows"), found_other))
            return found
        except TraceError as error:
            unread.append(((*path, "file"), str(error)))
            return {**options, "rows": [[0.0, 10_000, 0, []]]}

    if not isinstance(data, dict) or "failures" not in data:
        return data, []
    return {**data, "failures": read(data["failures"], ("failures",))}, unread


def options_of_process(process: Any) -> dict[str, Any]:
    """The options of a failure process in a scenario, with the figures of its preset; empty if it is not one."""
    if isinstance(process, str) and process in presets("failures"):
        process = {"preset": process}
    if not isinstance(process, dict):
        return {}
    try:
        return resolved("failures", process) if "preset" in process else process
    except PydanticCustomError:
        return process
