"""How to get a report's results again: the scenario with its sweep, the commands, the versions."""

from __future__ import annotations

import io
from collections.abc import Iterable

from ruamel.yaml import YAML

from sim.page_source import Source

VERSION_NAMES = {
    "source": "simulating code (hash)",
    "training": "training",
    "corpus": "text (hash)",
}


def scenario_text(source: Source) -> str:
    """The scenario of the first run as resolved, with the sweep's points; empty where its folder is gone."""
    path = source.folders[0] / "scenario.yaml"
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    if source.fields:
        yaml = YAML()
        yaml.default_flow_style = None
        buffer = io.StringIO()
        yaml.dump({"sweep": {"list": [setting.values for setting in source.settings]}}, buffer)
        text += buffer.getvalue()
    return text


def commands(source: Source) -> str:
    """What to type."""
    verb = "sweep" if source.is_sweep else "run"
    return (
        f"churnlab validate {source.name}.yaml\n"
        f"churnlab {verb} {source.name}.yaml --results again\n"
        f"churnlab report again/{source.name}\n"
    )


def versions(source: Source) -> list[tuple[str, str]]:
    """Names and versions of what made the runs, several where they differ; then the machines."""
    told: dict[str, dict[str, None]] = {}
    for about in source.abouts:
        for name, text in about["versions"].items():
            told.setdefault(VERSION_NAMES.get(name, name), {})[str(text)] = None
        for name, key in (("text", "corpus"), ("machine", "machine"), ("training threads", "num_threads")):
            told.setdefault(name, {})[str(about[key])] = None
    return [(name, joined(texts)) for name, texts in told.items()]


def reproduction_in_words(source: Source) -> str:
    """What to do before the commands."""
    return (
        f"Save the scenario above as {source.name}.yaml, install the versions above, and run these commands. Equal "
        "scenario, seeds and versions give equal numbers, to the bit."
    )


def joined(texts: Iterable[str]) -> str:
    """Several values, each once."""
    return "; ".join(texts)


def seeds_in_words(source: Source) -> str:
    """How many seeds of each kind the runs have."""
    runs = source.results.runs
    counts = [
        (runs[name].nunique(), kind) for name, kind in (("failure_seed", "failure"), ("training_seed", "training"))
    ]
    return " and ".join(f"{number} {kind} seed{'s' if number > 1 else ''}" for number, kind in counts)
