"""Figures that come with the program, as YAML beside this file: devices, networks, target models.

Each entry says where it is from; what nobody measured is marked as an assumption.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

KINDS = ("devices", "models", "networks")


@cache
def presets(kind: str) -> dict[str, dict[str, Any]]:
    """All presets of a kind (one of `KINDS`) by name."""
    text = (files("sim.presets") / f"{kind}.yaml").read_text(encoding="utf-8")
    return {name: {"name": name, **frozen(entry)} for name, entry in YAML(typ="safe").load(text).items()}


def frozen(value: Any) -> Any:
    """Plain YAML data with tuples for lists, as strict configuration wants it."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


def or_preset(kind: str) -> BeforeValidator:
    """Let a field be a preset's name, or a mapping whose `preset:` names what its other keys change."""
    return BeforeValidator(_resolver(kind))


def _resolver(kind: str) -> Callable[[Any], Any]:
    def resolve(value: Any) -> Any:
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict) or "preset" not in value:
            return value
        known = presets(kind)
        name = value["preset"]
        if not isinstance(name, str) or name not in known:
            raise PydanticCustomError("unknown_name", "no such preset", {"found": str(name), "names": ", ".join(known)})
        changes = {key: item for key, item in value.items() if key != "preset"}
        named = {"name": changed(name)} if changes else {}
        return merged(known[name], {**named, **changes})

    return resolve


def changed(name: str) -> str:
    """What outputs call a preset that the scenario has changed."""
    return f"{name} (changed)"


def merged(figures: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A preset's figures with some of them changed, also within its mappings (one end of a link, say)."""
    result = {**figures}
    for key, change in changes.items():
        known = figures.get(key)
        result[key] = merged(known, change) if isinstance(known, dict) and isinstance(change, dict) else change
    return result
