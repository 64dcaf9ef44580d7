"""Search for a field by its last name over all sections of a scenario, for keys in the wrong place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

from sim.core.text import clearly_meant, nearest
from sim.scenario.schema import kinds, resolved, schema
from sim.scenario.yaml_text import Location

DESCRIPTIVE = ("name", "label", "description", "source", "kind")
"""Keys that many sections have: one of them in the wrong place does not tell which section is meant."""


SLIP = 0.8
"""The similarity from which on one name is taken for the other, misspelt."""


@cache
def fields() -> dict[str, Location]:
    """The path of each field and section by its dotted path; options of a strategy as `strategies[kind].option`."""
    return dict(_below((), "", resolved(schema())))


def _below(path: Location, dotted: str, node: dict[str, Any]) -> Iterator[tuple[str, Location]]:
    """The fields below a schema node: of a choice those of its first kind that has them; none of further lists."""
    if path == ("strategies",) and "items" in node:
        entry = resolved(node["items"])
        for kind in filter(kinds(entry).get, entry["names"]):
            yield from _below(path, f"strategies[{kind}]", resolved({"$ref": kinds(entry)[kind]}))
        return
    members = [resolved(option) for option in node["oneOf"]] if kinds(node) else [node]
    for member in members:
        for key, child in member.get("properties", {}).items():
            if key not in DESCRIPTIVE:
                name = f"{dotted}.{key}" if dotted else key
                own = path if path[:1] == ("strategies",) else (*path, key)
                yield name, own
                yield from _below(own, name, resolved(child))


def nearest_key(path: Location, beside: list[str]) -> str | None:
    """The dotted path of the field meant by an unknown key at a path: one of the keys beside it, or of another section.

    A key beside it comes first if it is clearly meant or only misspelt, then one of another section with this name, or
    one that contains it or differs in the unit, then the most similar key beside it.
    """
    found = str(path[-1])
    close = nearest(found, beside)
    if close is None or not (
        clearly_meant(found.casefold(), beside) or difflib.get_close_matches(found, [close], cutoff=SLIP)
    ):
        elsewhere = _by_name(path)
        meant = [found] if found in elsewhere else clearly_meant(found.casefold(), elsewhere)
        return elsewhere[meant[0]] if meant else close
    return close


def _by_name(path: Location) -> dict[str, str]:
    """The dotted path of a field of each name, of the path's own section first, without those beside the path's key."""
    found: dict[str, str] = {}
    for dotted, place in sorted(fields().items(), key=lambda field: field[1][:1] != path[:1]):
        is_beside = path[:1] == place if place == ("strategies",) else path[:-1] == place[:-1]
        if not is_beside:
            found.setdefault(dotted.rpartition(".")[2], dotted)
    return found
