"""Presets that a scenario has changed, in words: which figures differ, and their values."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel

from sim.core.presets import changed, presets
from sim.reporting.words import words_of

SECTIONS = {"models": "workload.model", "devices": "cluster.device", "networks": "network"}
NOT_FIGURES = ("name", "description", "source")
MOST_CHANGES = 3


def figures_in_words(kind: str, config: BaseModel, varied: Collection[str] = (), quote: str = "'") -> str:
    """The name of a preset or of figures, and what the scenario changes in the preset.

    kind: models, devices or networks. varied: fields with several values, which are named elsewhere. quote: put
    around the name.
    """
    name = str(config.name)  # type: ignore[attr-defined]
    preset = next((one for one in presets(kind) if changed(one) == name), None)
    if preset is None:
        return f"{quote}{name}{quote}"
    plain = type(config).model_validate(presets(kind)[preset])
    found = _differences(SECTIONS[kind], plain.model_dump(), config.model_dump())
    parts = [words_of(field).with_value(value) if _is_plain(value) else f"other {words_of(field).name}"
             for field, value in found if field not in varied]  # fmt: skip
    if len(parts) > MOST_CHANGES:
        parts[MOST_CHANGES:] = [f"{len(parts) - MOST_CHANGES} other changes"]
    return f"{quote}{preset}{quote}" + (f" with {', '.join(parts)}" if parts else "")


def _differences(path: str, plain: dict[str, Any], own: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields that differ, with their own values."""
    for key, value in own.items():
        before = plain.get(key)
        if value == before or key in NOT_FIGURES:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _differences(f"{path}.{key}", before, value)
        else:
            yield f"{path}.{key}", value


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)
