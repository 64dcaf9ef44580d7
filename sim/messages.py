"""Pydantic's findings in the words of this project: what was found, what is allowed, the nearest valid name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from sim.names import suggestion
from sim.scenario import Scenario

Location = tuple[str | int, ...]

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def message_for(details: Any, path: Location, data: Any) -> str:
    """One sentence for one pydantic error at a path of the scenario's plain data."""
    node = schema_at(path, data)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        above = member_of(schema_at(path[:-1], data), at(data, path[:-1]))
        return f"unknown key{suggestion(str(path[-1]), above.get('properties', {}))}"
    if kind == "missing":
        return "required, but missing"
    if kind == "union_tag_not_found":
        return "needs the key 'kind'" + suggestion("", tags(node))
    if kind == "union_tag_invalid":
        names = tags(node)
        return f"found '{context['tag']}'{suggestion(context['tag'], names)}"
    if kind == "unknown_name":
        return f"found '{context['found']}'{suggestion(context['found'], context['names'].split(', '))}"
    if kind == "bad_link":
        return str(details["msg"])
    found = shown(details["input"])
    if kind == "literal_error":
        names = node.get("enum", [node.get("const")])
        return f"found {found}{suggestion(str(details['input']), [str(name) for name in names])}"
    allowed = allowed_by(node)
    return f"found {found}; allowed: {allowed}" if allowed else f"found {found}: {details['msg']}"


def shown(value: Any) -> str:
    """A value as the user would write it, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def siblings(path: Path) -> str:
    """'; nearest: x.yaml' when a file of a like name lies in the same folder."""
    folder = path.parent
    names = [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"; nearest: {folder / close[0]}" if close else ""


# ---- what the schema allows at a path ------------------------------------------------------------

_SCHEMA: dict[str, Any] = {}


def schema() -> dict[str, Any]:
    """The JSON Schema of a scenario."""
    if not _SCHEMA:
        _SCHEMA.update(Scenario.model_json_schema())
    return _SCHEMA


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A schema node with its reference followed, and `X or null` read as X."""
    while True:
        if "$ref" in node:
            node = {
                **schema()["$defs"][node["$ref"].rsplit("/", 1)[1]],
                **{k: v for k, v in node.items() if k != "$ref"},
            }
        elif "anyOf" in node and len([option for option in node["anyOf"] if option.get("type") != "null"]) == 1:
            inner = next(option for option in node["anyOf"] if option.get("type") != "null")
            node = {**inner, "nullable": True}
        else:
            return node


def schema_at(path: Location, data: Any) -> dict[str, Any]:
    """The schema node at a path of the scenario, choices resolved by the `kind` in the data; empty if none."""
    node = resolved(schema())
    for part in path:
        node = member_of(node, data)
        if isinstance(part, int):
            below = node.get("items") or dict(enumerate(node.get("prefixItems", []))).get(part)
        else:
            below = node.get("properties", {}).get(part)
        if below is None:
            return {}
        node = resolved(below)
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            data = None
    return node


def member_of(node: dict[str, Any], data: Any) -> dict[str, Any]:
    """The member of a choice that the data's `kind` names; the node itself where it is no choice."""
    kind = data.get("kind") if isinstance(data, dict) else None
    members = node.get("discriminator", {}).get("mapping", {})
    return resolved({"$ref": members[kind]}) if kind in members else node


def at(data: Any, path: Location) -> Any:
    """What stands at a path that is there."""
    for part in path:
        data = data[part]
    return data


def tags(node: dict[str, Any]) -> list[str]:
    """The kinds that a choice offers."""
    return list(node.get("discriminator", {}).get("mapping", {}))


def allowed_by(node: dict[str, Any]) -> str:
    """What a schema node lets a field hold, in words; empty where it does not say."""
    words = [KINDS.get(node.get("type", ""), "")]
    if "properties" in node:
        words.append(f"with the keys {', '.join(node['properties'])}")
    for key, text in (
        ("minimum", "at least {}"),
        ("exclusiveMinimum", "above {}"),
        ("maximum", "at most {}"),
        ("exclusiveMaximum", "below {}"),
        ("minItems", "of at least {} entries"),
        ("maxItems", "of at most {} entries"),
        ("minLength", "of at least {} characters"),
        ("pattern", "matching {}"),
    ):
        if key in node:
            words.append(text.format(f"{node[key]:g}" if isinstance(node[key], float) else node[key]))
    allowed = ", ".join(word for word in words if word)
    return f"{allowed}, or null" if node.get("nullable") and allowed else allowed
