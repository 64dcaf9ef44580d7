"""From YAML text to a Scenario, or to all its problems at once: where each is, what was found, what is allowed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from sim.core.presets import REPLACED, changed, frozen, merged, presets
from sim.core.text import shortened, suggestion
from sim.scenario.checks import CHECKS
from sim.scenario.error_messages import describe_error, format_value, intended_path, suggest_file
from sim.scenario.scenario import PRESET_FIELDS, Scenario
from sim.scenario.schema import at, is_preset, kinds, schema_at
from sim.scenario.traces import with_traces
from sim.scenario.yaml_reader import Location, YamlTextError, read_yaml


@dataclass(frozen=True)
class Problem:
    """One thing wrong: the place in the source, the path of the field, and what to do about it."""

    place: str
    path: str
    message: str

    def __str__(self) -> str:
        """One line for people."""
        return ": ".join(part for part in (", ".join(p for p in (self.place, self.path) if p), self.message) if part)


class ScenarioError(ValueError):
    """A scenario that cannot be used, with every problem found in it."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=by_line)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in self.problems)]))


def by_line(problem: Problem) -> int:
    """Order of problems: as they stand in the file, those of --set last."""
    line = problem.place.removeprefix("line ")
    return int(line) if line.isdecimal() else sys.maxsize


Overrides = Sequence[str] | Mapping[str, Any]
"""Changes of fields: `section.field=value` with the value as YAML, as `--set` takes it, or values by field."""


class Document:
    """A scenario's plain data, and for each path the line (or the --set option) it came from.

    content: YAML text, or the data, whose places are not known then.
    """

    def __init__(self, source: str, content: str | Mapping[str, Any] | Scenario) -> None:
        self.source = source
        self.places: dict[Location, str] = {(): ""}
        if isinstance(content, str):
            try:
                self.data, lines = read_yaml(content)
            except YamlTextError as error:
                place = f"line {error.line}" if error.line else ""
                raise ScenarioError(source, [Problem(place, "", str(error))]) from None
            self.places = {(): "line 1", **{path: f"line {line}" for path, line in lines.items()}}
        else:
            self.data = plain_data(content)
        if not isinstance(self.data, dict):
            found = {type(None): "nothing", list: "a list"}.get(type(self.data), "a single value")
            message = f"a scenario is a mapping of sections (name, workload, training, ...), found {found}"
            raise ScenarioError(source, [Problem("line 1", "", message)])

    def place(self, path: Location) -> str:
        """Where a path, or the nearest thing above it, stands."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def problem(self, path: Location, message: str) -> Problem:
        """What is wrong at a path."""
        return Problem(self.place(path), ".".join(shortened(str(part)) for part in path), message)

    def change(self, overrides: Overrides) -> list[Problem]:
        """Apply overrides, and say of each that cannot be applied why."""
        if isinstance(overrides, Mapping):
            found = [self.assign(field, plain_data(value), "overrides") for field, value in overrides.items()]
            return [problem for problem in found if isinstance(problem, Problem)]
        return [problem for problem in map(self.override, overrides) if problem]

    def override(self, assignment: str) -> Problem | None:
        """Apply one `--set path=value`, or say why that cannot be. The value is YAML."""
        option = f"--set {shortened(assignment)}"
        target, equals, text = assignment.partition("=")
        if not equals or not target.strip(" .[]"):
            return Problem(option, "", "write it as --set section.field=value")
        try:
            value, _ = read_yaml(text)
        except YamlTextError as error:
            return Problem(option, "", f"the value is {error}")
        path = self.assign(target, value, option)
        return path if isinstance(path, Problem) else None

    def assign(self, target: str, value: Any, option: str) -> Location | Problem:
        """Put a value where `section.field` says, and say that it came from `option`; or why that cannot be.

        `strategies.checkpoint` and `strategies[checkpoint]` pick an entry by name or number.
        """
        parts = [in_brackets or part for in_brackets, part in re.findall(r"\[([^\]]*)\]|([^.\[\]]+)", target.strip())]
        if not parts:
            return Problem(option, "", "write a field as section.field")
        here: Any = self.data
        path: Location = ()
        try:
            for part, following in pairwise(parts):
                path = (*path, index_of(part, here, path))
                here = self._enter(here, path, following, option)
            last = index_of(parts[-1], here, path)
        except LookupError as error:
            return Problem(option, "", str(error.args[0]))
        here[last] = value
        if isinstance(here, dict) and value is not None:
            here.pop(REPLACED.get(parts[-1], ""), None)
        path = (*path, last)
        self.places = {known: place for known, place in self.places.items() if known[: len(path)] != path}
        self.places[path] = option
        return path

    def copy(self) -> Document:
        """Another document that says the same."""
        twin = Document.__new__(Document)
        twin.source, twin.data, twin.places = self.source, deepcopy(self.data), dict(self.places)
        return twin

    def _enter(self, above: Any, path: Location, following: str, option: str) -> Any:
        """The mapping or list at a path, which may have to be made of a name, a default or nothing first."""
        value, node = at(self.data, path), schema_at(path, self.data)
        if value is None:
            value = default_at(path, following)
            if value is None and node.get("type", "object") == "object":
                value = {}
            self.places[path] = option
        if isinstance(value, str) and (kinds(node) or is_preset(node)):
            value = {"preset" if value in node.get("presets", ()) else "kind": value}
        if "presets" in node and following not in ("preset", "kind"):
            value = spelled_out(value, node.get("preset_kind") or PRESET_FIELDS[tuple(map(str, path))])
        if not isinstance(value, dict | list):
            unset = node.get("type") == "array" and value is None
            what = (
                "is not set yet: set the whole list"
                if unset
                else f"is {format_value(value)} and has no fields below it"
            )
            raise LookupError(f"'{'.'.join(map(str, path))}' {what}")
        above[path[-1]] = value
        return value


def plain_data(value: Any) -> Any:
    """Mappings, lists and scalars as YAML has them, for those of Python, NumPy and pydantic."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_data(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain_data(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def index_of(part: str, here: Any, path: Location) -> str | int:
    """The key or number that a part of a --set path means. LookupError, in words, where a list has no such entry."""
    if isinstance(here, dict):
        return part
    keys = ("label", "kind", "preset")
    names = [next(filter(None, map(item.get, keys)), None) if isinstance(item, dict) else item for item in here]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(here):
        return int(part)
    known = [str(name) for name in names if isinstance(name, str)]
    numbers = "; or number 0" + (f" to {len(here) - 1}" if len(here) > 1 else "") if here else ": the list is empty"
    raise LookupError(f"no entry '{shortened(part)}' in '{'.'.join(map(str, path))}'{suggestion(part, known)}{numbers}")


@cache
def defaults() -> Any:
    """What a scenario holds that says nothing, as plain data."""
    return Scenario.model_validate({"name": "unnamed", "strategies": ("none",)}).model_dump(mode="json")


def default_at(path: Location, following: str) -> Any:
    """A copy of what a path holds where a scenario says nothing of it, as far as setting the field `following` in
    it leaves that as it is; None if nothing.
    """
    required = schema_at(path[:-1], defaults()).get("required", [])
    if following == "preset" or path[-1] in required or not all(isinstance(part, str) for part in path):
        return None
    default = json.loads(json.dumps(at(defaults(), path)))
    return {"kind": default["kind"]} if kinds(schema_at(path, defaults())) else default


def spelled_out(value: Any, kind: str) -> Any:
    """The figures that a mapping with a `preset` stands for, which are about to change; the value itself if none."""
    if not isinstance(value, dict):
        return value
    known = presets(kind)
    name = value.get("preset", value.get("name"))
    if not isinstance(name, str) or name not in known:
        return value
    figures = {**json.loads(json.dumps(known[name])), "name": changed(name)}
    return merged(figures, {key: item for key, item in value.items() if key not in ("preset", "name")})


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
    """The text of a scenario file. Raises ScenarioError where it cannot be had."""
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

    Files of churn traces are read here; relative paths start at `base_folder`, by default the current one.
    """
    document = Document(source, content)
    return scenario_of(document, base_folder or Path(), document.change(overrides))


def scenario_of(document: Document, base_folder: Path, problems: list[Problem]) -> Scenario:
    """The scenario that a document describes. Raises ScenarioError with the problems given and every other found."""
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
    """Pydantic's errors, but for lists it finds too short only because entries in them are faulty."""
    return [
        details
        for details in error.errors()
        if details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]
    ]


def consistency_problems(document: Document, scenario: Scenario, faulty: list[Location]) -> list[Problem]:
    """What the checks have to say of fields that are not faulty, by fields that are not faulty."""
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
    """The scenario with faulty fields at their defaults, and their paths; None if it cannot be had so."""
    faulty: list[Location] = []
    for _ in range(10):  # to take a field away may leave one missing; what holds it goes next
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
    """A copy of the data without what stands at a path: a key, a whole list; of the strategies one entry."""
    head, rest = path[0], path[1:]
    if not isinstance(data, dict) or head not in data:
        return data
    if head == "strategies" and rest and isinstance(data[head], list):
        left_out = {"kind": "none", "label": f"left-out-{rest[0]}"}
        return {**data, head: [left_out if index == rest[0] else item for index, item in enumerate(data[head])]}
    if rest and isinstance(data[head], dict):
        return {**data, head: without(data[head], rest)}
    return {key: item for key, item in data.items() if key != head}


DATA: Location = ("training", "data")


class DataError(ValueError):
    """Text that cannot be learnt; field: where a scenario names it."""

    def __init__(self, message: str, field: Location) -> None:
        super().__init__(message)
        self.field = field
