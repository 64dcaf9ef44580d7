"""Messages for pydantic's errors: the value found, the values allowed, the nearest valid name."""

from __future__ import annotations

import re
from typing import Any

from sim.core.text import (
    FOLDER_NAME,
    FOLDER_NAME_IN_WORDS,
    format_value,
    nearest,
    nearest_in_words,
    shortened,
    suggestion,
)
from sim.scenario.field_search import fields, nearest_key
from sim.scenario.quantities import example_for
from sim.scenario.schema import at, is_preset, kinds, member_of, plain_path, resolved, schema_at
from sim.scenario.yaml_text import Location

TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}

BOOLEANS = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}

LIMITS = {
    "minimum": ", at least {:,}",
    "exclusiveMinimum": ", above {:,}",
    "maximum": ", at most {:,}",
    "exclusiveMaximum": ", below {:,}",
    "multipleOf": ", a multiple of {:,}",
    "minLength": ", at least {} characters",
    "maxLength": ", at most {} characters",
}


def describe_error(details: Any, data: Any) -> tuple[Location, str]:
    """The path of a pydantic error in the scenario's data, and a message of one sentence."""
    path = plain_path(details["loc"], data)
    kind, node, found = details["type"], schema_at(path, data), at(data, path)
    if kind == "extra_forbidden" or (kind == "missing" and isinstance(path[-1], str)):
        return path, describe_key(kind, path, data)
    if kind == "missing":  # of a row that is too short
        path = path[:-1]
        node, found = schema_at(path, data), at(data, path)
    if kind == "union_tag_not_found":
        return path, f"needs {key_of_choice(node)}{misspelt_options(found, node)}{suggestion('', node['names'])}"
    if kind in ("union_tag_invalid", "unknown_name"):
        return unknown_name(path, node, found, "kind" if kind == "union_tag_invalid" else "preset")
    if kind == "trace":
        return (*path[:-1], details["ctx"]["field"]), details["ctx"]["reason"]
    if kind in ("plugin", "kind_of_preset"):
        if isinstance(found, dict):
            path, found = (*path, "kind"), found["kind"]
        return path, f"found {format_value(found)}: {details['ctx']['reason']}"
    if kind in ("value_error", "assertion_error"):  # from a component's own validator
        what = "" if isinstance(found, dict | list) else f"found {format_value(found)}: "
        return path, what + " ".join(str(details["ctx"]["error"]).split())
    if kind == "literal_error":
        return path, f"found {format_value(found)}{suggestion(found, map(str, node.get('enum', [node.get('const')])))}"
    allowed = allowed_by(node)
    if kind == "finite_number":
        allowed = allowed.replace("a number", "a finite number")
    if not allowed:
        return path, f"found {format_value(found)}: {details['msg']}"
    row = schema_at(path[:-1], data) if path else {}
    where = f" ({row['description']})" if "prefixItems" in row else ""
    if isinstance(found, str) and found[:1].isdigit() and (example := example_for(str(path[-1]))):
        where += f", or with a unit such as '{example}'"
    return path, f"found {format_value(found)}; allowed: {allowed}{where}{suggest_spelling(found, node)}"


def describe_key(kind: str, path: Location, data: Any) -> str:
    """The message of a key that is unknown (`extra_forbidden`) or missing."""
    above, section = at(data, path[:-1]), schema_at(path[:-1], data)
    if kind == "extra_forbidden":
        name = above.get("kind", above.get("preset")) if isinstance(above, dict) else None
        whose = f" of '{shortened(name)}'" if isinstance(name, str) and kinds(section) else ""
        key, beside = str(path[-1]), keys_beside(path, data)
        allowed = f"; allowed: {', '.join(map(shortened, beside))}" if beside else ""
        return f"unknown key{whose}{nearest_in_words(key, nearest_key(path, beside))}{allowed}"
    node = schema_at(path, data)
    message = f"required, but missing ({node['description']}); allowed: {allowed_by(node)}"
    if is_preset(section) and "preset" not in above:
        message += f"; or start from a preset with the key 'preset' ({', '.join(section['names'])})"
    return message


def unknown_name(path: Location, node: dict[str, Any], found: Any, key: str) -> tuple[Location, str]:
    """The path and message of an unknown name: of a kind, of a preset, or of either."""
    if not isinstance(found, dict):
        return path, f"found {format_value(found)}{suggestion(found, node['names'])}"
    name, known = found[key], node.get("presets", [])
    if kinds(node) and isinstance(name, str) and name in node["names"]:
        other_key = "preset" if key == "kind" else "kind"
        return (*path, key), f"found '{name}', which is a {other_key}: write '{other_key}: {name}'"
    others = [other for other in node["names"] if (other in known) == (key == "preset")]
    return (*path, key), f"found {format_value(name)}{suggestion(name, others)}"


def misspelt_options(found: Any, node: dict[str, Any]) -> str:
    """' (key: nearest: option of 'kind')' for the keys beside a missing kind that no kind has; or nothing."""
    options: dict[str, str] = {}
    for kind, reference in kinds(node).items():
        for key in resolved({"$ref": reference}).get("properties", {}):
            options.setdefault(key, kind)
    unknown = [str(key) for key in found if key not in options] if isinstance(found, dict) else []
    nearby = {key: close for key in unknown if (close := nearest(key, options))}
    words = [f"{shortened(key)}{nearest_in_words(key, close)}" for key, close in nearby.items()]
    return f" ({', '.join(words)})" if words else ""


def keys_beside(path: Location, data: Any) -> list[str]:
    """The keys allowed where the last part of a path stands."""
    node, above = schema_at(path[:-1], data), at(data, path[:-1])
    keys = list(member_of(node, above).get("properties", {}))
    if kinds(node) and isinstance(above, dict) and "preset" in above and "presets" in node:
        keys.remove("kind")  # the preset says it
        return ["preset", *keys]
    return (["preset"] if is_preset(node) else []) + keys


def intended_path(path: Location, data: Any) -> Location:
    """The path of the field that is probably meant by an unknown key; the path itself if there is none."""
    key, beside = str(path[-1]), keys_beside(path, data)
    close = nearest_key(path, beside)
    return (*path[:-1], close or key) if close is None or close in beside else fields()[close]


def suggest_spelling(found: Any, node: dict[str, Any]) -> str:
    """'; write: ...' for a value whose meaning is clear, but whose spelling is wrong."""
    wanted, text, better = node.get("type"), str(found), None
    if wanted in ("integer", "number") and isinstance(found, str | float):
        number = parse_number(text, whole=wanted == "integer")
        better = str(number) if number is not None and within(number, node) else None
    elif wanted == "boolean" and isinstance(found, str):
        better = BOOLEANS.get(text.casefold())
    elif wanted == "string" and isinstance(found, int | float):
        better = f"'{text.lower()}'" if re.search(node.get("pattern", ""), text.lower()) else None
    elif wanted == "array" and isinstance(found, str | int | float) and not isinstance(found, bool) and "items" in node:
        entry = resolved(node["items"])
        fits = not entry or isinstance(found, {"string": str, "integer": int}.get(entry.get("type", ""), ()))
        fits = fits and (isinstance(found, str) or within(found, entry))
        better = f"[{shortened(text)}]" if fits or found in entry.get("names", []) else None
    return f"; write: {better}" if better else ""


def parse_number(text: str, whole: bool) -> int | float | None:
    """The number that a text means: '10 %' is 0.1, '100' is 100, '1e3' is 1000; None if it means none."""
    try:
        number = float(text.rstrip(" %")) / (100 if text.endswith("%") else 1)
        return int(number) if number == int(number) else None if whole else number
    except (ValueError, OverflowError):
        return None


def within(number: float, node: dict[str, Any]) -> bool:
    """Whether a number is within the limits of a schema node."""
    return (
        node.get("minimum", number) <= number <= node.get("maximum", number)
        and not number <= node.get("exclusiveMinimum", number - 1)
        and not number >= node.get("exclusiveMaximum", number + 1)
    )


def key_of_choice(node: dict[str, Any]) -> str:
    """The key that selects the member of a choice, in words."""
    return "the key 'kind' or 'preset'" if "presets" in node else "the key 'kind'"


def allowed_by(node: dict[str, Any]) -> str:
    """The values that a schema node allows, in words; empty if it does not restrict them."""
    if "enum" in node:
        words = ", ".join(map(str, node["enum"]))
    elif kinds(node):
        words = f"{', '.join(node['names'])}, or a mapping with {key_of_choice(node)}"
    else:
        words = f"{', '.join(node['names'])}, or " if "names" in node else ""
        words += TYPES.get(node.get("type", ""), "")
    if "properties" in node:
        words += f" with the keys {', '.join(node['properties'])}"
    if "prefixItems" in node:
        words += f" of {len(node['prefixItems'])}: {node['description']}"
    elif node.get("type") == "array":
        entry = resolved(node["items"])
        if entry.get("type") in ("integer", "number", "string"):
            words += f" of {TYPES[entry['type']].removeprefix('a ')}s"
        words += ", not empty" if node.get("minItems") else ""
        words += f", of {', '.join(entry['names'])} or mappings with {key_of_choice(entry)}" if kinds(entry) else ""
    if node.get("pattern") == FOLDER_NAME:
        words += f" {FOLDER_NAME_IN_WORDS}"
    for key, text in LIMITS.items():
        if key in node:
            limit = node[key]
            words += text.format(int(limit) if limit == int(limit) else limit)
    return f"{words}, or null" if node.get("nullable") and words else words
