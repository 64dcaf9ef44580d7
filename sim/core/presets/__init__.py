"""Presets, as YAML beside this file: devices, networks, target models, failure processes.

Each entry names its source; figures without a measurement are marked as assumptions.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

KINDS = ("devices", "models", "networks")
"""Kinds of presets that are figures only; those of `failures` are options of failure processes, with their kind."""

REPLACED = {"rate_per_hour": "mean_uptime_hours", "mean_uptime_hours": "rate_per_hour", "file": "rows"}
"""The key that a change of another one replaces: an equivalent figure, or the rows read from a file."""


@cache
def presets(kind: str) -> dict[str, dict[str, Any]]:
    """All presets of a kind (one of `KINDS`, or failures) by name."""
    text = (files("sim.core.presets") / f"{kind}.yaml").read_text(encoding="utf-8")
    return {name: {"name": name, **frozen(entry)} for name, entry in YAML(typ="safe").load(text).items()}


def frozen(value: Any) -> Any:
    """Plain YAML data with tuples instead of lists, as strict configurations require."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


def or_preset(kind: str) -> BeforeValidator:
    """A validator that accepts a preset's name, or a mapping whose `preset:` names the figures that its keys change."""

    def resolve(value: Any) -> Any:
        value = {"preset": value} if isinstance(value, str) else value
        return resolved(kind, value) if isinstance(value, dict) and "preset" in value else value

    return BeforeValidator(resolve)


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
    """A preset's figures with changes, also within its mappings (one end of a link, for example).

    A changed figure also replaces the equivalent one of the preset (rate and mean, for example).
    """
    replaced = {REPLACED.get(key) for key, change in changes.items() if change is not None}
    result = {key: item for key, item in figures.items() if key not in replaced}
    for key, change in changes.items():
        known = figures.get(key)
        result[key] = merged(known, change) if isinstance(known, dict) and isinstance(change, dict) else change
    return result
