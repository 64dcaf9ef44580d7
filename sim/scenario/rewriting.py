"""Changes of a scenario file that leave all other lines and their comments as they are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from sim.core.files import atomic_write
from sim.scenario.document import Document
from sim.scenario.loading import parse_scenario, read_scenario_text

KEPT = ("notice_seconds", "immune_stages")
"""Options of the old failure process that a new one keeps: they are not a matter of the fit."""


def section_text(name: str, section: Mapping[str, Any]) -> str:
    """A section of a scenario as YAML, the mappings in it on one line each."""
    yaml, buffer, content = YAML(), io.StringIO(), CommentedMap(section)
    for key, value in content.items():
        if isinstance(value, Mapping):
            flow = CommentedMap(value)
            flow.fa.set_flow_style()
            content[key] = flow
    yaml.width = 120
    yaml.dump({name: content}, buffer)
    return buffer.getvalue()


def with_failures(path: Path, section: Mapping[str, Any]) -> str:
    """The text of a scenario file with another `failures:` section. Raises ScenarioError for a faulty file."""
    text = read_scenario_text(path)
    old = Document(str(path), text).data.get("failures")
    kept = {key: old[key] for key in KEPT if key in old} if isinstance(old, dict) else {}
    return with_section(text, "failures", {**section, **kept})


def with_section(text: str, name: str, section: Mapping[str, Any]) -> str:
    """The text of a scenario in which a section is replaced, or added at the end."""
    yaml = YAML(typ="rt")
    data = yaml.load(text)
    if data.fa.flow_style():  # the whole scenario in braces
        data[name] = CommentedMap(section)
        buffer = io.StringIO()
        yaml.dump(data, buffer)
        return buffer.getvalue()
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if name not in data:
        return "".join(lines) + section_text(name, section)
    begins = sorted(data.lc.key(key)[0] for key in data)
    first = data.lc.key(name)[0]
    last = next((line for line in begins if line > first), len(lines))
    while last > first + 1 and (not lines[last - 1].strip() or lines[last - 1].startswith("#")):
        last -= 1  # blank lines and comments before the next section stay
    return "".join([*lines[:first], section_text(name, section), *lines[last:]])


def write_checked(path: Path, text: str) -> None:
    """Write the text of a scenario if it is valid. Raises ScenarioError, and writes nothing, if it is not."""
    parse_scenario(text, str(path), base_folder=path.parent)
    atomic_write(path, text)
