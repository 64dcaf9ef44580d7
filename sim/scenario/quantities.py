"""Values with a unit in a scenario's data, such as `2 min` or `10 %/day`, as numbers in the unit of their field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from sim.core.units import HOURS_PER_DAY, SECONDS_PER_HOUR

Units = Mapping[str, Fraction]

TIMES: Units = {
    name: Fraction(seconds)
    for seconds, names in (
        ("1e-9", "ns"),
        ("1e-6", "us µs"),
        ("1e-3", "ms"),
        ("1", "s sec second seconds"),
        ("60", "min minute minutes"),
        (str(SECONDS_PER_HOUR), "h hour hours"),
        ("86400", "d day days"),
    )
    for name in names.split()
}
"""Seconds by unit."""

RATES: Units = {
    name: Fraction(bits, 10**6)
    for power, letter in enumerate(("", "k", "M", "G", "T"))
    for name, bits in (
        (f"{letter}bit/s", 1000**power),
        (f"{letter}B/s", 8 * 1000**power),
        (f"{letter.upper()}iB/s", 8 * 1024**power),
    )
    if letter
}
"""Mbit/s by unit."""

SIZES: Units = {
    name: Fraction(num_bytes, 1024**3)
    for power, letter in enumerate(("", "M", "G", "T"))
    for name, num_bytes in ((f"{letter}B", 1000 ** (power + 1)), (f"{letter}iB", 1024 ** (power + 1)))
    if letter
}
"""GiB by unit."""

GIB_PER_S = RATES["GiB/s"]

FIELDS: dict[str, tuple[Units, Fraction, str]] = {
    "_seconds": (TIMES, TIMES["s"], "2 min"),
    "_hours": (TIMES, TIMES["h"], "2 d"),
    "_ms": (TIMES, TIMES["ms"], "20 us"),
    "_mbit_per_s": (RATES, RATES["Mbit/s"], "1.2 GiB/s"),
    "_gib_per_s": (RATES, GIB_PER_S, "500 MB/s"),
    "_gib": (SIZES, SIZES["GiB"], "24 GB"),
}
"""By the end of a field's name: the units it knows, its own, and an example."""

LINK_COLUMNS = {2: FIELDS["_ms"], 3: FIELDS["_gib_per_s"]}
"""Of the rows of `network.links`."""

CHANCES = {"rate_per_hour": Fraction(1), "rate_per_day": Fraction(HOURS_PER_DAY)}
"""Hours within which a field gives the chance of a failure."""
HOURS = {"h": 1, "hour": 1, "d": HOURS_PER_DAY, "day": HOURS_PER_DAY}

NUMBER = r"\s*([-+]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][-+]?\d{1,3})?)\s*"


def with_plain_numbers(data: Any, field: str = "") -> Any:
    """Plain data with numbers in place of values with a unit; a text that is none stays, to be reported.

    field: the name under which the data are, which ends in the unit of their numbers.
    """
    if isinstance(data, dict):
        return {key: with_plain_numbers(value, _name(key)) for key, value in data.items()}
    if isinstance(data, list):
        if field == "links":
            return [_link(row) for row in data]
        return [with_plain_numbers(value, field) for value in data]
    return number_in_unit(data, field) if isinstance(data, str) else data


def number_in_unit(text: str, field: str) -> Any:
    """The number that a text with a unit is in the unit of a field; the text itself where it is none."""
    if field in CHANCES:
        return _chance(text, CHANCES[field])
    known = _units_of(field)
    return text if known is None else _converted(text, *known[:2])


def example_for(field: str) -> str | None:
    """A value with a unit that a field takes; None if it takes none."""
    if field in CHANCES:
        return "10 %/day"
    known = _units_of(field)
    return known and known[2]


def with_units_allowed(schema: Any, field: str = "") -> Any:
    """A JSON Schema in which fields that take values with a unit may also be texts that begin with a number."""
    if isinstance(schema, list):
        return [with_units_allowed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: with_units_allowed(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        members = schema["properties"].items()
        found["properties"] = {name: with_units_allowed(member, name) for name, member in members}
    if example_for(field) is None:
        return found
    about = {key: found.pop(key) for key in ("title", "description", "default") if key in found}
    return {**about, "anyOf": [*found.get("anyOf", [found]), {"type": "string", "pattern": r"^\s*[-+.\d]"}]}


def _name(key: Any) -> str:
    """The last name of a key, which in `sweep:` is a path."""
    return str(key).rpartition(".")[2]


def _units_of(field: str) -> tuple[Units, Fraction, str] | None:
    return next((FIELDS[end] for end in FIELDS if field.endswith(end)), None)


def _link(row: Any) -> Any:
    if not isinstance(row, list):
        return row
    return [
        _converted(value, *LINK_COLUMNS[column][:2]) if column in LINK_COLUMNS and isinstance(value, str) else value
        for column, value in enumerate(row)
    ]


def _converted(text: str, units: Units, own: Fraction) -> Any:
    """A number in a field's own unit: the nearest float to the exact quotient."""
    found = re.fullmatch(f"{NUMBER}(\\S+)\\s*", text)
    if found is None or found[2] not in units:
        return text
    try:
        return float(Fraction(found[1]) * units[found[2]] / own)
    except OverflowError:
        return text


def _chance(text: str, own_hours: Fraction) -> Any:
    """The chance of a failure within a field's hours; at a constant rate, where it is given for others."""
    found = re.fullmatch(NUMBER + r"(%?)\s*(?:(?:/|per\b)\s*(\w+))?\s*", text)
    if found is None or (not found[2] and not found[3]) or (found[3] and found[3] not in HOURS):
        return text
    chance = Fraction(found[1]) / (100 if found[2] else 1)
    hours = Fraction(HOURS[found[3]]) if found[3] else own_hours
    if hours == own_hours or not 0 <= chance < 1:
        return float(chance)
    return -math.expm1(math.log1p(-float(chance)) * float(own_hours / hours))
