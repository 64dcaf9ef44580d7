"""Look-up in the JSON Schema of a scenario by path: references, choices by `kind`, presets, plug-ins resolved."""

from __future__ import annotations

from functools import cache
from typing import Any

from sim import failures, strategies
from sim.core.plugins import PluginError
from sim.core.presets import presets
from sim.scenario.scenario import Scenario
from sim.scenario.yaml_text import Location

PLUGINS = {plugins.group: plugins for plugins in (strategies.PLUGINS, failures.PLUGINS)}


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a scenario."""
    return Scenario.model_json_schema()


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A schema node without references and alternatives.

    `X or null` becomes X with `nullable`, `a name or X` becomes X with these `names`, those of them that are `presets`,
    their `preset_kind`, and the entry-point group of a choice's `plugins`.
    """
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            target = schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
            node = {**target, **{key: item for key, item in node.items() if key != "$ref"}}
            continue
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        extra: dict[str, Any] = {"nullable": True} if len(options) < len(node["anyOf"]) else {}
        if len(options) > 1 and "enum" in options[0]:
            extra["names"] = options.pop(0)["enum"]
        for option in options[1:]:
            if option.get("required") == ["preset"]:
                extra |= {"presets": option["properties"]["preset"]["enum"], "preset_kind": option.get("title")}
            elif option.get("required") == ["kind"]:
                extra["plugins"] = option["title"]
        node = {**options[0], **{key: item for key, item in node.items() if key != "anyOf"}, **extra}
    return node


def below(node: dict[str, Any], part: str | int) -> dict[str, Any]:
    """The schema node of a key or an index; empty if there is none."""
    if isinstance(part, int):
        items = node.get("prefixItems", [])
        return resolved(items[part] if part < len(items) else node.get("items") or {})
    others = node.get("additionalProperties") or {}
    return resolved(node.get("properties", {}).get(part, others if isinstance(others, dict) else {}))


def schema_at(path: Location, data: Any) -> dict[str, Any]:
    """The schema node at a path, with choices resolved by the `kind` in the data; empty if there is none."""
    node = resolved(schema())
    for depth, part in enumerate(path):
        node = below(member_of(node, at(data, path[:depth])), part)
    return node


def plain_path(loc: Location, data: Any) -> Location:
    """The path of a pydantic location, which also contains the kinds of choices."""
    path: Location = ()
    node = resolved(schema())
    for part in loc:
        here = at(data, path)
        if part in kinds(node) and part == kind_of(node, here):
            node = member_of(node, here)
        else:
            node, path = below(member_of(node, here), part), (*path, part)
    return path


def kind_of(node: dict[str, Any], data: Any) -> str | None:
    """The kind that data of a choice name, directly or by a preset; None if they name none."""
    kind = data.get("kind") if isinstance(data, dict) else data
    name = data.get("preset") if isinstance(data, dict) else data
    if isinstance(name, str) and name in node.get("presets", []) and name not in kinds(node):
        kind = presets(node["preset_kind"])[name]["kind"]
    return kind if isinstance(kind, str) else None


def member_of(node: dict[str, Any], data: Any) -> dict[str, Any]:
    """The member of a choice that the `kind` in the data names; the node itself if it is not a choice."""
    kind = kind_of(node, data) if kinds(node) else None
    if kind in kinds(node):
        return resolved({"$ref": kinds(node)[kind]})
    if kind is None or "plugins" not in node or not PLUGINS[node["plugins"]].offers(kind):
        return node
    try:
        return plugin_schema(node["plugins"], kind)
    except PluginError:
        return node


@cache
def plugin_schema(group: str, kind: str) -> dict[str, Any]:
    """The JSON Schema of the options of a plug-in. Raises PluginError."""
    config = PLUGINS[group].find(kind).Config
    node: dict[str, Any] = config.model_json_schema(ref_template=f"#/$defs/{kind}/{{model}}")
    schema()["$defs"].update({f"{kind}/{name}": part for name, part in node.pop("$defs", {}).items()})
    return resolved(node)


def kinds(node: dict[str, Any]) -> dict[str, str]:
    """The kinds that a choice offers, with references to their schemas."""
    return node.get("discriminator", {}).get("mapping", {})  # type: ignore[no-any-return]


def is_preset(node: dict[str, Any]) -> bool:
    """Whether a preset's name can stand for the mapping."""
    return "names" in node and not kinds(node)


def at(data: Any, path: Location) -> Any:
    """The value at a path, or None."""
    for part in path:
        try:
            data = None if isinstance(data, str) else data[part]
        except (LookupError, TypeError):
            return None
    return data
