"""Presets, as YAML files in this folder. Each entry names its source; assumptions are marked as such."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from ruamel.yaml import YAML

KINDS = ("devices", "models", "networks")
"""Kinds of presets that are figures only; those of `failures` are options of failure processes."""

RATES = ("rate_per_hour", "rate_per_day", "mean_uptime_hours")

REPLACED = {
    "file": ("rows", "arrivals", "files"),
    "files": ("rows", "arrivals", "file"),
    **{rate: tuple(other for other in RATES if other != rate) for rate in RATES},
}
"""Keys that a change of another one replaces: equivalent figures, or the rows read from a file."""


class Presets(Mapping[str, dict[str, Any]]):
    """The presets of a kind by name. Only those that are asked for are parsed, which takes most of the time."""

    def __init__(self, kind: str) -> None:
        self._text = text_of(kind)
        starts = [(entry[1], entry.start()) for entry in re.finditer(r"^([^\s#].*?):", self._text, re.MULTILINE)]
        ends = [start for _, start in starts[1:]] + [len(self._text)]
        self._places = {name: slice(start, end) for (name, start), end in zip(starts, ends, strict=True)}
        self._parsed: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self._parsed:
            place = self._places[name]
            has_alias = re.search(r": \*\w", self._text[place])  # of an anchor in an entry before
            text = self._text[: place.stop] if has_alias else self._text[place]
            self._parsed[name] = {"name": name, **frozen(YAML(typ="safe").load(text)[name])}
        return self._parsed[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@cache
def presets(kind: str) -> Presets:
    """All presets of a kind (one of `KINDS`, or failures) by name."""
    return Presets(kind)


def text_of(kind: str) -> str:
    """The file of a kind of presets."""
    return (files("sim.core.presets") / f"{kind}.yaml").read_text(encoding="utf-8")


def frozen(value: Any) -> Any:
    """Plain YAML data with tuples instead of lists, as strict configurations require."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class OrPreset:
    """Annotation that also accepts a preset's name, or a mapping whose `preset:` names figures that its keys change."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def with_figures(value: Any) -> Any:
            value = {"preset": value} if isinstance(value, str) else value
            return resolved(self.kind, value) if isinstance(value, dict) and "preset" in value else value

        return core_schema.no_info_before_validator_function(with_figures, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names = {"enum": list(presets(self.kind))}
        return {"anyOf": [names, handler(schema), mapping_with("preset", names, title=self.kind)]}


def mapping_with(key: str, value: Any, title: str | None) -> dict[str, Any]:
    """The JSON Schema of a mapping of which only one key is known."""
    return {"type": "object", "title": title, "properties": {key: value}, "required": [key]}


def resolved(kind: str, value: dict[str, Any], names: Collection[str] | None = None) -> dict[str, Any]:
    """The figures of a mapping with the key `preset`, one of `names`. Raises PydanticCustomError."""
    known, name = presets(kind), value["preset"]
    if not isinstance(name, str) or name not in (known if names is None else names):
        raise PydanticCustomError("unknown_name", "no such preset")
    changes = {key: item for key, item in value.items() if key != "preset"}
    if "kind" in known[name] and changes.pop("kind", known[name]["kind"]) != known[name]["kind"]:
        reason = f"preset '{name}' is of kind '{known[name]['kind']}': leave out one of the two"
        raise PydanticCustomError("kind_of_preset", "{reason}", {"reason": reason})
    named = {"name": changed(name)} if changes else {}
    return merged(known[name], {**named, **changes})


def changed(name: str) -> str:
    """The name in outputs of a preset that the scenario has changed."""
    return f"{name} (changed)"


def merged(figures: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A preset's figures with changes, also within its mappings; a change also replaces the equivalent (REPLACED)."""
    replaced = {old for key, change in changes.items() if change is not None for old in REPLACED.get(key, ())}
    result = {key: item for key, item in figures.items() if key not in replaced}
    for key, change in changes.items():
        known = figures.get(key)
        result[key] = merged(known, change) if isinstance(known, dict) and isinstance(change, dict) else change
    return result
