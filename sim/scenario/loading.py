"""From YAML text or data to a Scenario, or to an error with all problems: place, value found, values allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sim.core.files import OddFileError, read_regular_file
from sim.core.presets import frozen
from sim.core.text import nearest
from sim.scenario import trace_checks as trace_checks  # registers checks
from sim.scenario import training_checks as training_checks
from sim.scenario.checks import CHECKS
from sim.scenario.document import Document, Overrides, Problem, ScenarioError
from sim.scenario.error_messages import describe_error, intended_path
from sim.scenario.scenario import Scenario
from sim.scenario.yaml_text import Location

MAX_BYTES = 10_000_000
"""Of a scenario's text. One of a long trace has its rows in it."""

DATA: Location = ("training", "data")  # the path of the training text
DEVICE: Location = ("training", "device")
COMPILE: Location = ("training", "compile")


class DataError(ValueError):
    """A value that a command cannot use, such as missing training text; `field` is its path in the scenario."""

    def __init__(self, message: str, field: Location) -> None:
        super().__init__(message)
        self.field = field


ScenarioSource = str | Path | Scenario  # a scenario, or the file that holds it


def document_of(source: ScenarioSource) -> tuple[Document, Path]:
    """The document of a scenario, and the folder at which its relative paths start."""
    if isinstance(source, Scenario):
        return Document(f"scenario '{source.name}'", source), Path()
    path = Path(source)
    return Document(str(path), read_scenario_text(path)), path.parent


def load_scenario(path: str | Path, overrides: Overrides = ()) -> Scenario:
    """Read a scenario file. ScenarioError with every problem found."""
    document, folder = document_of(Path(path))
    return with_absolute_paths(scenario_of(document, folder, document.change(overrides)), folder)


def scenario_of_run(source: str | Path, text: str | None = None) -> Scenario:
    """Read the `scenario.yaml` of a run; text: its content.

    Older versions crossed all seeds and wrote no design, and had nodes follow any trace together.
    """
    document = Document(str(source), read_scenario_text(Path(source)) if text is None else text)
    if isinstance(seeds := document.data.get("seeds"), dict):
        seeds.setdefault("design", "crossed")
    failures = document.data.get("failures")
    for process in (failures, *(failures.get("processes", ()))) if isinstance(failures, dict) else ():
        if isinstance(process, dict) and process.get("kind") == "trace" and process.get("additions") == "ignore":
            process.setdefault("nodes_follow", "together")
    folder = Path(source).parent
    return with_absolute_paths(scenario_of(document, folder, []), folder)


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
    document = Document("scenario", {} if content is None else content)
    if sections:
        document = Document("scenario", {**document.data, **sections})
    folder = Path(base_folder)
    return with_absolute_paths(scenario_of(document, folder, document.change(overrides)), folder)


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
    place = ""
    try:
        return read_regular_file(path, MAX_BYTES).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except OddFileError as error:
        message = str(error)
    except UnicodeDecodeError as error:
        num_lines = error.object[: error.start].count(b"\n")
        place = f"line {num_lines + 1}"
        message = "not text in UTF-8: save the file in that encoding"
    except IsADirectoryError:
        inside = sorted(str(file) for file in path.glob("*.y*ml"))
        message = f"is a folder; give one of its files{': ' + ', '.join(inside) if inside else ''}"
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        folders = (path.parent / "scenarios", path.parent)
        files = {file.stem: file for folder in folders for file in sorted(folder.glob("*.y*ml"))}
        close = nearest(path.stem, files)
        message = f"cannot be read: {reason}{f'; nearest: {files[close]}' if close else ''}"
    raise ScenarioError(str(path), [Problem(place, "", message)])


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
    scenario: Scenario | None
    faulty: list[Location] = []
    try:
        scenario = Scenario.model_validate(frozen(document.data), context={"base_folder": base_folder})
    except ValidationError as error:
        problems += [document.problem(*describe_error(each, document.data)) for each in relevant_errors(error)]
        scenario, faulty = without_faults(document.data, base_folder, error)
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

    def location(field: str) -> Location:
        return tuple(int(part) if part.isdecimal() else part for part in field.split("."))

    def is_valid(field: str) -> bool:
        path = location(field)
        return not any(path[: len(fault)] == fault[: len(path)] for fault in faulty)

    return [
        document.problem(location(field), message)
        for check, needs in CHECKS
        if all(map(is_valid, needs))
        for field, message in check(scenario)
        if is_valid(field)
    ]


def without_faults(data: Any, base_folder: Path, error: ValidationError) -> tuple[Scenario | None, list[Location]]:
    """The scenario with faulty fields at their defaults (None if that fails too), and the paths of these fields."""
    faulty: list[Location] = []
    for _ in range(10):  # removing a field may leave its section without a required one, which then goes too
        errors = [(each["type"], describe_error(each, data)[0]) for each in relevant_errors(error)]
        errors = [(kind, path) for kind, path in errors if kind != "trace"]
        faulty += [intended_path(path, data) for kind, path in errors if kind == "extra_forbidden"]
        paths = [path[:-1] if kind == "missing" and isinstance(path[-1], str) else path for kind, path in errors]
        faulty += [path for path in paths if path]
        for path in faulty:
            data = without(data, path)
        data = {"name": "unnamed", "strategies": ["none"], **data}
        try:
            context = {"base_folder": base_folder, "lenient": True}
            return Scenario.model_validate(frozen(data), context=context), faulty
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
