"""What a scenario can name: kinds of components with their options, presets with their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

from rich.table import Table

from models.spec import Config
from sim.core.plugins import PluginError
from sim.core.presets import presets
from sim.core.text import suggestion
from sim.failures import known_processes
from sim.strategies import known_strategies

Rows = dict[str, tuple[str, str]]

WORDS = ("kind", "name", "description", "source")


def table_of(what: str) -> Table:
    """A table of one sort of names. ValueError for a sort that there is not."""
    lists: dict[str, Callable[[], Rows]] = {
        "strategies": strategies,
        "failures": failures,
        **{kind: partial(preset_rows, kind) for kind in ("devices", "models", "networks")},
    }
    if what not in lists:
        found = f"found '{what}'" if what else "what is to be listed is missing"
        raise ValueError(f"churnlab list: {found}{suggestion(what, lists)}")
    components = what in ("strategies", "failures")
    table = Table("name", "what it is", "options" if components else "figures", box=None)
    for name, (description, details) in lists[what]().items():
        table.add_row(name, description, details)
    return table


def strategies() -> Rows:
    """Kinds of strategies."""
    return component_rows(known_strategies(), lambda found: found.summary)


def failures() -> Rows:
    """Kinds of failure processes, and then their presets."""
    return {**component_rows(known_processes(), lambda found: first_line(found.__doc__)), **preset_rows("failures")}


def component_rows(known: Mapping[str, Any], in_words: Callable[[Any], str]) -> Rows:
    """Kinds of one sort; those of installed packages too, or why one cannot be used."""
    return {
        kind: (f"cannot be used: {found}", "")
        if isinstance(found, PluginError)
        else (in_words(found), options(found.Config))
        for kind, found in known.items()
    }


def preset_rows(kind: str) -> Rows:
    """All presets of a kind."""
    return {name: figures(entry) for name, entry in presets(kind).items()}


def options(config: type[Config]) -> str:
    """The keys that a component takes beside its kind."""
    presets_of = {name: get_args(field.annotation) for name, field in config.model_fields.items() if name == "preset"}
    names = (name for name in config.model_fields if name not in WORDS)
    return ", ".join(f"{name} ({' | '.join(presets_of[name])})" if name in presets_of else name for name in names)


def figures(preset: dict[str, Any]) -> tuple[str, str]:
    """What a preset is, with its source, and its plain figures."""
    words = f"{preset['description']} ({preset['source']})"
    plain = {key: value for key, value in preset.items() if isinstance(value, int | float)}
    ends = [
        f"{key}: {link['latency_ms']} ms, {link['bandwidth_mbit_per_s']:g} Mbit/s"
        for key, link in preset.items()
        if isinstance(link, dict) and "bandwidth_mbit_per_s" in link
    ]
    ends += [
        f"{key}: {link['up_mbit_per_s']:g} Mbit/s up, {link['down_mbit_per_s']:g} down"
        for key, link in preset.items()
        if isinstance(link, dict) and "up_mbit_per_s" in link
    ]
    regions = dict.fromkeys(region for link in preset.get("links", ()) for region in link[:2])
    kind = [f"kind: {preset['kind']}"] if "kind" in preset else []
    named = [f"regions: {', '.join(regions)}"] if regions else []
    return words, "; ".join([*kind, *(f"{key}: {value:g}" for key, value in plain.items()), *ends, *named])


def first_line(docstring: str | None) -> str:
    """The first line of a docstring."""
    return (docstring or "").strip().split("\n")[0]
