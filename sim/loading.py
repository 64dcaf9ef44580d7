"""From YAML text to a Scenario, or to all its problems at once: where each is, what was found, what is allowed."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sim.messages import Location, message_for, siblings
from sim.names import suggestion
from sim.presets import frozen
from sim.scenario import CHECKS, Scenario


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
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


class Document:
    """A scenario's plain data, and for each path the line (or the --set option) it came from."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self.places: dict[Location, str] = {(): "line 1"}
        self.data = self._parse(text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            loaded = YAML(typ="rt").load(io.StringIO(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"line {mark.line + 1}" if mark else ""
            problem = (error.problem or "not YAML").split("\n")[0]
            raise ScenarioError(self.source, [Problem(place, "", f"not valid YAML: {problem}")]) from None
        except (YAMLError, ValueError) as error:
            raise ScenarioError(
                self.source, [Problem("", "", f"not valid YAML: {str(error).splitlines()[0]}")]
            ) from None
        if not isinstance(loaded, CommentedMap):
            found = (
                "nothing" if loaded is None else f"a {'list' if isinstance(loaded, CommentedSeq) else 'single value'}"
            )
            message = f"a scenario is a mapping of sections (name, workload, training, ...), found {found}"
            raise ScenarioError(self.source, [Problem("line 1", "", message)])
        plain: dict[str, Any] = self._plain(loaded, ())
        return plain

    def _plain(self, value: Any, path: Location) -> Any:
        if isinstance(value, CommentedMap):
            for key in value:
                line = value.lc.data[key][0] + 1 if value.lc.data and key in value.lc.data else None
                self.places[(*path, str(key))] = f"line {line}" if line else self.place(path)
            return {str(key): self._plain(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, CommentedSeq):
            for index in range(len(value)):
                self.places[(*path, index)] = f"line {value.lc.item(index)[0] + 1}"
            return [self._plain(item, (*path, index)) for index, item in enumerate(value)]
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return value

    def place(self, path: Location) -> str:
        """Where a path, or the nearest thing above it, stands."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def override(self, assignment: str) -> None:
        """Apply one `--set path=value`; the value is YAML, `strategies[checkpoint]` picks by name or number."""
        option = f"--set {assignment}"
        target, equals, text = assignment.partition("=")
        parts = [part for part in re.split(r"[.\[\]]+", target.strip()) if part]
        if not equals or not parts:
            raise ScenarioError(self.source, [Problem(option, "", "write it as --set section.field=value")])
        try:
            value = self._plain(YAML(typ="rt").load(text), (option,))
        except YAMLError:
            raise ScenarioError(self.source, [Problem(option, "", f"the value '{text}' is not valid YAML")]) from None
        here: Any = self.data
        path: Location = ()
        for part in parts[:-1]:
            here, path = self._enter(here, path, part, option)
        last = self._index(here, parts[-1], path, option)
        here[last] = value
        path = (*path, last)
        self.places = {known: place for known, place in self.places.items() if known[: len(path)] != path}
        self.places[path] = option

    def _enter(self, here: Any, path: Location, part: str, option: str) -> tuple[Any, Location]:
        key = self._index(here, part, path, option)
        if isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
        if isinstance(here[key], str):
            shorthand = "preset" if key in ("network", "device", "model") else "kind"
            here[key] = {shorthand: here[key]}
        if not isinstance(here[key], dict | list):
            message = f"'{'.'.join(map(str, (*path, key)))}' is a single value and has no field below it"
            raise ScenarioError(self.source, [Problem(option, "", message)])
        return here[key], (*path, key)

    def _index(self, here: Any, part: str, path: Location, option: str) -> str | int:
        if isinstance(here, dict):
            return part
        names = [(item.get("label") or item.get("kind")) if isinstance(item, dict) else item for item in here]
        if part in names:
            return names.index(part)
        if part.isdecimal() and int(part) < len(here):
            return int(part)
        message = f"no entry '{part}' in '{'.'.join(map(str, path))}'{suggestion(part, [str(name) for name in names])}"
        raise ScenarioError(self.source, [Problem(option, "", message)])


def load_scenario(path: Path, overrides: tuple[str, ...] = ()) -> Scenario:
    """Read a scenario file. Raises ScenarioError with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ScenarioError(str(path), [Problem("", "", "not a text file in UTF-8")]) from None
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise ScenarioError(str(path), [Problem("", "", f"cannot be read: {reason}{siblings(path)}")]) from None
    return parse_scenario(text, str(path), overrides)


def parse_scenario(text: str, source: str = "scenario", overrides: tuple[str, ...] = ()) -> Scenario:
    """Build a Scenario from YAML text and `--set` overrides. Raises ScenarioError with every problem found."""
    document = Document(source, text)
    for assignment in overrides:
        document.override(assignment)
    try:
        scenario = Scenario.model_validate(frozen(document.data))
    except ValidationError as error:
        problems = field_problems(document, error) + consistency_problems(document, *without_faults(document, error))
        raise ScenarioError(source, sorted(problems, key=by_line)) from None
    if problems := consistency_problems(document, scenario, []):
        raise ScenarioError(source, sorted(problems, key=by_line))
    return scenario


def by_line(problem: Problem) -> int:
    """Order of problems: as they stand in the file, those of --set last."""
    line = problem.place.removeprefix("line ")
    return int(line) if line.isdecimal() else sys.maxsize


def field_problems(document: Document, error: ValidationError) -> list[Problem]:
    """What is wrong with single fields."""
    problems = []
    for details in error.errors():
        path = plain_path(details["loc"], document.data)
        problems.append(
            Problem(document.place(path), ".".join(map(str, path)), message_for(details, path, document.data))
        )
    return problems


def consistency_problems(document: Document, scenario: Scenario | None, faulty: list[str]) -> list[Problem]:
    """What the checks that read no faulty field have to say."""
    problems = []
    for check, reads in CHECKS if scenario else ():
        if any(overlaps(field, fault) for field in reads for fault in faulty):
            continue
        for path, message in check(scenario):  # type: ignore[arg-type]
            parts = tuple(int(part) if part.isdecimal() else part for part in path.split("."))
            problems.append(Problem(document.place(parts), path, message))
    return problems


def without_faults(document: Document, error: ValidationError) -> tuple[Scenario | None, list[str]]:
    """The scenario with faulty fields at their defaults, where that is possible, and the paths of those fields."""
    data, faulty = frozen(document.data), []
    for _ in range(3):
        for details in error.errors():
            path = plain_path(details["loc"], document.data)
            faulty.append(".".join(map(str, path)))
            path = path[:-1] if details["type"] == "missing" and len(path) > 1 else path
            data = {"name": "unnamed", "strategies": ("none",), **pruned(data, path)}
        try:
            return Scenario.model_validate(data), faulty
        except ValidationError as next_error:
            error = next_error
    return None, faulty


def pruned(data: Any, path: Location) -> Any:
    """A copy of the data without what stands at a path (its whole list, where that is in a list)."""
    head, rest = path[0], path[1:]
    if isinstance(data, dict) and head in data:
        if not rest or isinstance(rest[0], int) or not isinstance(data[head], dict):
            return {key: item for key, item in data.items() if key != head}
        return {**data, head: pruned(data[head], rest)}
    return data


def overlaps(a: str, b: str) -> bool:
    """Whether one dotted path is the other or lies below it."""
    return (a + ".").startswith(b + ".") or (b + ".").startswith(a + ".")


def plain_path(loc: Location, data: Any) -> Location:
    """Pydantic's location without the names of union members it puts in between."""
    path: list[str | int] = []
    here = data
    for index, part in enumerate(loc):
        is_tag = isinstance(part, str) and index > 0 and names_kind(here, part)
        if is_tag:
            continue
        path.append(part)
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            here = None
    return tuple(path)


def names_kind(here: Any, part: str) -> bool:
    """Whether a location's part is the `kind` of the choice at hand rather than a field of it."""
    return here == part or (isinstance(here, dict) and here.get("kind") == part and part not in here)
