"""A scenario's YAML as plain data with the place of each value, changes of fields, and the problems found in it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

from sim.core.presets import REPLACED, changed, merged, presets
from sim.core.text import format_count, format_value, shortened, suggestion
from sim.scenario.quantities import with_plain_numbers
from sim.scenario.scenario import Scenario
from sim.scenario.schema import at, is_preset, kinds, schema_at
from sim.scenario.yaml_text import Location, YamlTextError, read_yaml

MAX_PROBLEMS_SHOWN = 20
MAX_PARTS = 30  # of the path of a field


@dataclass(frozen=True)
class Problem:
    """One error in a scenario: its place in the source, the path of the field, and what is wrong and allowed."""

    place: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (", ".join(p for p in (self.place, self.path) if p), self.message) if part)


class ScenarioError(ValueError):
    """A scenario that cannot be used, with every problem found in it, in the order of lines; those of --set last."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        lines = {problem: problem.place.removeprefix("line ") for problem in problems}
        self.source = source
        self.problems = sorted(problems, key=lambda each: int(lines[each]) if lines[each].isdecimal() else sys.maxsize)
        count, shown = format_count(len(problems), "problem"), self.problems[:MAX_PROBLEMS_SHOWN]
        rest = (
            [f"  and {format_count(len(problems) - len(shown), 'more problem')}"] if len(problems) > len(shown) else []
        )
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in shown), *rest]))


class AssignmentError(ValueError):
    """A field that cannot be set, in a sentence."""


Overrides = Sequence[str] | Mapping[str, Any]
"""Changes of fields: `section.field=value` with the value as YAML, as `--set` takes it, or values by field."""


class Document:
    """A scenario's plain data, and for each path the line (or the --set option) that it comes from.

    content: YAML text; or the data, whose places are then unknown.
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
        self.data = with_plain_numbers(self.data)

    def place(self, path: Location) -> str:
        """The place of a path, or of the nearest one above it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def problem(self, path: Location, message: str) -> Problem:
        """A problem at a path."""
        return Problem(self.place(path), ".".join(shortened(str(part)) for part in path), message)

    def change(self, overrides: Overrides) -> list[Problem]:
        """Apply overrides; return a problem for each that cannot be applied."""
        problems = []
        for override in overrides:
            option = f"--set {shortened(override)}"
            try:
                if isinstance(overrides, Mapping):
                    option = "overrides"
                    self.assign(override, plain_data(overrides[override]), option)
                else:
                    self.assign(*parsed_override(override), option)
            except AssignmentError as error:
                problems.append(Problem(option, "", str(error)))
        return problems

    def assign(self, target: str, value: Any, option: str) -> Location:
        """Set the field `section.field` to a value that comes from `option`; return its path. Raises AssignmentError.

        `strategies.checkpoint` and `strategies[checkpoint]` select an entry by name or number.
        """
        parts = parts_of(target)
        container: Any = self.data
        path: Location = ()
        for part, following in pairwise(parts):
            path = (*path, _key(part, container, path))
            opened = self._opened(path, following, option)
            container[path[-1]] = opened
            container = opened
        path = (*path, _key(parts[-1], container, path))
        container[path[-1]] = with_plain_numbers(value, parts[-1])
        if isinstance(container, dict) and value is not None:
            for replaced in REPLACED.get(parts[-1], ()):
                container.pop(replaced, None)
        self.places = {known: place for known, place in self.places.items() if known[: len(path)] != path}
        self.places[path] = option
        return path

    def _opened(self, path: Location, following: str, option: str) -> dict[str, Any] | list[Any]:
        """The mapping or list at a path, in which the field `following` can be set: a name or a preset written out."""
        value, node = at(self.data, path), schema_at(path, self.data)
        if value is None:
            value = _default_at(path, following)
            if value is None and node.get("type", "object") == "object":
                value = {}
            self.places[path] = option
        if isinstance(value, str) and (kinds(node) or is_preset(node)):
            value = {"preset" if value in node.get("presets", ()) else "kind": value}
        if isinstance(value, dict) and "presets" in node and following not in ("preset", "kind"):
            known, name = presets(node["preset_kind"]), value.get("preset", value.get("name"))
            if isinstance(name, str) and name in known:  # its figures are about to change
                figures = {**plain_data(known[name]), "name": changed(name)}
                value = merged(figures, {key: item for key, item in value.items() if key not in ("preset", "name")})
        if isinstance(value, dict | list):
            return value
        is_unset = node.get("type") == "array" and value is None
        why = "not set yet: set the whole list" if is_unset else f"{format_value(value)} and has no fields below it"
        raise AssignmentError(f"'{'.'.join(map(str, path))}' is {why}")


def parsed_override(assignment: str) -> tuple[str, Any]:
    """The field and the value of `--set path=value`, with the value as YAML. Raises AssignmentError."""
    target, equals, text = assignment.partition("=")
    if not equals or not target.strip(" .[]"):
        raise AssignmentError("write it as --set section.field=value")
    if not text.strip():
        raise AssignmentError(f"the value is empty: if no value is meant, write {shortened(target)}=null")
    try:
        return target, read_yaml(text)[0]
    except YamlTextError as error:
        raise AssignmentError(f"the value is {error}") from None


def parts_of(target: str) -> list[str]:
    """The names and numbers in `section.field`, `section[entry].field`. Raises AssignmentError."""
    target = target.strip()
    if target.count(".") + target.count("[") >= MAX_PARTS:
        raise AssignmentError(f"a field has at most {MAX_PARTS} parts")
    if not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\.?\[[^\[\]]+\])*", target):
        raise AssignmentError("write a field as section.field, or as section[entry].field")
    return [in_brackets or name for in_brackets, name in re.findall(r"\[([^\]]*)\]|([^.\[\]]+)", target)]


def plain_data(value: Any) -> Any:
    """Python, NumPy and pydantic values as mappings, lists and scalars, as YAML has them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_data(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain_data(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def _key(part: str, container: Any, path: Location) -> str | int:
    """The key or index that a part of a path means. Raises AssignmentError for an unknown entry."""
    if isinstance(container, dict):
        return part
    keys = ("label", "kind", "preset")
    names = [next(filter(None, map(item.get, keys)), None) if isinstance(item, dict) else item for item in container]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(container):
        return int(part)
    numbers = f"; or number 0{f' to {len(container) - 1}' if len(container) > 1 else ''}"
    known = suggestion(part, [name for name in names if isinstance(name, str)])
    where = f"'{shortened(part)}' in '{'.'.join(map(str, path))}'"
    raise AssignmentError(f"no entry {where}{known}{numbers if container else ': the list is empty'}")


@cache
def defaults() -> Any:
    """The default values of a scenario, as plain data, without fields whose defaults follow other fields."""
    scenario = Scenario.model_validate({"name": "unnamed", "strategies": ("none",)})
    return scenario.model_dump(
        mode="json", exclude={"training": {"model": {"num_stages"}}, "cluster": {"embedding_on"}}
    )


def _default_at(path: Location, following: str) -> Any:
    """A copy of the default at a path, as far as it stays when the field `following` in it is set; None if nothing."""
    required = schema_at(path[:-1], defaults()).get("required", [])
    if following == "preset" or path[-1] in required or not all(isinstance(part, str) for part in path):
        return None
    default = deepcopy(at(defaults(), path))
    return {"kind": default["kind"]} if kinds(schema_at(path, defaults())) else default
