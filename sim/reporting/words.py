"""Scenario fields in words, with units: for axes, panels and captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePath
from typing import Any

import pandas as pd

from sim.core.text import shortened


@dataclass(frozen=True)
class FieldWords:
    """A field's name, the unit of its values in figures, and the number of these units in one of the scenario's."""

    name: str
    unit: str = ""
    factor: float = 1.0

    @property
    def label(self) -> str:
        """For an axis: with the unit in brackets."""
        return self.name + (f" ({self.unit})" if self.unit else "")

    def value(self, value: Any) -> str:
        """A value in the unit, without it."""
        if self.factor != 1.0 and isinstance(value, int | float) and not pd.isna(value):
            return f"{self.factor * value:.6g}"
        return format_value(value) or "null"

    def with_value(self, value: Any) -> str:
        """Name, value and unit; a section after a colon."""
        name, text = f"{self.name}:" if is_section(value) else self.name, self.value(value)
        return " ".join(filter(None, (name, text, unit_of(text, self.unit))))


WORDS = {
    "failures.rate_per_hour": FieldWords("failure rate", "% per hour", 100.0),
    "failures.rate_per_day": FieldWords("failure rate", "% per day", 100.0),
    "failures.mean_uptime_hours": FieldWords("mean time between failures", "hours"),
    "network.bandwidth_factor": FieldWords("bandwidth", "× the network's"),
    "network.storage.bandwidth_mbit_per_s": FieldWords("bandwidth of the checkpoint store", "Mbit/s"),
    "network.storage.node_mbit_per_s": FieldWords("bandwidth of each node to the checkpoint store", "Mbit/s"),
    "network.storage.latency_ms": FieldWords("latency of the checkpoint store", "ms"),
    "network.same_region.bandwidth_mbit_per_s": FieldWords("bandwidth within a region", "Mbit/s"),
    "network.same_region.latency_ms": FieldWords("latency within a region", "ms"),
    "network.access.up_mbit_per_s": FieldWords("upload bandwidth of each node", "Mbit/s"),
    "network.access.down_mbit_per_s": FieldWords("download bandwidth of each node", "Mbit/s"),
    "cluster.device": FieldWords("device"),
    "cluster.nodes_per_stage": FieldWords("nodes per stage"),
    "cluster.num_spares": FieldWords("spare nodes"),
    "cluster.detection_seconds": FieldWords("time until a failure is detected", "s"),
    "cluster.provisioning_seconds": FieldWords("time until a replacement arrives", "s"),
    "cluster.startup_seconds": FieldWords("time until a replacement has started", "s"),
    "workload.model": FieldWords("target model"),
    "workload.num_stages": FieldWords("pipeline stages"),
    "workload.num_microbatches": FieldWords("microbatches per iteration"),
    "workload.max_in_flight": FieldWords("microbatches in flight"),
    "training.steps": FieldWords("training steps"),
    "iterations_per_step": FieldWords("target iterations per proxy step"),
}
WORDS_OF_LAST_PART = {"interval_iterations": FieldWords("checkpoint interval", "iterations")}
UNITS = {
    "per_hour": "per hour",
    "per_day": "per day",
    "mbit_per_s": "Mbit/s",
    "seconds": "s",
    "minutes": "min",
    "hours": "hours",
    "ms": "ms",
    "iterations": "iterations",
    "steps": "steps",
}


MOST_CHARACTERS = 100  # of a section in words
UNNAMED = ("kind", "preset", "file", "files", "path", "name")  # options of a section whose values say enough
ADJECTIVES = ("mean", "median", "minimum", "maximum")
VARIANTS = {
    "interval_iterations": "every {} iterations",
    "memory_interval_iterations": "in memory every {} iterations",
    "interval_seconds": "every {} s",
    "inner_steps": "every {} steps",
}
"""What a strategy's options mean beside its name, in legends."""


def words_of(field: str) -> FieldWords:
    """The words for a field: those of the table, otherwise the last part of its path, with its suffix as the unit."""
    last = field.rpartition(".")[2]
    if known := WORDS.get(field) or WORDS_OF_LAST_PART.get(last):
        return known
    for suffix, unit in UNITS.items():
        if last.endswith(f"_{suffix}"):
            return FieldWords(last.removesuffix(f"_{suffix}").removeprefix("num_").replace("_", " "), unit)
    return FieldWords(last.removeprefix("num_").replace("_", " "))


def point_in_words(point: Mapping[str, Any]) -> str:
    """The fields and values of a point."""
    return ", ".join(words_of(name).with_value(value) for name, value in point.items())


def variant_in_words(strategy: str, options: Mapping[str, Any]) -> str:
    """A strategy with values of its options: checkpointing every 25 iterations."""
    parts = [strategy]
    for name, value in options.items():
        if known := VARIANTS.get(name.rpartition(".")[2]):
            parts[0] += f" {known.format(format_value(value))}"
        else:
            parts.append(words_of(name).with_value(value))
    return ", ".join(parts)


def ranges_in_words(points: Sequence[Mapping[str, Any]]) -> str:
    """The values that fields take over points: the lowest and the highest, or each if they are not numbers."""
    parts = []
    for name in points[0] if points else ():
        values = list(dict.fromkeys(point[name] for point in points))
        words = words_of(name)
        if len(values) > 2 and all(isinstance(value, int | float) for value in values):
            texts = [words.value(min(values)), words.value(max(values))]
        else:
            texts = [words.value(value) for value in values]
        named = f"{', '.join(texts[:-1])} {'to' if len(values) > 2 and len(texts) == 2 else 'and'} {texts[-1]}"
        parts.append(" ".join(filter(None, (words.name, named if len(texts) > 1 else texts[0], words.unit))))
    return ", ".join(parts)


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The values of a section and of its parts with their names in words; kinds and names of files alone."""
    if isinstance(value, dict):
        yield from chain.from_iterable(leaves_of(item, (*path, key)) for key, item in value.items())
    elif isinstance(value, list):
        yield from chain.from_iterable(leaves_of(item, path) for item in value)
    elif isinstance(value, int | float):
        *parents, last = (words_of(part) for part in path)
        names = [*(parent.name for parent in parents), last.name]
        names.sort(key=lambda name: name not in ADJECTIVES)  # mean downtime
        yield replace(last, name=" ".join(names)).with_value(value)
    elif not path or path[-1] in UNNAMED:
        yield PurePath(str(value)).name
    else:
        yield f"{words_of(path[-1]).name} {value}"


def is_section(value: Any) -> bool:
    """Whether a swept value is a section of the scenario, which tables contain as JSON."""
    return isinstance(value, str) and value.startswith('{"')


def unit_of(text: str, unit: str) -> str:
    """A unit beside a number: one hour, two hours."""
    return unit.removesuffix("s") if text == "1" and unit in UNITS.values() and len(unit) > 2 else unit


def format_value(value: Any) -> str:
    """Format a swept value; empty if the field does not apply to the strategy. A section: its kind, and its values."""
    if pd.isna(value):
        return ""
    if is_section(value):
        return shortened(", ".join(leaves_of(json.loads(value))), MOST_CHARACTERS)
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)
