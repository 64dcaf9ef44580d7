"""How to get a report's results again: the scenario with its sweep, the commands, the versions."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from sim.core.text import capitalized, format_count, format_list
from sim.reporting.html import tables as page_tables
from sim.reporting.html.charts import charts_of
from sim.reporting.html.data import Setting, Source, in_columns, source_of
from sim.reporting.html.narrative import LIMITS, cautions, churn_in_words, contest_of, how_sure, notes_on, sentences_on
from sim.reporting.html.vega import Chart, Style, vega_bundle
from sim.reporting.series import DASH_DOT_DOT, LONG_DASHES, LineStyle, looks_for
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

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


# The report: one HTML file with a summary in words, charts, tables, and all that is needed to judge and repeat it.

MOST_VERDICTS = 6

DASHES: dict[LineStyle, tuple[int, ...]] = {
    "-": (),
    "--": (6, 3),
    "-.": (7, 3, 2, 3),
    ":": (2, 3),
    LONG_DASHES: (12, 3),
    DASH_DOT_DOT: (7, 2, 2, 2, 2, 2),
}
"""Of each of matplotlib's line styles, in pixels."""


MOST_OPEN_ROWS = 40
"""Longer tables are folded."""


@dataclass(frozen=True)
class Verdict:
    """What is said of a point."""

    label: str
    sentences: Sequence[str]


def report_page(folder: Path) -> str:
    """The report on a results folder as HTML. The same results give the same text. ValueError where there are none."""
    environment = Environment(
        loader=PackageLoader("sim.reporting.html", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment.get_template("report.html").render(page_of(source_of(folder)))


def page_of(source: Source) -> dict[str, Any]:
    """What the template shows."""
    text = scenario_text(source)
    scenario = readable(text)
    styles = styles_of(source)
    charts, left_out = charts_of(source, styles)
    settings = source.settings
    return {
        "title": f"Training under churn: {source.name}",
        "subtitle": subtitle(source, scenario),
        "cautions": cautions(source, scenario),
        "lead": lead(settings) if len(settings) > 1 else "",
        "verdicts": [Verdict(setting.label, sentences_on(setting.runs)) for setting in settings],
        "most_verdicts": MOST_VERDICTS,
        "how_sure": how_sure(source.results.runs),
        "styles": styles,
        "points": [setting.label for setting in settings],
        "axes": source.axes,
        "charts": charts,
        "charts_left_out": left_out,
        "marks_failures": not any(setting.runs.duplicated("strategy").any() for setting in settings),
        "content": content(source, styles, charts),
        "bundle": Markup(vega_bundle()) if charts else "",
        "most_open_rows": MOST_OPEN_ROWS,
        "tables": [table for table in (page_tables.comparison(source), page_tables.ledger(source)) if table],
        "churn": churn_in_words(scenario, bool(source.fields)),
        "failures": page_tables.failures(source),
        "events": page_tables.events(source),
        "failed": page_tables.failed(source),
        "scenario_text": text,
        "versions": versions(source),
        "reproduction": reproduction_in_words(source),
        "commands": commands(source),
        "notes": notes_on(source, scenario),
        "limits": LIMITS,
        "version": version("churnlab"),
    }


def readable(text: str) -> Scenario | None:
    """A resolved scenario; None where this version cannot read it, since another wrote it."""
    try:
        return parse_scenario(text, "scenario.yaml") if text else None
    except ScenarioError:
        return None


def subtitle(source: Source, scenario: Scenario | None) -> str:
    """What was run, in a line."""
    runs = source.results.runs
    counts = [format_count(len(source.strategies), "strategy", "strategies"), seeds_in_words(source)]
    if len(source.settings) > 1:
        counts.insert(0, format_count(len(source.settings), "point"))
    about = f"{scenario.description}. " if scenario and scenario.description else ""
    return f"{about}{format_count(len(runs), 'run')}: {', '.join(counts)}."


def lead(settings: Sequence[Setting]) -> str:
    """How often who is first at the points of a sweep, and how often nobody clearly is."""
    contests = [contest_of(setting.runs)[1] for setting in settings]
    firsts = [(contest, legend_label(contest.best.strategy)) for contest in contests if contest.best]
    winners = Counter(name for contest, name in firsts if not contest.rivals)
    ahead = Counter(name for contest, name in firsts if contest.is_anecdote)
    parts = [f"{name} is first at {at_points(number, settings)}" for name, number in winners.most_common()]
    parts += [f"{name} is ahead at {at_points(number, settings)}" for name, number in ahead.most_common()]
    if close := sum(bool(contest.rivals) and not contest.is_anecdote for contest in contests):
        parts.append(f"it is too close to call at {at_points(close, settings)}")
    text = capitalized(format_list(parts)) if parts else "No strategy gets there at any point"
    return f"{text}{', by one seed each: anecdotes' if ahead else ''}."


def at_points(number: int, settings: Sequence[Setting]) -> str:
    """So many of all points."""
    if number == len(settings):
        return "both points" if number == 2 else f"all {number} points"
    return f"{number} of {len(settings)} points"


def unbroken(text: str) -> str:
    """A text in which no number is parted from its unit at a line's end."""
    return re.sub(r"(?<=\d) (?=%|h\b)", "\u00a0", text)


def styles_of(source: Source) -> list[Style]:
    """How each strategy's lines look, as in all figures."""
    runs = source.results.runs
    looks = looks_for(dict(zip(runs["strategy"], runs["kind"], strict=True)))
    return [Style(legend_label(name), looks[name].colour, DASHES[looks[name].line]) for name in source.strategies]


def content(source: Source, styles: Sequence[Style], charts: Sequence[Chart]) -> dict[str, Any]:
    """What the page's script knows: strategies, points and their groups, and the charts."""
    return {
        "labels": [style.label for style in styles],
        "points": [
            {"label": setting.label, "places": [axis.places[number] for axis in source.axes]}
            for number, setting in enumerate(source.settings)
        ],
        "groups": [{"strategy": group.strategy, "points": group.points} for group in source.groups.values()],
        "charts": [
            {
                "id": chart.id,
                "spec": {name: part for name, part in chart.spec.items() if name != "datasets"},
                "datasets": {name: in_columns(rows) for name, rows in chart.spec["datasets"].items()},
                "signals": chart.signals,
                "columns": [column._asdict() for column in chart.columns],
            }
            for chart in charts
        ],
    }
